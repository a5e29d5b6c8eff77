"""Pairs without PairFlow: plain Parquet to DuckDB and to Hugging Face's `datasets`.

    pip install duckdb datasets
    python examples/read_pairs.py store/pairs/….parquet

`docs/format.md` says what the columns are. Pairs kept as Zarr open with `zarr.open_group(url, mode="r")`.
"""

import sys
from typing import Any

import datasets
import duckdb


def main(folder: str) -> dict[str, Any]:
    files = f"{folder}/part-*.parquet"

    # %% DuckDB: how many tokens of the target its source keeps, on average, without a line of Python a row.
    count, kept = duckdb.execute(
        """
        SELECT count(*), avg(list_avg([CAST(pair[1] = pair[2] AS INTEGER) FOR pair IN list_zip(source, target)]))
        FROM read_parquet(?)
        """,
        [files],
    ).fetchone()
    print(f"{count} pairs; {kept:.1%} of the tokens are kept")

    # %% Hugging Face: a dataset as any other, here as tensors in batches.
    rows = datasets.load_dataset("parquet", data_files=files, split="train")
    batch = rows.with_format("torch")[:4]
    print({name: tuple(column.shape) for name, column in batch.items()})
    return {"count": count, "kept": kept, "rows": rows}


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: read_pairs.py FOLDER_OF_PAIRS")
    main(sys.argv[1])
