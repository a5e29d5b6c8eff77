"""Ways in which bytes and JSON go wrong, as hypothesis draws them."""

import copy
import json
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st

fuzzed = settings.get_profile("fuzz")

_NASTY = [
    b"\0",
    b"\xff",
    b"\n",
    b"\r",
    b'"',
    b"[" * 5000,
    b"\xe2\x80\xa8",
    b"-1",
    b"9" * 30,
    b"nan",
    b"\x93NUMPY",
    b"PK",
]
_STRANGE: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=8),
    st.just([]),
    st.just({}),
    st.just({"a": [1, {"b": None}]}),
).map(copy.deepcopy)  # what is drawn may be altered again


@st.composite
def damaged(draw: st.DrawFn, data: bytes) -> bytes:
    """`data` after a few edits: bits flipped, bytes put in or taken out, cut short, or all of it replaced."""
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, max(len(data) - 1, 0)))
        kind = draw(st.sampled_from(["flip", "flip", "insert", "remove", "overwrite", "cut", "replace"]))
        some = draw(st.one_of(st.binary(max_size=12), st.sampled_from(_NASTY)))
        if kind == "flip" and data:
            data = data[:place] + bytes([data[place] ^ (1 << draw(st.integers(0, 7)))]) + data[place + 1 :]
        elif kind == "insert":
            data = data[:place] + some + data[place:]
        elif kind == "remove":
            data = data[:place] + data[place + draw(st.integers(1, 64)) :]
        elif kind == "overwrite":
            data = data[:place] + some + data[place + len(some) :]
        elif kind == "cut":
            data = data[:place]
        elif draw(st.integers(0, 9)) == 0:
            data = some
    return data


@st.composite
def altered(draw: st.DrawFn, document: Any) -> Any:
    """A JSON document with one or two of its values replaced, or keys taken away or added."""
    document = json.loads(json.dumps(document))
    for _ in range(draw(st.integers(1, 2))):
        node = document
        while isinstance(node, dict | list) and node:
            key = draw(st.sampled_from(sorted(node) if isinstance(node, dict) else list(range(len(node)))))
            child = node[key]
            if not isinstance(child, dict | list) or not child or draw(st.integers(0, 3)) == 0:
                if isinstance(node, dict) and draw(st.integers(0, 4)) == 0:
                    del node[key]
                else:
                    node[key] = draw(_STRANGE)
                break
            node = child
        if isinstance(document, dict) and draw(st.integers(0, 5)) == 0:
            document[draw(st.text(max_size=5))] = draw(_STRANGE)
    return document
