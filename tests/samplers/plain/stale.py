"""The approximate caches of Fast-dLLM (2505.22618) written plainly, without any cache.

A full forward over the new canvas in which every layer's keys and values at some positions are put back to what they
were in a full forward over an earlier canvas. Positions and rotary angles are the same in both.
"""

from __future__ import annotations

import torch

from dllm_rl.policies.tiny import TinyForPlans


def stale_logits(policy, prompts, old, new, is_stale, **options):
    """Logits of `new`, (b, l, v); positions `is_stale`, (t,) of [prompt, canvas], have the keys and values of `old`."""
    projections, kept = _projections(policy.model), {}

    def keep(module, args, output):
        kept[module] = output.clone()

    def put_back(module, args, output):
        output = output.clone()
        output[:, is_stale, projections[module] :] = kept[module][:, is_stale, projections[module] :]
        return output

    for canvas, hook in ((old, keep), (new, put_back)):
        handles = [module.register_forward_hook(hook) for module in projections]
        try:
            found = policy.logits(prompts, canvas, **options)
        finally:
            for handle in handles:
                handle.remove()
    return found


def threshold_loop(policy, prompts, *, block_length, keeps_suffix, threshold):
    """Greedy decoding of one row under the approximation: the canvas, and the number of steps of every block."""
    length, width = policy.facts.canvas_length, prompts.ids.shape[1]
    canvas, column, steps = policy.empty_canvas(1), torch.arange(policy.facts.canvas_length), []
    for start in range(0, length, block_length):
        end, old = min(start + block_length, length), canvas.clone()
        in_block = (column >= start) & (column < end)
        is_fed = in_block if keeps_suffix else column >= start
        is_stale = torch.cat([torch.ones(width, dtype=torch.bool), ~is_fed])
        steps.append(0)
        while (is_open := (canvas[0] == policy.mask_id) & in_block).any() and not _is_finished(policy, canvas[0]):
            is_first = not steps[-1]
            found = policy.logits(prompts, canvas) if is_first else stale_logits(policy, prompts, old, canvas, is_stale)
            p, token = found[0].double().softmax(-1).max(-1)
            chosen = is_open & ((p >= threshold) | (p == p[is_open].max()))
            canvas[0, chosen] = token[chosen]
            steps[-1] += 1
    return canvas, steps


def _is_finished(policy, row):
    ends = (row == policy.canvas.eos_id).nonzero().flatten().tolist()
    return bool(ends) and not (row[: ends[0]] == policy.mask_id).any()


def _projections(model):
    """Modules whose outputs are keys and values, and the feature from which on they are."""
    if isinstance(model, TinyForPlans):
        return {block.qkv: block.qkv.in_features for block in model.blocks}
    return {part: 0 for layer in model.model.layers for part in (layer.self_attn.k_proj, layer.self_attn.v_proj)}
