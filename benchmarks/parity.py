"""Our losses beside those of public code: `python -m benchmarks.parity FOLDER [--page docs/results/parity.md]`.

FOLDER holds your own checkouts under their usual names: trl, d1, ESPO, ml-diffucoder, wd1, SPG, EOSER-ASS-RL, JustGRPO.
Without one, or where it lacks some, the command says what it needs. Loss and gradient are compared at random scores in
float64, on rows that fill the canvas and on ragged ones; masks are those that the public code draws. Advantages are
ours, given to both.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from benchmarks import parity_views, public_code, public_losses
from benchmarks.public_code import Code, place
from benchmarks.public_losses import Asked, Hidden
from dllm_rl import registry
from dllm_rl.records.types import LossInputs, Rollouts

ROWS, LENGTH = 6, 8
LENGTHS = {"full": (8, 8, 8, 8, 8, 8), "ragged": (8, 5, 2, 8, 3, 6)}
# Of the loss and of the gradient: what float32 in the public code leaves.
TOLERANCE = 2e-5
BEGIN, END = public_code.markers("benchmarks.parity")


TRL = Code(folder="trl", url="https://github.com/huggingface/trl (or an installed trl)", file="trainer/grpo_trainer.py")
CODE = {
    "trl": TRL,
    "rloo": replace(TRL, file="trainer/rloo_trainer.py"),
    "d1": Code(folder="d1", url="https://github.com/dllm-reasoning/d1", file="diffu-grpo/diffu_grpo_trainer.py"),
    "ESPO": Code(folder="ESPO", url="https://github.com/ML-GSAI/ESPO", file="espo/espo_trainer.py"),
    "coupled": Code(
        folder="ml-diffucoder", url="https://github.com/apple/ml-diffucoder", file="src/open_r1/coupled_grpo.py"
    ),
    "wd1": Code(folder="wd1", url="https://github.com/xiaohangt/wd1", file="wd1/trainers/rev_grpo_trainer.py"),
    "SPG": Code(folder="SPG", url="https://github.com/facebookresearch/SPG", file="spg/spg_trainer.py"),
    "cj": Code(
        folder="EOSER-ASS-RL",
        url="https://github.com/yjyddq/EOSER-ASS-RL",
        file="cj-grpo/cj_grpo_trainer_semiar.py",
    ),
    "just": Code(folder="JustGRPO", url="https://github.com/LeapLabTHU/JustGRPO", file="grpo.py"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One method under some options, beside public code.

    Attributes:
        views: How many its loss reads.
        groups: How many the rows are dealt to.
        is_on_policy: Old scores are the new ones.
    """

    method: str
    code: str
    theirs: Callable[[Path, Asked, Hidden], Tensor]
    options: dict[str, Any] = field(default_factory=dict)
    views: int = 1
    groups: int = 2
    is_on_policy: bool = False


