"""`pairflow verify`: every hash again, and with --repair every file as it was."""

import json
import sys
from collections.abc import Callable
from typing import Any

import storage
from flows.home.settings import Settings
from flows.lineage.provenance import EARLIER_PAIRS, extended_by
from flows.parameters import PairParameters, PrepareParameters
from pairflow import datasets
from pairflow.errors import SpecError, StoreError
from pairflow.spec import parse
from storage import Restoration, VerifyReport


def verify(url: str, remake: Callable[[PairParameters], Any] | None, *, as_json: bool) -> bool:
    """Whether every file of stored pairs is what its hash says, at the end; names those that are not.

    Args:
        url: of the pairs.
        remake: runs the flow `pair`, to make bad shards again; None to repair nothing.
        as_json: prints one JSON object instead of text.
    """
    report = storage.verify_pairs(url, progress=sys.stderr.isatty())
    done = None
    if not report.ok and remake is not None:
        if not as_json:
            _complain(report)
        done = storage.restore_pairs(url)
        if done.bad_shards:
            remake(_as_they_were_made(done))
        report = storage.verify_pairs(url, progress=sys.stderr.isatty())
    if as_json:
        bad = [{"index": each.index, "reason": each.reason, "path": each.path} for each in report.bad]
        document: dict[str, Any] = {"url": report.url, "num_shards": report.num_shards, "ok": report.ok, "bad": bad}
        if done is not None:
            document |= {"restored": done.restored, "made_again": done.bad_shards, "lost": done.lost}
        print(json.dumps(document))
    else:
        _tell(report, done)
    return report.ok


def verify_data(url: str, remake: Callable[[PrepareParameters], Any] | None, *, as_json: bool) -> bool:
    """Whether every file of prepared data is what its hash says, at the end; names those that are not.

    Args:
        url: of the data.
        remake: runs the flow `prepare`, to make them again; None to repair nothing.
        as_json: prints one JSON object instead of text.
    """
    report = storage.verify_dataset(url)
    if not report.ok and remake is not None:
        if not as_json:
            _complain(report, "the prepared data")
        again = _as_it_was_prepared(url)
        storage.discard_dataset(url)
        remake(again)
        report = storage.verify_dataset(url)
    if as_json:
        bad = [{"reason": each.reason, "path": each.path} for each in report.bad]
        print(json.dumps({"url": report.url, "ok": report.ok, "bad": bad}))
    elif report.ok:
        print(f"every file is whole: {report.url}")
    else:
        _complain(report, "the prepared data")
        remedy = "" if remake is not None else "; `pairflow verify --repair` makes them again"
        print(f"error: {len(report.bad)} files of {report.url} are damaged{remedy}", file=sys.stderr)
    return report.ok


def _as_it_was_prepared(url: str) -> PrepareParameters:
    """The request that prepares the same data where it lies.

    Raises:
        StoreError: nothing readable says what it was; or it would not be prepared again from what its source is now.
        DatasetError: its source cannot be found.
    """
    place, header = storage.parse_dataset_url(url), storage.find_dataset_header(url)
    if place is None or header is None:
        raise StoreError(
            f"nothing at {url} says of what data it was; use `pairflow prepare` on that data, or remove the folder"
        )
    again = parse(PrepareParameters, {"dataset": header.spec, "store": place.store, "format": header.format})
    plan = datasets.prepare(again.dataset, data_dir=Settings.read().data_dir, progress=False)
    if plan.fingerprint() != header.fingerprint:
        raise StoreError(
            f"{plan.source.source} is not what {url} was prepared from any more, so what is damaged there cannot be "
            "made again, and nothing is changed; put the source back as it was, or `pairflow prepare` what it is now"
        )
    return again


def _tell(report: VerifyReport, done: Restoration | None) -> None:
    if done is not None:
        for path in done.restored:
            print(f"put back {path}")
        for index in done.bad_shards:
            print(f"made shard {index} again")
        for lost in done.lost:
            print(f"warning: lost with {lost}", file=sys.stderr)
    if report.ok:
        print(f"all {report.num_shards} shards are whole: {report.url}")
        return
    _complain(report)
    remedy = "" if done is not None else "; `pairflow verify --repair` makes them again"
    print(f"error: {len(report.bad)} files of {report.url} are damaged{remedy}", file=sys.stderr)


def _complain(report: VerifyReport, whole: str = "the coupling") -> None:
    for each in report.bad:
        what = whole if each.index is None else f"shard {each.index}"
        print(f"error: {what} is bad: {each.reason} ({each.path})", file=sys.stderr)


def _as_they_were_made(done: Restoration) -> PairParameters:
    """The request that makes bad shards again where they lie.

    Raises:
        StoreError: the pairs lie where `pairflow pair` would not put them.
        SpecError: they are of a kind that this release does not make.
    """
    header = storage.read_header(done.url)
    if header.spec.get("kind") == "redi":
        raise SpecError(
            f"the pairs at {done.url} were made by a model (checkpoint SHA-256 {header.spec.get('model_sha256')}) that "
            "has to be named to make shards again: run their `pairflow pair --coupling redi --model REF` once more"
        )
    extends = extended_by(header.spec)
    return parse(
        PairParameters,
        {
            "dataset": header.dataset.get("spec"),
            "coupling": {name: value for name, value in header.spec.items() if name != EARLIER_PAIRS},
            "extend": None if extends is None else _found(extends, storage.store_of(done.url)),
            "engine": header.engine.partition("/")[0],
            "store": storage.store_of(done.url),
            "format": header.format,
            "shard_size": header.shard_size,
            "expected_fingerprint": header.fingerprint,
        },
    )


def _found(fingerprint: str, store: str) -> str:
    """URL of the pairs that others extend, in the same store.

    Raises:
        StoreError: they are not there, or only in part.
    """
    url = storage.find_pairs(store, fingerprint)
    if url is None:
        raise StoreError(
            f"these pairs extend those of the fingerprint {fingerprint}, which are not in {store} any more: what was "
            "taken over cannot be made again; couple the data in full with `pairflow pair`, without --extend"
        )
    return url
