"""Rows of molecules in pieces that can be worked on anywhere, and put together again: the same for any cut.

    for piece in cut(files, column=None): results.append(prepare(piece, recipe))     # in any process, in any order
    rows = merge(results, ...)                                                       # in the order of the pieces

Who cuts reads the source, from front to back, and a piece carries its rows: reading is a few per cent of the work
(benchmarks/preparing.py), and what is cut so needs no disk that all nodes share, may be compressed, and may have quoted
fields with line ends in them.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pairflow.datasets.screening import Screened, Treatment, Verdict, screen_rows
from pairflow.datasets.smiles_files import iterate_smiles, kind_of
from pairflow.datasets.vocabulary import Vocabulary, tokenise
from pairflow.errors import DatasetError
from pairflow.memory import free_memory

PIECE_BYTES = 1 << 17
"""Of text, counted as characters: some 5,000 SMILES, a few tenths of a second's work."""
EXAMPLES = 3


@dataclass(frozen=True)
class Recipe:
    """How rows become tokens.

    Attributes:
        treatment: see `screen_rows`.
        length: D, with <bos> and <eos>.
    """

    treatment: Treatment
    length: int


@dataclass(frozen=True)
class Piece:
    """Consecutive rows of one file.

    Attributes:
        file: its number.
        name: of the file.
        rows: as `iterate_smiles` gives them.
        of_records: they are records of an SD file.
    """

    file: int
    name: str
    rows: Sequence[str]
    of_records: bool = False


@dataclass(frozen=True, eq=False)
class PreparedPiece:
    """What became of a piece.

    Attributes:
        file: number of the file that its rows are of.
        name: of the file.
        rows_read: rows of the piece.
        tokens: [m, D] of the rows that fit, ids of `vocab`.
        vocab: of these rows alone.
        dropped: reason -> number of rows.
        examples: reason -> (row in the piece, its text) of the first few.
    """

    file: int
    name: str
    rows_read: int
    tokens: np.ndarray
    vocab: Vocabulary
    dropped: dict[str, int]
    examples: dict[str, tuple[tuple[int, str], ...]]


@dataclass(frozen=True, eq=False)
class Merged:
    """All rows that fit, in their order.

    Attributes:
        tokens: [M, D], ids of `vocab`.
        vocab: of every row that fits.
        rows_read: rows of the source.
        dropped: reason -> number of rows.
        examples: reason -> the first few, each with its file and row.
        rows_by_file: rows that fit, by number of the file.
    """

    tokens: np.ndarray
    vocab: Vocabulary
    rows_read: int
    dropped: dict[str, int]
    examples: dict[str, tuple[str, ...]]
    rows_by_file: dict[int, int]


def cut(files: Sequence[Path], *, column: str | None, piece_bytes: int = PIECE_BYTES) -> Iterator[Piece]:
    """The rows of files, in pieces; read as they are asked for.

    Args:
        files: see `iterate_smiles`.
        column: see there.
        piece_bytes: characters of a piece, counting one more a row; a row is never cut.

    Raises:
        DatasetError: a file cannot be read.
    """
    for number, path in enumerate(files):
        records = kind_of(path) == "SDF"
        rows: list[str] = []
        size = 0
        for row in iterate_smiles(path, column=column):
            rows.append(row)
            size += len(row) + 1
            if size >= piece_bytes:
                yield Piece(number, path.name, rows, records)
                rows, size = [], 0
        yield Piece(number, path.name, rows, records)


def prepare(piece: Piece, recipe: Recipe, num_threads: int = 1) -> PreparedPiece:
    """Screens and tokenises rows: a pure function of piece and recipe."""
    screened = screen_rows(piece.rows, recipe.treatment, of_records=piece.of_records, num_threads=num_threads)
    return tokenised(screened, piece, recipe.length)


