"""Learning over turns: a row a turn, an advantage an episode, weights of turns, and no trace of what was lost."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from dllm_rl import registry
from dllm_rl.environment import Environment
from dllm_rl.episodes import Episode, Reply
from dllm_rl.errors import ConfigError, HarnessError
from dllm_rl.files import read_rows
from dllm_rl.notebook import Notebook
from dllm_rl.records.tasks import (
    ActionResult,
    Control,
    Ending,
    Fault,
    FieldResult,
    GoldField,
    Observation,
    Outcome,
    Task,
)
from dllm_rl.records.types import LossInputs, Rollouts, Views
from dllm_rl.reward import FromFunction
from dllm_rl.session import Session
from dllm_rl.training.config import TrainConfig
from dllm_rl.training.credit import step_advantages
from dllm_rl.training.engine import RolloutBatch, RolloutEngine
from dllm_rl.training.groups import shuffle_rewards, stack_rollouts
from dllm_rl.training.metrics import describe
from dllm_rl.training.trainer import Trainer
from dllm_rl.training.turns import TURNS, turn_advantages, turn_weights, weigh
from dllm_rl.training.update import generator
from tests.tiny_policies import make_tiny_policy

USUAL = ("autoregressive", "masked", "block", "slot", "flow")


class Walk(Episode):
    """Goes on for one to three turns, by how many of the letters e, 1 and . the policy writes."""

    def __init__(self, task: Task) -> None:
        self.task, self.count, self.turn = task, 0, 0

    async def start(self) -> Reply:
        return Reply(observation=self._page(), outcome=Outcome(task_id=self.task.id))

    async def step(self, plan: str) -> Reply:
        self.turn += 1
        self.count += sum(plan.count(letter) for letter in "e1.")
        is_over = self.turn == 1 + self.count % 3
        outcome = Outcome(
            task_id=self.task.id,
            is_submitted=is_over,
            fields=(FieldResult(name="f", wanted=("x",), server=None, dom=(), is_correct=is_over, is_default=False),),
            actions=(ActionResult(line=1, text="wait", status="ok", note="ok wait"),),
            ending=Ending.FINISHED if is_over else Ending.TURNS if self.turn == 3 else None,
            num_submissions=self.count,
        )
        is_ended = outcome.ending is not None
        return Reply(observation=None if is_ended else self._page(), outcome=outcome)

    async def close(self) -> None:
        pass

    def _page(self) -> Observation:
        return Observation(titles=("Join",), controls=(Control(ref="p1.e1", kind="text", name=f"Name{self.turn}"),))


class Walks(Environment):
    is_episodic = True

    def tasks(self, split):
        gold = (GoldField(name="f", kind="text", wanted=("x",)),)
        names = ("Anna", "Karl", "Rome")
        return [Task(id=f"{split}/{n}", split=split, site=n, instruction=f"Name: {n}", gold=gold) for n in names]

    async def observe(self, task):
        raise NotImplementedError

    async def run(self, task, plan, *, isolation=None, executor=None):
        raise NotImplementedError

    def begin(self, task, modes):
        return Walk(task)

    def gold_turn(self, task, turns, observation):
        return 'fill p1.e1 "e"'


class StandingWalks(Walks):
    """Its page is the same at every turn."""

    def begin(self, task, modes):
        return Standing(task)


class Standing(Walk):
    def _page(self) -> Observation:
        return Observation(titles=("Join",), controls=(Control(ref="p1.e1", kind="text", name="Name"),))


class LongWalks(Walks):
    """Rome's page does not fit into any prompt from a turn on."""

    def __init__(self, long_from: int) -> None:
        self.long_from = long_from

    def begin(self, task, modes):
        return Long(task, self.long_from) if task.site == "Rome" else Walk(task)


class Long(Walk):
    def __init__(self, task: Task, long_from: int) -> None:
        super().__init__(task)
        self.long_from = long_from

    def _page(self) -> Observation:
        page = super()._page()
        return replace(page, controls=page.controls * 30) if self.turn >= self.long_from else page


def by_length(outcome):
    return float(outcome.num_submissions % 5)


@pytest.fixture(scope="module")
def session():
    with Session(Walks()) as opened:
        yield opened


def engine_of(session, family="masked", **options):
    sampler = registry.get("sampler", registry.get("policy", family).usual_sampler)(**options)
    policy = make_tiny_policy(family, sharpness=4.0)
    return RolloutEngine(policy=policy, sampler=sampler, environment=session, reward=FromFunction(by_length))


