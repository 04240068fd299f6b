"""The running of a grid: the folder of a run (`folder`), what runs units in it (`runner`, `cell`, `ray`), archives."""

from experiments.run.folder import RunFolder, UnitFolder
from experiments.run.records import CellRecord, GridRecord
from experiments.run.results import UnitKey
from experiments.run.status import Status

__all__ = ["CellRecord", "GridRecord", "RunFolder", "Status", "UnitFolder", "UnitKey"]