PARITY = {"parity": True}
D1 = {"advantage": "centred", "clip_high": 0.2, "beta": 0.04}
CASES = (
    Case(method="grpo", code="trl", theirs=public_losses.trl),
    Case(method="dr_grpo", code="trl", theirs=partial(public_losses.trl, loss_type="dr_grpo")),
    Case(method="dapo", code="trl", theirs=partial(public_losses.trl, loss_type="dapo")),
    Case(method="cispo", code="trl", theirs=partial(public_losses.trl, loss_type="cispo")),
    Case(method="gspo", code="trl", theirs=partial(public_losses.trl, level="sequence")),
    Case(method="rloo", code="rloo", theirs=public_losses.trl_rloo, options=PARITY),
    Case(method="grpo", code="d1", theirs=public_losses.d1, options={"advantage": "centred"}),
    Case(method="dapo", code="d1", theirs=public_losses.d1, options=D1),
    Case(method="coupled_grpo", code="coupled", theirs=public_losses.coupled, views=3),
    Case(method="coupled_grpo", code="coupled", theirs=public_losses.coupled, options=PARITY, views=3),
    Case(method="espo", code="ESPO", theirs=public_losses.espo, views=4),
    Case(method="espo", code="ESPO", theirs=public_losses.espo, options=PARITY, views=4),
    Case(method="wd1", code="wd1", theirs=public_losses.wd1, groups=1),
    Case(method="spg", code="SPG", theirs=public_losses.spg, views=2, options=PARITY),
    Case(method="cj_grpo", code="cj", theirs=public_losses.cj_grpo, views=4),
    Case(method="cj_grpo", code="cj", theirs=public_losses.cj_grpo, options=PARITY, views=4),
    Case(method="just_grpo", code="just", theirs=public_losses.just_grpo, views=LENGTH, is_on_policy=True),
    Case(
        method="just_grpo",
        code="just",
        theirs=public_losses.just_grpo,
        options=PARITY,
        views=LENGTH,
        is_on_policy=True,
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """How near two losses are.

    Attributes:
        value, gradient: Relative errors.
        cosine, ratio: Of the gradients, and of their lengths.
    """

    value: float
    gradient: float
    cosine: float
    ratio: float

    @property
    def words(self) -> str:
        """As a cell of the table."""
        if self.value < TOLERANCE and self.gradient < TOLERANCE:
            return "exact"
        return f"gradient off by {self.gradient:.2g}: cos {self.cosine:.4f}, length x{self.ratio:.3f}"


def compared(case: Case, folder: Path, kind: str) -> Agreement:
    """Both losses of a case at the same scores."""
    objective = registry.build("objective", case.method, case.options)
    rollouts = rollouts_of(LENGTHS[kind], case.groups)
    generator = torch.Generator().manual_seed(7)
    shape = (case.views, ROWS, LENGTH)
    base = -0.3 - 2.0 * torch.rand(shape, generator=generator, dtype=torch.float64)
    near = [base + 0.2 * torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2)]
    old, ref = (scores.clamp(max=-0.01) for scores in near)
    asked = Asked(
        rollouts=rollouts,
        advantages=plain_advantages(objective, rollouts),
        new=base.clone().requires_grad_(),
        old=base if case.is_on_policy else old,
        ref=ref,
        options={item: getattr(objective, item) for item in objective.__dataclass_fields__},
    )
    hidden = Hidden()
    theirs = case.theirs(place(folder, CODE[case.code]), asked, hidden)
    (their_gradient,) = torch.autograd.grad(theirs, asked.new)
    new = base.clone().requires_grad_()
    inputs = LossInputs(
        rollouts=rollouts,
        views=parity_views.of(objective, rollouts, hidden),
        new=new,
        old=asked.old if objective.needs_old else None,
        ref=asked.ref if objective.needs_ref else None,
        advantages=objective.advantages(rollouts).double(),
    )
    ours = objective.loss(inputs).value
    (our_gradient,) = torch.autograd.grad(ours, new)
    return agreement(ours, theirs, our_gradient, their_gradient)


def plain_advantages(objective: Any, rollouts: Rollouts) -> Float[Tensor, " b"]:
    """What a public loss is given: wd1 makes its weights of the advantages itself."""
    if objective.name != "wd1":
        return objective.advantages(rollouts).double()
    return registry.build("objective", "grpo", {"advantage": "centred"}).advantages(rollouts).double()


def agreement(ours: Tensor, theirs: Tensor, our_gradient: Tensor, their_gradient: Tensor) -> Agreement:
    """Of two values and their gradients."""
    one, two = our_gradient.flatten(), their_gradient.flatten().double()
    # Gains of both signs nearly cancel: a value is small for what it sums.
    scale = max(abs(float(theirs.detach())), 0.1)
    return Agreement(
        value=abs(float(ours.detach()) - float(theirs.detach())) / scale,
        gradient=float((one - two).norm() / two.norm()),
        cosine=float(torch.nn.functional.cosine_similarity(one, two, dim=0)),
        ratio=float(one.norm() / two.norm()),
    )


def rollouts_of(lengths: tuple[int, ...], num_groups: int) -> Rollouts:
    """Rows of these lengths, whose last scored column is EOS."""
    column = torch.arange(LENGTH)
    last = torch.tensor(lengths)[:, None] - 1
    mask = column <= last
    ids = torch.where(column == last, parity_views.EOS_ID, torch.full_like(column, public_losses.TOKEN))
    group_ids, valid = torch.arange(ROWS) % num_groups, torch.ones(ROWS, dtype=torch.bool)
    return Rollouts(
        prompt_ids=ids[:, :1],
        prompt_mask=mask[:, :1],
        completion_ids=ids,
        completion_mask=mask,
        rewards=torch.rand(ROWS, generator=torch.Generator().manual_seed(3), dtype=torch.float64),
        group_ids=group_ids,
        valid=valid,
        trajectory=None,
        totals=Rollouts.count_totals(valid, group_ids, mask),
    )


def table(folder: Path) -> list[str]:
    """One row a case whose code is there: what its options are, and how near the losses are."""
    lines = ["| method | options | public code | full rows | ragged rows |", "|---|---|---|---|---|"]
    for case in CASES:
        if not place(folder, CODE[case.code]).is_file():
            continue
        cells = [compared(case, folder, kind).words for kind in LENGTHS]
        options = ", ".join(f"{key} {value}" for key, value in case.options.items()) or "defaults"
        where = f"{CODE[case.code].folder}, {CODE[case.code].file}"
        lines.append(f"| `{case.method}` | {options} | {where} | {cells[0]} | {cells[1]} |")
    return lines


def main() -> None:
    public_code.command(__doc__ or "", CODE.values(), table, (BEGIN, END))


if __name__ == "__main__":
    main()
