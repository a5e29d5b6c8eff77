"""A dataset's rows, prepared once: found in the store by what they were made of, or made there, by tasks if it is long.

What is kept never decides about content: the rows, their digests and the report are those of `pairflow.datasets.load`.
"""

import itertools
import logging
import os
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Any, cast

import numpy as np
from pydantic import JsonValue

import storage
from flows.cluster.protocol import ProgressLines
from flows.home.settings import Settings
from flows.results import PrepareResult
from pairflow import datasets
from pairflow.datasets import DatasetReport, Preparation, TokenDataset, Vocabulary
from pairflow.datasets.base import Kind, read_only
from pairflow.datasets.pieces import Piece, PreparedPiece, Recipe, check_memory, prepare
from pairflow.errors import (
    DatasetError,
    JobFailedError,
    ManifestVersionError,
    PairFlowError,
    ShardCorruptError,
    StoreError,
)
from pairflow.spec import DatasetSpec, PairsFormat
from storage import DatasetHeader, DatasetManifest, SourceRecord

_logger = logging.getLogger("pairflow.job")

IN_PROCESS = 4
"""Pieces of a source that are prepared in this process: one so short is done before a worker has begun."""
_MAX_RETRIES = 3
_SECONDS_BETWEEN_LINES = 10.0
_NAMES = {"train": False, "test": True}  # part -> held_out


def open_or_make(
    spec: DatasetSpec,
    settings: Settings,
    *,
    known_as: str | None = None,
    format: PairsFormat = "zarr",
    num_workers: int | None = None,
) -> tuple[TokenDataset, str, bool]:
    """A dataset, its fingerprint in the store, and whether it was there.

    Args:
        spec: which data.
        settings: which store, and where data lies.
        known_as: its fingerprint, where nothing has changed since it was computed.
        format: of what is written.
        num_workers: tasks at a time; default by the cluster's CPUs.

    Raises:
        DatasetError: the data cannot be found, downloaded, read, tokenised or split.
        StoreError: the store cannot be read; or it cannot be written, and the data is not there.
    """
    plan = datasets.prepare(spec, data_dir=settings.data_dir, progress=ProgressLines)
    fingerprint = known_as or plan.fingerprint()
    if (found := _open(storage.dataset_url(settings.store, fingerprint), plan)) is not None:
        _tell(found)
        return found, fingerprint, True
    return _make_and_keep(plan, settings, num_workers, format), plan.fingerprint(), False


def _tell(found: TokenDataset) -> None:
    """Says what reading the source would have said."""
    _logger.info("%s: %s", found.name, found.report.summary())
    for note in found.report.notes:
        _logger.warning("%s: %s", found.name, note)


def _open(url: str, plan: Preparation) -> TokenDataset | None:
    """What is kept there; None if nothing is, or nothing that can be used, which the log names."""
    try:
        manifest = storage.find_dataset(url)
        if manifest is None:
            return None
        needed = manifest.num_rows * manifest.length * np.dtype(manifest.dtype).itemsize
        check_memory(needed, f"the {manifest.num_rows:,} rows of {manifest.name}, prepared at {url},")
        found = dataset_of(manifest, storage.read_dataset(url, manifest))
    except (ShardCorruptError, ManifestVersionError) as error:
        _logger.warning("%s; it is made again now", error)
        storage.discard_dataset(url)
        return None
    # Where the same files lie now, not where they lay then.
    return replace(found, report=replace(found.report, source=plan.source.source, notes=plan.source.notes))


def dataset_of(manifest: DatasetManifest, columns: dict[str, np.ndarray]) -> TokenDataset:
    """Prepared data as the library has it."""
    held_out = columns["held_out"]
    splits = {name: np.flatnonzero(held_out == part).astype(np.int64) for name, part in _NAMES.items()}
    for rows in splits.values():
        rows.setflags(write=False)
    labels = columns.get("label")
    return TokenDataset(
        name=manifest.name,
        tokens=read_only(columns["tokens"]),
        vocab_size=manifest.vocab_size,
        kind=cast(Kind, manifest.data_kind),
        vocab=None if manifest.vocab is None else Vocabulary(manifest.vocab),
        image_shape=manifest.image_shape,
        labels=None if labels is None else read_only(labels),
        splits=splits,
        report=_report(manifest),
    )


def as_result(url: str, source: str, notes: tuple[str, ...]) -> PrepareResult:
    """Prepared data as a result; whether it was there, and what it took, is for the caller to say.

    Args:
        url: of data that is whole.
        source: where its files lie now.
        notes: what is to be known of them.

    Raises:
        StoreError: it is not there any more.
    """
    manifest = storage.find_dataset(url)
    if manifest is None:
        raise StoreError(f"the prepared data at {url} was removed meanwhile; run the same again")
    report = _report(manifest)
    return PrepareResult(
        url=url,
        fingerprint=manifest.fingerprint,
        format=manifest.format,
        source=source,
        rows_read=report.rows_read,
        rows_kept=report.rows_kept,
        dropped=report.dropped,
        examples=report.examples,
        notes=notes,
        splits=manifest.splits,
        digest=manifest.digest,
        digests=manifest.digests,
        length=manifest.length,
        vocab_size=manifest.vocab_size,
        vocab=manifest.vocab,
        skipped=False,
        seconds=0.0,
    )


