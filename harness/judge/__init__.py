"""What a plan came to: outcomes from the server's payload, and cheap scores without a browser."""

from harness.judge.cache import Audit, Key, OutcomeCache
from harness.judge.outcome import Evidence, judge
from harness.judge.scoring import score_plan
from harness.judge.store import OutcomeStore

__all__ = ["Audit", "Evidence", "Key", "OutcomeCache", "OutcomeStore", "judge", "score_plan"]
