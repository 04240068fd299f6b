"""Typed records of the JSON files in the folder of a run."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from experiments.design.config import PART, Component, Evaluation, Role, validate


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True)


class RecordedEvaluation(Evaluation):
    """Settings of an evaluation as they were recorded, those of other versions included."""

    model_config = ConfigDict(frozen=True, extra="allow")


class CellRecord(_Record):
    """One cell of a grid.

    Attributes:
        folder: Of its training, from the run's.
        digest: Of its evaluation.
    """

    id: str
    policy: str
    objective: str
    role: Role
    is_positive_control: bool = False
    folder: Annotated[str, Field(pattern=rf"^cells/{PART}$")]
    options: dict[str, Any] = {}
    digest: str


class GridRecord(_Record):
    """config.json: everything that the results of a grid depend on, and where each cell lies.

    Attributes:
        warm_starts: Folder of each policy's evaluation before training.
        settings: The preset as it was resolved.
    """

    preset: Annotated[str, Field(pattern=rf"^{PART}$")]
    description: str = ""
    digest: str
    seeds: tuple[Annotated[int, Field(ge=0)], ...]
    evaluation: RecordedEvaluation = RecordedEvaluation()
    cells: tuple[CellRecord, ...]
    warm_starts: dict[str, Annotated[str, Field(pattern=rf"^warmstart/{PART}$")]] = {}
    settings: dict[str, Any] = {}
    digests: dict[str, str] = {}
    versions: dict[str, str] = {}

    def component(self, key: str, *, default: str) -> Component:
        """A component of the settings (`environment`, `reward`), or the usual one where they do not say."""
        return validate(Component, self.settings.get(key, default), source=f"settings.{key} of the run")

    def first_of(self, policy: str) -> CellRecord:
        """The first cell of a policy, with whose reward the policy's warm start is evaluated."""
        return next(cell for cell in self.cells if cell.policy == policy)

    def reward_of(self, cell: CellRecord) -> Any:
        """What a cell is paid by, as the settings say: its objective's own reward, or the grid's."""
        levels = {**self.settings.get("objectives", {}), **self.settings.get("control_objectives", {})}
        return (levels.get(cell.objective) or {}).get("reward") or self.settings.get("reward")

    @property
    def num_steps(self) -> int:
        """Training steps of a cell that has no number of its own."""
        return int(self.settings.get("train", {}).get("steps", 0))


class UnitRecord(_Record):
    """cell.json: what a unit was run with.

    Attributes:
        versions: Of what made its last evaluation: packages, browser, device, commit of a checkpoint of the hub.
        trained_by: The same of its training: one, or more where it was continued under others.
    """

    digest: str = ""
    versions: dict[str, str] = {}
    trained_by: tuple[dict[str, str], ...] = ()
    train: dict[str, Any] = {}


class AlarmRecord(_Record):
    """One alarm of a training run."""

    message: str


class AlarmsRecord(_Record):
    """alarms.json.

    Attributes:
        stopped_at: Last step of a run that an alarm stopped.
        because: The alarm's message.
    """

    stopped_at: int | None = None
    because: str = ""
    alarms: tuple[AlarmRecord, ...] = ()


class SnapshotRecord(_Record):
    """waypoints/step<n>.json: greedy plans of some tasks after so many steps, with a film of each."""

    step: int
    rows: tuple[dict[str, Any], ...]
