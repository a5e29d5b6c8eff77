"""Reading a committed coupling as if it were three arrays in memory."""

import operator
import os
import threading
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

from pairflow.errors import ShardCorruptError, SpecError, StoreError
from storage.content import COLUMNS, Columns, Rows, column_dtype, column_shape
from storage.documents import HEADER, MANIFEST, read_document
from storage.filesystem import Folder, open_folder
from storage.layout import REMEDY, fault_of, layout_of, read_object
from storage.manifest import Manifest, PairsHeader, ShardPlan
from storage.records import partial_state
from storage.store import missing_shards

_CACHE_BYTES = 128 * 1024 * 1024
"""Of decoded objects kept; the last one used is kept whatever its size."""


def open_pairs(url: str | os.PathLike[str]) -> "Pairs":
    """Opens a whole coupling; reads nothing of its rows yet.

    Raises:
        StoreError: nothing is there, or only a part: says how many shards, and what to do.
        ShardCorruptError: the manifest or another file of the whole coupling is damaged.
        ManifestVersionError: another format version wrote it.
    """
    folder = open_folder(url)
    manifest = read_document(Manifest, folder, MANIFEST)
    if manifest is None:
        raise not_whole(folder)
    for described in manifest.metadata:
        if fault := fault_of(described, folder.read(described.name)):
            raise ShardCorruptError(f"{folder.path(described.name)} is damaged: {fault}; {REMEDY}")
    return Pairs(folder, manifest)


def not_whole(folder: Folder) -> StoreError:
    """The error for a folder without a manifest: it holds nothing, or a part."""
    header = read_document(PairsHeader, folder, HEADER)
    if header is None:
        return StoreError(
            f"no pairs at {folder.url}; give the URL that `pairflow pair` printed, "
            "<store>/pairs/<fingerprint>.zarr or .parquet"
        )
    return StoreError(f"{folder.url} is not whole: {partial_state(header, missing_shards(folder.url, header))}")


class Pairs:
    """A committed coupling: `source[i]` is x_0 and `target[i]` x_1 of pair i, which belongs to row `sample_id[i]`.

    Every file is checked against the manifest's hash when it is read. Safe to share between threads, and to pickle
    (it is opened anew on the other side).

    Attributes:
        source: [N, D] unsigned tokens, read when indexed.
        target: [N, D], likewise.
        sample_id: [N] int64, likewise.
        manifest: what the coupling is and what it was made from.
        url: where it lies.
    """

    def __init__(self, folder: Folder, manifest: Manifest) -> None:
        self.url = folder.url
        self.manifest = manifest
        self._objects = objects = _ObjectCache(folder, manifest)
        self.source = PairColumn(objects, "source")
        self.target = PairColumn(objects, "target")
        self.sample_id = PairColumn(objects, "sample_id")

    def __len__(self) -> int:
        return self.manifest.num_rows

    @property
    def shard_size(self) -> int:
        """Rows a shard: pair i is in shard i // shard_size."""
        return self.manifest.shard_size

    def read(self, columns: tuple[str, ...] = COLUMNS) -> Columns:
        """Whole columns, every file read once, by as many threads as there are cores.

        Raises:
            SpecError: there is no such column.
            ShardCorruptError: a file is not what was written; names its path and shard.
        """
        _check_columns(columns)
        header = self._objects.header
        whole = {name: np.empty(column_shape(header, name, len(self)), column_dtype(header, name)) for name in columns}

        def fill(plan: ShardPlan) -> None:
            rows = {name: array[plan.start : plan.stop] for name, array in whole.items()}
            self._objects.read(plan.index, columns, rows)

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for _ in pool.map(fill, header.plan()):
                pass
        return whole

    def shard(self, index: int, columns: tuple[str, ...] = COLUMNS) -> Columns:
        """Columns of one shard, read now and not kept: for those who read a coupling once, shard by shard.

        Raises:
            SpecError: there is no such shard or column.
            ShardCorruptError: a file is not what was written; names its path and shard.
        """
        _check_columns(columns)
        return self._objects.read(self._objects.header.shard(index).index, columns)

    def take(self, index: int, rows: Rows, columns: tuple[str, ...] = COLUMNS) -> Columns:
        """Some rows of one shard, read now and not kept: for those who know what they need of it.

        Its files are read and checked whole; of Zarr's, only the chunks that hold these rows are decompressed.

        Args:
            index: of the shard.
            rows: [n] numbers within the shard, from 0, in any order.
            columns: which.

        Raises:
            SpecError: there is no such shard, row or column.
            ShardCorruptError: a file is not what was written; names its path and shard.
        """
        _check_columns(columns)
        plan = self._objects.header.shard(index)
        if len(rows) and not 0 <= int(rows.min()) <= int(rows.max()) < plan.num_rows:
            raise SpecError(f"shard {index} has rows 0 to {plan.num_rows - 1}, got {rows.min()} to {rows.max()}")
        return self._objects.read(index, columns, rows=rows)

    def __repr__(self) -> str:
        shape = "x".join(map(str, self.target.shape))
        return f"Pairs({shape} {self.target.dtype}, {len(self.manifest.shards)} shards, {self.url!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return open_pairs, (self.url,)


