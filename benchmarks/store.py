"""The pair store against numpy's own files, on the same pairs, disk and machine.

    PAIRFLOW_DATA_DIR=... python benchmarks/store.py --dataset qm9

Targets are the dataset's training rows; sources are coupled rows of a random subset of the support, and compress as the
whole coupling does. numpy saves and loads the same three arrays, raw. All take turns, `--repeats` times, and medians
are compared: a noisy neighbour then slows both. All write new files to a disk that is idle. "synced" numpy files are
forced to the disk, as the store's all are. Reading is measured with the files in the page cache, and from the disk
(their pages dropped before each turn).
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from machine import write_results
from rich.console import Console
from rich.table import Table
from store_pairs import Arrays, commit, header_of, seconds, some_pairs, write
from store_reading import BATCH_SIZE, opening, reading

import storage

_SHARD_SIZES = [1000, 10_000, 50_000]


def main(
    dataset: Annotated[str, typer.Option(help="Registry name.")] = "qm9",
    shard_size: Annotated[list[int], typer.Option(help="Repeatable: rows a shard.")] = _SHARD_SIZES,
    support_rows: Annotated[int, typer.Option(help="Rows that sources are coupled against.")] = 2000,
    copies: Annotated[int, typer.Option(help="Sources a target: the same rows so many times over.")] = 8,
    repeats: Annotated[int, typer.Option(help="Turns; medians are reported.")] = 7,
    folder: Annotated[Path | None, typer.Option(help="Where to write; default a temporary folder.")] = None,
) -> None:
    """Prints tables and writes benchmarks/results/store.json."""
    root = Path(tempfile.mkdtemp(prefix="pairflow-store-", dir=folder))
    try:
        arrays, vocab_size = some_pairs(dataset, support_rows)
        # Written and read are several copies, so that what is done once a coupling weighs no more than it should.
        many = {name: np.concatenate([array] * copies) for name, array in arrays.items()}
        results = [_throughput(dataset, many, vocab_size, shard_size, repeats, root)]
        results += reading(dataset, arrays, vocab_size, shard_size, repeats, root)
        results += opening(repeats, root)
    finally:
        shutil.rmtree(root)
    _show(results)
    print(write_results("store", results))


def _save(root: Path, arrays: Arrays, *, synced: bool) -> None:
    for name, array in arrays.items():
        with open(root / f"{name}.npy", "wb") as file:
            np.save(file, array)
            if synced:
                file.flush()
                os.fsync(file.fileno())


def _drop_pages(files: Iterable[Path]) -> None:
    """Has the next reading of these files, which are synced, go to the disk."""
    for path in files:
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


def _throughput(
    name: str, arrays: Arrays, vocab_size: int, shard_sizes: list[int], repeats: int, root: Path
) -> dict[str, Any]:
    headers = {
        f"{format} {size:,}": header_of(name, arrays, vocab_size, format, size)
        for format in ("zarr", "parquet")
        for size in shard_sizes
    }
    urls = {key: storage.pairs_url(root, each.fingerprint, each.format) for key, each in headers.items()}
    raw_bytes = sum(array.nbytes for array in arrays.values())
    writing: dict[str, Callable[[], object]] = {
        "numpy": lambda: _save(root, arrays, synced=False),
        "numpy synced": lambda: _save(root, arrays, synced=True),
        **{key: lambda each=each: write(root, each, arrays) for key, each in headers.items()},
    }

    def clear(key: str) -> None:
        """Everybody writes new files, to a disk that is not busy with those of the turn before."""
        shutil.rmtree(urls.get(key, root / "nothing"), ignore_errors=True)
        if key not in urls:
            for name in arrays:
                (root / f"{name}.npy").unlink(missing_ok=True)
        os.sync()

    written = seconds(writing, repeats, clear)
    committed = seconds({key: lambda key=key: commit(urls[key], headers[key]) for key in headers}, repeats)

    def read(url: str) -> None:
        storage.open_pairs(url).read()

    loading: dict[str, Callable[[], object]] = {
        "numpy": lambda: [np.load(root / f"{each}.npy") for each in arrays],
        **{key: lambda url=url: read(url) for key, url in urls.items()},
    }
    taken = seconds(loading, repeats)
    numpy_files = [root / f"{each}.npy" for each in arrays]
    from_disk = seconds(
        loading, repeats, lambda key: _drop_pages(Path(urls[key]).rglob("*") if key in urls else numpy_files)
    )
    rows = []
    for key in ("numpy", "numpy synced", *headers):
        row: dict[str, Any] = {"what": key, "write_mb_per_s": raw_bytes / written[key] / 1e6}
        row["write_vs_numpy_synced"] = written["numpy synced"] / written[key]
        row["write_vs_numpy"] = written["numpy"] / written[key]
        if key in taken:
            row["read_mb_per_s"] = raw_bytes / taken[key] / 1e6
            row["read_vs_numpy"] = taken["numpy"] / taken[key]
            row["disk_read_mb_per_s"] = raw_bytes / from_disk[key] / 1e6
            row["disk_read_vs_numpy"] = from_disk["numpy"] / from_disk[key]
        if key in headers:
            row |= {"commit_s": committed[key], **_sizes(urls[key], headers[key], arrays)}
        rows.append(row)
    return {"what": "throughput", "dataset": name, "raw_bytes": raw_bytes, "rows": rows}


def _sizes(url: str, header: storage.PairsHeader, arrays: Arrays) -> dict[str, float]:
    """Bytes on disk over raw bytes: of all, with every document; and of the targets alone, where they have files."""
    stored = sum(path.stat().st_size for path in Path(url).rglob("*") if path.is_file())
    sizes = {"size_vs_raw": stored / sum(array.nbytes for array in arrays.values())}
    if header.format == "zarr":
        stored_targets = sum(path.stat().st_size for path in (Path(url) / "target").iterdir())
    else:
        import pyarrow.parquet as pq

        stored_targets = 0
        for path in Path(url).glob("part-*.parquet"):
            with pq.ParquetFile(path) as part:
                groups = [part.metadata.row_group(index) for index in range(part.metadata.num_row_groups)]
                columns = [group.column(index) for group in groups for index in range(group.num_columns)]
                stored_targets += sum(
                    column.total_compressed_size for column in columns if column.path_in_schema.startswith("target")
                )
    return sizes | {"targets_size_vs_raw": stored_targets / arrays["target"].nbytes}


def _show(results: list[dict[str, Any]]) -> None:
    throughput = results[0]
    columns = {
        "write_mb_per_s": "write MB/s",
        "write_vs_numpy_synced": "of numpy synced",
        "write_vs_numpy": "of numpy",
        "read_mb_per_s": "read MB/s",
        "read_vs_numpy": "of numpy",
        "disk_read_mb_per_s": "read from disk",
        "disk_read_vs_numpy": "of numpy",
        "commit_s": "commit s",
        "size_vs_raw": "size",
        "targets_size_vs_raw": "targets' size",
    }
    table = Table("what", *columns.values(), title=f"{throughput['dataset']}, {throughput['raw_bytes']:,} raw bytes")
    for row in throughput["rows"]:
        table.add_row(row["what"], *(f"{row[key]:.3g}" if key in row else "" for key in columns))
    Console().print(table)
    columns = {
        "random_access_ms": "1,024 rows of a shard, ms",
        "resident_pairs_per_s": "resident pairs/s",
        "resident_pairs_per_core_s": "a core",
        "streamed_pairs_per_s": "streamed pairs/s",
        "streamed_pairs_per_core_s": "a core",
    }
    table = Table("what", *columns.values(), title=f"reader, batches of {BATCH_SIZE:,}")
    for row in results:
        if row["what"] == "reader":
            table.add_row(row["store"], *(f"{row[key]:,.3g}" if key in row else "" for key in columns))
    Console().print(table)
    for row in results:
        if row["what"] == "opening":
            print(f"opening {row['num_shards']:,} shards, {row['format']}: {row['seconds']:.2f} s")


if __name__ == "__main__":
    typer.run(main)