def trainer_of(session, objective, run_dir, *, family="masked", options=None, **settings):
    given = {"steps": 1, "prompts_per_step": 2, "group_size": 4, "inner_steps": 2, "learning_rate": 1e-3} | settings
    return Trainer(
        engine=engine_of(session, family),
        objective=registry.build("objective", objective, options or {}),
        tasks=session.tasks("train"),
        config=TrainConfig(**given),
        run_dir=run_dir,
    )


def groups_of(engine, *, size=4):
    tasks = [task for task in engine.environment.tasks("train")[:2] for _ in range(size)]
    rollouts = engine.run(tasks, range(len(tasks)), seed=3).rollouts
    return [rollouts[:size], rollouts[size:]]


def stacked(engine, groups):
    return stack_rollouts(groups, temperature=1.0, pad_id=engine.policy.canvas.pad_id)


def lost(rollout):
    outcome = replace(rollout.outcome, fault=Fault.ENVIRONMENT, ending=Ending.LOST)
    return replace(rollout, outcome=outcome)


@pytest.mark.parametrize("family", USUAL)
def test_what_was_read_and_sampled_is_what_is_trained_on(session, family) -> None:
    engine = engine_of(session, family)
    groups = groups_of(engine)
    rollouts = stacked(engine, groups)
    turns = [(rollout, at, turn) for group in groups for rollout in group for at, turn in enumerate(rollout.turns)]
    assert len({len(rollout.turns) for group in groups for rollout in group}) > 1
    assert rollouts.num_rows == len(turns)
    notebook, canvas = Notebook(), engine.policy.canvas
    for row, (rollout, at, turn) in enumerate(turns):
        prompt = notebook.prompt(rollout.task, rollout.turns[:at], turn.observation)
        read = rollouts.prompt_ids[row][rollouts.prompt_mask[row]].tolist()
        assert turn.completion.prompt == prompt and read == engine.policy.encode_prompt(prompt)
        assert canvas.decode(rollouts.completion_ids[row]) == turn.completion.plan
        assert rollouts.rewards[row] == rollout.reward.value
    numbers = [number for number, rollout in enumerate(r for g in groups for r in g) for _ in rollout.turns]
    assert rollouts.episode_ids is not None and rollouts.episode_ids.tolist() == numbers


def test_a_turn_is_drawn_with_noise_of_its_own(session) -> None:
    """The same prompt at two turns is answered differently, and the same batch alike."""
    with Session(StandingWalks()) as standing:
        engine = replace(engine_of(standing), notebook=Notebook(memory="none", feedback=False))
        groups = groups_of(engine)
        again = groups_of(engine)
    assert [r.plan for g in groups for r in g] == [r.plan for g in again for r in g]
    longest = max((r for g in groups for r in g), key=lambda rollout: len(rollout.turns))
    assert len({turn.completion.prompt for turn in longest.turns}) == 1 < len(longest.turns)
    assert len({turn.completion.plan for turn in longest.turns}) > 1


@pytest.mark.parametrize("long_from", [0, 1])
def test_a_page_that_does_not_fit_ends_its_episode_and_not_the_training(tmp_path, long_from) -> None:
    """Rome's pages do not fit, from the first turn on or from the second; the other tasks go on."""
    with Session(LongWalks(long_from)) as session:
        trainer = trainer_of(session, "grpo", tmp_path, prompts_per_step=3)
        trainer.train()
    (row,) = read_rows(tmp_path / "metrics.jsonl")
    rollouts = read_rows(tmp_path / "rollouts.jsonl")
    rome = [item for item in rollouts if item["task_id"].endswith("Rome")]
    cut = [item for item in rome if item["ending"] == "too_long"]
    assert cut and all(item["num_turns"] == long_from and item["fault"] == "agent" for item in cut)
    assert {item["ending"] for item in rollouts if item not in rome} <= {"finished", "turns"}
    assert row["ending/too_long"] == len(cut) / 12
    assert "did not fit into the policy's max_prompt" in cut[0]["notes"]


def test_an_episode_counts_once_in_its_group_and_lends_its_advantage_to_all_its_turns(session) -> None:
    engine = engine_of(session)
    rollouts = stacked(engine, groups_of(engine))
    objective = registry.build("objective", "grpo", {"advantage": "centred"})
    found = turn_advantages(objective, rollouts)
    assert rollouts.episode_ids is not None
    for group in (0, 1):
        rows = rollouts.group_ids == group
        by_episode = dict(zip(rollouts.episode_ids[rows].tolist(), rollouts.rewards[rows].tolist(), strict=True))
        mean = sum(by_episode.values()) / len(by_episode)
        wanted = [by_episode[number] - mean for number in rollouts.episode_ids[rows].tolist()]
        assert found[rows].tolist() == pytest.approx(wanted, abs=1e-6)
    assert not torch.allclose(found, objective.advantages(rollouts)), "by rows it would be the same"


