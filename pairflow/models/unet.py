"""A discrete U-Net for images of tokens, with K-way logits for every pixel and channel.

The backbone is that of DDPM (arXiv 2006.11239): residual blocks with group norm, attention at chosen
resolutions. Zero padding at the borders tells the convolutions where they are, so positions need no
embedding.
"""

import math

import torch
import torch.nn.functional as nnf
from torch import nn

from pairflow.errors import SpecError
from pairflow.models.embeddings import TimeEmbedding, intensity_features
from pairflow.models.passes import by_parts, norm_silu
from pairflow.spec import ModelSpec

_TOKEN_FEATURES = 16
_MAX_GROUPS = 32
_MIN_GROUP_CHANNELS = 4


class Unet(nn.Module):
    """Token images in, logits out.

    Tokens are embedded by a learned table that starts as smooth features of the intensity. Heights and widths
    that do not halve evenly are padded with zeros at the right and bottom, and the logits cropped. The K
    logits of a pixel and channel are the products of its feature vector, which starts at zero (a uniform
    prediction), with a learned [K, F] table that starts out smooth too: for K = 256 close intensities share
    what is learned, and the last convolution has C·F channels rather than C·K.

    Raises:
        SpecError: `num_heads` does not divide the channels where attention is used, or an attention resolution that
            the network does not have.
    """

    def __init__(self, spec: ModelSpec, *, vocab_size: int, num_states: int, image_shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.image_shape, self.length = image_shape, math.prod(image_shape)
        channels, height, width = image_shape
        factor = 2 ** (len(spec.channel_mults) - 1)
        self.padding = (0, -width % factor, 0, -height % factor)
        heights = [(height + self.padding[3]) // 2**level for level in range(len(spec.channel_mults))]
        _check_attention(spec, heights)

        token_features = min(vocab_size, _TOKEN_FEATURES)
        self.embedding = nn.Embedding(num_states, token_features)
        self.time = TimeEmbedding(spec.cond_size)
        self.conv_in = nn.Conv2d(channels * token_features, spec.hidden_size, 3, padding=1)

        widths = [spec.hidden_size * mult for mult in spec.channel_mults]
        here, skips = spec.hidden_size, [spec.hidden_size]
        self.down = nn.ModuleList()
        for level, (level_width, level_height) in enumerate(zip(widths, heights, strict=True)):
            for _ in range(spec.num_res_blocks):
                self.down.append(_Stage(here, level_width, level_height, spec))
                here = level_width
                skips.append(here)
            if level < len(widths) - 1:
                self.down.append(_Downsample(here))
                skips.append(here)
        self.middle = nn.ModuleList([_Stage(here, here, heights[-1], spec), _ResBlock(here, here, spec)])
        self.up = nn.ModuleList()
        for level in reversed(range(len(widths))):
            for _ in range(spec.num_res_blocks + 1):
                self.up.append(_Stage(here + skips.pop(), widths[level], heights[level], spec))
                here = widths[level]
            if level:
                self.up.append(_Upsample(here))
        self.norm_out = _group_norm(here)
        num_features = min(vocab_size, spec.hidden_size)
        self.conv_out = _zero_conv(here, channels * num_features)
        self.table = nn.Parameter(intensity_features(vocab_size, num_features))
        with torch.no_grad():
            # a mask is no intensity: it starts at zero, where no intensity is
            self.embedding.weight.zero_()
            self.embedding.weight[:vocab_size] = intensity_features(vocab_size, token_features)

    def forward(self, x_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """x_t int64 [B, D] (channel-major image), t float [B] -> logits of x_1 [B, D, K]."""
        _, height, width = self.image_shape
        return by_parts(self._logits, x_t, t, height * width * self.conv_in.out_channels)

    def _logits(self, x_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        B = len(x_t)
        channels, height, width = self.image_shape
        embedded = self.embedding(x_t).view(B, channels, height, width, -1)
        hidden = embedded.permute(0, 1, 4, 2, 3).flatten(1, 2)
        hidden = nnf.pad(hidden, self.padding).contiguous(memory_format=torch.channels_last)
        cond = nnf.silu(self.time(t))

        hidden = self.conv_in(hidden)
        skips = [hidden]
        for layer in self.down:
            hidden = layer(hidden, cond)
            skips.append(hidden)
        for layer in self.middle:
            hidden = layer(hidden, cond)
        for layer in self.up:
            if isinstance(layer, _Stage):
                hidden = torch.cat([hidden, skips.pop()], dim=1)
            hidden = layer(hidden, cond)
        features = self.conv_out(norm_silu(hidden, self.norm_out))[:, :, :height, :width]
        features = features.reshape(B, channels, -1, height * width).transpose(2, 3)
        return features.reshape(B, x_t.shape[1], -1) @ self.table.T


class _Stage(nn.Module):
    """A residual block, and attention where the spec asks for it at this resolution."""

    def __init__(self, in_channels: int, out_channels: int, height: int, spec: ModelSpec) -> None:
        super().__init__()
        self.block = _ResBlock(in_channels, out_channels, spec)
        use_attention = height in spec.attention_resolutions
        self.attention = _Attention(out_channels, spec.num_heads) if use_attention else None

    def forward(self, hidden: torch.Tensor, cond: torch.Tensor) -> torch.Tensor:
        hidden = self.block(hidden, cond)
        return hidden if self.attention is None else self.attention(hidden)


class _ResBlock(nn.Module):
    """Two convolutions; the time conditioning scales and shifts between them."""

    def __init__(self, in_channels: int, out_channels: int, spec: ModelSpec) -> None:
        super().__init__()
        self.dropout = spec.dropout
        self.norm_in = _group_norm(in_channels)
        self.conv_in = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.modulation = nn.Linear(spec.cond_size, 2 * out_channels)
        self.norm_out = _group_norm(out_channels)
        self.conv_out = _zero_conv(out_channels, out_channels)
        self.skip = nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else nn.Identity()

    def forward(self, hidden: torch.Tensor, cond: torch.Tensor) -> torch.Tensor:
        """hidden [B, in, H, W], cond [B, cond_size] -> [B, out, H, W]."""
        inner = self.conv_in(norm_silu(hidden, self.norm_in))
        scale, shift = self.modulation(cond).chunk(2, dim=1)
        inner = norm_silu(inner, self.norm_out, scale, shift)
        return self.skip(hidden) + self.conv_out(nnf.dropout(inner, self.dropout, self.training))


class _Attention(nn.Module):
    """Self-attention among the positions of an image, added to it."""

    def __init__(self, channels: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm = _group_norm(channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.project = nn.Linear(channels, channels)
        nn.init.zeros_(self.project.weight)
        nn.init.zeros_(self.project.bias)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        B, C, H, W = hidden.shape
        rows = self.norm(hidden).flatten(2).transpose(1, 2)
        qkv = self.qkv(rows).view(B, H * W, 3, self.num_heads, C // self.num_heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        attended = nnf.scaled_dot_product_attention(query, key, value).transpose(1, 2).reshape(B, H * W, C)
        return hidden + self.project(attended).transpose(1, 2).view(B, C, H, W)


class _Downsample(nn.Module):
    """Halves height and width."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, hidden: torch.Tensor, cond: torch.Tensor) -> torch.Tensor:
        return self.conv(hidden)


class _Upsample(nn.Module):
    """Doubles height and width."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, hidden: torch.Tensor, cond: torch.Tensor) -> torch.Tensor:
        return self.conv(nnf.interpolate(hidden, scale_factor=2, mode="nearest"))


def _group_norm(channels: int) -> nn.GroupNorm:
    """As many groups as divide the channels, up to 32, with at least four channels in each where that can be."""
    groups = _MAX_GROUPS
    while groups > 1 and (channels % groups or channels // groups < _MIN_GROUP_CHANNELS):
        groups //= 2
    return nn.GroupNorm(groups, channels)


def _zero_conv(in_channels: int, out_channels: int) -> nn.Conv2d:
    layer = nn.Conv2d(in_channels, out_channels, 3, padding=1)
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def _check_attention(spec: ModelSpec, heights: list[int]) -> None:
    """Every attention resolution must be one that the network has, and the heads must divide its channels."""
    for resolution in spec.attention_resolutions:
        if resolution not in heights:
            raise SpecError(
                f"model.attention_resolutions: got {resolution}, but this network's image heights are {heights}"
            )
        channels = spec.hidden_size * spec.channel_mults[heights.index(resolution)]
        if channels % spec.num_heads:
            raise SpecError(
                f"model.num_heads: got {spec.num_heads}, which does not divide the {channels} channels at "
                f"height {resolution}"
            )
