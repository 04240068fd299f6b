"""The command `dllm-rl`. Heavy packages are imported inside the commands, so that `--help` answers at once."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from dllm_rl.errors import ConfigError
from experiments.cli import completion
from experiments.cli.completion import LISTABLE
from experiments.cli.judge import judge_app
from experiments.cli.new import new_app
from experiments.cli.site import site_app
from experiments.cli.sites import JsonFlag, sites_app

app = typer.Typer(
    name="dllm-rl",
    help="How reinforcement learning changes a diffusion language model that must act on the web.",
    epilog="Exit codes: 0 done; 1 something failed or is owed; 2 refused, with the reason; 130 interrupted.",
    pretty_exceptions_enable=False,
)
app.add_typer(new_app, name="new")
app.add_typer(judge_app, name="judge")
app.add_typer(sites_app, name="sites")
app.add_typer(site_app, name="site")


RunArgument = Annotated[
    Path, typer.Argument(help="Run folder, or the name of a preset.", autocompletion=completion.runs)
]
Overrides = Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Settings laid over the preset.")]
PolicyKeys = Annotated[
    list[str] | None,
    typer.Option(
        "--policy",
        metavar="KEY=VALUE",
        help="A key of the policy: device=cuda, dtype=bfloat16, attention=eager, lora.rank=8, facts.family=masked.",
    ),
]
NotebookOption = Annotated[
    str | None,
    typer.Option(help="In episodes, what is read of earlier turns, as YAML: {memory: actions, feedback: false}."),
]
RepairOption = Annotated[
    str | None,
    typer.Option(help="In episodes, how much of its last plan a turn begins with, as YAML: {confidence: 0.9}, null."),
]
RolesOption = Annotated[
    str | None,
    typer.Option(help="In episodes, the roles that write a turn, as YAML: {} for all, {grounder: false}, null."),
]
OutOption = Annotated[Path | None, typer.Option("--out", help="Run folder; default runs/<preset>.")]

FIRST_STEPS = """\
dllm-rl: how reinforcement learning changes a diffusion language model
that must act on the web.

  dllm-rl doctor               check this machine: browser, GPU, memory
  dllm-rl train toy_sort espo  train one method on a toy, without a browser
  dllm-rl grid quick           run a grid, write its report; --dry-run: its cost
  dllm-rl watch quick          follow a running grid
  dllm-rl diagnose quick       say how each run ended, and what failed first

