"""Damaged documents brought back to the bytes that they were, where their own hash proves it.

A document states the hash of its bytes. So a guess at what it was is right if it has the hash that it states, and
wrong otherwise: nothing here is taken on trust.
"""

import hashlib
import json
import re
from collections.abc import Iterator

from storage.documents import render, states_its_hash
from storage.manifest import Manifest

# Every bit is tried: 8 KiB, the header of a molecule set with its vocabulary, take about half a second.
_MAX_BYTES = 8 * 1024
_STATES = b'\n  "document_sha256": "'
_STATED = re.compile(_STATES + rb"([^\n]{64})")
_NO_HASH = _STATES + b"0" * 64
_CREATED_BY = re.compile(rb'\n  "created_by": ("[^\n]*"),\n')


def without_flipped_bit(data: bytes) -> bytes | None:
    """The document before one of its bits was flipped, or None if that is not what happened, or it is too large."""
    if len(data) > _MAX_BYTES:
        return None
    return next((guess for guess in _each_bit_flipped(data) if states_its_hash(guess)), None)


def manifest_as_it_was(rebuilt: Manifest, damaged: bytes) -> bytes | None:
    """A damaged manifest's bytes as they were written, put together from what is known and what can be salvaged.

    Header, records and shards say all but `summary` and `created_by`. These are taken from the damaged bytes, as they
    stand or with one bit flipped back.

    Args:
        rebuilt: made anew, its summary empty.
        damaged: what the manifest's file holds.

    Returns:
        the bytes, or None if nothing was found that has the hash that the damaged file states.
    """
    frame = _STATED.sub(_NO_HASH, render(rebuilt))
    own, maker = _CREATED_BY.search(frame), _CREATED_BY.search(damaged)
    if own is None:
        raise ValueError("a manifest was rendered without created_by")
    makers = [] if maker is None else [maker[1], *_each_bit_flipped(maker[1])]
    for number, created_by in enumerate([*makers, json.dumps(rebuilt.created_by).encode()]):
        before, after = _around_summary(frame[: own.start(1)] + created_by + frame[own.end(1) :])
        # All around them is known, so hash and summary are what lies there in the damaged file.
        hash_at = before.index(_NO_HASH) + len(_STATES)
        stated = damaged[hash_at : hash_at + 64]
        summary = damaged[len(before) : len(damaged) - len(after)]
        begun = hashlib.sha256(before)
        for text in (summary, *(_each_bit_flipped(summary) if number == 0 else ())):
            digest = begun.copy()
            digest.update(text)
            digest.update(after)
            found = digest.hexdigest().encode()
            if _num_differing_bits(found, stated) <= 1:  # one: the bit that was flipped is in the hash itself
                return before.replace(_NO_HASH, _STATES + found, 1) + text + after
    return None


def _around_summary(manifest: bytes) -> tuple[bytes, bytes]:
    """The text before and after an empty summary."""
    before, marker, after = manifest.partition(b'\n  "summary": ')
    return before + marker, after.removeprefix(b"{}")


def _num_differing_bits(first: bytes, second: bytes) -> int:
    return sum((a ^ b).bit_count() for a, b in zip(first, second, strict=True)) if len(first) == len(second) else 512


def _each_bit_flipped(data: bytes) -> Iterator[bytes]:
    changed = bytearray(data)
    for place in range(len(data)):
        for bit in range(8):
            changed[place] ^= 1 << bit
            yield bytes(changed)
            changed[place] ^= 1 << bit
