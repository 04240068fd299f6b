"""Observe and run the forms of a checkout in real Chromium; the payload that its application received is the truth."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

from dllm_rl.environment import limited
from dllm_rl.records.tasks import Observation, Task
from dllm_rl.registry import register
from harness.environments.formfactory.checkout import (
    Catalogue,
    Checkout,
    FormRecords,
    make_catalogue,
)
from harness.environments.recorded import (
    ApplicationProcess,
    Observed,
    RecordedEnvironment,
    RecordedSettings,
    linked_forms,
    oracle_plan,
)
from harness.recorder import Upstream

# Which of every five solvable records belong to a split.
NUM_PARTS = 5
PARTS = {"train": (0, 1, 2), "val": (3,), "test": (4,)}
# A file for a field that requires one where the record leaves open which.
STAND_IN = b"%PDF-1.4\n1 0 obj<</Type/Catalog>>endobj\ntrailer<</Root 1 0 R>>\n%%EOF\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class FormFactorySettings(RecordedSettings):
    """Settings of the FormFactory environment.

    Attributes:
        folder: The user's checkout.
        application: `file:attribute` of its WSGI application, the file relative to the folder.
        forms: Gold file by page path; None to find out which file belongs to which page.
        keys: Label or HTML name by gold key, for keys that name no control; "" for a key that no field belongs to.
        python: The interpreter that has the application's packages.
    """

    folder: Path
    application: str = "app.py:app"
    forms: Mapping[str, str] | None = None
    keys: Mapping[str, str] = field(default_factory=dict)
    python: str = sys.executable


@register("environment", "formfactory")
class FormFactoryEnvironment(RecordedEnvironment[FormFactorySettings]):
    """Tasks from a user's own checkout; which ones there are is known once its forms were looked at."""

    version: ClassVar[int] = 4
    splits: ClassVar[tuple[str, ...]] = tuple(PARTS)
    opens_for_tasks: ClassVar[bool] = True

    def __init__(self, settings: FormFactorySettings) -> None:
        super().__init__(settings)
        self.checkout = Checkout(folder=settings.folder, application=settings.application, forms=settings.forms)
        self.application = ApplicationProcess(settings.folder, settings.application, python=settings.python)
        self.forms: tuple[FormRecords, ...] = ()
        self._catalogue: Catalogue | None = None
        self._seen: dict[str, Observed] = {}

    async def open(self) -> None:
        """Start the application and the proxy before it, and look at every form."""
        await self.application.start()
        self.proxy.upstream = Upstream(port=self.application.port)
        await self.start_proxy()
        if self._catalogue is None:
            self._catalogue = await self._look_at_all()

    async def close(self) -> None:
        """End the browser, the proxy and the application."""
        await self.pool.close()
        await self.proxy.stop()
        await self.application.stop()

    @property
    def pids(self) -> tuple[int, ...]:
        """Process ids of the browsers and of the application."""
        application = self.application.pid
        return (*self.pool.pids, *(() if application is None else (application,)))

    @property
    def catalogue(self) -> Catalogue:
        """All records, and which of them can be satisfied. Known while or after the environment is open."""
        assert self._catalogue is not None
        return self._catalogue

    def tasks(self, split: str) -> tuple[Task, ...]:
        """The solvable records of a split; of five in a row, three are for training, one is val and one test."""
        return tuple(
            replace(task, id=f"{split}/{task.id}", split=split)
            for number, task in enumerate(self.catalogue.tasks)
            if number % NUM_PARTS in PARTS[split]
        )

    def gold_plan(self, task: Task, observation: Observation) -> str:
        """The plan that gives every gold value and sends the form."""
        return oracle_plan(task, self._seen[task.site])

    async def _look_at_all(self) -> Catalogue:
        """Look at every form once, give it its gold records, and say which of them can be satisfied."""
        paths = list(self.checkout.forms or await asyncio.to_thread(linked_forms, self.proxy.upstream))
        await limited((self.observed(path) for path in paths), self.settings.num_places("context"))
        self.forms = self.checkout.assign({path: self._seen[path].page for path in paths})
        catalogue = make_catalogue(self.forms, self._seen, tuple(self.files), self.settings.keys)
        uploads = (item for task in catalogue.tasks for item in task.gold if item.kind == "file")
        self.files |= {name: STAND_IN for item in uploads for name in item.wanted if name not in self.files}
        used = {form.path for form in self.forms}, {form.file for form in self.forms}
        return replace(
            catalogue.without(await self.refusals(catalogue.tasks)),
            forms_without_records=tuple(path for path in paths if path not in used[0]),
            files_without_form=tuple(file for file in self.checkout.gold_files() if file not in used[1]),
        )

    async def observed(self, path: str) -> Observed:
        """The form at this path."""
        if path not in self._seen:
            self._seen[path] = await self.survey(path)
        return self._seen[path]


def sample(tasks: Sequence[Task], max_records: int | None) -> list[Task]:
    """The first records of each form."""
    kept: dict[str, list[Task]] = {}
    for task in tasks:
        kept.setdefault(task.site, []).append(task)
    return [task for form in kept.values() for task in form[:max_records]]
