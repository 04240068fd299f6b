"""Workers on the nodes of a cluster: placed, replaced where one dies, and asked what they do. Knows Ray, not grids."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from experiments.cluster.connection import ClusterError
from experiments.cluster.worker import Job, Worker

LOOK_SECONDS = 2.0
OPEN_SECONDS = 300.0
STOP_SECONDS = 15.0
MAX_DEATHS = 3


@dataclass(slots=True, kw_only=True, eq=False)
class Seat:
    """One worker on a node. work: reference to what it does now, and unit: its name, None while it opens."""

    node: str
    actor: Any
    work: Any = None
    unit: str | None = None
    is_open: bool = False
    question: Any = None
    since: float = field(default_factory=time.monotonic)


class Fleet:
    """As many workers on each living node as asked for; nodes that join later get theirs too."""

    def __init__(self, ray: Any, job: Job, *, workers_per_node: int) -> None:
        self._ray, self._job, self._per_node = ray, job, workers_per_node
        self._died_opening: Counter[str] = Counter()
        self._looked = self._started = time.monotonic()
        self._has_opened = False
        self.seats: list[Seat] = []
        self._staff()

    def idle(self) -> list[Seat]:
        """Workers that wait for a unit."""
        return [seat for seat in self.seats if seat.is_open and seat.work is None]

    def start(self, seat: Seat, unit: str) -> None:
        """Give a unit to an idle worker."""
        seat.unit, seat.work = unit, seat.actor.run.remote(unit)

    def wait(self, seconds: float) -> list[tuple[str, Any]]:
        """Wait for news: (unit, its status) where one ended, (unit, None) where its worker died.

        Raises what a worker raised. Workers that have opened become idle; places left by dead ones are filled.
        """
        if time.monotonic() - self._looked > LOOK_SECONDS:
            self._staff()
        works = [seat.work for seat in self.seats if seat.work is not None]
        if not works:
            time.sleep(seconds)
            return []
        ready, _ = self._ray.wait(works, num_returns=1, timeout=seconds)
        return [news for work in ready for news in self._take(next(seat for seat in self.seats if seat.work is work))]

    def events(self) -> list[tuple[str, dict[str, Any]]]:
        """What busy workers did last, as (unit, event); a question that is not answered yet is asked on."""
        found = []
        for seat in self.seats:
            if seat.unit is None:
                continue
            if seat.question is None:
                seat.question = seat.actor.event.remote()
            ready, _ = self._ray.wait([seat.question], timeout=0)
            if not ready:
                continue
            with contextlib.suppress(self._ray.exceptions.RayError):
                event = self._ray.get(seat.question)
                if event is not None:
                    found.append((seat.unit, event))
            seat.question = None
        return found

    def stop(self) -> None:
        """Interrupt what runs, end the browsers, and end the workers, those that do not answer by force."""
        with contextlib.suppress(Exception):
            for seat in self.seats:
                seat.actor.stop.remote()
            self._await([seat.work for seat in self.seats if seat.unit is not None])
            self._await([seat.actor.close.remote() for seat in self.seats if seat.is_open])
        for seat in self.seats:
            with contextlib.suppress(Exception):
                self._ray.kill(seat.actor)
        self.seats.clear()

    def _await(self, references: list[Any]) -> None:
        if references:
            self._ray.wait(references, num_returns=len(references), timeout=STOP_SECONDS)

    def _staff(self) -> None:
        """Fill the places of all living nodes."""
        self._looked = time.monotonic()
        alive = [node["NodeID"] for node in self._ray.nodes() if node["Alive"]]
        for node in alive:
            for _ in range(self._per_node - sum(seat.node == node for seat in self.seats)):
                self.seats.append(self._seat(node))
        if not self._has_opened and self._looked - self._started > OPEN_SECONDS:
            raise ClusterError(
                f"no node gave a worker a processor within {OPEN_SECONDS:.0f} s. `ray status` shows who holds them."
            )

    def _seat(self, node: str) -> Seat:
        place = self._ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node, soft=False)
        # Threads for what is asked while a unit runs; the unit itself takes one.
        options = {"num_cpus": 1, "max_concurrency": 4, "max_restarts": 0, "scheduling_strategy": place}
        actor = self._ray.remote(Worker).options(**options).remote(self._job)
        return Seat(node=node, actor=actor, work=actor.open.remote())

    def _take(self, seat: Seat) -> list[tuple[str, Any]]:
        """What became of a worker's work; a dead worker loses its seat."""
        unit, work = seat.unit, seat.work
        seat.unit = seat.work = seat.question = None
        try:
            result = self._ray.get(work)
        except self._ray.exceptions.RayTaskError as error:
            raise error.cause from None
        except self._ray.exceptions.RayError as error:
            # Killed, out of memory, or its node is gone: no subclass of another says that it was the worker's code.
            self._bury(seat, unit, error)
            return [] if unit is None else [(unit, None)]
        if unit is None:
            seat.is_open = self._has_opened = True
            return []
        return [(unit, result)]

    def _bury(self, seat: Seat, unit: str | None, error: Exception) -> None:
        self.seats.remove(seat)
        with contextlib.suppress(Exception):
            self._ray.kill(seat.actor)
        # A node that went as the worker was placed on it says nothing about what is installed there.
        is_gone = isinstance(error, self._ray.exceptions.ActorUnschedulableError)
        if unit is None and not is_gone:
            self._died_opening[seat.node] += 1
            if self._died_opening[seat.node] >= MAX_DEATHS:
                raise ClusterError(
                    f"workers on a node died {MAX_DEATHS} times before they had started: {error}. "
                    "Is dllm_rl installed there, with memory to spare?"
                )
