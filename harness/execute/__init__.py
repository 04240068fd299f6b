"""What a plan does on a page: executors, the loop over pages, feedback on every line."""

from harness.execute.execution import Execution, ServerView, execute
from harness.execute.executors import EXECUTORS, Executor, ExecutorName, executor_named
from harness.execute.steps import payloads

__all__ = ["EXECUTORS", "Execution", "Executor", "ExecutorName", "ServerView", "execute", "executor_named", "payloads"]
