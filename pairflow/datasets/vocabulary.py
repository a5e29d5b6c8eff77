"""A vocabulary of token strings, and SMILES text as its tokens: our own tokeniser, exact in both directions."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np

from pairflow.errors import DatasetError

# A bracket atom is one token, with its isotope, chirality (@, @@), hydrogens and charge. Two letters come before
# one. Outside brackets only the organic subset may stand (OpenSMILES, section 3.1.5). -> and <- are RDKit's dative
# bonds.
_SMILES_TOKEN = re.compile(r"\[[^\[\]]+\]|Br|Cl|%\d\d|%\(\d+\)|->|<-|[BCNOPSFI]|[bcnops]|\d|[-=#$:/\\~.()*]", re.ASCII)


def tokenise(smiles: str) -> list[str] | None:
    """Tokens of a SMILES string, or None where some character belongs to no token.

    Joining the tokens always gives the string back.
    """
    tokens = _SMILES_TOKEN.findall(smiles)
    return tokens if "".join(tokens) == smiles else None


@dataclass(frozen=True)
class Vocabulary:
    """K different token strings; a token's id is its place.

    Attributes:
        tokens: the strings, id 0 first.
    """

    bos: ClassVar[str] = "<bos>"
    eos: ClassVar[str] = "<eos>"
    pad: ClassVar[str] = "<pad>"

    tokens: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(self.ids) != len(self.tokens):
            repeated = next(token for i, token in enumerate(self.tokens) if token in self.tokens[:i])
            raise DatasetError(f"a vocabulary's tokens must differ, {repeated!r} stands in it more than once")

    @classmethod
    def from_rows(cls, rows: Iterable[Sequence[str]]) -> "Vocabulary":
        """The specials, then every token that occurs, in code point order: the same for any order of the rows."""
        return cls((cls.bos, cls.eos, cls.pad, *sorted({token for row in rows for token in row})))

    @property
    def size(self) -> int:
        """K."""
        return len(self.tokens)

    @cached_property
    def ids(self) -> dict[str, int]:
        """Token → id."""
        return {token: index for index, token in enumerate(self.tokens)}

    def index(self, token: str) -> int:
        """Id of a token.

        Raises:
            DatasetError: it is not in the vocabulary.
        """
        if token not in self.ids:
            raise DatasetError(f"token {token!r} is not among the vocabulary's {self.size} tokens")
        return self.ids[token]

    def encode(self, rows: Sequence[Sequence[str]], length: int) -> np.ndarray:
        """Rows of tokens as `<bos> tokens <eos> <pad> …`.

        Args:
            rows: B rows of token strings.
            length: D.

        Returns:
            [B, D] of the smallest unsigned type that holds K − 1.

        Raises:
            DatasetError: a token is not in the vocabulary, or a row has more than D − 2 tokens; with the row.
        """
        bos, eos, pad = (self.index(special) for special in (self.bos, self.eos, self.pad))
        encoded = np.full((len(rows), length), pad, dtype=np.min_scalar_type(self.size - 1))
        for number, row in enumerate(rows):
            if len(row) > length - 2:
                raise DatasetError(
                    f"row {number} has {len(row)} tokens, at most {length - 2} fit between <bos> and <eos> "
                    f"in D = {length}"
                )
            try:
                encoded[number, : len(row) + 2] = [bos, *map(self.ids.__getitem__, row), eos]
            except KeyError as missing:
                raise DatasetError(
                    f"row {number}: token {missing} is not among the vocabulary's {self.size} tokens; "
                    "encode with the vocabulary of data that has it"
                ) from None
        return encoded

    def decode(self, tokens: np.ndarray) -> list[str]:
        """Text between the first <bos> and the first <eos> after it, for rows [B, D].

        A row without one of the two decodes to "". A special that a model put between them stays visible in
        the text, as in "C<pad>C". No reader of SMILES takes either, so both count as invalid.

        Raises:
            DatasetError: the array is no matrix of integers, or a token is not in the vocabulary.
        """
        tokens = np.asarray(tokens)
        if tokens.ndim != 2 or tokens.dtype.kind not in "iu":
            raise DatasetError(
                f"rows to decode must be integers [B, D], got {tokens.dtype} of shape {list(tokens.shape)}"
            )
        if tokens.size and (tokens.min() < 0 or tokens.max() >= self.size):
            raise DatasetError(
                f"rows to decode hold tokens {tokens.min()} … {tokens.max()}, expected 0 … {self.size - 1}"
            )
        bos, eos = self.index(self.bos), self.index(self.eos)
        return [self._text(row, bos, eos) for row in tokens.tolist()]

    def _text(self, row: list[int], bos: int, eos: int) -> str:
        try:
            start = row.index(bos) + 1
            stop = row.index(eos, start)
        except ValueError:
            return ""
        return "".join(self.tokens[token] for token in row[start:stop])
