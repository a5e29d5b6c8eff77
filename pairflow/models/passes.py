"""What the networks compute between their matrix products, in fewer passes over memory than torch's operations take.

On a CPU they took two fifths to a half of a step (docs/operations.md, cost). The formulas are those of the operations
that they stand for, so results differ by rounding alone; on a GPU, where torch.compile fuses them, torch's are used.
What is here can be differentiated once.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as nnf
from torch import nn
from torch.autograd.function import once_differentiable

_GELU_RATE, _GELU_CUBE = 1.5957691216057308, 0.044715  # 2·√(2/π), and the coefficient of x³


_CACHED = 2**20  # float32 numbers of an activation, 4 MiB: about what caches hold of it between two operations


def by_parts(
    forward: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], x_t: torch.Tensor, t: torch.Tensor, cells: int
) -> torch.Tensor:
    """forward(x_t, t); where no gradient is asked for, on a CPU, of as many rows at a time as caches hold.

    Args:
        forward: x_t [B, …], t [B] -> [B, …], each row by itself.
        x_t: first argument.
        t: second argument.
        cells: numbers of the widest activation of a row.
    """
    rows = max(1, _CACHED // cells)
    if x_t.is_cuda or torch.is_grad_enabled() or len(x_t) <= rows:
        return forward(x_t, t)
    return torch.cat([forward(*part) for part in zip(x_t.split(rows), t.split(rows), strict=True)])


def norm_silu(
    hidden: torch.Tensor, norm: nn.GroupNorm, scale: torch.Tensor | None = None, shift: torch.Tensor | None = None
) -> torch.Tensor:
    """SiLU of a group norm, which `scale` and `shift` may modulate before: silu(norm(x)·(1 + scale) + shift).

    Args:
        hidden: x, float [B, C, H, W]; on a CPU best in channels-last memory, as the result is.
        norm: groups, ε, weight and bias.
        scale: [B, C]; None for no modulation.
        shift: [B, C], with `scale`.

    Returns:
        [B, C, H, W].
    """
    if hidden.is_cuda:
        normed = norm(hidden)
        if scale is not None and shift is not None:
            normed = normed * (1 + scale[:, :, None, None]) + shift[:, :, None, None]
        return nnf.silu(normed)
    if scale is None or shift is None:
        weight, bias = (each.expand(len(hidden), -1) for each in (norm.weight, norm.bias))
    else:
        weight, bias = norm.weight * (1 + scale), torch.addcmul(shift, norm.bias, 1 + scale)
    B, C, H, W = hidden.shape
    rows = hidden.permute(0, 2, 3, 1).reshape(B, H * W, C)  # no copy of channels-last memory
    result: torch.Tensor = _NormSilu.apply(rows, weight, bias, norm.num_groups, norm.eps)
    return result.view(B, H, W, C).permute(0, 3, 1, 2)


class _NormSilu(torch.autograd.Function):
    """silu(x̂·weight + bias) with x̂ = (x − μ)/σ over positions and a group's channels; weights of each sample."""

    @staticmethod
    def forward(
        ctx: Any, rows: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, groups: int, eps: float
    ) -> torch.Tensor:
        """rows [B, N, C], weight and bias [B, C] -> [B, N, C]."""
        B, N, C = rows.shape
        weight, bias = weight.reshape(B, groups, -1), bias.reshape(B, groups, -1)
        mean = _group_mean(rows.sum(1).view_as(weight), N)
        square = _group_mean((rows * rows).sum(1).view_as(weight), N)
        rate = torch.addcmul(square, mean, mean, value=-1).clamp_min_(0).add_(eps).rsqrt_()
        slope = rate * weight
        offset = torch.addcmul(bias, mean, slope, value=-1)
        normed = torch.addcmul(offset.view(B, 1, C), rows, slope.view(B, 1, C))
        if not any(ctx.needs_input_grad):
            return nnf.silu(normed, inplace=True)
        ctx.save_for_backward(rows, normed, weight, mean, rate, slope)
        return nnf.silu(normed)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        rows, normed, weight, mean, rate, slope = ctx.saved_tensors
        B, N, C = rows.shape
        grad = torch.ops.aten.silu_backward(grad, normed)
        to_bias = grad.sum(1).view_as(weight)
        to_weight = torch.addcmul((grad * rows).sum(1).view_as(weight), mean, to_bias, value=-1).mul_(rate)
        # x's gradient is (grad·weight − its group's mean − x̂ times the group's mean of grad·weight·x̂)/σ: linear in both
        along = -rate * rate * _group_mean(weight * to_weight, N)
        level = torch.addcmul(rate * _group_mean(weight * to_bias, N), mean, along).neg_()
        along, level = (each.expand_as(weight).reshape(B, 1, C) for each in (along, level))
        to_rows = torch.addcmul(level, grad, slope.view(B, 1, C)).addcmul_(rows, along)
        return to_rows, to_weight.view(B, C), to_bias.view(B, C), None, None


def _group_mean(sums: torch.Tensor, positions: int) -> torch.Tensor:
    """Means over positions and a group's channels, [B, groups, 1], from the sums of its channels [B, groups, c]."""
    return sums.sum(2, keepdim=True).mul_(1 / (positions * sums.shape[2]))


class Gelu(nn.Module):
    """GELU in its tanh form (arXiv 1606.08415, §2): x·½(1 + tanh u) = x·sigmoid(2u), u = √(2/π)·(x + 0.044715·x³)."""

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Any shape; the same."""
        if hidden.is_cuda:
            return nnf.gelu(hidden, approximate="tanh")
        result: torch.Tensor = _Gelu.apply(hidden)
        return result


class _Gelu(torch.autograd.Function):
    """A logistic function costs less than a tanh; what torch computes anew for the gradient is kept."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        gate = torch.addcmul(x.new_tensor(_GELU_RATE), x, x, value=_GELU_RATE * _GELU_CUBE).mul_(x).sigmoid_()
        if not any(ctx.needs_input_grad):
            return gate.mul_(x)
        result = x * gate
        ctx.save_for_backward(x, gate, result)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
        """grad·(s + x·s·(1 − s)·2u′) with s = sigmoid(2u)."""
        x, gate, result = ctx.saved_tensors
        slope = torch.addcmul(x.new_tensor(_GELU_RATE), x, x, value=3 * _GELU_RATE * _GELU_CUBE)
        rest = torch.addcmul(result, result, gate, value=-1)
        return torch.addcmul(gate, rest, slope, out=slope).mul_(grad)