All commands: dllm-rl --help. One of them: dllm-rl grid --help."""


@app.callback(invoke_without_command=True)
def first_steps(context: typer.Context) -> None:
    """Show the five commands to begin with."""
    if context.invoked_subcommand is None:
        print(FIRST_STEPS)


@app.command()
def grid(
    preset: Annotated[
        str,
        typer.Argument(
            help="A preset's name (`dllm-rl list presets`) or a YAML file.", autocompletion=completion.presets
        ),
    ] = "quick",
    overrides: Overrides = None,
    out: OutOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would run, and run nothing.")] = False,
    executor: Annotated[
        str, typer.Option(help="`local`: on this machine. `ray`: on the nodes of a cluster.")
    ] = "local",
    address: Annotated[
        str | None, typer.Option(help="Of a Ray cluster that runs: auto, or HOST:PORT. Default: one starts here.")
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1, help="Cells at a time, each in a process of its own. Default: one a core; on a cluster one a node."
        ),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN", help="Run these cells now, the rest another time: 'masked-*', '*-espo'."),
    ] = None,
    reuse: Annotated[
        list[str] | None,
        typer.Option(metavar="RUN", help="Take what this other run has trained under the same settings from there."),
    ] = None,
    policy: PolicyKeys = None,
) -> None:
    """Run a grid of cells: train and evaluate each, judge them, write the report. Finished cells are skipped."""
    from experiments.cli.grid import run_grid
    from experiments.cli.policy_keys import as_overrides

    cluster = _cluster(executor, address, workers)
    here = None if cluster else workers
    settings = as_overrides(preset, overrides or [], policy or [])
    code = run_grid(
        preset, settings, out=out, is_dry_run=dry_run, cluster=cluster, workers=here, only=only or (), reuse=reuse or ()
    )
    raise typer.Exit(code)


def _cluster(executor: str, address: str | None, workers: int | None) -> Any:
    """Where the cells run: None for this machine."""
    from dllm_rl.errors import unknown_name

    if executor not in ("local", "ray"):
        raise unknown_name("executor", executor, ("local", "ray"))
    if executor == "local":
        if address is not None:
            raise ConfigError("--address belongs to a cluster: add --executor ray")
        return None
    from experiments.run.ray import Cluster, require_ray

    require_ray()
    return Cluster(address=address, workers_per_node=workers or 1)


@app.command()
def train(
    cell: Annotated[
        list[str],
        typer.Argument(
            metavar="[PRESET] POLICY OBJECTIVE [KEY=VALUE]...",
            help="A policy of the preset and any registered objective, also as policy=, objective=; then settings.",
        ),
    ],
    preset: Annotated[str, typer.Option(help="Preset that gives the other settings.")] = "quick",
    seed: Annotated[int, typer.Option(help="Seed of the run.")] = 0,
    out: Annotated[Path | None, typer.Option("--out", help="Run folder; default runs/<policy>-<objective>.")] = None,
    policy: PolicyKeys = None,
) -> None:
    """Train one cell of a preset and evaluate it against its warm start. Without a browser: train toy_sort espo."""
    from experiments.cli.grid import train_cell

    raise typer.Exit(train_cell(cell, preset_name=preset, seed=seed, out=out, policy_keys=policy or ()))


@app.command("eval")
def evaluate(
    what: Annotated[
        str,
        typer.Argument(
            help="`oracle` (the gold plans), builtin:<family>, or the folder of a checkpoint or of a cell's seed."
        ),
    ],
    split: Annotated[
        list[str] | None,
        typer.Option(help="Split, more than once if wanted. Default: all for the oracle, else val."),
    ] = None,
    max_tasks: Annotated[
        int | None, typer.Option(min=1, help="Tasks a split. Default: 60 for the oracle, else all.")
    ] = None,
    num_samples: Annotated[int, typer.Option(min=1, help="Sampled rollouts a task, beside the greedy one.")] = 1,
    temperature: Annotated[float, typer.Option(min=0.01)] = 1.0,
    seed: Annotated[int, typer.Option(help="Seed of the sampling noise.")] = 0,
    sampler: Annotated[
        str | None, typer.Option(help="Sampler, as YAML: slots, or {name: flow_exact, options: {num_steps: 8}}.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write the rollouts to this parquet file.")] = None,
    environment: Annotated[
        str | None,
        typer.Option(
            help="Environment, as YAML: {name: forms, options: {world: rich}}. Default: the cell's; else grid16's."
        ),
    ] = None,
    notebook: NotebookOption = None,
    repair: RepairOption = None,
    roles: RolesOption = None,
    policy: PolicyKeys = None,
    as_json: JsonFlag = False,
) -> None:
    """Measure success in an environment."""
    from experiments.cli.evaluate import Draws, EvaluatedTasks, measure, measure_oracle
    from experiments.cli.turns import TurnOptions

    turns = TurnOptions(notebook=notebook, repair=repair, roles=roles)
    if what == "oracle":
        if (sampler, out, temperature, num_samples, seed, policy) != (None, None, 1.0, 1, 0, None):
            raise ConfigError(
                "the oracle draws nothing: --sampler, --temperature, --num-samples, --seed, --out and --policy are of "
                "a policy's evaluation. Leave them out, or name a policy instead of `oracle`."
            )
        turns.refuse_given("an oracle reads the page alone.")
        raise typer.Exit(measure_oracle(split, environment=environment, max_tasks=max_tasks or 60, as_json=as_json))
    draws = Draws(sampler=sampler, temperature=temperature, num_samples=num_samples, seed=seed)
    tasks = EvaluatedTasks(environment=environment, splits=tuple(split or ["val"]), max_tasks=max_tasks)
    code = measure(what, tasks, draws, turns=turns, out=out, as_json=as_json, policy_keys=policy or ())
    raise typer.Exit(code)


@app.command()
def warmstart(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[RECIPE.yaml] [STAGE]...", help="A recipe's file; stages or families. Default: all."),
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A setting of the recipe.")
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            help="Recipe that ships (builtin, episodes, episodes_roles, finish, inverter, over_coaching, "
            "over_coaching_turns), or a YAML file."
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder that the checkpoints are written to.")] = Path("runs/warmstart"),
) -> None:
    """Train policies on demonstrations: the built-in ones, or checkpoints of your own. Resumable."""
    from experiments.run.recipe import DEFAULT_RECIPE, refuse_two_recipes
    from experiments.run.warmstarts import run_warm_starts

    files = [word for word in words or [] if word.endswith((".yaml", ".yml"))]
    refuse_two_recipes(files, recipe)
    stages = [word for word in words or [] if word not in files]
    name = files[0] if files else recipe or DEFAULT_RECIPE
    raise typer.Exit(run_warm_starts(stages, overrides or [], out=out, name=name))


@app.command()
def status(
    run: RunArgument = Path("quick"),
    as_json: JsonFlag = False,
) -> None:
    """Show which cells are done, running, failed or owed."""
    from experiments.cli.status import show_status

    raise typer.Exit(show_status(run, as_json=as_json))


@app.command()
def report(
    run: RunArgument = Path("quick"),
    as_json: JsonFlag = False,
) -> None:
    """Judge what is finished and write report.html and report.json."""
    from experiments.cli.grid import make_report

    raise typer.Exit(make_report(run, as_json=as_json))


@app.command()
def poster(
    run: RunArgument = Path("quick"),
    out: Annotated[
        Path | None, typer.Option("--out", help="File that ends in .png, .svg or .pdf; default poster.png in the run.")
    ] = None,
) -> None:
    """Draw one picture of a run for slides: its finding, and every cell's effect with its interval."""
    from experiments.cli.grid import make_poster

    raise typer.Exit(make_poster(run, out))


