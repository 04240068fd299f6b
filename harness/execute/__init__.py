"""What a plan does on a page: executors, the loop over pages, feedback on every line."""

from harness.execute.execution import Execution, ServerView, execute
from harness.execute.executors import EXECUTORS, Executor, ExecutorName, executor_named
from harness.execute.presses import Presses
from harness.execute.steps import payloads
from harness.execute.turns import Place, TurnResult, execute_turn

__all__ = [
    "EXECUTORS",
    "Execution",
    "Executor",
    "ExecutorName",
    "Place",
    "Presses",
    "ServerView",
    "TurnResult",
    "execute",
    "execute_turn",
    "executor_named",
    "payloads",
]
