"""A masked-diffusion policy small enough to enumerate: a few letters, a few columns, no EOS, one prompt.

It is the real policy class over the built-in model. Its logits at every canvas are computed once and looked up, so that
all completions, masks and orders can be gone through. Legend: n canvases, l columns, v vocabulary.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dllm_rl.policies.base import PolicyFacts, Reading
from dllm_rl.policies.feed import Feed
from dllm_rl.policies.masked import MaskedPolicy
from dllm_rl.policies.tiny import TinyConfig, TinyForPlans
from dllm_rl.records.types import Prompts, Rollouts
from dllm_rl.training.warmstart import Batch

TRAIN_STEPS, TRAIN_ROWS = 300, 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Letters:
    """What a policy asks of a tokenizer: ids 0 to n - 1 are letters; PAD, EOS and MASK follow and are never written."""

    num_letters: int

    def __len__(self) -> int:
        return self.num_letters

    @property
    def pad_token_id(self) -> int:
        """Id of PAD."""
        return self.num_letters

    @property
    def eos_token_id(self) -> int:
        """Id of EOS."""
        return self.num_letters + 1

    @property
    def mask_token_id(self) -> int:
        """Id of MASK."""
        return self.num_letters + 2

    def encode(self, text: str, *, add_special_tokens: bool, split_special_tokens: bool) -> list[int]:
        """Ids of letters from `a` on."""
        return [ord(letter) - ord("a") for letter in text if letter.isalpha()]


class EnumerablePolicy(MaskedPolicy):
    """A `MaskedPolicy` whose logits are looked up in a table of all (letters + 1) ** length canvases."""

    def __init__(self, model: TinyForPlans, tokenizer: Letters, facts: PolicyFacts) -> None:
        super().__init__(model, tokenizer, facts)
        self.length, self.num_letters = facts.canvas_length, tokenizer.num_letters
        self._tables: dict[Reading, Tensor] = {}

    def completions(self) -> Int[Tensor, "n l"]:
        """All completions, in lexicographic order."""
        return torch.tensor(list(itertools.product(range(self.num_letters), repeat=self.length)))

    def rollouts(self, ids: Int[Tensor, "n l"]) -> Rollouts:
        """Completions as rollouts of one group with nothing else known."""
        num_rows = len(ids)
        mask, valid = torch.ones_like(ids, dtype=torch.bool), torch.ones(num_rows, dtype=torch.bool)
        group_ids = torch.zeros(num_rows, dtype=torch.long)
        return Rollouts(
            prompt_ids=torch.zeros(num_rows, 1, dtype=torch.long),
            prompt_mask=torch.ones(num_rows, 1, dtype=torch.bool),
            completion_ids=ids,
            completion_mask=mask,
            rewards=torch.zeros(num_rows),
            group_ids=group_ids,
            valid=valid,
            trajectory=None,
            totals=Rollouts.count_totals(valid, group_ids, mask),
        )

    def score(
        self,
        feed: Feed,
        *,
        columns: Tensor | None = None,
        reading: Reading | None = None,
        cache: Any = None,
        scored: Tensor | None = None,
    ) -> Tensor:
        """Look up; the prompt is always the same one.

        Args:
            columns: The same for all rows, or one index tensor a row.
        """
        reading = reading or self.reading
        if reading not in self._tables:
            self._tables[reading] = self._table(reading)
        base = self.num_letters + 1
        digits = torch.where(feed.canvas == self.mask_id, self.num_letters, feed.canvas)
        index = (digits * base ** torch.arange(self.length - 1, -1, -1)).sum(-1)
        logits = self._tables[reading][index]
        if columns is not None and columns.ndim == 1:
            logits = logits[:, columns]
        elif columns is not None:
            logits = logits.gather(1, columns[..., None].expand(-1, -1, logits.shape[-1]))
        return logits if scored is None else logits[scored][None]

    @torch.no_grad()
    def _table(self, reading: Reading) -> Float[Tensor, "n l v"]:
        digits = torch.tensor(list(itertools.product(range(self.num_letters + 1), repeat=self.length)))
        canvas = torch.where(digits == self.num_letters, self.mask_id or 0, digits)
        prompt = torch.zeros(len(canvas), 1, dtype=torch.long)
        feed = Feed(prompt_ids=prompt, prompt_mask=torch.ones_like(prompt, dtype=torch.bool), canvas=canvas)
        return MaskedPolicy.score(self, feed, reading=reading)


def trained_policy(*, length: int, num_letters: int, seed: int) -> EnumerablePolicy:
    """A policy trained on a random Markov chain of letters, so that columns depend on one another as in text."""
    letters = Letters(num_letters=num_letters)
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = TinyConfig(
            vocab_size=num_letters + 3,
            pad_token_id=letters.pad_token_id,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_smeared=0,
        )
        model = TinyForPlans(config)
    facts = PolicyFacts(family="masked", max_prompt=1, canvas_length=length)
    plain = MaskedPolicy(model, letters, facts)
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    step_law = torch.randn(num_letters, num_letters, generator=generator).mul(2.0).softmax(-1)
    for _ in range(TRAIN_STEPS):
        canvas = _chain(step_law, length, generator)
        batch = Batch(prompts=_prompts(len(canvas)), canvas=canvas)
        optimiser.zero_grad()
        plain.process.warm_start_loss(plain, batch, generator).backward()
        optimiser.step()
    return EnumerablePolicy(model.eval(), letters, facts)


def moved(policy: EnumerablePolicy, *, size: float, seed: int) -> EnumerablePolicy:
    """The policy after a small random step of all weights, relative to their own scale."""
    generator = torch.Generator().manual_seed(seed)
    model = TinyForPlans(policy.model.config)  # type: ignore[arg-type]
    state = {
        name: value + size * value.std().nan_to_num(1.0) * torch.randn(value.shape, generator=generator)
        for name, value in policy.model.state_dict().items()
    }
    model.load_state_dict(state)
    return EnumerablePolicy(model.eval(), policy.tokenizer, policy.facts)


def _prompts(num_rows: int) -> Prompts:
    ids = torch.zeros(num_rows, 1, dtype=torch.long)
    return Prompts(ids=ids, mask=torch.ones_like(ids, dtype=torch.bool), row_ids=torch.arange(num_rows))


def _chain(step_law: Float[Tensor, "v v"], length: int, generator: torch.Generator) -> Int[Tensor, "n l"]:
    columns = [torch.randint(len(step_law), (TRAIN_ROWS,), generator=generator)]
    for _ in range(length - 1):
        columns.append(torch.multinomial(step_law[columns[-1]], 1, generator=generator).squeeze(1))
    return torch.stack(columns, dim=1)
