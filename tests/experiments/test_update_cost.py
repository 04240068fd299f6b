"""What an update holds in memory is bounded by the micro-batch, not by the number of views."""

from __future__ import annotations

from experiments.bench.update_cost import make_rollouts, measure, random_policy, trainer_of

SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}


def test_a_pair_of_views_holds_little_more_than_one_view_and_so_do_many() -> None:
    policy = random_policy(SIZES, num_letters=40, canvas=12)
    rollouts = make_rollouts(policy, rows=8, groups=2, steps=6)

    def held(name: str, micro_batch_rows: int, **options: object) -> int:
        return measure(trainer_of(policy, name, options, micro_batch_rows=micro_batch_rows), rollouts)[1]

    one_view = held("grpo", 8, beta=0.0)
    assert one_view > 0
    assert held("espo", 8, beta=0.0, num_draws=1) <= 1.3 * one_view
    assert held("bgpo", 8) <= 1.3 * one_view
    assert held("stable_drl", 8) <= 1.3 * one_view
    assert held("espo", 1000, beta=0.0, num_draws=1) > 1.7 * one_view
