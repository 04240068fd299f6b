"""What the commands `grid`, `train` and `report` do."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from dllm_rl.errors import ConfigError
from dllm_rl.files import read_json
from experiments.design.config import Preset, build_session, loaded_levels
from experiments.design.engine_refusals import require_engines
from experiments.design.presets import load_preset, preset_names
from experiments.design.units import GridPlan, TaskSets, Unit, choose, plan_grid
from experiments.run.folder import CONFIG_FILE, OUTCOMES_FILE, RunFolder, make_folder
from experiments.run.processes import (
    GIGABYTES_A_WORKER,
    number_of_workers,
    refuse_several,
    run_units_in_processes,
)
from experiments.run.progress import ConsoleProgress, duration
from experiments.run.reuse import Match, find_matches, reuse_units
from experiments.run.runner import common_failure, owed_units, refresh, run_units
from experiments.run.self_check import checked_tasks, known_tasks
from experiments.run.status import Status

if TYPE_CHECKING:
    from dllm_rl.session import Session
    from dllm_rl.training.ranks import Ranks
    from experiments.run.ray import Cluster

FAILED = 1


def run_grid(
    preset_name: str,
    overrides: list[str],
    *,
    out: Path | None,
    is_dry_run: bool,
    cluster: Cluster | None = None,
    workers: int | None = None,
    only: Sequence[str] = (),
    reuse: Sequence[str] = (),
) -> int:
    """Run what a preset still owes and write its report; returns the exit code (1 where a cell failed or is owed).

    Args:
        cluster: Where units run; None is this machine.
        workers: Processes on this machine (`number_of_workers`).
        only: See `units.choose`; none is all.
        reuse: Runs whose equal units are taken (`experiments.run.reuse`).
    """
    preset = load_preset(preset_name, overrides)
    # Of several processes that a launcher started, one speaks.
    console = Console(quiet=os.environ.get("RANK", "0") != "0")
    console.print(f"{preset.name}: {preset.description}", markup=False, highlight=False, soft_wrap=True)
    # From here on PyTorch and Playwright are needed.
    root = out or Path("runs") / preset.name
    others = [RunFolder.find(Path(run)) for run in reuse]
    with build_session(preset.environment) as session:
        if is_dry_run:
            from experiments.cli.dry_run import print_dry_run

            tasks = known_tasks(preset, session, root)
            plan = choose(plan_grid(preset, tasks, root), only)
            print_dry_run(plan, tasks, console, workers=workers)
            _say_what_is_taken(plan, others, console)
            return 0
        from experiments.run.availability import refuse_unavailable
        from experiments.run.warmstarts import refuse_missing_files, refuse_missing_starts

        ranks = _launched(preset, cluster, workers)
        # What cannot be run is refused before a browser starts.
        intended = choose(plan_grid(preset, TaskSets.of(preset, session), root), only)
        policies = {unit.cell.policy for unit in intended.units if intended.is_chosen(unit)}
        levels = loaded_levels({name: level for name, level in preset.policies.items() if name in policies})
        refuse_missing_starts(levels.values())
        # The nodes of a cluster have devices of their own.
        for name, level in levels.items() if cluster is None else ():
            refuse_unavailable(f"policy '{name}'", level.checkpoint, level.loading)
            require_engines(f"policy '{name}'", level)
        refuse_missing_files(unit.cell.reward for unit in intended.units if intended.is_chosen(unit))
        number_of_workers(preset, workers, ())
        make_folder(root)
        session.keep_outcomes(root / OUTCOMES_FILE)
        if not ranks.is_first:
            _follow(preset, session, root, ranks)
            ranks.leave()
            return 0
        tasks = checked_tasks(preset, session, root, console)
        plan = choose(plan_grid(preset, tasks, root), only)
        is_unchanged = _config_in(root) == plan.config.model_dump(mode="json")
        for other in others:
            reuse_units(_say_what_is_taken(plan, [other], console), other)
        owed = owed_units(plan)
        _say_what_is_owed(plan, owed, console)
        # Processes that follow have waited for the self-check, and now learn whether there is anything to do.
        ranks.from_first(bool(owed))
        if not owed:
            statuses = refresh(plan)
        elif ranks.is_alone:
            statuses = _run_owed(plan, owed, session, tasks, console, cluster, workers)
        else:
            statuses = _lead(plan, owed, session, tasks, ranks, console)
        ranks.leave()
    if owed or not is_unchanged or is_report_stale(root):
        write_report(root)
    print_verdicts(root, console)
    return _conclude(statuses, len(plan.units), console)


def train_cell(
    words: list[str], *, preset_name: str, seed: int, out: Path | None, policy_keys: Sequence[str] = ()
) -> int:
    """Train one cell: `[PRESET] POLICY OBJECTIVE`, or with `policy=`, `objective=`; other `key=value` are overrides.

    Without a policy the preset's first is taken.
    """
    named = {"policy": "", "objective": ""}
    plain, overrides = [], []
    for word in words:
        key, separator, value = word.partition("=")
        if separator and key in named:
            named[key] = value
        else:
            (overrides if separator else plain).append(word)
    if plain and plain[0] in preset_names():
        preset_name = plain.pop(0)
        if len(plain) == 1 and not named["objective"]:
            named["objective"] = plain.pop()
    for key in named:
        named[key] = named[key] or (plain.pop(0) if plain else "")
    if plain or not named["objective"]:
        raise ConfigError(
            f"'{' '.join(words)}' does not name one cell. Write `train masked espo` or `train toy_sort objective=espo`."
        )
    preset = load_preset(preset_name)
    policy = named["policy"] or next(iter(preset.policies))
    objective = named["objective"]
    # Named and then selected, so that an objective the preset does not have comes with its own defaults.
    chosen = [f"policies=[{policy}]", f"objectives.{objective}.name={objective}", f"objectives=[{objective}]"]
    chosen += [f"policies.{policy}.{key}" for key in policy_keys]
    chosen += [f"seeds=[{seed}]", *(["controls=[]"] if preset.controls.by_role() else []), *overrides]
    return run_grid(preset_name, chosen, out=out or Path("runs") / f"{policy}-{objective}", is_dry_run=False)


def _say_what_is_owed(plan: GridPlan, owed: list[Unit], console: Console) -> None:
    ahead = f", the rest takes about {duration(sum(unit.cost.seconds for unit in owed))} in one process" if owed else ""
    num_chosen = sum(plan.is_chosen(unit) for unit in plan.units)
    chosen = "" if plan.chosen is None else f", of which --only names {num_chosen}"
    finished = f"{num_chosen - len(owed)} are finished already{ahead}."
    line = f"{len(plan.cells)} cells, {len(plan.units)} units of work{chosen}; {finished}"
    console.print(line, highlight=False, soft_wrap=True)


def _say_what_is_taken(plan: GridPlan, others: Sequence[RunFolder], console: Console) -> list[Match]:
    """Tell what other runs have of what is owed; the matches."""
    found: list[Match] = []
    for other in others:
        matches = find_matches(plan, other)
        num_evaluated = sum(match.is_evaluated for match in matches)
        console.print(
            f"{other.root} has {len(matches)} of {len(owed_units(plan))} owed units under the same settings; "
            f"{len(matches) - num_evaluated} of them are to be evaluated anew.",
            highlight=False,
            soft_wrap=True,
        )
        found += matches
    return found


def _run_owed(
    plan: GridPlan,
    owed: list[Unit],
    session: Session,
    tasks: TaskSets,
    console: Console,
    cluster: Cluster | None,
    workers: int | None,
) -> dict[str, Status]:
    """Run the units in this process, in several of this machine, or on a cluster."""
    if cluster is not None:
        from experiments.run.ray import run_units_on_ray

        # This process only starts workers; its browsers would take memory from theirs.
        session.close()
        with ConsoleProgress(owed, console) as progress:
            return run_units_on_ray(plan, cluster, progress)
    num_workers = number_of_workers(plan.preset, workers, owed)
    with ConsoleProgress(owed, console, num_workers=num_workers) as progress:
        if num_workers == 1:
            from experiments.run.cell import LocalExecutor
            from experiments.run.placement import own_gpu

            with own_gpu(plan.preset, plan.root):
                return run_units(plan, LocalExecutor(session, tasks), progress)
        session.close()
        progress.tell(f"{num_workers} workers, each with a browser and {GIGABYTES_A_WORKER:g} GB of memory at most")
        return run_units_in_processes(plan, num_workers, progress)


def _lead(
    plan: GridPlan, owed: list[Unit], session: Session, tasks: TaskSets, ranks: Ranks, console: Console
) -> dict[str, Status]:
    """Run the units as the first of several processes that work on each together."""
    from experiments.run.cell import Leader, LocalExecutor

    leader = Leader(LocalExecutor(session, tasks, ranks=ranks), ranks)
    with ConsoleProgress(owed, console) as progress:
        statuses = run_units(plan, leader, progress)
        leader.release()
        return statuses


def _launched(preset: Preset, cluster: Cluster | None, workers: int | None) -> Ranks:
    """The processes that `accelerate launch` started, this one among them; refused where they cannot do this preset."""
    from dllm_rl.training.ranks import launched_ranks, processes_beside
    from harness.browser import share_cores

    share_cores(processes_beside())
    levels = loaded_levels(preset.policies)
    ranks = launched_ranks(level.device for level in levels.values())
    if cluster is not None and not ranks.is_alone:
        raise ConfigError("--executor ray starts its own processes: run it without `accelerate launch`.")
    if workers is not None and not ranks.is_alone:
        raise ConfigError("--workers starts its own processes: run it without `accelerate launch`, or leave it out.")
    if cluster is not None or not ranks.is_alone:
        refuse_several(preset.environment, "--executor ray" if ranks.is_alone else "accelerate launch")
    for name, level in levels.items():
        ranks.refuse_shards(level.shards, f"policy '{name}'")
        ranks.refuse_shared(level.device)
    return ranks


def _follow(preset: Preset, session: Session, root: Path, ranks: Ranks) -> None:
    """What the processes other than the first do: wait for the self-check, then work on the units they are told."""
    from experiments.run.cell import LocalExecutor, follow

    if ranks.from_first(None):
        tasks = known_tasks(preset, session, root)
        follow(plan_grid(preset, tasks, root), LocalExecutor(session, tasks, ranks=ranks), ranks)


def _conclude(statuses: dict[str, Status], num_units: int, console: Console) -> int:
    """Tell what failed and what is owed; the exit code.

    Args:
        num_units: Of the whole grid, chosen by --only or not.
    """
    failed = {name: status for name, status in statuses.items() if status.state == "failed"}
    for name, status in failed.items():
        console.print(f"failed: {name}: {status.cause}", markup=False, highlight=False)
    num_owed = sum(status.state == "owed" for status in statuses.values())
    common = common_failure(statuses.values(), num_units)
    if common is not None:
        cause, count = common
        left = ", so the rest was not started" if num_owed else ""
        text = f"{count} of {num_units} units failed for one reason{left}: {cause}"
        console.print(text, markup=False, highlight=False, soft_wrap=True)
    if num_owed:
        console.print(f"{num_owed} of {len(statuses)} units are owed; the same command continues.", highlight=False)
    if failed:
        console.print("The same command runs the failed cells again.", highlight=False)
    return FAILED if failed or num_owed else 0


def _config_in(root: Path) -> Any:
    """The record of what lies there as it was written, with what verdicts depend on; None where it cannot be read."""
    path = root / CONFIG_FILE
    try:
        return read_json(path) if path.is_file() else None
    except ConfigError:
        return None


def write_report(root: Path) -> None:
    """Judge what is done and write report.html and report.json."""
    from experiments import report

    report.write_report(root)


def is_report_stale(root: Path) -> bool:
    """Whether there is no report, or results came after it: from an archive, or from another process."""
    report, results = root / "report.json", root / "results.parquet"
    return not report.is_file() or report.stat().st_mtime_ns < results.stat().st_mtime_ns


def print_verdicts(root: Path, console: Console) -> None:
    """Print the verdict table of a report, and where the report is."""
    from experiments import report

    console.print(report.verdict_table(read_json(root / "report.json")))
    console.print(f"report: {root / 'report.html'}", highlight=False)


def make_report(run: Path, *, as_json: bool = False) -> int:
    """Write the report of whatever is finished, and print its verdicts, or its data as JSON."""
    folder = RunFolder.find(run)
    folder.require_results()
    write_report(folder.root)
    if as_json:
        print((folder.root / "report.json").read_text(encoding="utf-8"))
    else:
        print_verdicts(folder.root, Console())
    return 0


def make_poster(run: Path, out: Path | None) -> int:
    """Draw a picture of whatever is finished, and print where it is."""
    from experiments.report import build_report, write_poster

    folder = RunFolder.find(run)
    folder.require_results()
    path = out or folder.root / "poster.png"
    write_poster(build_report(folder.root), path)
    print(f"poster: {path}")
    return 0