@app.command()
def compare(
    first: RunArgument,
    second: Annotated[Path, typer.Argument(help="The run that is compared with it.", autocompletion=completion.runs)],
    as_json: JsonFlag = False,
) -> None:
    """Say which cells of two runs differ, by how much, and in which settings the runs do."""
    from experiments.cli.compare import show_comparison

    raise typer.Exit(show_comparison(first, second, as_json=as_json))


@app.command()
def pack(
    run: RunArgument = Path("quick"),
    out: Annotated[Path | None, typer.Option("--out", help="File; default <preset>-<digest>.tar.xz, here.")] = None,
    rollouts: Annotated[
        bool, typer.Option("--rollouts", help="With the training rollouts, which only `replay` needs.")
    ] = False,
) -> None:
    """Write the finished units of a run into one small file: for another machine, or for others to check."""
    from experiments.run.packing import pack as pack_file

    raise typer.Exit(pack_file(run, out, with_rollouts=rollouts))


@app.command()
def unpack(
    file: Annotated[Path, typer.Argument(help="What `dllm-rl pack` wrote.")],
    out: OutOption = None,
) -> None:
    """Lay the finished units of such a file into a run folder, where `report` and `grid` go on from them."""
    from experiments.run.archive import unpack as unpack_file

    raise typer.Exit(unpack_file(file, out))


@app.command()
def watch(
    run: RunArgument = Path("quick"),
    interval: Annotated[float, typer.Option(min=0.2, help="Seconds between two looks.")] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="Look once and end.")] = False,
) -> None:
    """Watch a running grid in the terminal: cells, success, alarms, time left. Reads only; as often as you like."""
    from experiments.report.watch import watch as watch_run

    raise typer.Exit(watch_run(run, interval=interval, is_once=once))


@app.command()
def serve(
    run: RunArgument = Path("quick"),
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port on 127.0.0.1; 0 takes a free one.")] = 8765,
) -> None:
    """Serve the report of a running grid to this machine's browser; the page refreshes itself."""
    from experiments.report.serve import serve as serve_run

    raise typer.Exit(serve_run(run, port=port))


@app.command()
def diagnose(
    path: Annotated[
        Path,
        typer.Argument(
            help="A run folder, a cell or a seed of one; or a log of another trainer (TRL, transformers, verl, "
            "ms-swift, LLaMA-Factory, wandb, TensorBoard, CSV), or a folder of such."
        ),
    ] = Path("quick"),
    as_json: JsonFlag = False,
    as_page: Annotated[bool, typer.Option("--html", help="Write a page beside the input, too.")] = False,
    out: Annotated[Path | None, typer.Option("--out", help="Write the page to this file.")] = None,
) -> None:
    """Say what became of each training run: healthy, or collapsed, how, when, and what failed first."""
    from experiments.cli.diagnose import show_diagnosis

    raise typer.Exit(show_diagnosis(path, as_json=as_json, as_page=as_page, out=out))


@app.command()
def cite(run: RunArgument = Path("quick")) -> None:
    """Print BibTeX of the methods that a run used."""
    from experiments.cli.listing import bibliography
    from experiments.run.folder import RunFolder

    print(bibliography(RunFolder.find(run)), end="")