def tokenised(screened: Screened, piece: Piece, length: int) -> PreparedPiece:
    """Tokens of the rows that fit, and a count of the others, of rows that were screened."""
    fitting: list[list[str]] = []
    dropped: dict[str, int] = defaultdict(int)
    examples: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for number, (smiles, code) in enumerate(zip(screened.smiles, screened.verdicts.tolist(), strict=True)):
        tokens = tokenise(smiles) if code == Verdict.KEPT else None
        if tokens is not None and len(tokens) <= length - 2:
            fitting.append(tokens)
            continue
        if code != Verdict.KEPT:
            reason = Verdict(code).reason
        else:
            reason = "not tokenised" if tokens is None else f"longer than {length - 2} tokens"
        dropped[reason] += 1
        if len(examples[reason]) < EXAMPLES:
            examples[reason].append((number, smiles))
    vocab = Vocabulary.from_rows(fitting)
    return PreparedPiece(
        file=piece.file,
        name=piece.name,
        rows_read=len(screened.smiles),
        tokens=vocab.encode(fitting, length),
        vocab=vocab,
        dropped=dict(dropped),
        examples={reason: tuple(some) for reason, some in examples.items()},
    )


def merge(
    pieces: Iterable[PreparedPiece], length: int, *, on_piece: Callable[[PreparedPiece], None] = lambda _: None
) -> Merged:
    """Puts pieces together: ids of one vocabulary, rows numbered by file, examples the first of all.

    No more is held than the tokens, twice for a moment.

    Args:
        pieces: in the order in which they were cut.
        length: D.
        on_piece: is told of each as it comes.

    Raises:
        DatasetError: memory does not hold the tokens.
    """
    parts: list[tuple[np.ndarray, Vocabulary]] = []
    read: dict[int, int] = defaultdict(int)
    kept: dict[int, int] = defaultdict(int)
    dropped: dict[str, int] = defaultdict(int)
    examples: dict[str, list[str]] = defaultdict(list)
    for piece in pieces:
        for reason, count in piece.dropped.items():
            dropped[reason] += count
        for reason, some in piece.examples.items():
            said = [f"{piece.name} row {read[piece.file] + row}: {text!r}" for row, text in some]
            examples[reason] += said[: EXAMPLES - len(examples[reason])]
        read[piece.file] += piece.rows_read
        kept[piece.file] += len(piece.tokens)
        parts.append((piece.tokens, piece.vocab))
        on_piece(piece)
    vocab = Vocabulary.from_rows({vocab.tokens[3:] for _, vocab in parts})
    tokens = _allocate(sum(kept.values()), length, np.dtype(np.min_scalar_type(vocab.size - 1)))
    start = 0
    for number, (ids, own) in enumerate(parts):
        table = np.array([vocab.ids[token] for token in own.tokens], dtype=tokens.dtype)
        np.take(table, ids, out=tokens[start : start + len(ids)])
        start += len(ids)
        parts[number] = (ids[:0].copy(), own)  # what is copied is let go, so that little is held twice
    return Merged(
        tokens=tokens,
        vocab=vocab,
        rows_read=sum(read.values()),
        dropped=dict(sorted(dropped.items())),
        examples={reason: tuple(some) for reason, some in sorted(examples.items())},
        rows_by_file=dict(kept),
    )


def _allocate(num_rows: int, length: int, dtype: np.dtype) -> np.ndarray:
    check_memory(num_rows * length * dtype.itemsize, f"{num_rows:,} rows of {length} tokens")
    return np.empty((num_rows, length), dtype)


def check_memory(num_bytes: int, what: str) -> None:
    """Says that data do not fit before they are read, and not by being killed.

    Args:
        num_bytes: that will be held.
        what: holds them, for the message.

    Raises:
        DatasetError: this machine has not so much left.
    """
    left = free_memory()
    if num_bytes > left:
        raise DatasetError(
            f"{what} take {num_bytes / 2**30:,.1f} GiB of memory, and this machine has {left / 2**30:,.1f} GiB left; "
            "keep fewer rows (dataset.max_rows), or use a machine with more"
        )
