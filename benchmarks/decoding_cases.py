"""Published formats and samplers that `benchmarks.decoding_parity` compares: settings of both sides, case by case."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from benchmarks import public_decoding
from benchmarks.public_code import Code
from benchmarks.public_decoding import Asked
from tests.dllm_rl.policies import checkpoints

DLLM = Code(folder="dllm", url="https://github.com/ZHZisZZ/dllm", file="dllm/core/samplers/mdlm.py")
FAST = Code(folder="Fast-dLLM", url="https://github.com/NVlabs/Fast-dLLM", file="llada/generate.py")
CODE = {
    "llada": Code(folder="LLaDA", url="https://github.com/ML-GSAI/LLaDA", file="generate.py"),
    "fast": FAST,
    "fast_v2": replace(FAST, file="v2/generation_functions.py"),
    "dream": replace(DLLM, file="dllm/pipelines/dream/models/generation_utils.py"),
    "mdlm": DLLM,
    "bd3lm": replace(DLLM, file="dllm/core/samplers/bd3lm.py"),
    "llada2": replace(DLLM, file="dllm/pipelines/llada2/models/modeling_llada2_moe.py"),
    "sdar": Code(folder="SDAR", url="https://github.com/JetAstra/SDAR", file="generate.py"),
    "refusion": Code(folder="ReFusion", url="https://github.com/ML-GSAI/ReFusion", file="generate.py"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """A published format: who writes a tiny checkpoint of it, and what its user says of it.

    Attributes:
        lengths: Of the prompts.
        reads_padding: PAD is written like any token, and read as padding by the public code.
    """

    name: str
    write: Callable[[Path], Any]
    facts: dict[str, Any]
    lengths: tuple[int, ...] = (8, 16, 12)
    reads_padding: bool = False


COLUMNS = 32
BLOCK = {"canvas_length": COLUMNS, "max_prompt": 64, "block_size": 4}
MASKED = {"canvas_length": COLUMNS, "max_prompt": 64}
LLADA = Format(name="LLaDA", write=checkpoints.llada, facts=MASKED)
MOE = Format(name="LLaDA-MoE", write=checkpoints.llada_moe, facts=MASKED)
DREAM = Format(name="Dream", write=checkpoints.dream, facts=MASKED)
A2D = Format(name="a2d", write=checkpoints.a2d, facts={**MASKED, "family": "masked"})
A2D_BLOCK = Format(
    name="a2d, blocks",
    write=checkpoints.a2d,
    facts={**BLOCK, "family": "block", "prompt_blocks": "from_canvas"},
    lengths=(8, 16, 13),
    reads_padding=True,
)
SDAR = Format(name="SDAR", write=checkpoints.sdar, facts=BLOCK)
# The prompt ends within a block, and the canvas with one.
SDAR_TAIL = replace(
    SDAR, name="SDAR, prompt ends within a block", facts={**BLOCK, "canvas_length": 30}, lengths=(6, 10, 14)
)
LLADA2 = Format(name="LLaDA2", write=checkpoints.llada2, facts=BLOCK)
LLADA2_TAIL = replace(
    LLADA2, name="LLaDA2, prompt ends within a block", facts={**BLOCK, "canvas_length": 30}, lengths=(6, 10, 14)
)
FAST_V2 = Format(name="Fast-dLLM v2", write=checkpoints.fast_dllm, facts=MASKED)
FAST_V2_TAIL = replace(
    FAST_V2,
    name="Fast-dLLM v2, prompt ends within a block",
    facts={**FAST_V2.facts, "canvas_length": 30},
    lengths=(6, 10, 14),
)
REFUSION = Format(name="ReFusion", write=checkpoints.refusion, facts={**MASKED, "family": "slot", "slot_size": 4})


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One public sampler under some settings, and ours under those that should write the same.

    Attributes:
        settings: Of the public function, by its names.
        options: Of our sampler, beside temperature 0.
        is_batch: All prompts are written in one batch.
    """

    code: str
    theirs: Callable[[Path, Asked], Tensor]
    format: Format
    settings: dict[str, Any]
    sampler: str
    options: dict[str, Any] = field(default_factory=dict)
    is_batch: bool = False


def llada(settings: dict[str, Any], *, of: Format = LLADA, is_batch: bool = False, **options: Any) -> Case:
    return Case(
        code="llada",
        theirs=public_decoding.llada,
        format=of,
        settings=settings,
        sampler="low_confidence",
        options=options,
        is_batch=is_batch,
    )


def _fast(loop: str, cache: str, *, threshold: float | None = None) -> Case:
    quota = {"num_steps": 16} if threshold is None else {"threshold": threshold}
    return Case(
        code="fast",
        theirs=public_decoding.fast_dllm,
        format=LLADA,
        settings={"loop": loop, "steps": 16, "block_length": 8, "threshold": threshold},
        sampler="low_confidence" if threshold is None else "threshold",
        options={"block_length": 8, "cache": cache, **quota},
    )


def _dream(algorithm: str, sampler: str, steps: int, *, is_batch: bool = False) -> Case:
    return Case(
        code="dream",
        theirs=public_decoding.dream,
        format=DREAM,
        settings={"alg": algorithm, "steps": steps},
        sampler=sampler,
        options={"num_steps": steps, "schedule": "dream"},
        is_batch=is_batch,
    )


