"""Attention, rotary embedding and gated units, as ONNX 23 and 24 define them."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import fx

from qstudio.graph.torch_dtypes import TORCH_OF_ONNX
from qstudio.graph.translation import NodeView, translates


def _split_heads(x: torch.Tensor, heads: int) -> torch.Tensor:
    """[B, S, heads*D] -> [B, heads, S, D]; what has four axes already stays."""
    return x if x.dim() == 4 else x.reshape(x.shape[0], x.shape[1], heads, -1).transpose(1, 2)


def _bias(
    scores: torch.Tensor,
    mask: torch.Tensor | None,
    lengths: torch.Tensor | None,
    past: int,
    options: dict[str, Any],
) -> torch.Tensor:
    """Return what is added to the scores [B, H, Q, K]: mask, causal triangle, sliding window, key padding."""
    batch, _, queries, keys = scores.shape
    bias = torch.zeros(1, 1, queries, keys, dtype=scores.dtype, device=scores.device)
    if mask is not None:
        if mask.dtype == torch.bool:
            mask = torch.zeros_like(mask, dtype=scores.dtype).masked_fill(~mask, -math.inf)
        missing = keys - mask.shape[-1]
        if missing > 0:
            mask = torch.nn.functional.pad(mask, [0, missing], value=-math.inf)
        bias = bias + mask
    position = torch.arange(queries, device=scores.device).reshape(-1, 1)
    offset: Any = past
    if lengths is not None:
        offset = (lengths.to(torch.int64) - queries).reshape(-1, 1, 1, 1)
    ahead = torch.arange(keys, device=scores.device) - (position + offset)
    left, right = options.get("left_window_size", -1), options.get("right_window_size", -1)
    right = 0 if options.get("is_causal", 0) else right
    if left >= 0:
        bias = bias.masked_fill(ahead < -left, -math.inf)
    if right >= 0:
        bias = bias.masked_fill(ahead > right, -math.inf)
    if lengths is not None:
        padded = torch.arange(keys, device=scores.device) >= lengths.reshape(batch, 1, 1, 1)
        bias = bias.masked_fill(padded, -math.inf)
    return bias


def attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    mask: torch.Tensor | None,
    past_key: torch.Tensor | None,
    past_value: torch.Tensor | None,
    lengths: torch.Tensor | None,
    options: dict[str, Any],
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Compute ONNX's Attention.

    Args:
        q: [B, heads, Q, D] or [B, Q, heads*D].
        k: [B, kv_heads, K, D] or [B, K, kv_heads*D]; fewer key heads than query heads are shared by groups.
        v: As k, with its own D.
        mask: Broadcast to [B, heads, Q, K]; added, or where boolean chosen.
        past_key: Keys before k, [B, kv_heads, P, D].
        past_value: Values before v.
        lengths: [B] keys that are not padding.
        options: The operator's attributes.

    Returns:
        y in q's layout, the keys and values with the past, and the scores at the asked-for stage.
    """
    flat = q.dim() == 3
    q = _split_heads(q, options.get("q_num_heads", 1))
    k = _split_heads(k, options.get("kv_num_heads", 1))
    v = _split_heads(v, options.get("kv_num_heads", 1))
    past = 0
    if past_key is not None and past_value is not None:
        past = past_key.shape[2]
        k, v = torch.cat([past_key, k], 2), torch.cat([past_value, v], 2)
    groups = q.shape[1] // k.shape[1]
    keys, values = (k, v) if groups == 1 else (k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1))
    root = math.sqrt(options.get("scale") or 1.0 / math.sqrt(q.shape[-1]))
    scores = torch.matmul(q * root, (keys * root).transpose(-2, -1))
    mode = options.get("qk_matmul_output_mode", 0)
    stage = scores
    bias = _bias(scores, mask, lengths, past, options)
    cap = options.get("softcap", 0.0)
    stages = {0: stage}
    scores = torch.tanh(scores / cap) * cap if cap else scores
    stages[1] = scores
    scores = scores + bias
    stages[2] = scores
    precision = options.get("softmax_precision")
    work = scores if precision is None else scores.to(TORCH_OF_ONNX[precision])
    weights = torch.softmax(work, -1).to(q.dtype)
    # A query that may look at nothing has no probabilities; its output is zero, not NaN.
    blind = torch.isneginf(scores).all(-1, keepdim=True)
    weights = torch.where(blind, torch.zeros_like(weights), weights)
    stages[3] = weights
    y = torch.matmul(weights, values)
    if flat:
        y = y.transpose(1, 2).reshape(y.shape[0], y.shape[2], -1)
    return y, k, v, stages[mode]


@translates("Attention")
def translate_attention(view: NodeView) -> tuple[fx.Node | None, ...]:
    """Translate Attention."""
    names = (
        "left_window_size",
        "right_window_size",
        "q_num_heads",
        "kv_num_heads",
        "scale",
        "softcap",
        "is_causal",
        "qk_matmul_output_mode",
        "softmax_precision",
    )
    options = {n: view.attribute(n) for n in names if view.attribute(n) is not None}
    tensors = [view.tensor(i) for i in range(3)] + [view.optional(i) for i in range(3, 7)]
    return view.items(view.call(attention, *tensors, options))


def rotate(
    x: torch.Tensor,
    cosine: torch.Tensor,
    sine: torch.Tensor,
    positions: torch.Tensor | None,
    heads: int,
    width: int,
    interleaved: bool,
) -> torch.Tensor:
    """Compute ONNX's RotaryEmbedding on x [B, heads, S, D] or [B, S, heads*D]; `width` 0 rotates all of D."""
    flat = x.dim() == 3
    y = x.reshape(x.shape[0], x.shape[1], heads, -1) if flat else x.transpose(1, 2)
    width = width or y.shape[-1]
    turned, kept = y[..., :width], y[..., width:]
    if positions is not None:
        cosine, sine = cosine[positions.to(torch.int64)], sine[positions.to(torch.int64)]
    cosine, sine = cosine[..., : width // 2].unsqueeze(2), sine[..., : width // 2].unsqueeze(2)
    if interleaved:
        a, b = turned[..., 0::2], turned[..., 1::2]
        turned = torch.stack([cosine * a - sine * b, sine * a + cosine * b], -1).flatten(-2)
    else:
        a, b = turned.chunk(2, -1)
        turned = torch.cat([cosine * a - sine * b, sine * a + cosine * b], -1)
    y = torch.cat([turned, kept], -1)
    return y.reshape(x.shape) if flat else y.transpose(1, 2)


@translates("RotaryEmbedding")
def translate_rotary(view: NodeView) -> fx.Node:
    """Translate RotaryEmbedding."""
    return view.call(
        rotate,
        *[view.tensor(i) for i in range(3)],
        view.optional(3),
        view.attribute("num_heads", 1),
        view.attribute("rotary_embedding_dim", 0),
        bool(view.attribute("interleaved", 0)),
    )
