"""Networks of shapes without numbers, on torch's device `meta`, for who must know sizes before they cost memory."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch.overrides import TorchFunctionMode


@contextlib.contextmanager
def shapes_alone() -> Iterator[None]:
    """Networks that are built within this block have no numbers, and take no memory for any."""
    with torch.device("meta"), _NoArithmetic():
        yield


class _NoArithmetic(TorchFunctionMode):
    """Answers the elementwise operations of constructors, `arange` and `cat`, with a tensor of the shape of theirs.

    On `meta` torch has them in Python, and those load torch._dynamo: 1.3 s of a core for every process that loads a
    model. What is not named here is torch's, and right all the same.
    """

    _IN_PLACE = (torch.Tensor.normal_, torch.nn.init.normal_)
    _ELEMENTWISE = (
        *(torch.Tensor.mul, torch.Tensor.div, torch.Tensor.neg, torch.Tensor.__rpow__),
        *(torch.Tensor.cos, torch.Tensor.sin, torch.exp),
    )

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        if func in self._IN_PLACE:
            return args[0] if args else given["tensor"]
        if func in self._ELEMENTWISE:
            tensors = [each for each in args if torch.is_tensor(each)]
            shape = torch.broadcast_shapes(*(each.shape for each in tensors))
            kind = tensors[0].dtype
            return torch.empty(shape, dtype=kind if kind.is_floating_point else torch.get_default_dtype())
        if func is torch.arange and all(isinstance(each, int) for each in args):
            return torch.empty(len(range(*args)), dtype=given.get("dtype", torch.int64))
        if func is torch.cat and given.keys() == {"dim"}:
            (parts,), dim = args, given["dim"]
            length = sum(each.shape[dim] for each in parts)
            return parts[0].new_empty(torch.Size((*parts[0].shape[:dim], length, *parts[0].shape[dim:][1:])))
        return func(*args, **given)
