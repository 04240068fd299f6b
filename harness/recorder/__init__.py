"""What a page that is not ours sends, which of it is the form, and whether the application took it."""

from harness.recorder.payload import folded
from harness.recorder.proxy import Exchange, RecordingProxy
from harness.recorder.truth import Form, Sent, submissions

__all__ = ["Exchange", "Form", "RecordingProxy", "Sent", "folded", "submissions"]
