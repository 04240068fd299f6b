"""The callback in a real trainer of transformers, on a model of one weight: alarms as in our own runs."""

from __future__ import annotations

import json

import pytest
import torch
from torch.utils.data import Dataset
from transformers import Trainer, TrainingArguments

from experiments.analysis.collapse.callback import CollapseCallback
from experiments.analysis.collapse.online import ALARMS_FILE, CollapseError

STEPS, FALLS_AT = 60, 30


class OneWeight(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"loss": ((self.weight - x) ** 2).mean()}


class Numbers(Dataset):
    def __len__(self) -> int:
        return 2 * STEPS

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"x": torch.tensor([0.1 * (index % 7)])}


class RewardTrainer(Trainer):
    """Logs a reward with each step, as GRPOTrainer does, that falls in the middle of the run."""

    def log(self, logs, start_time=None) -> None:
        step = self.state.global_step
        reward = (0.6 if step < FALLS_AT else 0.02) + 0.01 * (step % 3)
        more = {"reward": reward, "note": "text"} if "loss" in logs else {"eval_reward": 0.5}
        super().log({**logs, **more}, start_time)


def train(folder, callback: CollapseCallback, *, resume: bool = False, steps: int = STEPS) -> Trainer:
    settings = TrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=2,
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_steps=20,
        eval_strategy="steps",
        eval_steps=10,
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        remove_unused_columns=False,
    )
    trainer = RewardTrainer(
        model=OneWeight(), args=settings, train_dataset=Numbers(), eval_dataset=Numbers(), callbacks=[callback]
    )
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def test_a_run_that_collapses_is_stopped_and_says_why(tmp_path):
    callback = CollapseCallback(on_alarm="stop")
    trainer = train(tmp_path, callback)
    assert FALLS_AT < trainer.state.global_step < STEPS
    assert callback.watch.stop is not None
    assert callback.watch.stop.detector == "drawdown"
    assert callback.watch.stop.onset == pytest.approx(FALLS_AT, abs=1)
    record = json.loads((tmp_path / ALARMS_FILE).read_text())
    assert record["stopped_at"] == trainer.state.global_step
    assert callback.watch.rows[9].keys() >= {"reward", "eval_reward"}


def test_by_default_alarms_are_only_logged(tmp_path, caplog):
    callback = CollapseCallback()
    assert train(tmp_path, callback).state.global_step == STEPS
    assert "collapse alarm at step" in caplog.text
    assert callback.watch.stop is None


def test_on_alarm_raise_ends_the_training(tmp_path):
    with pytest.raises(CollapseError, match="reward fell"):
        train(tmp_path, CollapseCallback(on_alarm="raise"))


def test_a_resumed_run_remembers_what_it_logged_before(tmp_path):
    train(tmp_path, CollapseCallback(), steps=20)
    callback = CollapseCallback()
    train(tmp_path, callback, resume=True)
    assert [row["step"] for row in callback.watch.rows] == list(range(1, STEPS + 1))
