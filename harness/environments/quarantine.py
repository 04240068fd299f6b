"""Takes a site that keeps failing while others answer out of service for the rest of the run.

It would cost three attempts a rollout. Its rollouts are lost to the environment at once, with the reason, and masked.
"""

from __future__ import annotations

from dataclasses import dataclass, field

LOST_IN_A_ROW = 3


@dataclass(slots=True)
class Quarantine:
    """Sites by key with the reason. A site is taken out of service after `LOST_IN_A_ROW` rollouts without one that
    ended, provided that another site has served a rollout meanwhile: when all fail, it is not the site.
    """

    reasons: dict[str, str] = field(default_factory=dict)
    _lost: dict[str, int] = field(default_factory=dict)
    _served: dict[str, int] = field(default_factory=dict)
    _num_served: int = 0

    def forget(self) -> None:
        """Begin anew, so that what was lost in one piece of work decides nothing in the next."""
        self.reasons.clear()
        self._lost.clear()
        self._served.clear()
        self._num_served = 0

    def served(self, site: str) -> None:
        """A rollout on this site came to an outcome."""
        self._num_served += 1
        self._lost.pop(site, None)

    def lost(self, site: str, reason: str) -> None:
        """A rollout on this site was lost in all its attempts."""
        if site not in self._lost:
            self._lost[site], self._served[site] = 0, self._num_served
        self._lost[site] += 1
        if self._lost[site] >= LOST_IN_A_ROW and self._num_served > self._served[site]:
            self.reasons[site] = f"site quarantined after {self._lost[site]} lost rollouts: {reason}"