class PairColumn:
    """One array of a coupling: the numpy array that it stands for, read shard by shard when indexed.

    Indexed by an integer, a slice of any step, an array or list of integers in any order, or a boolean mask; each
    gives a new numpy array (or scalar), as the numpy array would. `np.asarray` reads it all.
    """

    def __init__(self, objects: "_ObjectCache", name: str) -> None:
        header = objects.header
        self.name = name
        self.shape = column_shape(header, name, header.num_rows)
        self.dtype = column_dtype(header, name)
        self._objects = objects
        self._shard_size = header.shard_size

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> Any:
        """Rows.

        Raises:
            IndexError: a row that is not there, or a key of another kind.
            ShardCorruptError: a file is not what was written; names its path and shard.
        """
        if isinstance(key, slice):
            rows = range(*key.indices(len(self)))
            if rows.step == 1:
                return self._consecutive(rows.start, max(rows.start, rows.stop))
            return self._gather(np.arange(rows.start, rows.stop, rows.step))
        if isinstance(key, (list, np.ndarray)) and np.ndim(key):
            return self._gather(self._row_numbers(np.asarray(key)))
        try:
            row = operator.index(key)
        except TypeError:
            raise IndexError(
                f"{self.name} is indexed by rows: an integer, a slice, an array of integers or a mask, got {key!r}"
            ) from None
        return self._gather(self._row_numbers(np.asarray([row])))[0]

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:
        if copy is False:
            raise ValueError(f"{self.name} lies in a file: it cannot become an array without a copy")
        return self[:].astype(dtype or self.dtype, copy=False)

    def __repr__(self) -> str:
        return f"PairColumn({self.name}, shape={self.shape}, dtype={self.dtype})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _open_column, (self._objects.folder.url, self.name)

    def _row_numbers(self, key: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
        """Indices as rows 0..N-1."""
        if key.dtype == bool:
            if key.shape != (len(self),):
                raise IndexError(f"a mask of {self.name} has shape ({len(self)},), got {key.shape}")
            return np.flatnonzero(key).astype(np.int64)
        if key.ndim != 1 or (key.dtype.kind not in "iu" and key.size):
            raise IndexError(f"rows of {self.name} are a 1-D array of integers, got {key.dtype} of shape {key.shape}")
        if key.size and not (-len(self) <= int(key.min()) and int(key.max()) < len(self)):
            raise IndexError(f"rows {key.min()} to {key.max()} are not all in {self.name}, which has {len(self)}")
        rows = key.astype(np.int64)
        return np.where(rows < 0, rows + len(self), rows)

    def _consecutive(self, start: int, stop: int) -> npt.NDArray[Any]:
        out = np.empty((stop - start, *self.shape[1:]), self.dtype)
        done = start
        while done < stop:
            index, offset = divmod(done, self._shard_size)
            block = self._objects.column(index, self.name)[offset : offset + stop - done]
            out[done - start : done - start + len(block)] = block
            done += len(block)
        return out

    def _gather(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """Rows in any order, each shard opened once."""
        out = np.empty((len(rows), *self.shape[1:]), self.dtype)
        order = np.argsort(rows // self._shard_size, kind="stable")
        shards, firsts = np.unique(rows[order] // self._shard_size, return_index=True)
        for index, places in zip(shards.tolist(), np.split(order, firsts[1:]), strict=False):
            out[places] = self._objects.column(index, self.name)[rows[places] - index * self._shard_size]
        return out


def _open_column(url: str, name: str) -> PairColumn:
    column: PairColumn = getattr(open_pairs(url), name)
    return column


class _ObjectCache:
    """Decoded objects of a coupling, the most recently used ones up to `_CACHE_BYTES`."""

    def __init__(self, folder: Folder, manifest: Manifest) -> None:
        self.folder = folder
        self.header = manifest.header
        self._shards = manifest.shards
        self._layout = layout_of(self.header)
        self._lock = threading.Lock()
        self._decoded: OrderedDict[str, Columns] = OrderedDict()
        self._num_bytes = 0

    def column(self, index: int, name: str) -> npt.NDArray[Any]:
        """The rows of one shard of a column; not to be written to."""
        objects = self._layout.objects(self.header, index)
        wanted = next(object_name for object_name, columns in objects.items() if name in columns)
        with self._lock:
            if wanted in self._decoded:
                self._decoded.move_to_end(wanted)
                return self._decoded[wanted][name]
        columns = self._read(index, wanted)
        with self._lock:
            if wanted not in self._decoded:  # else another thread read it meanwhile
                self._decoded[wanted] = columns
                self._num_bytes += _num_bytes(columns)
            while self._num_bytes > _CACHE_BYTES and len(self._decoded) > 1:
                self._num_bytes -= _num_bytes(self._decoded.popitem(last=False)[1])
        return columns[name]

    def read(
        self, index: int, names: tuple[str, ...], into: Columns | None = None, rows: Rows | None = None
    ) -> Columns:
        """Some columns of one shard, from the store and not kept; those that are in `into` are written there."""
        columns: Columns = {}
        for object_name, held in self._layout.objects(self.header, index).items():
            if set(held) & set(names):
                columns |= self._read(index, object_name, into, rows)
        return {name: columns[name] for name in names}

    def _read(self, index: int, object_name: str, into: Columns | None = None, rows: Rows | None = None) -> Columns:
        record = self._shards[index]
        described = next(each for each in record.objects if each.name == object_name)
        return read_object(self.folder, self.header, record, described, into, rows)


def _check_columns(names: tuple[str, ...]) -> None:
    if unknown := set(names) - set(COLUMNS):
        raise SpecError(f"pairs have the columns {', '.join(COLUMNS)}, got {', '.join(sorted(unknown))}")


def _num_bytes(columns: Columns) -> int:
    return sum(array.nbytes for array in columns.values())