@app.command()
def replay(
    run: Annotated[
        Path, typer.Argument(help="Run folder, name of a preset, or a .parquet or .jsonl file of rollouts.")
    ],
    rollout: Annotated[
        str,
        typer.Argument(help="Row of the table (from 0), or STEP.ROW of a rollouts.jsonl, below CELL/seedK/ in a run."),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the trace and the screenshot.")] = Path("runs/replay"),
    headless: Annotated[bool, typer.Option("--headless", help="No window, even where there is a display.")] = False,
) -> None:
    """Run one recorded rollout again in the browser, show it, and say whether its outcome is the same."""
    from experiments.cli.replay import replay_rollout

    raise typer.Exit(replay_rollout(run, rollout, out=out, is_headless=headless))


@app.command()
def episode(
    what: Annotated[str, typer.Argument(help="`oracle`, or a checkpoint as in `eval`.")] = "oracle",
    split: Annotated[str, typer.Option(help="Split that the task is from.")] = "val",
    task: Annotated[int, typer.Option(min=0, help="Number of the task in its split.")] = 0,
    environment: Annotated[
        str | None, typer.Option(help="An environment of episodes, as YAML. Default: the cell's; else episodes.")
    ] = None,
    sampler: Annotated[str | None, typer.Option(help="As in `eval`; default: the cell's, or the family's.")] = None,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 writes what is most likely.")] = 0.0,
    seed: Annotated[int, typer.Option(help="Seed of the sampling noise.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Write a page with screenshots to this file.")] = None,
    notebook: NotebookOption = None,
    repair: RepairOption = None,
    roles: RolesOption = None,
    policy: PolicyKeys = None,
) -> None:
    """Play one episode, turn by turn, and show it: in the terminal, or as one self-contained HTML page."""
    from experiments.cli.episode import EpisodePolicy, show_episode
    from experiments.cli.turns import TurnOptions

    turns = TurnOptions(notebook=notebook, repair=repair, roles=roles)
    player = EpisodePolicy(
        what=what, sampler=sampler, temperature=temperature, seed=seed, keys=tuple(policy or ()), turns=turns
    )
    raise typer.Exit(show_episode(player, split=split, number=task, environment=environment, out=out))


@app.command("list")
def list_names(
    kind: Annotated[
        str, typer.Argument(help=f"One of {', '.join(LISTABLE)}; or training.", autocompletion=completion.kinds)
    ],
    name: Annotated[str | None, typer.Argument(help="One of them: its options.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """List what is registered, our own and that of installed plug-ins; or the options of one, with their defaults."""
    from experiments.cli.listing import broken, entries, print_entries
    from experiments.cli.options import listed_options, print_options

    options = listed_options(kind, name, LISTABLE)
    found = entries(LISTABLE[kind]) if options is None else options
    if as_json:
        print(json.dumps(found, indent=2, default=str))
    else:
        (print_entries if options is None else print_options)(found)
    if options is not None:
        return
    for name, reason in broken(LISTABLE[kind]).items():
        print(f"dllm-rl: {LISTABLE[kind]} '{name}' is left out: {reason}", file=sys.stderr)


@app.command()
def doctor(as_json: JsonFlag = False) -> None:
    """Check this machine: packages, PyTorch, GPU, memory, browser and its sandbox, ports, checkpoints, disk."""
    from experiments.cli.doctor import run_checks

    raise typer.Exit(run_checks(as_json=as_json))


@app.command()
def film(
    checkpoint: Annotated[str, typer.Argument(help="builtin:<family>, or a checkpoint's or a cell's seed folder.")],
    split: Annotated[str, typer.Option(help="Split that the task is from.")] = "val",
    task: Annotated[int, typer.Option(min=0, help="Number of the task in its split.")] = 0,
    sampler: Annotated[str | None, typer.Option(help="As in `eval`; default: the family's usual one.")] = None,
    temperature: Annotated[float, typer.Option(min=0.0)] = 1.0,
    seed: Annotated[int, typer.Option(help="Seed of the sampling noise.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Write a page with a slider to this file.")] = None,
    policy: PolicyKeys = None,
) -> None:
    """Show how a plan is written, step by step: in the terminal, or as one self-contained HTML page."""
    from experiments.cli.evaluate import show_film

    code = show_film(
        checkpoint,
        split=split,
        number=task,
        sampler=sampler,
        temperature=temperature,
        seed=seed,
        out=out,
        policy_keys=policy or (),
    )
    raise typer.Exit(code)