def test_advantages_of_columns_are_refused_for_turns(session) -> None:
    """They were those of each episode's first turn, given to all of its turns."""
    objective = registry.get("objective", "grpo")

    class ByColumn(objective):
        def advantages(self, rollouts):
            return objective.advantages(self, rollouts)[:, None].expand(-1, rollouts.completion_ids.shape[1])

    engine = engine_of(session)
    rollouts = stacked(engine, groups_of(engine))
    with pytest.raises(ConfigError, match=r"advantages of shape .*Return one a row from `advantages`, or train it on"):
        turn_advantages(ByColumn(), rollouts)


def test_credit_of_a_turn_is_added_to_the_advantage_of_its_episode(session) -> None:
    engine = engine_of(session)
    rollouts = stacked(engine, groups_of(engine))
    objective = registry.build("objective", "grpo")
    plain = turn_advantages(objective, rollouts)
    assert rollouts.turn_facts is not None
    added = step_advantages("gigpo", rollouts.turn_facts, rollouts.rewards, rollouts.group_ids)
    assert bool((added != 0).any())
    assert torch.equal(turn_advantages(objective, rollouts, "gigpo"), plain + added)
    index = torch.arange(rollouts.num_rows).flip(0)
    turned = turn_advantages(objective, rollouts.rows(index), "gigpo")
    assert torch.allclose(turned, (plain + added)[index], atol=1e-6)


def test_weights_make_the_means_that_the_normalisers_are_named_for(session) -> None:
    engine = engine_of(session)
    rollouts = stacked(engine, groups_of(engine))
    assert rollouts.episode_ids is not None
    terms = torch.rand(rollouts.num_rows, generator=torch.Generator().manual_seed(0))
    episodes = [terms[rollouts.episode_ids == number] for number in rollouts.episode_ids.unique()]

    def weighted_mean(normaliser):
        weights = turn_weights(rollouts, normaliser)
        return float((terms if weights is None else weights * terms).mean())

    assert weighted_mean("turn_mean") == pytest.approx(float(torch.cat(episodes).mean()))
    assert weighted_mean("trajectory_mean") == pytest.approx(sum(float(own.mean()) for own in episodes) / len(episodes))
    assert weighted_mean("constant") == pytest.approx(sum(float(own.sum()) for own in episodes) / len(episodes) / TURNS)


def shares(objective, lengths, normaliser):
    """What each row's gradient is of its advantage, for two groups of episodes with these numbers of turns."""
    turns = torch.tensor([count for group in lengths for count in group])
    episodes = torch.arange(len(turns)).repeat_interleave(turns)
    group_ids = torch.tensor([number for number, group in enumerate(lengths) for _ in group])[episodes]
    ids, valid = torch.ones(len(episodes), 3, dtype=torch.long), torch.ones(len(episodes), dtype=torch.bool)
    rollouts = Rollouts(
        prompt_ids=ids,
        prompt_mask=ids > 0,
        completion_ids=ids,
        completion_mask=ids > 0,
        rewards=torch.tensor([0.2, 1.0, 0.4, 0.9])[episodes],
        group_ids=group_ids,
        valid=valid,
        trajectory=None,
        totals=Rollouts.count_totals(valid, group_ids, ids > 0),
        episode_ids=episodes,
    )
    views = Views(tokens=ids[None], score=ids[None] > 0, weight=torch.ones(1, *ids.shape))
    new = torch.full((1, *ids.shape), -1.0, requires_grad=True)
    advantages = turn_advantages(objective, rollouts)
    weights = turn_weights(rollouts, normaliser, objective.mean_over)
    inputs = LossInputs(
        rollouts=rollouts,
        views=views,
        new=weigh(new, weights),
        old=new.detach() if objective.needs_old else None,
        ref=None,
        advantages=advantages,
    )
    objective.loss(inputs).value.backward()
    return new.grad[0].sum(1) / advantages, episodes


