"""TRL's own trainer on an OpenEnv server: `trl_client.py <address> <folder>`.

A tiny model samples texts; the reward of each is asked of the server, in a session of its own. Beside what the server
pays, a digit is worth something, so that a model of random weights has something to learn from.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import torch
from datasets import Dataset
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast
from trl import GRPOConfig, GRPOTrainer
from websockets.sync.client import ClientConnection, connect

ADDRESS, FOLDER = sys.argv[1:]
LETTERS = ["<end>", "\n", *map(chr, range(32, 127))]


def session() -> ClientConnection:
    """One session."""
    return connect(f"{ADDRESS.replace('http', 'ws')}/ws", proxy=None)


def ask(socket: ClientConnection, kind: str, **data: Any) -> dict[str, Any]:
    """One message and the answer."""
    socket.send(json.dumps({"type": kind, "data": data}))
    return json.loads(socket.recv(60))["data"]


def reward(completions: list[str], index: list[int], **_: Any) -> list[float]:
    """What the server pays for each text."""
    found = []
    for text, at in zip(completions, index, strict=True):
        with session() as socket:
            ask(socket, "reset", index=at)
            found.append(ask(socket, "step", plan=text)["reward"] + sum(map(str.isdigit, text)) / 16)
    return found


def main() -> None:
    """Train for three steps, and say what was earned."""
    words = Tokenizer(models.WordLevel({letter: at for at, letter in enumerate(LETTERS)}, unk_token="<end>"))
    words.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<end>", pad_token="<end>")
    sizes = {"n_layer": 1, "n_head": 2, "n_embd": 32, "n_positions": 128, "vocab_size": len(LETTERS)}
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=0, eos_token_id=0, pad_token_id=0))
    before = model.transformer.wte.weight.detach().clone()
    with session() as socket:
        prompts = [ask(socket, "reset", index=at)["observation"]["text"] for at in range(4)]
    config = GRPOConfig(
        output_dir=FOLDER, max_steps=3, per_device_train_batch_size=8, num_generations=4, report_to=[], bf16=False,
        max_completion_length=8, learning_rate=1e-2, use_cpu=True, logging_steps=1, save_strategy="no",
    )  # fmt: skip
    trainer = GRPOTrainer(
        model=model, reward_funcs=reward, args=config, processing_class=tokenizer,
        train_dataset=Dataset.from_dict({"prompt": prompts, "index": list(range(4))}),
    )  # fmt: skip
    trainer.train()
    rewards = [row["reward"] for row in trainer.state.log_history if "reward" in row]
    has_learnt = not before.equal(model.transformer.wte.weight.detach())
    print(json.dumps({"rewards": rewards, "has_learnt": has_learnt}))


if __name__ == "__main__":
    main()
