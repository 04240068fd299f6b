"""Alarms in the trainers of TRL and transformers. It stands apart because it imports these."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from experiments.analysis.collapse.online import OnlineDiagnosis
from experiments.analysis.collapse.readers import numbers
from experiments.design.config import OnAlarm


class CollapseCallback(TrainerCallback):
    """Raises the alarms of our own runs in a run of another trainer.

    Example: `GRPOTrainer(..., callbacks=[CollapseCallback(on_alarm="stop")])`.

    Attributes:
        watch: holds the alarms so far (`watch.alarms`), and the one that ended the run (`watch.stop`).

    """

    def __init__(self, *, on_alarm: OnAlarm = "log") -> None:
        """Begin with nothing seen.

        Args:
            on_alarm: What an error or a confirmed collapse does: `log` it, `stop` the training after the step, or
                `raise` CollapseError. Warnings are only logged. alarms.json is kept in the trainer's output folder.
        """
        self._on_alarm: OnAlarm = on_alarm
        self.watch = OnlineDiagnosis(on_alarm=on_alarm)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Take in what was logged before a checkpoint that the run goes on from."""
        folder = Path(args.output_dir) if state.is_world_process_zero and args.output_dir else None
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
        self.watch = OnlineDiagnosis(on_alarm=self._on_alarm, folder=folder)
        for row in state.log_history:
            self._observe(row, control)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Take in what the trainer logs, evaluations included."""
        self._observe({**(logs or {}), "step": state.global_step}, control)

    def _observe(self, row: dict[str, Any], control: TrainerControl) -> None:
        """Observe a row; the last one, which sums up the run, is skipped."""
        if "train_runtime" not in row and self.watch.observe(numbers(row)):
            control.should_training_stop = True