@pytest.mark.parametrize("name", ["grpo", "dapo", "espo", "wd1", "stable_drl"])
def test_a_turn_weighs_the_same_however_long_other_episodes_are(name) -> None:
    """Whatever the loss is a mean over: the step's rows or tokens, a group's rows, or no rows."""
    objective = registry.build("objective", name, {"beta": 0.0})
    short, _ = shares(objective, [(1, 2), (2, 1)], "constant")
    long, _ = shares(objective, [(1, 2), (2, 6)], "constant")
    assert torch.allclose(short, short[:1].expand_as(short))
    assert torch.allclose(long, short[:1].expand_as(long))
    share, episodes = shares(objective, [(1, 2), (2, 6)], "trajectory_mean")
    summed = torch.zeros(4).index_add(0, episodes, share)
    assert torch.allclose(summed, summed[:1].expand_as(summed))
    assert not torch.allclose(share, share[:1].expand_as(share))


def test_a_weight_multiplies_a_rows_gradient_and_leaves_its_value() -> None:
    terms = torch.rand(2, 3, 4, requires_grad=True)
    weights = torch.tensor([0.5, 1.0, 3.0])
    weighed = weigh(terms, weights)
    assert torch.equal(weighed, terms)
    weighed.square().sum().backward()
    assert torch.allclose(terms.grad, 2 * terms * weights[:, None])
    assert weigh(terms, None) is terms


@pytest.mark.parametrize(
    ("objective", "normaliser"),
    [
        ("grpo", "turn_mean"),
        ("grpo", "trajectory_mean"),
        ("espo", "constant"),
        ("cj_grpo", "constant"),
        ("wd1", "constant"),
        ("mdpo", "constant"),
    ],
)
def test_a_lost_episode_leaves_the_gradient_as_if_it_had_not_been_drawn(session, tmp_path, objective, normaliser):
    """Bit for bit: lost with a reward of its own, at its start or in the middle, or never drawn."""
    found = []
    for case in ("never drawn", "lost in the middle", "lost at the start"):
        trainer = trainer_of(session, objective, tmp_path, turn_normaliser=normaliser)
        (first, second, third, fourth), other = groups_of(trainer.engine)
        without = [(first, second, fourth), other]
        gone = lost(third) if case == "lost in the middle" else replace(lost(third), turns=())
        groups = without if case == "never drawn" else [(first, second, gone, fourth), other]
        rollouts, _ = trainer._answered(0, groups, stacked(trainer.engine, groups))
        metrics = trainer.updater.update(0, rollouts, rate=1e-3)
        assert metrics["rows_updated"] > 0
        found.append([weight.detach().clone() for weight in trainer.policy.model.parameters()])
    assert all(torch.equal(*pair) for pair in zip(found[0], found[1], strict=True))
    assert all(torch.equal(*pair) for pair in zip(found[0], found[2], strict=True))


def test_a_fault_that_counts_as_zero_would_be_another_gradient(session, tmp_path) -> None:
    """So the test above can fail."""
    found = []
    for is_counted in (False, True):
        trainer = trainer_of(session, "grpo", tmp_path)
        (first, second, third, fourth), other = groups_of(trainer.engine)
        zero = replace(third, reward=replace(third.reward, value=0.0))
        groups = [(first, second, zero, fourth) if is_counted else (first, second, fourth), other]
        trainer.updater.update(0, stacked(trainer.engine, groups), rate=1e-3)
        found.append(torch.cat([weight.detach().flatten() for weight in trainer.policy.model.parameters()]))
    assert not torch.equal(*found)


