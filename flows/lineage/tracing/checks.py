"""Whether what a trace names is there: pairs in their store, checkpoints, files of logged models."""

import socket
import stat
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import storage
from flows.lineage.tracing.nodes import Node, Trace
from pairflow.errors import ManifestVersionError, ShardCorruptError, StoreError
from storage import Manifest

_SOME = 3  # faults of one coupling that are spelt out


def check(trace: Trace) -> None:
    """Adds to the nodes what is wrong with what they name. Paths of other machines are not looked for."""
    hosts = {
        neighbour: node.facts.get("machine.host")
        for node in trace.nodes.values()
        if node.kind == "run"
        for neighbour in (node.id, *trace.after[node.id])
    }
    for node in trace.nodes.values():
        if node.kind == "pairs":
            _check_pairs(node, hosts.get(node.id))
        elif node.kind == "dataset" and "prepared" in node.facts:
            _check_prepared(node)
        elif node.kind == "model" and node.state != "missing":
            _check_artifacts(node)
        elif "checkpoint" in node.facts:
            place = node.facts["checkpoint"]
            if "://" in place:
                fault = _absence_from_store(place)
            else:
                fault = _absence(Path(place) / "state.json") if _is_here(hosts.get(node.id)) else None
            if fault is not None:
                node.faults.append(f"its checkpoint {place} {fault}")


def _absence(path: Path) -> str | None:
    """Why a file is not seen, or None; one that may not be looked at is not the same as one that is not there."""
    try:
        return None if stat.S_ISREG(path.stat().st_mode) else "is not there"
    except (FileNotFoundError, NotADirectoryError):
        return "is not there"
    except OSError as error:
        return f"cannot be looked at: {error.strerror}"


def _absence_from_store(url: str) -> str | None:
    """The same of a checkpoint in a store that is no disk."""
    try:
        return None if storage.open_folder(url).size("state.json") is not None else "is not there"
    except StoreError as error:
        return f"cannot be looked at: {error}"


def _is_here(host: str | None) -> bool:
    return host in (None, socket.gethostname())


def _check_pairs(node: Node, host: str | None) -> None:
    states = []
    for url in node.facts["urls"]:
        if "://" not in url and not Path(url).exists() and not _is_here(host):
            states.append("not seen")
            node.facts["host"] = host
            continue
        try:
            state, faults, facts = _state_of(url)
        except StoreError as error:
            state, faults, facts = "not seen", [f"{url}: {error}"], {}
        states.append(state)
        node.faults += faults
        node.facts |= facts
    node.state = (
        "complete"
        if all(each == "complete" for each in states)
        else next((each for each in states if each != "complete"), "not seen")
    )


def _check_prepared(node: Node) -> None:
    """Rows that a store keeps. That they are gone is no fault, as they are made again of their source."""
    url = str(node.facts["prepared"])
    try:
        manifest = storage.find_dataset(url)
        absent = {} if manifest is None else storage.absent_of_dataset(url, manifest)
    except (ShardCorruptError, ManifestVersionError) as error:
        node.state = "damaged"
        node.faults.append(str(error))
        return
    except StoreError:
        node.state = "not seen"
        return
    node.state = "not kept" if manifest is None else "damaged" if absent else "prepared"
    node.faults += [f"{path} of the prepared data is {what}" for path, what in list(absent.items())[:_SOME]]


def _state_of(url: str) -> tuple[str, list[str], dict[str, Any]]:
    """State, faults and facts of pairs in a store.

    Raises:
        StoreError: the store cannot be read.
    """
    try:
        manifest = storage.find_manifest(url)
    except (ShardCorruptError, ManifestVersionError) as error:
        return "damaged", [str(error)], {}
    if manifest is None:
        return _partial(url)
    faults = [
        f"{'a file' if each.index is None else f'shard {each.index}'} of {url}: {each.path}: {each.reason}"
        for each in storage.absent_files(url, manifest)
    ]
    more = len(faults) - _SOME
    if more > 0:
        faults = [*faults[:_SOME], f"{more} more files of {url} are missing; `pairflow verify` names them"]
    return ("damaged" if faults else "complete"), faults, _facts(manifest)


def _partial(url: str) -> tuple[str, list[str], dict[str, Any]]:
    try:
        header = storage.find_header(url)
    except (ShardCorruptError, ManifestVersionError) as error:
        return "damaged", [str(error)], {}
    if header is None:
        if "://" not in url and len(Path(url).parents) > 1 and not Path(url).parents[1].exists():
            raise StoreError(f"its store {Path(url).parents[1]} is not there; is its disk mounted?")
        return "missing", [f"there are no pairs at {url}; `pairflow pair` makes them again"], {}
    missing = storage.missing_shards(url, header)
    done = header.num_shards - len(missing)
    fault = f"the pairs at {url} are partial, {done} of {header.num_shards} shards; `pairflow pair` goes on with them"
    return "partial", [fault], {}


def _facts(manifest: Manifest) -> dict[str, Any]:
    return {
        "rows": manifest.num_rows,
        "num_shards": len(manifest.shards),
        "engine": manifest.engine,
        "content_sha256": manifest.content_sha256,
        "spec": manifest.spec,
    }


def _check_artifacts(node: Node) -> None:
    """A model's files, where MLflow keeps them on a disk that is seen from here."""
    place = urlparse(str(node.facts.get("artifacts", "")))
    if place.scheme not in ("", "file"):
        return
    folder = Path(unquote(place.path))
    if len(folder.parents) > 2 and folder.parents[2].is_dir() and not (folder.is_dir() and any(folder.iterdir())):
        node.faults.append(f"its files in {folder} are not there")
    if node.state != "READY":
        node.faults.append(
            f"MLflow says that it is {node.state}, and not READY: logging it was cut off; the command that trains it "
            "logs it anew"
        )
