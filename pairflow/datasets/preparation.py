"""How a dataset becomes token rows, step by step: for who works on its pieces elsewhere, and keeps what comes of them.

    plan = datasets.prepare(spec)
    known_as = plan.fingerprint()                    # of the source's content and the spec, not of its place
    pieces = [prepare(piece, plan.recipe) for piece in plan.pieces()]
    dataset = plan.assemble(pieces)                  # equal to datasets.load(spec), for any cut

`datasets.load` is all of it in this process.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from pairflow.datasets.assembly import LoadedRows, assemble
from pairflow.datasets.base import DatasetInfo, TokenDataset
from pairflow.datasets.files import Sources, file_sha256, reading
from pairflow.datasets.molecules import Molecules
from pairflow.datasets.pieces import PIECE_BYTES, Piece, PreparedPiece, Recipe
from pairflow.errors import DatasetError
from pairflow.spec import DatasetSpec, canonical_json

_PLACES = ("path", "vocab_path")  # of a spec: what lies there counts, and not where


@dataclass(frozen=True)
class Whole:
    """Files that are read in one go: arrays and images, of which a row costs nothing to read.

    Attributes:
        files: whose content decides about the rows.
        load: reads them.
        version: of what makes rows of them.
        source: as the report calls the files.
        notes: what a reader of results must know.
    """

    files: tuple[Path, ...]
    load: Callable[[], LoadedRows]
    version: str
    source: str
    notes: tuple[str, ...] = ()

    def read(self, sources: Sources) -> LoadedRows:
        """The rows."""
        return self.load()


@dataclass(frozen=True)
class SourceFile:
    """A file that rows are made of.

    Attributes:
        name: without its folder.
        num_bytes: its size.
        sha256: of its bytes as they lie there, hex.
    """

    name: str
    num_bytes: int
    sha256: str


@dataclass(frozen=True)
class Preparation:
    """One dataset, found and not read yet.

    Attributes:
        spec: which data.
        info: of its kind.
        source: its files.
        sources: where they were looked for.
    """

    spec: DatasetSpec
    info: DatasetInfo
    source: Molecules | Whole
    sources: Sources

    @cached_property
    def content(self) -> tuple[SourceFile, ...]:
        """The files, hashed.

        Raises:
            DatasetError: one cannot be read.
        """
        return tuple(map(_described, self.source.files))

    def fingerprint(self) -> str:
        """SHA-256 (64 hex digits) of what decides about the dataset: the files' content and names, spec and reader."""
        spec = self.spec.model_dump(mode="json")
        about = {
            "format": "pairflow.prepared/1",
            "spec": {name: value for name, value in spec.items() if name not in _PLACES},
            "files": [[each.name, each.sha256] for each in self.content],
            "reader": self.source.version,
        }
        return hashlib.sha256(canonical_json(about).encode()).hexdigest()

    @property
    def recipe(self) -> Recipe | None:
        """What `pairflow.datasets.pieces.prepare` makes of a piece; None of data that are read in one go."""
        return self.source.recipe if isinstance(self.source, Molecules) else None

    def pieces(self, piece_bytes: int = PIECE_BYTES) -> Iterator[Piece]:
        """The rows, cut; of data that have a recipe.

        Raises:
            DatasetError: the source cannot be read, or was changed since it was hashed, or while it was read.
        """
        if not isinstance(self.source, Molecules):
            raise DatasetError(f"'{self.spec.name}' is read in one go; call load")
        hashed = self.content
        yield from self.source.pieces(piece_bytes)
        self._check_unchanged(hashed)

    def assemble(
        self, pieces: Iterable[PreparedPiece], on_piece: Callable[[PreparedPiece], None] = lambda _: None
    ) -> TokenDataset:
        """The dataset of prepared pieces, in the order in which they were cut.

        Raises:
            DatasetError: no row fits, a part would be empty, or memory does not hold the tokens.
        """
        if not isinstance(self.source, Molecules):
            raise DatasetError(f"'{self.spec.name}' is read in one go; call load")
        return assemble(self.source.rows(pieces, on_piece), self.spec, self.info)

    @property
    def of_all_rows(self) -> "Preparation | None":
        """The same rows before any are chosen or held out by the spec; None of a spec that does neither.

        Screening is of all rows, whatever the spec chooses: who has these need not read the source for another choice.
        """
        if not isinstance(self.source, Molecules):
            return None
        spec = self.spec.model_copy(update={"max_rows": None, "holdout": None, "split_seed": DatasetSpec().split_seed})
        return None if spec == self.spec else replace(self, spec=spec)

    def choose(self, rows: TokenDataset) -> TokenDataset:
        """The dataset, of the one that `of_all_rows` gives.

        Raises:
            DatasetError: a part would be empty.
        """
        if not isinstance(self.source, Molecules):
            raise DatasetError(f"'{self.spec.name}' is read in one go; call load")
        return assemble(self.source.chosen_from(rows), self.spec, self.info)

    def load(self) -> TokenDataset:
        """The dataset, read in this process.

        Raises:
            DatasetError: it cannot be read, tokenised or split.
        """
        rows = self.source.read(self.sources)
        if "content" in vars(self):  # somebody goes by it
            self._check_unchanged(self.content)
        return assemble(rows, self.spec, self.info)

    def _check_unchanged(self, hashed: tuple[SourceFile, ...]) -> None:
        for path, before in zip(self.source.files, hashed, strict=True):
            if (after := _described(path)) != before:
                raise DatasetError(
                    f"{path} was changed while it was read ({before.num_bytes:,} bytes before, {after.num_bytes:,} "
                    "after); wait until it is complete, and run again"
                )


def _described(path: Path) -> SourceFile:
    with reading(path):
        num_bytes = path.stat().st_size
    return SourceFile(path.name, num_bytes, file_sha256(path))