@pytest.mark.parametrize("family", ["autoregressive", "masked"])
def test_the_order_of_turns_and_episodes_changes_nothing(session, tmp_path, family) -> None:
    found = []
    for is_reversed in (False, True):
        trainer = trainer_of(session, "grpo", tmp_path, family=family, inner_steps=1)
        groups = groups_of(trainer.engine)
        rollouts = stacked(trainer.engine, groups)
        index = torch.arange(rollouts.num_rows)
        rollouts = rollouts.rows(index.flip(0) if is_reversed else index)
        metrics = trainer.updater.update(0, rollouts, rate=0.0)
        found.append((metrics["loss"], metrics["grad_norm"]))
    assert found[0] == pytest.approx(found[1], rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("objective", sorted(registry.names("objective")))
def test_every_objective_trains_on_turns(session, tmp_path, objective) -> None:
    families = registry.families_of(registry.get("objective", objective))
    family = next(name for name in USUAL if name in families)
    fewest = registry.get("objective", objective).min_inner_steps
    trainer = trainer_of(session, objective, tmp_path, family=family, inner_steps=fewest)
    before = torch.cat([weight.detach().flatten() for weight in trainer.policy.model.parameters()])
    trainer.train()
    (row,) = read_rows(tmp_path / "metrics.jsonl")
    after = torch.cat([weight.detach().flatten() for weight in trainer.policy.model.parameters()])
    assert row["rows_updated"] > 8 or row["rows_filtered"] > 0
    assert row["turns/mean"] > 1 and row["nonfinite_gradients"] == 0.0
    assert not torch.equal(before, after)


def test_episode_metrics_are_over_episodes_and_every_ending_is_one(session, tmp_path) -> None:
    trainer = trainer_of(session, "grpo", tmp_path)
    trainer.train()
    (row,) = read_rows(tmp_path / "metrics.jsonl")
    rollouts = read_rows(tmp_path / "rollouts.jsonl")
    assert row["num_rollouts"] == len(rollouts) == 8
    assert row["turns/mean"] == pytest.approx(sum(item["num_turns"] for item in rollouts) / 8)
    assert row["success"] == pytest.approx(sum(item["success"] for item in rollouts) / 8)
    endings = {name.removeprefix("ending/"): share for name, share in row.items() if name.startswith("ending/")}
    assert set(endings) == {ending.value for ending in Ending} and sum(endings.values()) == pytest.approx(1)
    assert endings["finished"] == pytest.approx(sum(item["ending"] == "finished" for item in rollouts) / 8)


def test_rates_and_lengths_are_of_what_was_not_lost(session) -> None:
    engine = engine_of(session)
    (first, second, third, fourth), other = groups_of(engine)
    gone = lost(replace(third, outcome=replace(third.outcome, is_submitted=True)))
    groups = [(first, second, gone, fourth), other]
    rollouts = tuple(rollout for group in groups for rollout in group)
    batch = RolloutBatch(rollouts=rollouts, nfe=1, token_forwards=1, seconds_sampling=0.0, seconds_browser=0.0)
    found = describe(batch, groups, stacked(engine, groups), canvas=engine.policy.canvas)
    valid = [first, second, fourth, *other]
    length = sum(rollout.num_tokens for rollout in valid) / len(valid)
    assert found["submitted"] == sum(rollout.outcome.is_submitted for rollout in valid) / len(valid)
    assert found["completion_length"] == pytest.approx(length) and gone.num_tokens != length


def test_a_step_of_which_everything_was_lost_has_no_rates(session) -> None:
    """A zero would read as a collapse. Of whole plans: a step of episodes that were all lost is refused."""
    engine = engine_of(session)
    groups = [
        [replace(item, outcome=replace(item.outcome, fault=Fault.ENVIRONMENT, ending=None)) for item in group]
        for group in groups_of(engine)
    ]
    rollouts = tuple(rollout for group in groups for rollout in group)
    batch = RolloutBatch(rollouts=rollouts, nfe=1, token_forwards=1, seconds_sampling=0.0, seconds_browser=0.0)
    found = describe(batch, groups, stacked(engine, groups), canvas=engine.policy.canvas)
    rates = ("reward", "reward_std", "success", "submitted", "parse_valid", "completion_length", "all_bad")
    assert found["fault_share"] == 1.0 and [name for name in rates if name in found] == []


def test_rewards_are_dealt_anew_among_episodes(session) -> None:
    engine = engine_of(session)
    rollouts = stacked(engine, groups_of(engine))
    dealt = shuffle_rewards(rollouts, generator(0, "deal"))
    assert rollouts.episode_ids is not None
    for number in rollouts.episode_ids.unique():
        assert dealt.rewards[rollouts.episode_ids == number].unique().numel() == 1

    def by_episode(given):
        return sorted(float(given.rewards[given.episode_ids == number][0]) for number in given.episode_ids.unique())

    assert by_episode(dealt) == by_episode(rollouts) and not torch.equal(dealt.rewards, rollouts.rewards)


def test_a_step_of_which_everything_was_lost_stops_loudly(session) -> None:
    engine = engine_of(session)
    groups = [[lost(rollout) for rollout in group] for group in groups_of(engine)]
    with pytest.raises(HarnessError, match="no episode of a step has a turn to learn from, most often: "):
        stacked(engine, groups)


def test_a_normaliser_of_turns_is_refused_for_whole_plans(tmp_path) -> None:
    from tests.dllm_rl.training.test_trainer import make

    with pytest.raises(ConfigError, match="whole plans"):
        make("masked", "grpo", tmp_path, turn_normaliser="turn_mean")
