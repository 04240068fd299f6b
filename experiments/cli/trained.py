"""How the policy of a cell's seed was trained, as its cell.json says: the defaults of commands that have it write."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel

from dllm_rl.files import read_json
from experiments.design.base import Component
from experiments.design.turns import NotebookSettings, RepairSettings, RolesSettings
from experiments.run.folder import RECORD_FILE
from experiments.run.records import RecordedEvaluation


class Trained(BaseModel):
    """What a cell's record says of its policy; of any other checkpoint nothing but defaults.

    Attributes:
        evaluation_sampler: None where its evaluation has the sampler of training.
    """

    sampler: Component | None = None
    evaluation_sampler: Component | None = None
    environment: Component | None = None
    evaluation: RecordedEvaluation = RecordedEvaluation()
    notebook: NotebookSettings = NotebookSettings()
    repair: RepairSettings | None = None
    roles: RolesSettings | None = None

    @classmethod
    def of(cls, checkpoint: str) -> Trained:
        """Read that of a checkpoint's folder."""
        record = Path(checkpoint) / RECORD_FILE
        return cls.model_validate(read_json(record)) if record.is_file() else cls()

    def roles_on(self, device: str) -> RolesSettings | None:
        """The roles, with the policies that they have of their own on this device."""
        if self.roles is None:
            return None
        own = {role: item.model_copy(update={"device": device}) for role, item in self.roles.own.items()}
        return self.roles.model_copy(update={"own": own})

    @property
    def evaluated_with(self) -> Component | None:
        """The sampler of its evaluation."""
        return self.evaluation_sampler or self.sampler
