"""Settings of a training run, and the learning rate that follows from them."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from dllm_rl.training.early_stop import Targets
from dllm_rl.training.trackers import Tracker


class TrainConfig(BaseModel):
    """Settings of a training run. learning_rate 0 trains nothing and is the null control.

    temperature: of the sampler, which has the last word: a trainer refuses one that differs.
    micro_batch_rows: rows x views whose activations are held at a time; decides memory, not the result.
    adam_epsilon: floor under AdamW's divisor. Policy gradients of a small policy are near 1e-4 a weight, far smaller
        at embeddings that a batch rarely uses; at 1e-8 those take full steps of noise (docs/results/lab_notebook.md).
    lr_scheduler_type: transformers' name; `linear` falls to zero over the run, and with it the last weights' noise.
    tracker: metrics go there too, beside metrics.jsonl; it changes no number.
    target_log_ratio, target_kl: end the inner updates on a batch where the mean abs(log new/old) a scored term, or the
        estimated KL(old, new), passes it (`dllm_rl.training.early_stop`).
    resample_rounds: times that groups without variance are replaced by groups of other tasks; it spends rollouts that
        other methods do not (`dllm_rl.training.resampling`).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    steps: int = Field(20, ge=0)
    prompts_per_step: int = Field(8, ge=1)
    group_size: int = Field(8, ge=2)
    inner_steps: int = Field(1, ge=1)
    learning_rate: float = Field(1e-4, ge=0)
    max_grad_norm: float = Field(1.0, gt=0)
    temperature: float = Field(1.0, gt=0)
    seed: int = 0
    micro_batch_rows: int = Field(32, ge=1)
    checkpoint_every: int = Field(5, ge=1)
    weight_decay: float = Field(0.0, ge=0)
    adam_epsilon: float = Field(1e-8, gt=0)
    warmup_steps: int = Field(0, ge=0)
    lr_scheduler_type: Literal["constant", "linear"] = "constant"
    tracker: Tracker | None = None
    target_log_ratio: float | None = Field(None, gt=0)
    target_kl: float | None = Field(None, gt=0)
    resample_rounds: int = Field(0, ge=0, le=16)

    @property
    def targets(self) -> Targets:
        """Where the inner updates end early."""
        return Targets(log_ratio=self.target_log_ratio, kl=self.target_kl)

    def rate_at(self, step: int) -> float:
        """Learning rate of a step: linear warm-up, then constant or falling to zero at the end.

        The first step has a rate above zero, where transformers' schedules of these names begin at zero.
        """
        rising = (step + 1) / self.warmup_steps if self.warmup_steps else 1.0
        is_falling = self.lr_scheduler_type == "linear" and self.steps > self.warmup_steps
        falling = (self.steps - step) / (self.steps - self.warmup_steps) if is_falling else 1.0
        return self.learning_rate * min(1.0, rising, falling)
