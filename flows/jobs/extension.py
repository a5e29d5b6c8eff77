"""Pairs taken over from a coupling of earlier data (`--extend`): only rows that were not in it are walked.

This is an approximation. The posterior of a row is over all data (docs/method.md §2), so that one row more may change
every pair; the pairs taken over keep the posterior over the data of their time. Exact pairs need a whole new coupling.
"""

import functools
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from pydantic import JsonValue

import storage
from flows.lineage.provenance import EARLIER_PAIRS
from pairflow.coupling import Coupled
from pairflow.datasets import TokenDataset
from pairflow.errors import SpecError, StoreError
from pairflow.spec import CouplingSpec
from storage import ShardPlan

NOT_EXTENDED = (
    "coupling 'assignment' cannot extend earlier pairs: a new row changes with whom every row of its block is matched; "
    "couple the data in full, which takes seconds, without --extend"
)


@dataclass(frozen=True, eq=False)
class Earlier:
    """Pairs of earlier data, and what they have for rows of today.

    Attributes:
        pairs: the earlier ones, whole.
        donors: [M] int64, by row of today the earlier row with the same tokens; −1 where there is none.
    """

    pairs: storage.Pairs
    donors: np.ndarray

    @classmethod
    def of(cls, url: str, train: TokenDataset, spec: CouplingSpec, engine_version: str) -> Self:
        """What stored pairs have for a training part that is to be coupled so.

        Raises:
            StoreError: there are no whole pairs at `url`.
            SpecError: they were coupled otherwise, or have another vocabulary or length.
        """
        pairs = storage.open_pairs(url)
        check_alike(pairs, train, spec, engine_version)
        return cls(pairs, donors(pairs.target[: _num_targets(pairs)], train.tokens))

    @property
    def document(self) -> dict[str, JsonValue]:
        """For the manifest: by these it is found, and known to be the same, wherever the store lies."""
        manifest = self.pairs.manifest
        return {"fingerprint": manifest.fingerprint, "content_sha256": manifest.content_sha256}

    @property
    def num_new(self) -> int:
        """Rows of today that have to be walked."""
        return int((self.donors < 0).sum())

    def spec_of_new(self, spec: CouplingSpec) -> CouplingSpec:
        """How rows of today are walked: `spec` with a seed of their own.

        Draws are keyed by row numbers, which rows of today have anew: with the same seed, a walk could repeat the draws
        of a pair that is taken over.
        """
        content = f"{spec.seed}/{self.pairs.manifest.content_sha256}"
        seed = int.from_bytes(hashlib.sha256(content.encode()).digest()[:8], "big") >> 1
        return spec.model_copy(update={"seed": seed})

    def part(self, shard: ShardPlan) -> "TakenOver":
        """For the pairs of one shard; pair n is row n mod M with its source number n div M, then as today."""
        pairs = np.arange(shard.start, shard.stop, dtype=np.int64)
        replicas, rows = np.divmod(pairs, len(self.donors))
        donors = self.donors[rows]
        return TakenOver(self.pairs.url, np.where(donors < 0, -1, donors + replicas * _num_targets(self.pairs)))


@dataclass(frozen=True, eq=False)
class TakenOver:
    """What one shard takes over.

    Attributes:
        url: of the earlier pairs.
        donors: [B] int64, the number of the earlier pair by pair; −1 where it is to be walked.
    """

    url: str
    donors: np.ndarray

    def couple(self, target: np.ndarray, walk: Callable[[np.ndarray], Coupled]) -> Coupled:
        """Sources of `target` [B, D]: those of `walk` for the rows that it is called with, the others as they were.

        Raises:
            StoreError: the earlier pairs are not those any more that the donors were found in.
        """
        source, num_scans = np.empty_like(target), np.zeros(len(target), np.int64)
        new, old = np.flatnonzero(self.donors < 0), np.flatnonzero(self.donors >= 0)
        if len(new):
            walked = walk(new)
            source[new], num_scans[new] = walked.source, walked.num_scans
        if len(old):
            earlier = _open(self.url)
            if not np.array_equal(earlier.target[self.donors[old]], target[old]):
                raise StoreError(f"the pairs at {self.url} have changed while they were extended; start again")
            source[old] = earlier.source[self.donors[old]]
        return Coupled(source, num_scans)


def check_alike(pairs: storage.Pairs, train: TokenDataset, spec: CouplingSpec, engine_version: str) -> None:
    """Pairs can be extended by what is coupled like them.

    Raises:
        SpecError: they differ in more than their data; says in what.
    """
    if spec.kind == "assignment":
        raise SpecError(NOT_EXTENDED)
    manifest = pairs.manifest
    wanted: list[tuple[str, Any, Any]] = [
        ("length", manifest.length, train.length),
        ("vocab_size", manifest.vocab_size, train.vocab_size),
        ("vocabulary", manifest.vocab, None if train.vocab is None else train.vocab.tokens),
        ("engine", manifest.engine, engine_version),
    ]
    before, now = {**manifest.spec}, spec.model_dump(mode="json")
    before.pop(EARLIER_PAIRS, None)
    wanted += [(f"coupling.{name}", before.get(name), now.get(name)) for name in {**before, **now}]
    for name, got, expected in wanted:
        if got != expected:
            shown = "" if name == "vocabulary" else f" is {got} and it would be {expected} now"
            raise SpecError(
                f"the pairs at {pairs.url} cannot be extended: their {name}{shown or ' is another'}; couple this data "
                "in full, without --extend"
            )


def donors(earlier: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """By row of `rows` [M, D] the number of the row of `earlier` [E, D] with the same tokens, or −1; [M] int64.

    Of rows that are there several times, the second takes the second one's, and so on.
    """
    import pandas as pd

    both = np.ascontiguousarray(np.concatenate([earlier.astype(rows.dtype, copy=False), rows]))
    _, known = np.unique(both.view(f"V{both.dtype.itemsize * both.shape[1]}").ravel(), return_inverse=True)
    there, wanted = pd.DataFrame({"row": known[: len(earlier)]}), pd.DataFrame({"row": known[len(earlier) :]})
    for each in (there, wanted):
        each["copy"] = each.groupby("row").cumcount()
    there["donor"] = np.arange(len(there))
    found = wanted.merge(there, on=["row", "copy"], how="left")["donor"]
    return found.fillna(-1).to_numpy(np.int64)


def _num_targets(pairs: storage.Pairs) -> int:
    """M of the earlier data: pairs M and beyond are further sources of the same rows."""
    return pairs.manifest.num_rows // pairs.manifest.sources_per_target


@functools.lru_cache(maxsize=1)
def _open(url: str) -> storage.Pairs:
    """The earlier pairs; a worker that makes many shards reads their manifest once."""
    return storage.open_pairs(url)