def _whole(steps: int) -> dict[str, Any]:
    return {"num_steps": steps, "schedule": "whole_block"}


def _sdar(format: Format, steps: int, threshold: float | None = None) -> Case:
    """All blocks take the same number of steps."""
    blocks = -(-(format.facts["canvas_length"] + format.lengths[0] % 4) // 4)
    static = {"denoising_steps": steps, "block_length": 4, "remasking_strategy": "low_confidence_static"}
    dynamic = {**static, "remasking_strategy": "low_confidence_dynamic", "confidence_threshold": threshold}
    return Case(
        code="sdar",
        theirs=public_decoding.sdar,
        format=format,
        settings=static if threshold is None else dynamic,
        sampler="low_confidence" if threshold is None else "threshold",
        options=_whole(steps * blocks) if threshold is None else {"threshold": threshold},
    )


def _llada2(format: Format, steps: int, threshold: float) -> Case:
    blocks = -(-(format.facts["canvas_length"] + format.lengths[0] % 4) // 4)
    is_dynamic = threshold < 1
    return Case(
        code="llada2",
        theirs=public_decoding.llada2,
        format=format,
        settings={"steps": steps, "block_length": 4, "threshold": threshold},
        sampler="threshold" if is_dynamic else "low_confidence",
        options={"threshold": threshold} if is_dynamic else _whole(steps * blocks),
    )


def _mdlm(steps: int, block: int, format: Format = A2D) -> Case:
    is_shifted = format is DREAM
    return Case(
        code="mdlm",
        theirs=public_decoding.mdlm,
        format=format,
        settings={"steps": steps, "block_size": block, **({"right_shift_logits": True} if is_shifted else {})},
        sampler="low_confidence",
        options={"num_steps": steps, "block_length": block},
    )


def _bd3lm(steps: int) -> Case:
    return Case(
        code="bd3lm",
        theirs=public_decoding.bd3lm,
        format=A2D_BLOCK,
        settings={"steps": steps, "block_size": 4},
        sampler="low_confidence",
        options={"num_steps": steps},
    )


def _fast_v2(threshold: float, format: Format = FAST_V2) -> Case:
    return Case(
        code="fast_v2",
        theirs=public_decoding.fast_dllm_v2,
        format=format,
        settings={"block_size": 4, "small_block_size": 4, "threshold": threshold},
        sampler="threshold",
        options={"threshold": threshold, "next_token_first": True},
    )


def _refusion(slot: float, token: float, blocks: int) -> Case:
    return Case(
        code="refusion",
        theirs=public_decoding.refusion,
        format=REFUSION,
        settings={"slot_size": 4, "serial_num_blocks": blocks, "slot_threshold": slot, "token_threshold": token},
        sampler="slots",
        options={
            "slot_threshold": slot,
            "token_threshold": token,
            "verification": True,
            "cache": "exact",
            **({"block_length": COLUMNS // blocks} if blocks > 1 else {}),
        },
    )


CASES = (
    llada({"steps": 32, "block_length": 32}, num_steps=32),
    llada({"steps": 12, "block_length": 32}, num_steps=12),
    llada({"steps": 16, "block_length": 8}, num_steps=16, block_length=8),
    llada({"steps": 16, "block_length": 32}, num_steps=16, is_batch=True),
    llada({"steps": 16, "block_length": 32, "cfg_scale": 0.5}, num_steps=16, guidance=0.5),
    llada({"steps": 16, "block_length": 32}, of=MOE, num_steps=16),
    _fast("generate", "none"),
    _fast("generate_with_prefix_cache", "prefix"),
    _fast("generate_with_dual_cache", "dual"),
    _fast("generate", "none", threshold=0.5),
    _fast("generate_with_prefix_cache", "prefix", threshold=0.5),
    _fast("generate_with_dual_cache", "dual", threshold=0.5),
    _dream("maskgit_plus", "low_confidence", 16),
    _dream("topk_margin", "margin", 16),
    _dream("entropy", "entropy", 16),
    _dream("entropy", "entropy", 32),
    _dream("maskgit_plus", "low_confidence", 16, is_batch=True),
    _mdlm(16, 32),
    _mdlm(16, 8),
    _mdlm(12, 32),
    _mdlm(16, 32, DREAM),
    _bd3lm(16),
    _bd3lm(32),
    _sdar(SDAR, 4),
    _sdar(SDAR, 2),
    _sdar(SDAR, 4, 0.5),
    _sdar(SDAR_TAIL, 2),
    _sdar(SDAR_TAIL, 4, 0.5),
    _llada2(LLADA2, 2, 2.0),
    _llada2(LLADA2, 4, 0.5),
    _llada2(LLADA2_TAIL, 2, 2.0),
    _llada2(LLADA2_TAIL, 4, 0.5),
    _fast_v2(0.9),
    _fast_v2(0.3),
    _fast_v2(0.3, FAST_V2_TAIL),
    _refusion(0.6, 0.3, 1),
    _refusion(0.6, 0.3, 4),
    _refusion(0.2, 0.1, 1),
    _refusion(0.9, 0.9, 2),
)
