"""Modules of torch with more than one linear map, written out in functions, so that each map gets feedback of its own.

Each takes the module and what it was called with, and computes what the module's forward does. Vaswani et al.,
"Attention Is All You Need", 2017, https://arxiv.org/abs/1706.03762.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from targetprop.utils.errors import UserError


def attention(
    layer: nn.MultiheadAttention,
    query: Any,
    key: Any,
    value: Any,
    key_padding_mask: Any = None,
    need_weights: bool = True,
    attn_mask: Any = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
) -> tuple[Any, None]:
    """The output, and no attention weights: what a network makes of these is not supported.

    Raises:
        UserError: an option of the layer that is not.
    """
    if layer.bias_k is not None or layer.add_zero_attn:
        raise UserError("MultiheadAttention with add_bias_kv or add_zero_attn is not supported: leave them out.")
    if is_causal and attn_mask is None:
        raise UserError("MultiheadAttention needs attn_mask where is_causal=True, which is but a hint.")
    q, k, v = _projected(layer, query, key, value)
    if not layer.batch_first:
        q, k, v = (each.transpose(0, 1) for each in (q, k, v))
    q, k, v = (each.unflatten(-1, (layer.num_heads, -1)).transpose(1, 2) for each in (q, k, v))
    dropout = layer.dropout if layer.training else 0.0
    y = F.scaled_dot_product_attention(q, k, v, _mask(attn_mask, key_padding_mask, q), dropout)
    y = y.transpose(1, 2).flatten(2)
    if not layer.batch_first:
        y = y.transpose(0, 1)
    return layer.out_proj(y), None


def _projected(layer: nn.MultiheadAttention, query: Any, key: Any, value: Any) -> tuple[Any, Any, Any]:
    """Queries, keys and values: by one map if they are of one tensor, else by three."""
    size, bias = layer.embed_dim, layer.in_proj_bias
    if layer._qkv_same_embed_dim and query is key is value:
        projected = F.linear(query, layer.in_proj_weight, bias)
        q, k, v = (projected[..., i * size : (i + 1) * size] for i in range(3))
        return q, k, v
    slices = [slice(i * size, (i + 1) * size) for i in range(3)]
    if layer._qkv_same_embed_dim:
        weights = [layer.in_proj_weight[each] for each in slices]
    else:
        weights = [layer.q_proj_weight, layer.k_proj_weight, layer.v_proj_weight]
    biases = [None if bias is None else bias[each] for each in slices]
    q, k, v = (F.linear(x, w, b) for x, w, b in zip((query, key, value), weights, biases, strict=True))
    return q, k, v


def _mask(attn_mask: Any, key_padding_mask: Any, q: Any) -> Any:
    """One mask that is added to the scores."""
    whole = None if attn_mask is None else call(additive, attn_mask, q)
    if key_padding_mask is not None:
        padding = call(additive, key_padding_mask, q)[:, None, None, :]
        whole = padding if whole is None else whole + padding
    return whole


def additive(mask: Tensor, like: Tensor) -> Tensor:
    """A mask to be added to scores: where one of booleans is True is left out."""
    if mask.dtype != torch.bool:
        return mask.to(like.dtype)
    return torch.zeros_like(mask, dtype=like.dtype).masked_fill(mask, float("-inf"))


def call(function: Callable[..., Any], *args: Any) -> Any:
    """A function whose inside is not traced."""
    proxy = next(each for each in args if isinstance(each, fx.Proxy))
    return proxy.tracer.create_proxy("call_function", function, args, {})


def encoder_layer(
    layer: nn.TransformerEncoderLayer,
    src: Any,
    src_mask: Any = None,
    src_key_padding_mask: Any = None,
    is_causal: bool = False,
) -> Any:
    """Without the shortcuts that the module takes in evaluation, which compute the same."""
    x = src
    if layer.norm_first:
        x = x + layer._sa_block(layer.norm1(x), src_mask, src_key_padding_mask, is_causal=is_causal)
        return x + layer._ff_block(layer.norm2(x))
    x = layer.norm1(x + layer._sa_block(x, src_mask, src_key_padding_mask, is_causal=is_causal))
    return layer.norm2(x + layer._ff_block(x))


def encoder(
    layer: nn.TransformerEncoder, src: Any, mask: Any = None, src_key_padding_mask: Any = None, is_causal: Any = None
) -> Any:
    """The layers in turn."""
    for each in layer.layers:
        src = each(src, src_mask=mask, src_key_padding_mask=src_key_padding_mask, is_causal=bool(is_causal))
    return src if layer.norm is None else layer.norm(src)


def rnn_cell(layer: nn.RNNCell, x: Any, h: Any = None) -> Any:
    """Elman, "Finding Structure in Time", 1990."""
    u = F.linear(x, layer.weight_ih, layer.bias_ih)
    h = _zeros(layer, x) if h is None else h
    u = u + F.linear(h, layer.weight_hh, layer.bias_hh)
    return torch.tanh(u) if layer.nonlinearity == "tanh" else torch.relu(u)


def gru_cell(layer: nn.GRUCell, x: Any, h: Any = None) -> Any:
    """Cho et al., "Learning Phrase Representations using RNN Encoder-Decoder", 2014, https://arxiv.org/abs/1406.1078."""
    size, h = layer.hidden_size, _zeros(layer, x) if h is None else h
    of_x, of_h = F.linear(x, layer.weight_ih, layer.bias_ih), F.linear(h, layer.weight_hh, layer.bias_hh)
    (r, z, n), (hr, hz, hn) = ([each[..., i * size : (i + 1) * size] for i in range(3)] for each in (of_x, of_h))
    z = torch.sigmoid(z + hz)
    return (1 - z) * torch.tanh(n + torch.sigmoid(r + hr) * hn) + z * h


def lstm_cell(layer: nn.LSTMCell, x: Any, state: Any = None) -> tuple[Any, Any]:
    """Hochreiter and Schmidhuber, "Long Short-Term Memory", 1997."""
    size, (h, c) = layer.hidden_size, (_zeros(layer, x),) * 2 if state is None else state
    u = F.linear(x, layer.weight_ih, layer.bias_ih) + F.linear(h, layer.weight_hh, layer.bias_hh)
    i, f, g, o = (u[..., i * size : (i + 1) * size] for i in range(4))
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


def _zeros(layer: nn.RNNCellBase, x: Any) -> Any:
    return x.new_zeros(x.size(0), layer.hidden_size)


EXPANSIONS: Mapping[type[nn.Module], Callable[..., Any]] = {
    nn.MultiheadAttention: attention,
    nn.TransformerEncoderLayer: encoder_layer,
    nn.TransformerEncoder: encoder,
    nn.RNNCell: rnn_cell,
    nn.GRUCell: gru_cell,
    nn.LSTMCell: lstm_cell,
}
"""By type, of which a subclass with methods of its own is none."""
