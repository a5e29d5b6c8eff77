"""What every data set is once loaded: token rows, vocabulary, splits, and an account of what was dropped."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

import numpy as np

from pairflow.datasets.vocabulary import Vocabulary
from pairflow.errors import DatasetError
from pairflow.spec import canonical_json

Kind = Literal["molecules", "images", "tokens"]

MAX_LENGTH = 65_535
DIGEST_FORMAT = "pairflow.dataset/1"


@dataclass(frozen=True)
class DatasetInfo:
    """One line of `pairflow datasets`.

    Attributes:
        name: name in the registry.
        kind: what the tokens mean.
        length: D, or None where it is your data's.
        vocab_size: K, or None where it is derived from the data.
        description: one line.
        origin: where the rows come from.
        files: of data that is not packaged: any of these, as published or as copied, means that nothing is downloaded.
    """

    name: str
    kind: Kind
    length: int | None
    vocab_size: int | None
    description: str
    origin: str
    files: tuple[str, ...] = ()


@dataclass(frozen=True)
class DatasetReport:
    """Where the rows came from and what became of each: rows_read = rows_kept + the sum of `dropped`.

    Attributes:
        source: file, URL or package that the rows were read from.
        rows_read: rows in the source.
        rows_kept: rows in the data set.
        dropped: reason → number of rows.
        examples: reason → the first few dropped rows, each with its row number in the source.
        notes: what a reader of results must know, such as that only a part of the published data was there.
    """

    source: str
    rows_read: int
    rows_kept: int
    dropped: dict[str, int] = field(default_factory=dict)
    examples: dict[str, tuple[str, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def summary(self) -> str:
        """One line for logs and terminals."""
        line = f"{self.rows_kept:,} of {self.rows_read:,} rows kept from {self.source}"
        if self.dropped:
            line += "; dropped: " + ", ".join(f"{count:,} {reason}" for reason, count in self.dropped.items())
        return line


@dataclass(frozen=True, eq=False)
class TokenDataset:
    """Token rows [M, D] with everything needed to couple, train on and read them.

    Attributes:
        name: registry name; `name/part` for one part.
        tokens: [M, D], the smallest of uint8, uint16 and uint32 that holds K − 1; C order, read-only.
        vocab_size: K.
        kind: what the tokens mean.
        vocab: the K token strings, where there are any.
        image_shape: (C, H, W) of images; the tokens are their channel-major flattening.
        labels: [M] uint8 class labels, where the data has them; read-only.
        splits: "train" and "test" → int64 rows, ascending; empty for a part.
        report: what was read, kept and dropped, and why.
    """

    name: str
    tokens: np.ndarray
    vocab_size: int
    kind: Kind
    vocab: Vocabulary | None
    image_shape: tuple[int, int, int] | None
    labels: np.ndarray | None
    splits: Mapping[str, np.ndarray]
    report: DatasetReport

    def __len__(self) -> int:
        """M, the number of rows."""
        return self.tokens.shape[0]

    @property
    def length(self) -> int:
        """D, the number of tokens in a row."""
        return int(self.tokens.shape[1])

    @cached_property
    def digest(self) -> str:
        """SHA-256 (64 hex digits) of the content: shape, K, vocabulary, format version and the tokens' bytes.

        Neither the name nor the file's format nor this machine's byte order enters: equal rows have equal digests.
        """
        header = {
            "format": DIGEST_FORMAT,
            "shape": list(self.tokens.shape),
            "vocab_size": self.vocab_size,
            "vocabulary": None if self.vocab is None else list(self.vocab.tokens),
        }
        little_endian = np.ascontiguousarray(self.tokens, dtype=self.tokens.dtype.newbyteorder("<"))
        content = hashlib.sha256(canonical_json(header).encode() + b"\n")
        content.update(little_endian.data)
        return content.hexdigest()

    def part(self, name: str) -> "TokenDataset":
        """The rows of one split, in their order, as a data set of its own with its own digest.

        Raises:
            DatasetError: there is no such split.
        """
        if name not in self.splits:
            known = ", ".join(self.splits) or "none: this is a part already"
            raise DatasetError(f"data set '{self.name}' has no part '{name}'; parts: {known}")
        rows = self.splits[name]
        return replace(
            self,
            name=f"{self.name}/{name}",
            tokens=read_only(self.tokens[rows]),
            labels=None if self.labels is None else read_only(self.labels[rows]),
            splits={},
        )

    def decode(self, tokens: np.ndarray) -> list[str]:
        """Text of molecule rows [B, D], B strings: see `Vocabulary.decode` for rows without <bos> or <eos>.

        Raises:
            DatasetError: this is no data set of molecules, or a token is not in the vocabulary.
        """
        if self.kind != "molecules" or self.vocab is None:
            raise DatasetError(f"only molecules decode to text, '{self.name}' holds {self.kind}")
        return self.vocab.decode(tokens)


def read_only(array: np.ndarray) -> np.ndarray:
    """The same array, C order, with writing switched off."""
    array = np.ascontiguousarray(array)
    array.setflags(write=False)
    return array


def pack_tokens(values: np.ndarray, vocab_size: int, *, source: str) -> np.ndarray:
    """Checks token rows and stores them in the smallest unsigned type that holds K − 1.

    Args:
        values: [M, D] integers from 0 to K − 1, any integer type and memory order.
        vocab_size: K.
        source: what the rows were read from, for messages.

    Returns:
        [M, D] uint8, uint16 or uint32; C order, read-only. A copy unless `values` is all that already.

    Raises:
        DatasetError: the values are no integers or no matrix, there are none, D is over 65,535, or a token lies
            outside 0 … K − 1 (the message names the token, its row and its column).
    """
    if values.dtype.kind not in "iu":
        nan = " with NaN" if values.dtype.kind == "f" and bool(np.isnan(values).any()) else ""
        raise DatasetError(
            f"{source}: tokens must be integers, got {values.dtype}{nan}; "
            "map the values to 0 … K − 1 and save them as unsigned integers"
        )
    if values.ndim != 2:
        raise DatasetError(
            f"{source}: tokens must be a matrix [M, D], got {values.ndim} dimension(s), shape "
            f"{list(values.shape)}; reshape to one row a sample"
        )
    num_rows, length = values.shape
    if num_rows == 0 or length == 0:
        raise DatasetError(f"{source}: the data set is empty, shape {[num_rows, length]}; expected rows [M, D]")
    if length > MAX_LENGTH:
        raise DatasetError(f"{source}: rows of {length:,} tokens, at most {MAX_LENGTH:,} are supported")
    smallest, largest = int(values.min()), int(values.max())
    if smallest < 0:
        row, column = np.unravel_index(int(values.argmin()), values.shape)
        raise DatasetError(
            f"{source}: token {smallest} at row {row}, column {column} is negative; expected 0 … {vocab_size - 1}"
        )
    if largest >= vocab_size:
        row, column = np.unravel_index(int(values.argmax()), values.shape)
        raise DatasetError(
            f"{source}: token {largest} at row {row}, column {column} does not fit K = {vocab_size}; "
            f"expected 0 … {vocab_size - 1}, so the vocabulary needs at least {largest + 1} tokens"
        )
    return read_only(values.astype(np.min_scalar_type(vocab_size - 1), order="C", copy=False))
