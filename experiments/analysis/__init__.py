"""What results say: one verdict a cell (`verdicts`), variance over seeds and tasks (`variance`), `collapse`."""

from experiments.analysis.variance import smallest_detectable_effect
from experiments.analysis.verdicts import CellInfo, CellVerdict, judge_grid

__all__ = ["CellInfo", "CellVerdict", "judge_grid", "smallest_detectable_effect"]
