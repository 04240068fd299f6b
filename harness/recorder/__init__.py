"""What a page that is not ours sends, which of it is the form, and whether the application took it."""

from harness.recorder.payload import folded
from harness.recorder.proxy import Exchange, RecordingProxy
from harness.recorder.truth import Criterion, Form, Sent, is_form, submissions
from harness.recorder.upstream import Upstream, ask

__all__ = [
    "Criterion",
    "Exchange",
    "Form",
    "RecordingProxy",
    "Sent",
    "Upstream",
    "ask",
    "folded",
    "is_form",
    "submissions",
]
