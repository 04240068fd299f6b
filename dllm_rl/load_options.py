"""How a checkpoint is loaded: on which device, in which numbers, by which attention, with which adapter."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

# What decides no number of a run, but where it runs and how much memory it takes.
_FREE = {"device", "gradient_checkpointing", "shards"}
# What says how a policy is trained, and so nothing where it only writes.
_OF_TRAINING = {"lora", "gradient_checkpointing", "shards", "optimiser"}

OptimiserName = Literal["adamw", "adamw_8bit"]


class LoraOptions(BaseModel):
    """A low-rank adapter (LoRA, 2106.09685), which alone is trained.

    Attributes:
        alpha: alpha / rank scales the update.
        targets: Ends of the names of the linear layers that get one; None: all but the output head.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    rank: int = Field(default=16, ge=1)
    alpha: float = Field(default=32.0, gt=0)
    targets: tuple[str, ...] | None = Field(default=None, min_length=1)


class LoadOptions(BaseModel):
    """Keys of a policy level, and options of the commands.

    Attributes:
        device: `cpu`, `cuda`, `cuda:1`, `mps`.
        dtype: Of the weights; None: as the checkpoint stores them. Weights in half precision are trained through copies
            in float32 (`dllm_rl.training.optimiser`).
        attention: None: sdpa, where the model has it, else eager.
        lora: The adapter that is put on; None: all weights are trained.
        gradient_checkpointing: Activations are computed again on the way back, which takes a third more time and holds
            those of one layer instead of all.
        revision: Commit, branch or tag of a hub id.
        trust_remote_code: Run the code that comes with the checkpoint, which decides what it computes.
        shards: Processes that weights, gradients and optimiser are sharded over in training, by FSDP2. A launcher has
            to start as many. 1: each process holds all.
        optimiser: `adamw_8bit` keeps AdamW's two averages in 8 bits a number, by blocks (2110.02861).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    device: str = Field(default="cpu", pattern=r"^(cpu|cuda(:\d+)?|mps)$")
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    attention: Literal["sdpa", "eager", "flex_attention"] | None = None
    lora: LoraOptions | None = None
    gradient_checkpointing: bool = False
    revision: str | None = None
    trust_remote_code: bool = False
    shards: int = Field(default=1, ge=1)
    optimiser: OptimiserName = "adamw"

    @model_validator(mode="after")
    def _refuse_what_shards_exclude(self) -> LoadOptions:
        if self.shards > 1 and self.optimiser != "adamw":
            raise ValueError(
                f"shards={self.shards} divides what the optimiser keeps, which {self.optimiser} cannot have divided. "
                "Leave one of the two out"
            )
        if self.shards > 1 and self.lora is not None:
            raise ValueError(
                f"shards={self.shards} is for training all weights, and with lora only the adapter is trained, which "
                "every process holds. Leave one of the two out"
            )
        return self

    @property
    def loading(self) -> LoadOptions:
        """These options alone, where they are part of a record with other keys."""
        return LoadOptions(**{name: getattr(self, name) for name in LoadOptions.model_fields})

    @property
    def of_training(self) -> list[str]:
        """What was said of training, as `name=value`."""
        given = self.model_dump(mode="json", include=_OF_TRAINING, exclude_defaults=True)
        return [f"{name}={value}" for name, value in given.items()]

    @property
    def deciding(self) -> dict[str, Any]:
        """What numbers depend on, as plain data; {} where nothing was said."""
        return self.model_dump(mode="json", exclude=_FREE, exclude_defaults=True)
