"""The built-in tokenizer: byte-level BPE over prompts and plans: reads any text, common words are one token.

Two choices make plans easy to copy for a small model: digits come in pairs, and an opening quote in a plan is followed
by the same token as the word in running text (the normaliser puts a space after it, the decoder takes it away).
"""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from dllm_rl.records.canvas import EOS_TOKEN, FILL_TOKEN, MASK_TOKEN, PAD_TOKEN

_PIECES = r" ?p\d{1,2}\.e\d{1,2}(?!\d)| ?\d{1,2}| ?[A-Za-z]+| ?[^\sA-Za-z\d]|\n|\s+"


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Learn a tokenizer of at most `vocab_size` ids (256 bytes and four special tokens included) from texts."""
    core = Tokenizer(models.BPE())
    core.normalizer = normalizers.Replace(Regex(r' "(?=[^\s"])'), ' " ')
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    core.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Replace(' " ', ' "')])
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[PAD_TOKEN, EOS_TOKEN, MASK_TOKEN, FILL_TOKEN],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token=PAD_TOKEN,
        eos_token=EOS_TOKEN,
        mask_token=MASK_TOKEN,
        additional_special_tokens=[FILL_TOKEN],
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
