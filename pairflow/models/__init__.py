"""The denoisers p_θ(x_1 | x_t): `ARCHITECTURES` is the registry and `build` its dispatcher.

Networks, their embeddings and their averaged weights; may import `spec` and `errors` of the library.
"""

import math
from collections.abc import Callable

from torch import nn

from pairflow.errors import SpecError
from pairflow.models.dit import Dit
from pairflow.models.unet import Unet
from pairflow.spec import ModelSpec

ImageShape = tuple[int, int, int]


def _build_dit(
    spec: ModelSpec, vocab_size: int, num_states: int, length: int, image_shape: ImageShape | None
) -> nn.Module:
    return Dit(spec, vocab_size=vocab_size, num_states=num_states, length=length)


def _build_unet(
    spec: ModelSpec, vocab_size: int, num_states: int, length: int, image_shape: ImageShape | None
) -> nn.Module:
    if image_shape is None:
        raise SpecError("model.architecture: 'unet' needs data with an image shape; use 'dit' for sequences")
    return Unet(spec, vocab_size=vocab_size, num_states=num_states, image_shape=image_shape)


ARCHITECTURES: dict[str, Callable[[ModelSpec, int, int, int, ImageShape | None], nn.Module]] = {
    "dit": _build_dit,
    "unet": _build_unet,
}


def build(
    spec: ModelSpec,
    *,
    vocab_size: int,
    length: int,
    image_shape: ImageShape | None = None,
    num_states: int | None = None,
) -> nn.Module:
    """The network of a spec, with weights drawn from torch's global generator.

    Args:
        spec: architecture and sizes.
        vocab_size: K, at least 2.
        length: D, at least 1.
        image_shape: (C, H, W) with C·H·W = D, for images.
        num_states: tokens that x_t can hold, `Process.num_states`: K, the default, or more, such as K + 1 with a mask.

    Returns:
        A module with forward(x_t: int64 [B, D], t: float [B]) -> logits [B, D, K]; its first prediction is
        uniform.

    Raises:
        SpecError: sizes that do not fit each other, or an image network without an image shape.
    """
    if vocab_size < 2 or length < 1:
        raise SpecError(f"model: got vocab_size {vocab_size} and length {length}, expected K ≥ 2 and D ≥ 1")
    num_states = vocab_size if num_states is None else num_states
    if num_states < vocab_size:
        raise SpecError(f"num_states: got {num_states}, expected at least the vocabulary's {vocab_size} tokens")
    if image_shape is not None and (len(image_shape) != 3 or math.prod(image_shape) != length):
        raise SpecError(f"image_shape: got {image_shape}, expected (C, H, W) with a product of D = {length}")
    return ARCHITECTURES[spec.architecture](spec, vocab_size, num_states, length, image_shape)


def count_parameters(model: nn.Module) -> int:
    """Number of weights that training moves, also of a model that is loaded to be sampled."""
    return sum(weight.numel() for weight in model.parameters())
