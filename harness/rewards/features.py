"""What a learned judge looks at: feedback, what was set, and how the two fit the instruction."""

from __future__ import annotations

from dllm_rl.records.evidence import Entry, Evidence, executed_state
from dllm_rl.records.words import words
from harness.rewards.similarity import bag_f1, clauses
from harness.rewards.success_words import SuccessWords


def features(episode: Evidence) -> dict[str, float]:
    """Shares and indicators (0 or 1) by name, in a fixed order; each also for accepted episodes alone."""
    plain = {**_feedback(episode), **_state(episode)}
    accepted = plain["accepted"]
    return plain | {f"accepted and {name}": accepted * value for name, value in plain.items() if name != "accepted"}


def _feedback(episode: Evidence) -> dict[str, float]:
    actions = episode.actions
    count = max(1, len(actions))
    shares = {kind: sum(item.status == kind for item in actions) / count for kind in ("failed", "malformed", "skipped")}
    submissions = sum(item.text.startswith("submit ") and item.status == "ok" for item in actions)
    (verdict,) = SuccessWords().score([episode])
    return {
        "accepted": verdict.value,
        **shares,
        "submitted again": float(submissions > 1),
        "did nothing": float(not actions),
        "turns": min(1.0, len(episode.turns) / 10),
    }


def _state(episode: Evidence) -> dict[str, float]:
    entries, wishes = executed_state(episode), clauses(episode.instruction)
    told = set(words(episode.instruction))
    found = [float(set(_value(entry)) <= told) for entry in entries]
    bound = [max((bag_f1(_said(entry), wish) for wish in wishes), default=0.0) for entry in entries]
    served = [max((bag_f1(wish, _said(entry)) for entry in entries), default=0.0) for wish in wishes]
    names = {word for turn in episode.turns for control in turn.observation.controls for word in words(control.name)}
    content = told - names
    held = {word for entry in entries for word in _value(entry)}
    return {
        "values in the instruction": _mean(found),
        "a value that is not": float(0.0 in found),
        "values beside their labels": _mean(bound),
        "the worst of them": min(bound, default=0.0),
        "wishes that are served": _mean(served),
        "the worst wish": min(served, default=0.0),
        "words of the instruction that are held": len(content & held) / max(1, len(content)),
        "fields a wish": min(2.0, len(entries) / max(1, len(wishes))),
    }


def _value(entry: Entry) -> list[str]:
    """Words of what was put in: for a box its label, since its value says only that it is ticked."""
    return words(entry.label if entry.control.kind == "checkbox" else entry.value)


def _said(entry: Entry) -> list[str]:
    return words(entry.label) if entry.control.kind == "checkbox" else words(f"{entry.label} {entry.value}")


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.0
