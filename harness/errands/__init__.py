"""Errands: small sites whose tasks need several turns, their server, and an oracle that works turn by turn."""

from harness.errands.factory import DIFFICULTIES, SPLITS, check_errands, make_errand, make_tasks
from harness.errands.kinds import KINDS
from harness.errands.oracle import oracle_turn, slip
from harness.errands.rehearsal import Rehearsal, fits, rehearse
from harness.errands.schema import ANSWER, Errand, Page
from harness.errands.server import ErrandServer

__all__ = [
    "ANSWER",
    "DIFFICULTIES",
    "KINDS",
    "SPLITS",
    "Errand",
    "ErrandServer",
    "Page",
    "Rehearsal",
    "check_errands",
    "fits",
    "make_errand",
    "make_tasks",
    "oracle_turn",
    "rehearse",
    "slip",
]
