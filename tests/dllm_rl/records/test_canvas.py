"""Where a text ends on its canvas, and how prompts are padded: each written once, for everyone."""

from __future__ import annotations

import torch

from dllm_rl.records.canvas import until_first
from dllm_rl.records.types import Prompts


def test_up_to_the_first_mark_and_everything_where_there_is_none():
    where = torch.tensor([[0, 1, 0, 1], [0, 0, 0, 0], [1, 0, 0, 0]]).bool()
    wanted = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1], [1, 0, 0, 0]]).bool()
    assert torch.equal(until_first(where), wanted)
    assert torch.equal(until_first(where[:, None]), wanted[:, None])


def test_prompts_are_padded_on_the_left_to_the_longest():
    prompts = Prompts.left_padded([[5, 6, 7], [8]], row_ids=range(3, 5), pad_id=0)
    assert prompts.ids.tolist() == [[5, 6, 7], [0, 0, 8]]
    assert prompts.mask.tolist() == [[True, True, True], [False, False, True]]
    assert prompts.row_ids.tolist() == [3, 4]
