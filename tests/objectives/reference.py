"""Reference values of every method: its paper's formula in plain Python, frozen with its gradient.

`python -m tests.objectives.reference` rewrites tests/objectives/fixtures.json, which test_reference.py compares with
the package. Gradients are central differences, in which what a paper detaches is held fixed (the argument `fixed`).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from tests.objectives import formulas, step_formulas
from tests.objectives.reference_inputs import LENGTH, ROWS, Inputs, Scores, make_inputs

FIXTURES = Path(__file__).with_name("fixtures.json")
STEP = 1e-6

# Method: (formula, number of views, whether each token is scored in every view).
METHODS: dict[str, tuple[Callable[[Inputs, Scores, Scores], float], int, bool]] = {
    "grpo": (formulas.grpo, 1, True),
    "dr_grpo": (formulas.dr_grpo, 1, True),
    "dapo": (formulas.dapo, 1, True),
    "gspo": (formulas.gspo, 1, True),
    "rloo": (formulas.rloo, 1, True),
    "cispo": (formulas.cispo, 1, True),
    "espo": (formulas.espo, 4, False),
    "coupled_grpo": (formulas.coupled_grpo, 3, False),
    "wd1": (formulas.wd1, 1, True),
    "spg": (formulas.spg, 2, False),
    "egspo": (step_formulas.egspo, 3, False),
    "rspo": (formulas.rspo, 4, False),
    "block_ebpo": (formulas.block_ebpo, 4, False),
    "kl_cov": (formulas.kl_cov, 1, True),
    "informed_espo": (formulas.espo, 4, False),
    "ar_surrogate_grpo": (formulas.grpo, 1, True),
    "causal_denoising_grpo": (formulas.causal_denoising_grpo, 1, False),
    "unigrpo": (formulas.unigrpo, 1, False),
    "gdsd": (formulas.gdsd, 4, False),
    "stable_drl": (formulas.stable_drl, 4, False),
    "bgpo": (formulas.bgpo, 4, False),
    "advantage_weighted_denoising": (formulas.advantage_weighted_denoising, 1, False),
    "espo_unshared": (formulas.espo_unshared, 4, False),
    "cj_grpo": (step_formulas.cj_grpo, 3, False),
    "tracerl": (step_formulas.tracerl, 3, False),
    "agrpo": (step_formulas.agrpo, 3, False),
    "just_grpo": (step_formulas.just_grpo, 3, False),
    "flow_grpo": (step_formulas.flow_grpo, 3, False),
    "mask_aware_grpo": (step_formulas.mask_aware_grpo, 3, False),
    "egspo_sa": (step_formulas.egspo_sa, 3, False),
    "mdpo": (step_formulas.mdpo, 3, False),
}
# Methods whose views are denoising steps, each with the weight STEP_WEIGHT in the loss.
STEPWISE = tuple(name for name, (formula, *_) in METHODS.items() if formula.__module__ == step_formulas.__name__)
# Methods whose loss is the mean over their views.
AVERAGING = ("bgpo",)

# Methods whose bound lies far from 1, or whose ratio is of many terms.
SPREAD = {"cispo": 1.2, "egspo": 0.2, "egspo_sa": 0.2, "gdsd": 0.05, "stable_drl": 0.05}


def gradient(formula: Callable[[Inputs, Scores, Scores], float], x: Inputs) -> Scores:
    """Central differences in every score."""

    def shifted(k: int, b: int, i: int, step: float) -> float:
        new = [[list(row) for row in view] for view in x.new]
        new[k][b][i] += step
        return formula(x, new, x.new)

    def slope(k: int, b: int, i: int) -> float:
        return round((shifted(k, b, i, STEP) - shifted(k, b, i, -STEP)) / (2 * STEP), 9)

    return [[[slope(k, b, i) for i in range(LENGTH)] for b in range(ROWS)] for k in range(len(x.new))]


def main() -> None:
    """Write the fixtures."""
    cases = {}
    for seed, (name, (formula, num_views, hides_all)) in enumerate(METHODS.items()):
        x = make_inputs(num_views, seed, hides_all=hides_all, spread=SPREAD.get(name, 0.3))
        cases[name] = {**asdict(x), "loss": formula(x, x.new, x.new), "gradient": gradient(formula, x)}
    lines = [f"{json.dumps(name)}:{json.dumps(case, separators=(',', ':'))}" for name, case in cases.items()]
    FIXTURES.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
