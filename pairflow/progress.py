"""Progress bars of the library: tqdm's own, none, or a caller's kind of tqdm."""

from collections.abc import Iterable
from typing import Any, TypeAlias

from tqdm import tqdm

Progress: TypeAlias = bool | type[tqdm]  # `tqdm[Any]` to a type checker, which does not hold at run time
"""`True` shows tqdm's bar, `False` none; a subclass of tqdm takes its place (a job's prints lines for its flow)."""


def bar(iterable: Iterable[Any] | None = None, *, progress: Progress, **options: Any) -> "tqdm[Any]":
    """A progress bar over `iterable`, or one to `update` by hand; `options` are tqdm's."""
    kind = progress if isinstance(progress, type) else tqdm
    return kind(iterable, disable=progress is False, **options)
