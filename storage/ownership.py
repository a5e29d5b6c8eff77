"""Which files of a store are ours: told by what they say, and never by a name alone.

A coupling's folder is ours where a header or manifest in it has the hash that it states and the fingerprint that the
folder is called by; in it, the files that this header plans; a prepared dataset's likewise. A job's folder is ours
where its request names it.
"""

import json
import re

from storage import dataset_files
from storage.dataset_manifest import DatasetHeader
from storage.documents import HEADER, MANIFEST, record_name
from storage.filesystem import Folder
from storage.layout import layout_of
from storage.manifest import PairsHeader

_TEMPORARY = re.compile(r"(?P<folder>(?:.*/)?)\.(?P<name>[^/]+)\.[0-9a-f]{32}\.tmp", re.DOTALL)
_NUMBER = re.compile(r"(?<![0-9])[0-9]{1,19}(?![0-9])")
_REQUEST = "request.json"
_JOB_DOCUMENTS = frozenset({_REQUEST, "result.json", "error.json"})


def is_temporary(name: str) -> bool:
    """Whether a file is called as what a killed writer leaves half-written."""
    return _TEMPORARY.fullmatch(name) is not None


def without_temporary(name: str) -> str:
    """The name that a half-written file was to have; any other name as it is."""
    found = _TEMPORARY.fullmatch(name)
    return name if found is None else found["folder"] + found["name"]


def is_planned(header: PairsHeader, name: str) -> bool:
    """Whether a coupling has a file of that name, or was about to write it.

    Args:
        header: of the coupling.
        name: below its folder.
    """
    name = without_temporary(name)
    if name in (HEADER, MANIFEST) or name in layout_of(header).metadata(header):
        return True
    for number in {int(digits) for digits in _NUMBER.findall(name)}:
        if number < header.num_shards and name in (
            record_name(header, number),
            *layout_of(header).objects(header, number),
        ):
            return True
    return False


def is_planned_of_dataset(header: DatasetHeader, name: str) -> bool:
    """Whether a prepared dataset has a file of that name, or was about to write it.

    Args:
        header: of the data.
        name: below its folder.
    """
    name = without_temporary(name)
    if name in (HEADER, MANIFEST) or name in dataset_files.metadata_names(header):
        return True
    numbers = {int(digits) for digits in _NUMBER.findall(name)}
    return any(number < header.num_shards and name in dataset_files.objects(header, number) for number in numbers)


def is_job(folder: Folder, submission_id: str) -> bool:
    """Whether a folder is that of a job: the request in it says whose it is."""
    try:
        request = json.loads(folder.read(_REQUEST) or b"")
    except (ValueError, RecursionError):
        return False
    if not isinstance(request, dict) or set(request) != {"parameters", "context"}:
        return False
    context = request["context"]
    return isinstance(context, dict) and context.get("submission_id") == submission_id and "flow_run_id" in context


def is_job_document(name: str) -> bool:
    """Whether a flow or its job writes a file of that name into the folder of a job."""
    return without_temporary(name) in _JOB_DOCUMENTS
