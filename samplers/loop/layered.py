"""One batch under a rule that also reads what the model's last layers would predict, in the forward of each step."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from dllm_rl.policies.base import BasePolicy
from dllm_rl.policies.lens import LayerLens
from dllm_rl.records.types import Prompts
from samplers.grammar.projection import StepDistribution
from samplers.loop.context import Watcher
from samplers.loop.denoise import Denoising
from samplers.loop.readers import Reader, WholeCanvas
from samplers.loop.record import Recorder

if TYPE_CHECKING:
    from samplers.loop.denoise import Query
    from samplers.rules.base import UnmaskingRule

# Names of what a rule finds in its memory, for the columns of the step: see `LayerLens`.
AGREEMENT, DROP = "agreement", "drop"


class LayeredCanvas(WholeCanvas):
    """Feeds prompt and canvas in every step, and looks at the layers."""

    def __init__(self, policy: BasePolicy, prompts: Prompts, lens: LayerLens) -> None:
        super().__init__(policy, prompts)
        self.lens = lens

    def logits(self, rows: Tensor, unfinished: Tensor, canvas: Tensor, columns: Tensor, record: Recorder) -> Tensor:
        """One forward over everything."""
        record.count(len(rows), self.prompts.ids.shape[1] + canvas.shape[1])
        return self.policy.logits(self.prompts.rows(rows), canvas[rows], columns=columns, lens=self.lens)


class LayeredDenoising(Denoising):
    """Its rule finds agreement and drop of the asked columns in its memory. The model's own, also under the grammar."""

    def __init__(
        self,
        rule: UnmaskingRule,
        policy: BasePolicy,
        prompts: Prompts,
        seed: int,
        watcher: Watcher,
        *,
        num_layers: int,
    ) -> None:
        self.lens = LayerLens(policy.model, num_layers)
        super().__init__(rule, policy, prompts, seed, watcher)

    def _reader(self) -> Reader:
        return LayeredCanvas(self.policy, self.prompts, self.lens)

    def _distribution(self, query: Query, unfinished: Tensor) -> StepDistribution:
        found = super()._distribution(query, unfinished)
        self.memory |= {AGREEMENT: self.lens.agreement, DROP: self.lens.drop}
        return found