def _report(manifest: DatasetManifest) -> DatasetReport:
    said: dict[str, Any] = dict(manifest.report)
    examples = {reason: tuple(some) for reason, some in said["examples"].items()}
    return DatasetReport(**(said | {"examples": examples, "notes": tuple(said["notes"])}))


def _header(plan: Preparation, made: TokenDataset, format: PairsFormat) -> DatasetHeader:
    parts = {name: made.part(name) for name, rows in made.splits.items() if len(rows)}
    report = cast(dict[str, JsonValue], {**asdict(made.report), "notes": list(made.report.notes)})
    report["examples"] = {reason: list(some) for reason, some in made.report.examples.items()}
    return DatasetHeader(
        fingerprint=plan.fingerprint(),
        format=format,
        name=made.name,
        data_kind=made.kind,
        num_rows=len(made),
        length=made.length,
        vocab_size=made.vocab_size,
        vocab=None if made.vocab is None else made.vocab.tokens,
        image_shape=made.image_shape,
        has_labels=made.labels is not None,
        shard_size=storage.shard_size_for(made.length, made.tokens.dtype.itemsize),
        digest=made.digest,
        splits={name: len(rows) for name, rows in made.splits.items()},
        digests={name: part.digest for name, part in parts.items()},
        spec=plan.spec.model_dump(mode="json"),
        files=tuple(SourceRecord(**asdict(each)) for each in plan.content),
        reader=plan.source.version,
        report=report,
    )


def _columns(made: TokenDataset) -> dict[str, np.ndarray]:
    held_out = np.zeros(len(made), bool)
    held_out[made.splits["test"]] = True
    return {"tokens": made.tokens, "held_out": held_out} | ({} if made.labels is None else {"label": made.labels})


def _make_and_keep(plan: Preparation, settings: Settings, num_workers: int | None, format: PairsFormat) -> TokenDataset:
    """A dataset that is not there; of all its rows where those are, or can be kept for the next choice of some."""
    made = None
    if (all_rows := plan.of_all_rows) is not None:
        base = _open(storage.dataset_url(settings.store, all_rows.fingerprint()), all_rows)
        if base is None:
            try:
                base = _make_and_keep(all_rows, settings, num_workers, format)
            except DatasetError as error:  # such as too few rows to be split as by default
                _logger.debug("not kept before rows are chosen: %s", error)
        made = None if base is None else plan.choose(base)
    if made is None:
        made = _make(plan, settings, num_workers)
    url = storage.dataset_url(settings.store, plan.fingerprint())
    storage.write_dataset(url, _header(plan, made, format), _columns(made))
    return made


def _make(plan: Preparation, settings: Settings, num_workers: int | None) -> TokenDataset:
    recipe = plan.recipe
    if recipe is None:
        return plan.load()
    pieces = plan.pieces()
    first = list(itertools.islice(pieces, IN_PROCESS + 1))
    if len(first) <= IN_PROCESS:
        num_threads = settings.threads_per_job or os.cpu_count() or 1
        return plan.assemble(prepare(piece, recipe, num_threads) for piece in first)
    results = in_tasks(itertools.chain(first, pieces), recipe, settings, num_workers)
    return plan.assemble(results, _Told(plan.spec.name))


class _Told:
    """Says now and then how far a source is read; how long it is shows at its end only."""

    def __init__(self, name: str) -> None:
        self._name, self._rows, self._began = name, 0, time.monotonic()
        self._said = self._began

    def __call__(self, piece: PreparedPiece) -> None:
        self._rows += piece.rows_read
        if (now := time.monotonic()) - self._said > _SECONDS_BETWEEN_LINES:
            self._said = now
            _logger.info("%s: %d rows read, %.0f rows/s", self._name, self._rows, self._rows / (now - self._began))


def in_tasks(
    pieces: Iterator[Piece], recipe: Recipe, settings: Settings, num_workers: int | None = None
) -> Iterator[PreparedPiece]:
    """Prepares pieces as Ray tasks of one CPU, and gives what comes of them in their order.

    Twice as many are in flight as the cluster has room for, so that no CPU waits; the next piece is read when one that
    was given makes room.

    Raises:
        PairFlowError: what reading or a task raised.
        JobFailedError: a worker died again and again.
    """
    import ray

    from flows.jobs.driver import connect

    connect()
    workers = num_workers or settings.num_workers
    in_flight = workers or 2 * max(1, int(ray.cluster_resources().get("CPU", 1)))
    task = ray.remote(prepare).options(num_cpus=1, max_retries=_MAX_RETRIES)
    running: deque[ray.ObjectRef] = deque()
    for piece in pieces:
        running.append(task.remote(piece, recipe))
        if len(running) >= in_flight:
            yield _result(running.popleft())
    while running:
        yield _result(running.popleft())


def _result(reference: Any) -> PreparedPiece:
    import ray

    try:
        found = cast(PreparedPiece, ray.get(reference))
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, PairFlowError):
            raise error.cause from None
        raise
    except ray.exceptions.RayError as error:
        raise JobFailedError(f"a task that prepares data was given up after {_MAX_RETRIES} retries: {error}") from error
    return replace(found, tokens=found.tokens.copy())  # else it stays in the object store, which is small
