"""The networks' own operations against the formulas in torch's operations and, for gradients, finite differences."""

import pytest
import torch
import torch.nn.functional as nnf

from pairflow.models.dit import _rotate
from pairflow.models.passes import Gelu, by_parts, norm_silu


def drawn(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def group_norm(channels, groups):
    norm = torch.nn.GroupNorm(groups, channels, dtype=torch.float64)
    norm.weight.data, norm.bias.data = drawn(channels, seed=1), drawn(channels, seed=2)
    return norm


@pytest.mark.parametrize("modulated", [False, True])
@pytest.mark.parametrize("channels_last", [False, True])
def test_a_modulated_norm_is_the_formula_and_so_is_its_gradient(modulated, channels_last):
    norm, hidden = group_norm(6, 3), drawn(2, 6, 2, 3)
    if channels_last:
        hidden = hidden.contiguous(memory_format=torch.channels_last)
    scale, shift = (drawn(2, 6, seed=3), drawn(2, 6, seed=4)) if modulated else (None, None)
    expected = nnf.group_norm(hidden, 3, norm.weight, norm.bias, norm.eps)
    if scale is not None and shift is not None:
        expected = expected * (1 + scale[:, :, None, None]) + shift[:, :, None, None]
    torch.testing.assert_close(norm_silu(hidden, norm, scale, shift), nnf.silu(expected))
    with torch.no_grad():
        torch.testing.assert_close(norm_silu(hidden, norm.requires_grad_(False), scale, shift), nnf.silu(expected))
    inputs = [each.requires_grad_() for each in (hidden, scale, shift) if each is not None]
    assert torch.autograd.gradcheck(lambda *given: norm_silu(given[0], norm.requires_grad_(), *given[1:]), inputs)


def test_the_weights_of_a_norm_have_the_formulas_gradients():
    hidden, norm = drawn(4, 8, 3, 3), group_norm(8, 2)
    ways = (lambda: nnf.silu(norm(hidden)), lambda: norm_silu(hidden, norm))
    ours, torchs = (
        [*torch.autograd.grad((way() * drawn(4, 8, 3, 3, seed=5)).sum(), norm.parameters())] for way in ways
    )
    torch.testing.assert_close(ours, torchs)


def test_gelu_is_torchs_and_so_is_its_gradient():
    x = torch.linspace(-30, 30, 601, dtype=torch.float64)
    torch.testing.assert_close(Gelu()(x), nnf.gelu(x, approximate="tanh"))
    assert torch.autograd.gradcheck(Gelu(), x[::20].clone().requires_grad_())


def test_neighbours_are_rotated_by_their_positions_angles():
    heads, angles = drawn(2, 5, 2, 3, 4), drawn(5, 2, seed=1)
    turned = _rotate(heads, angles.cos(), angles.sin())
    for pair in range(2):
        angle = angles[:, pair]
        matrix = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], -1).view(5, 2, 2)
        expected = torch.einsum("dij,bdkhj->bdkhi", matrix, heads[..., 2 * pair : 2 * pair + 2])
        torch.testing.assert_close(turned[..., 2 * pair : 2 * pair + 2], expected)


def test_rows_are_cut_only_where_no_gradient_is_asked_for():
    seen: list[int] = []

    def forward(x, t):
        seen.append(len(x))
        return x * t[:, None]

    x, t = drawn(7, 3), drawn(7, seed=1)
    whole = by_parts(forward, x, t, 2**19)
    with torch.no_grad():
        assert torch.equal(by_parts(forward, x, t, 2**19), whole)
        by_parts(forward, x, t, 2**30)
    assert seen == [7, 2, 2, 2, 1, *[1] * 7]
