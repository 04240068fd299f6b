"""What a sampler says it cost is what the model ran, every forward writes something, and short texts cost less."""

from __future__ import annotations

import torch

from dllm_rl.testing._sampler_case import SamplerCase, ending, fed_to

FEW_STEPS = 5


def counts_are_honest(case: SamplerCase) -> None:
    """nfe is the number of forwards of the model, and token_forwards the positions fed to it: for one row, and for
    three that end at different times (few enough to stay one batch on any device).
    """
    for rows, probability in (((1,), None), ((0, 1, 2), 0.15)):
        with ending(case.policy, 0.0 if probability is None else probability), fed_to(case.policy) as calls:
            out = case.draw(rows)
        where = f"with {len(rows)} rows "
        assert out.nfe == len(calls), f"{where}nfe says {out.nfe}, and the model ran {len(calls)} times"
        fed = sum(call.numel() for call in calls)
        assert out.token_forwards == fed, f"{where}token_forwards says {out.token_forwards}, fed were {fed}"


def every_forward_writes(case: SamplerCase) -> None:
    """A row alone, ending early or never: every step commits, so that there are at most as many as columns, and no more
    than num_steps.

    One forward more may read the prompt. Steps of a rule that may idle (`may_idle`) can write nothing, and then take no
    forward. Rules that take tokens back, and flows, keep to num_steps only.
    """
    for probability in (0.0, 0.3):
        with ending(case.policy, probability):
            out = case.draw((1,))
        record, length = out.trajectory, out.ids.shape[1]
        if record.time is not None or record.is_approximate:
            break
        steps = record.commit_step[0]
        written = steps[steps >= 0].unique().numel()
        if record.canvases is not None and not getattr(case.sampler_class, "may_idle", False):
            idle = sorted(set(range(record.num_steps)) - set(steps.tolist()))
            assert not idle, f"steps {idle} of {record.num_steps} wrote nothing"
        assert out.nfe <= written + 1, f"{out.nfe} forwards for {written} steps that wrote"
        assert out.nfe <= length + 1, f"{out.nfe} forwards for {length} columns"
    if case.has_steps:
        few = case.draw((1,), num_steps=FEW_STEPS)
        assert few.nfe <= FEW_STEPS, f"num_steps={FEW_STEPS}, and it took {few.nfe} forwards"


def early_ends_save(case: SamplerCase) -> None:
    """Rows that have ended are not fed any more: rows with equal prompts cost together what they cost alone.

    Not under the grammar, where rows that are fed unequal numbers of forced tokens are filled up.
    """
    if case.has_grammar:
        return
    rows = (0, 3, 6)
    with ending(case.policy, 0.15):
        together = case.draw(rows).token_forwards
        alone = sum(case.draw((row,)).token_forwards for row in rows)
    assert together <= alone, (
        f"three rows that end at different times cost {together} token-forwards together, and {alone} alone: rows that "
        "have ended go on being fed"
    )


def padding_follows_the_end(case: SamplerCase) -> None:
    """Behind EOS everything is PAD and nothing is scored, also where rows of a batch end at different times."""
    with ending(case.policy, 0.3):
        out = case.draw()
    after = ~case.policy.canvas.until_eos(out.ids)
    assert (out.ids[after] == case.policy.canvas.pad_id).all(), "something other than PAD stands behind EOS"
    assert not out.mask[after].any(), "a position behind EOS is scored"
    scored = case.policy.canvas.scored(out.ids) & ~out.trajectory.events.is_forced()
    assert torch.equal(scored, out.mask), "what is scored is not what was drawn"
