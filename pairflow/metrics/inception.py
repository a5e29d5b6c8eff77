"""The Inception network of FID, with the weights that the literature's figures are made with.

It is Inception v3 (arXiv 1512.00567) as the FID of Heusel et al. (arXiv 1706.08500) uses it: 1,008 classes, average
pooling that leaves the padding out, and max pooling in the last block. Layers are named as in the file of weights,
which is that of pytorch-fid. Nothing is downloaded: the file is read from the data folder where it lies there.
"""

import hashlib
import pickle
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as nnf
from torch import nn

from pairflow.errors import DatasetError
from pairflow.metrics.extras import INCEPTION, inception_weights

ORIGIN = f"https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/{INCEPTION}"
NUM_FEATURES, NUM_CLASSES = 2048, 1008
_SIDE = 299  # pixels
_SHA256_START = "6726825d"


class _Conv(nn.Module):
    """Convolution without bias, batch norm with fixed statistics, ReLU."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int | tuple[int, int] = 1,
        *,
        stride: int = 1,
        padding: int | tuple[int, int] = 0,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=1e-3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.bn(self.conv(x)).relu()


class _Mixed(nn.Module):
    """Branches side by side, and a pooled one; their channels one after the other.

    Args:
        branches: names of a branch's layers in their order; "a+b" stands for two layers of the same input.
        pool: "average" and "max" keep the size and go through the layer `branch_pool`; "halve" does neither.
        layers: by name.
    """

    def __init__(self, branches: tuple[tuple[str, ...], ...], pool: str, **layers: _Conv) -> None:
        super().__init__()
        self._branches, self._pool = branches, pool
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = []
        for branch in self._branches:
            y = x
            for names in branch:
                y = torch.cat([self.get_submodule(name)(y) for name in names.split("+")], dim=1)
            parts.append(y)
        if self._pool == "halve":
            return torch.cat([*parts, nnf.max_pool2d(x, 3, stride=2)], dim=1)
        if self._pool == "max":
            pooled = nnf.max_pool2d(x, 3, stride=1, padding=1)
        else:
            pooled = nnf.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)
        return torch.cat([*parts, self.get_submodule("branch_pool")(pooled)], dim=1)


def _wide(inputs: int, pooled: int) -> _Mixed:
    """35×35: 1×1, 5×5 and a double 3×3."""
    return _Mixed(
        (("branch1x1",), ("branch5x5_1", "branch5x5_2"), ("branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3")),
        "average",
        branch1x1=_Conv(inputs, 64),
        branch5x5_1=_Conv(inputs, 48),
        branch5x5_2=_Conv(48, 64, 5, padding=2),
        branch3x3dbl_1=_Conv(inputs, 64),
        branch3x3dbl_2=_Conv(64, 96, 3, padding=1),
        branch3x3dbl_3=_Conv(96, 96, 3, padding=1),
        branch_pool=_Conv(inputs, pooled),
    )


def _to_17() -> _Mixed:
    """35×35 to 17×17."""
    return _Mixed(
        (("branch3x3",), ("branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3")),
        "halve",
        branch3x3=_Conv(288, 384, 3, stride=2),
        branch3x3dbl_1=_Conv(288, 64),
        branch3x3dbl_2=_Conv(64, 96, 3, padding=1),
        branch3x3dbl_3=_Conv(96, 96, 3, stride=2),
    )


def _factorised(width: int) -> _Mixed:
    """17×17: 7×7 as 1×7 and 7×1, once and twice."""
    row, column = partial(_Conv, kernel=(1, 7), padding=(0, 3)), partial(_Conv, kernel=(7, 1), padding=(3, 0))
    return _Mixed(
        (
            ("branch1x1",),
            ("branch7x7_1", "branch7x7_2", "branch7x7_3"),
            ("branch7x7dbl_1", "branch7x7dbl_2", "branch7x7dbl_3", "branch7x7dbl_4", "branch7x7dbl_5"),
        ),
        "average",
        branch1x1=_Conv(768, 192),
        branch7x7_1=_Conv(768, width),
        branch7x7_2=row(width, width),
        branch7x7_3=column(width, 192),
        branch7x7dbl_1=_Conv(768, width),
        branch7x7dbl_2=column(width, width),
        branch7x7dbl_3=row(width, width),
        branch7x7dbl_4=column(width, width),
        branch7x7dbl_5=row(width, 192),
        branch_pool=_Conv(768, 192),
    )


def _to_8() -> _Mixed:
    """17×17 to 8×8."""
    return _Mixed(
        (("branch3x3_1", "branch3x3_2"), ("branch7x7x3_1", "branch7x7x3_2", "branch7x7x3_3", "branch7x7x3_4")),
        "halve",
        branch3x3_1=_Conv(768, 192),
        branch3x3_2=_Conv(192, 320, 3, stride=2),
        branch7x7x3_1=_Conv(768, 192),
        branch7x7x3_2=_Conv(192, 192, (1, 7), padding=(0, 3)),
        branch7x7x3_3=_Conv(192, 192, (7, 1), padding=(3, 0)),
        branch7x7x3_4=_Conv(192, 192, 3, stride=2),
    )


def _forked(inputs: int, pool: str) -> _Mixed:
    """8×8: 3×3 as 1×3 beside 3×1."""
    row, column = partial(_Conv, kernel=(1, 3), padding=(0, 1)), partial(_Conv, kernel=(3, 1), padding=(1, 0))
    return _Mixed(
        (
            ("branch1x1",),
            ("branch3x3_1", "branch3x3_2a+branch3x3_2b"),
            ("branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3a+branch3x3dbl_3b"),
        ),
        pool,
        branch1x1=_Conv(inputs, 320),
        branch3x3_1=_Conv(inputs, 384),
        branch3x3_2a=row(384, 384),
        branch3x3_2b=column(384, 384),
        branch3x3dbl_1=_Conv(inputs, 448),
        branch3x3dbl_2=_Conv(448, 384, 3, padding=1),
        branch3x3dbl_3a=row(384, 384),
        branch3x3dbl_3b=column(384, 384),
        branch_pool=_Conv(inputs, 192),
    )


class Inception(nn.Module):
    """The network; `load` gives it its weights."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = _Conv(3, 32, 3, stride=2)
        self.Conv2d_2a_3x3 = _Conv(32, 32, 3)
        self.Conv2d_2b_3x3 = _Conv(32, 64, 3, padding=1)
        self.Conv2d_3b_1x1 = _Conv(64, 80)
        self.Conv2d_4a_3x3 = _Conv(80, 192, 3)
        self.Mixed_5b, self.Mixed_5c, self.Mixed_5d = _wide(192, 32), _wide(256, 64), _wide(288, 64)
        self.Mixed_6a = _to_17()
        self.Mixed_6b, self.Mixed_6c = _factorised(128), _factorised(160)
        self.Mixed_6d, self.Mixed_6e = _factorised(160), _factorised(192)
        self.Mixed_7a = _to_8()
        self.Mixed_7b, self.Mixed_7c = _forked(1280, "average"), _forked(2048, "max")
        self.fc = nn.Linear(NUM_FEATURES, NUM_CLASSES)

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """Images [N, 3, H, W] in [−1, 1], enlarged to 299×299 bilinearly -> features [N, 2048]."""
        x = nnf.interpolate(images, (_SIDE, _SIDE), mode="bilinear", align_corners=False)
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = nnf.max_pool2d(x, 3, stride=2)
        x = nnf.max_pool2d(self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x)), 3, stride=2)
        for block in (self.Mixed_5b, self.Mixed_5c, self.Mixed_5d, self.Mixed_6a, self.Mixed_6b):
            x = block(x)
        for block in (self.Mixed_6c, self.Mixed_6d, self.Mixed_6e, self.Mixed_7a, self.Mixed_7b, self.Mixed_7c):
            x = block(x)
        return x.mean(dim=(2, 3))

    def logits(self, features: torch.Tensor) -> torch.Tensor:
        """Class logits [N, 1008] of features, without the bias, as the Inception Score's first code has them."""
        return features @ self.fc.weight.T


def where_from() -> str:
    """Where the weights come from, in a sentence for messages."""
    return f"put {ORIGIN} into PAIRFLOW_DATA_DIR"


def load(data_dir: Path | None = None) -> Inception:
    """The network with the weights of the data folder, in evaluation mode.

    Raises:
        DatasetError: the file is not there, or it is another or a damaged one.
    """
    path = inception_weights(data_dir)
    if path is None:
        raise DatasetError(f"FID and the Inception Score need Inception's weights, which are not here; {where_from()}")
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if not digest.startswith(_SHA256_START):
        raise DatasetError(
            f"{path}: its SHA-256 begins with {digest[:8]}, expected {_SHA256_START}: it is damaged or another file; "
            f"{where_from()}"
        )
    network = Inception()
    try:
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except (RuntimeError, pickle.UnpicklingError, EOFError, KeyError, TypeError, AttributeError) as error:
        first = str(error).strip().partition("\n")[0]
        raise DatasetError(f"{path} holds no weights of FID's Inception: {first}; {where_from()}") from None
    return network.eval().requires_grad_(False)
