"""What is known of data without reading them: the record that the last job which read them left in this home.

A job reads; whoever only asks whether its work is done already takes the digests from here. The record holds for as
long as `pairflow.datasets.identity` says the same: see there what counts as a change.
"""

from pathlib import Path

from flows.home import kept_results
from flows.home.settings import Settings
from pairflow import datasets
from pairflow.datasets import TokenDataset
from pairflow.spec import DatasetSpec, Spec, fingerprint


class PartFacts(Spec):
    """A part of a dataset, as far as fingerprints and comparisons need it; the names are those of `TokenDataset`."""

    name: str
    digest: str
    num_rows: int
    length: int
    vocab_size: int
    kind: str
    image_shape: tuple[int, int, int] | None
    tokens: tuple[str, ...] | None
    """The token strings, where there are any."""

    @classmethod
    def of(cls, part: TokenDataset) -> "PartFacts":
        """What is to be known of a part that was read."""
        return cls(
            name=part.name,
            digest=part.digest,
            num_rows=len(part),
            length=part.length,
            vocab_size=part.vocab_size,
            kind=part.kind,
            image_shape=part.image_shape,
            tokens=None if part.vocab is None else part.vocab.tokens,
        )


class DataFacts(Spec):
    """A dataset that was read."""

    spec: DatasetSpec
    train: PartFacts
    test: PartFacts | None
    """The rows held out, if there are any."""
    summary: str
    """How many rows were read, kept and dropped, of which source."""
    source: str = ""
    """Where the rows were read from; of what an earlier release noted, nothing."""
    notes: tuple[str, ...]
    """What a reader of results must know."""


class _Record(Spec):
    identity: str
    facts: DataFacts
    prepared: str | None = None
    """Fingerprint under which a store has the rows, see `flows.jobs.prepared_data`."""


def identity(spec: DatasetSpec, settings: Settings) -> str | None:
    """Of data as they lie now; None where that cannot be said."""
    return datasets.identity(spec, data_dir=settings.data_dir)


def recall(spec: DatasetSpec, settings: Settings) -> DataFacts | None:
    """What is known of data that have not changed since; None if they have, or nobody has read them here."""
    record = _record(spec, identity(spec, settings), settings)
    return None if record is None else record.facts


def prepared(spec: DatasetSpec, now: str | None, settings: Settings) -> str | None:
    """By which fingerprint a store may have the rows of data whose identity is `now`; None: hash them."""
    record = _record(spec, now, settings)
    return None if record is None else record.prepared


def _record(spec: DatasetSpec, now: str | None, settings: Settings) -> _Record | None:
    record = kept_results.read(_path(spec, settings), _Record)
    return None if record is None or record.facts.spec != spec or record.identity != now else record


def note(facts: DataFacts, prepared_as: str | None, before: str | None, settings: Settings) -> None:
    """Leaves what was read, if the data did not change meanwhile; where it cannot be written, the next one reads.

    Args:
        facts: of the data.
        prepared_as: their fingerprint in a store.
        before: `identity` as it was before they were read.
        settings: whose home it is.
    """
    if before is None or before != identity(facts.spec, settings):
        return
    kept_results.try_to_write(_path(facts.spec, settings), _Record(identity=before, facts=facts, prepared=prepared_as))


def _path(spec: DatasetSpec, settings: Settings) -> Path:
    return settings.known_data_dir / f"{spec.name}-{fingerprint(spec)[:16]}.json"
