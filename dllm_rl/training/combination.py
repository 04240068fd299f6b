"""Which objective may train on the draws of which sampler: an objective that scores recorded draws again must give each
the probability that it had when it was drawn.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dllm_rl.errors import ConfigError
from dllm_rl.records.types import Replays

if TYPE_CHECKING:
    from dllm_rl.policies.base import BasePolicy
    from dllm_rl.protocols import Objective, Sampler


def refuse_unreplayable(policy: type[BasePolicy], sampler: Sampler, objective: Objective) -> None:
    """Raise ConfigError where the objective would score the sampler's draws by other probabilities than theirs."""
    if policy.is_exact:
        return
    is_replay = objective.replays is not Replays.NONE
    if sampler.grammar and not is_replay:
        raise ConfigError(
            f"sampler '{sampler.name}' draws under the grammar, and objective '{objective.name}' scores views of the "
            "unconstrained policy. Set decoding.grammar=evaluation, or take an objective that replays the draws, such "
            "as cj_grpo."
        )
    if sampler.grammar and objective.replays is Replays.MERGED and not policy.constrains_whole_canvas:
        raise ConfigError(
            f"sampler '{sampler.name}' draws under the grammar, where the draws of one step are scored together, and a "
            f"view of objective '{objective.name}' merges steps, which in the {policy.family} family may lie in "
            "several blocks. Set decoding.grammar=evaluation, or take an objective that replays single steps, such as "
            "cj_grpo (with num_steps=null it replays all)."
        )
    if is_replay and sampler.approximation is not None:
        raise ConfigError(
            f"sampler '{sampler.name}' {sampler.approximation}, and objective '{objective.name}' replays recorded "
            "draws, which at full forwards of the recorded states have other probabilities. Train with another sampler "
            "or without that option (evaluation may have it), or take an objective that does not replay."
        )
