"""What each figure of the report means and how it is read; the page links every figure to its entry."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup

from experiments.report.curves import CURVES


@dataclass(frozen=True, slots=True, kw_only=True)
class Meaning:
    """An entry.

    Attributes:
        anchor: Id of the figure on the page; that of the entry has `means-` before it.
    """

    anchor: str
    title: str
    text: str


_FIGURES = (
    Meaning(
        anchor="verdicts",
        title="Verdicts",
        text="A cell is one policy trained with one objective, over all seeds, and is compared with its policy's warm "
        "start on the same tasks and random numbers. Improved and regressed: success changed more than chance "
        "explains, after correction for all cells. Equivalent: the whole interval lies inside the margin that was "
        "declared before. Inconclusive: chance explains what was seen; it does not mean that there is no effect. "
        "Collapsed: at least half of the seeds collapsed in training, whatever the mean says.",
    ),
    Meaning(
        anchor="all-verdicts",
        title="All verdicts",
        text="The same cells as rows, with controls. The heads of the columns order them. Smallest visible effect: the "
        "change, in points, that this cell would have been called improved for in four of five repetitions. An "
        "inconclusive cell says nothing about effects below it.",
    ),
    Meaning(
        anchor="effects",
        title="Effects",
        text="The line is the 95 % interval that decides, the point its middle. The wide bar is a crossed bootstrap "
        "over seeds and tasks, as a check. Small ticks are seeds: where they lie far apart, the method depends on "
        "luck. Inside the grey band a change is too small to matter by the margin that was declared.",
    ),
    Meaning(
        anchor="averages",
        title="Averages over cells",
        text="A policy's average tells what training did to it, whichever the objective. An objective's average is "
        "its difference from all other objectives, within policies. They have more rollouts behind them than a cell, "
        "and are secondary: verdicts come from cells.",
    ),
    Meaning(
        anchor="warm-starts",
        title="Warm starts",
        text="Where each policy stood before training. Families start at different heights, so compare effects within "
        "a family. Room above: the most that training could add. Near miss: every field right, not accepted. "
        "Conversion: the share accepted of plans with every field right.",
    ),
    Meaning(
        anchor="after-training",
        title="After training",
        text="Before and after, for each cell. A rise of success with a steady share of right plans means that the "
        "policy learned to submit; a rise of right plans means that it learned to fill in fields.",
    ),
    Meaning(
        anchor="conversion",
        title="What keeps cells from converting",
        text="For cells in which fewer than nine in ten right plans are accepted after training: the first of the "
        "known causes that the metrics of training show. Each cause makes the later ones unreadable.",
    ),
    Meaning(
        anchor="episodes",
        title="Episodes",
        text="For tasks of several turns. Turns a success counts the turns of failures too, so it is a price. Fewer "
        "turns of a success mean a shorter way; longer failures mean that the policy repeats itself.",
    ),
    *(
        Meaning(anchor=f"curve-{curve.name.replace('/', '-')}", title=curve.title, text=curve.reading)
        for curve in CURVES
    ),
    Meaning(
        anchor="phase-entropy",
        title="Reward against entropy",
        text="What the reward costs. A path that rises gains reward; one that moves left without rising loses entropy "
        "and gains nothing.",
    ),
    Meaning(
        anchor="phase-kl",
        title="Reward against KL",
        text="How far a policy goes from its warm start for its reward. Of two paths to one height the one that stays "
        "further left changed less.",
    ),
    Meaning(
        anchor="commit-order",
        title="Commit order",
        text="When each position of the plan was written. A diagonal is left to right, a column is all at once. Rows "
        "are shares, so rarely written positions are visible too. A change over training means that the policy became "
        "sure of other positions first.",
    ),
    Meaning(
        anchor="first",
        title="What moved first",
        text="Signals in the order in which they left the band of their first steps for good. What moves before the "
        "reward falls is a candidate for the cause, and no proof. A departure alone is an observation: entropy falls "
        "in healthy runs too.",
    ),
    Meaning(
        anchor="survival",
        title="Time to collapse",
        text="The share of runs that have not collapsed, by step. A run that ends well counts as not collapsed until "
        "its end. The p-values describe and are not corrected.",
    ),
    Meaning(
        anchor="checks",
        title="What was checked",
        text="Not found is a result: this was looked for with enough data. Too short to tell and no data are none.",
    ),
    Meaning(
        anchor="plans",
        title="Plans before and after",
        text="Greedy plans on the same task, as they ran in the browser: one newly solved, one newly lost, one still "
        "missed. The tasks along the way depend on no result. They are examples, and evidence for nothing.",
    ),
    Meaning(
        anchor="faults",
        title="Faults and losses",
        text="What the environment lost is dropped with its pair and never counted as a failure of the policy. "
        "Rechecked rollouts were run a second time as the evaluation runs them; any that differ mean that training was "
        "rewarded for something that the evaluation does not see.",
    ),
    Meaning(
        anchor="time",
        title="Where the time went",
        text="Wall time of all units together. Units that ran at the same time are added up, so a grid with several "
        "workers took less.",
    ),
)


class Meanings:
    """Links from the figures of one page to their entries, and the entries that were linked, in the page's order."""

    def __init__(self) -> None:
        self._known = {meaning.anchor: meaning for meaning in _FIGURES}
        self.linked: list[Meaning] = []

    def link(self, anchor: str) -> Markup:
        """The link that stands at a figure's title."""
        meaning = self._known[anchor]
        self.linked.append(meaning)
        return Markup('<a class="meaning" href="#means-{}" aria-label="{}: how to read it">how to read it</a>').format(
            anchor, meaning.title
        )
