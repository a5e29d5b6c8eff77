"""Which rows are kept and which are held out: pure functions of the seed, made before any coupling."""

import numpy as np

from pairflow.errors import DatasetError

# Streams of one seed, so that the subset and the split are drawn independently.
_SPLIT, _SUBSET = 0, 1


def seeded_order(num_rows: int, seed: int, stream: int) -> np.ndarray:
    """A random permutation of 0 … num_rows − 1, int64, that stays the same from release to release of NumPy.

    NumPy promises the stream of a bit generator, but not that of `Generator.permutation` (NEP 19): so rows are
    sorted by raw 64-bit draws.
    """
    draws = np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(stream,))).random_raw(num_rows)
    return np.argsort(draws, kind="stable").astype(np.int64)


def choose_rows(num_rows: int, max_rows: int, seed: int, num_train: int | None) -> np.ndarray:
    """A seeded random subset of the rows, int64, ascending.

    With a published split (the first `num_train` rows) the training and the test part shrink in proportion.
    """
    if max_rows >= num_rows:
        return np.arange(num_rows)
    order = seeded_order(num_rows, seed, _SUBSET)
    if num_train is None:
        return np.sort(order[:max_rows])
    kept_train = round(max_rows * num_train / num_rows)
    train, test = order[order < num_train], order[order >= num_train]
    return np.sort(np.concatenate([train[:kept_train], test[: max_rows - kept_train]]))


def seeded_split(num_rows: int, holdout: float, seed: int, *, source: str) -> dict[str, np.ndarray]:
    """Splits rows 0 … num_rows − 1 into "train" and "test", int64, ascending; test is the fraction `holdout`.

    Raises:
        DatasetError: a part would be empty.
    """
    num_test = round(num_rows * holdout)
    order = seeded_order(num_rows, seed, _SPLIT)
    return _checked({"train": np.sort(order[num_test:]), "test": np.sort(order[:num_test])}, source)


def published_split(rows: np.ndarray, num_train: int, *, source: str) -> dict[str, np.ndarray]:
    """The published parts of what is left: places in `rows` below and from `num_train`.

    Raises:
        DatasetError: a part would be empty.
    """
    places = np.arange(len(rows))
    return _checked({"train": places[rows < num_train], "test": places[rows >= num_train]}, source)


def _checked(splits: dict[str, np.ndarray], source: str) -> dict[str, np.ndarray]:
    sizes = {part: len(rows) for part, rows in splits.items()}
    if min(sizes.values()) == 0:
        raise DatasetError(
            f"{source}: {sum(sizes.values())} rows are too few to split into {sizes['train']} for training and "
            f"{sizes['test']} held out, both need at least 1; give more rows (max_rows) or another holdout"
        )
    for rows in splits.values():
        rows.setflags(write=False)
    return splits
