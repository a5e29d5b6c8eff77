"""The diffusion transformer (DiT, arXiv 2212.09748, as used by MDLM, UDLM and Duo) over token sequences."""

import torch
import torch.nn.functional as nnf
from torch import nn

from pairflow.models.embeddings import TimeEmbedding
from pairflow.models.passes import Gelu, by_parts
from pairflow.spec import ModelSpec

_ROTARY_BASE = 10_000.0
_MLP_RATIO = 4
_EMBEDDING_STD = 0.02


class Dit(nn.Module):
    """Transformer with adaLN-zero time conditioning and rotary positions.

    Rotary positions are relative. A string's <bos> anchors them; images and plain token rows have no such anchor, so a
    learned embedding of each position is added unless the spec says otherwise.

    The last layer starts at zero: the initial prediction is uniform over the vocabulary.
    """

    def __init__(self, spec: ModelSpec, *, vocab_size: int, num_states: int, length: int) -> None:
        super().__init__()
        self.length = length
        self.embedding = nn.Embedding(num_states, spec.hidden_size)
        nn.init.normal_(self.embedding.weight, std=_EMBEDDING_STD)
        self.positions = (
            nn.Parameter(_EMBEDDING_STD * torch.randn(length, spec.hidden_size)) if spec.absolute_positions else None
        )
        self.time = TimeEmbedding(spec.cond_size)
        self.blocks = nn.ModuleList(_Block(spec) for _ in range(spec.num_layers))
        self.final_modulation = _zero_linear(spec.cond_size, 2 * spec.hidden_size)
        self.head = _zero_linear(spec.hidden_size, vocab_size)
        cos, sin = _rotary_tables(length, spec.hidden_size // spec.num_heads)
        self.register_buffer("rotary_cos", cos, persistent=False)
        self.register_buffer("rotary_sin", sin, persistent=False)

    def forward(self, x_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """x_t int64 [B, D], t float [B] -> logits of x_1 [B, D, K]."""
        return by_parts(self._logits, x_t, t, x_t.shape[1] * _MLP_RATIO * self.embedding.embedding_dim)

    def _logits(self, x_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        hidden = self.embedding(x_t)
        if self.positions is not None:
            hidden = hidden + self.positions
        cond = nnf.silu(self.time(t))
        for block in self.blocks:
            hidden = block(hidden, cond, self.rotary_cos, self.rotary_sin)
        shift, scale = self.final_modulation(cond)[:, None].chunk(2, dim=-1)
        return self.head(_modulate(hidden, shift, scale))


class _Block(nn.Module):
    """Self-attention and a perceptron, each scaled, shifted and gated by the time conditioning."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        width = spec.hidden_size
        self.num_heads = spec.num_heads
        self.dropout = spec.dropout
        self.modulation = _zero_linear(spec.cond_size, 6 * width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.project = nn.Linear(width, width, bias=False)
        self.mlp = nn.Sequential(
            nn.Linear(width, _MLP_RATIO * width),
            Gelu(),
            nn.Linear(_MLP_RATIO * width, width),
        )

    def forward(self, hidden: torch.Tensor, cond: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        """hidden [B, D, width], cond [B, cond_size] -> [B, D, width]."""
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = self.modulation(cond)[:, None].chunk(6, dim=-1)
        attended = self._attend(_modulate(hidden, shift_a, scale_a), cos, sin)
        hidden = torch.addcmul(hidden, gate_a, nnf.dropout(attended, self.dropout, self.training))
        mixed = self.mlp(_modulate(hidden, shift_m, scale_m))
        return torch.addcmul(hidden, gate_m, nnf.dropout(mixed, self.dropout, self.training))

    def _attend(self, hidden: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        B, D, width = hidden.shape
        qkv = self.qkv(hidden) if hidden.is_cuda else nnf.linear(hidden, self._interleaved())
        query_key, value = qkv.view(B, D, 3, self.num_heads, width // self.num_heads).split((2, 1), dim=2)
        query, key = _rotate(query_key, cos, sin).unbind(2)
        query, key, value = (each.transpose(1, 2) for each in (query, key, value.squeeze(2)))
        attended = nnf.scaled_dot_product_attention(query, key, value)
        return self.project(attended.transpose(1, 2).reshape(B, D, width))

    def _interleaved(self) -> torch.Tensor:
        """The weight of queries, keys and values with the halves of a query's and a key's features in turns.

        The product of a query and a key does not depend on their features' order, and two that lie side by side are
        rotated as one complex number.
        """
        width = self.qkv.weight.shape[1]
        halves = self.qkv.weight[: 2 * width].view(2 * self.num_heads, 2, -1, width)
        return torch.cat([halves.transpose(1, 2).reshape(2 * width, width), self.qkv.weight[2 * width :]])


def _zero_linear(in_features: int, out_features: int) -> nn.Linear:
    layer = nn.Linear(in_features, out_features)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def _modulate(hidden: torch.Tensor, shift: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Layer norm with the scale and shift that the time conditioning asks for."""
    return torch.addcmul(shift, nnf.layer_norm(hidden, hidden.shape[-1:]), 1 + scale)


def _rotary_tables(length: int, head_size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines and sines of the rotation angles (RoFormer, arXiv 2104.09864), each [D, head_size // 2]."""
    rates = _ROTARY_BASE ** (-torch.arange(0, head_size, 2, dtype=torch.float64) / head_size)
    angles = torch.arange(length, dtype=torch.float64)[:, None] * rates
    return angles.cos().float(), angles.sin().float()


def _rotate(heads: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotates a head's features, [B, D, 2, heads, head_size], by its position's angles: the two halves, or pairs."""
    cos, sin = cos[:, None, None], sin[:, None, None]
    if not heads.is_cuda:
        pairs = torch.view_as_complex(heads.unflatten(-1, (-1, 2)))
        return torch.view_as_real(pairs * torch.complex(cos, sin)).flatten(-2)
    first, second = heads.float().chunk(2, dim=-1)
    rotated = torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)
    return rotated.to(heads.dtype)
