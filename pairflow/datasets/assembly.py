"""From a loader's rows to a TokenDataset: checked, cut to the subset, and split, in one way for all data sets."""

import logging
from dataclasses import dataclass, replace

import numpy as np

from pairflow.datasets import splits
from pairflow.datasets.base import DatasetInfo, DatasetReport, TokenDataset, pack_tokens, read_only
from pairflow.datasets.vocabulary import Vocabulary
from pairflow.spec import DatasetSpec

logger = logging.getLogger(__name__)

NOT_CHOSEN = "not in the random subset (max_rows)"


@dataclass(frozen=True, eq=False)
class LoadedRows:
    """What a loader hands over.

    Attributes:
        tokens: [M, D] of any integer type.
        vocab_size: K.
        report: of the M rows.
        holdout: the data set's own fraction of held-out rows.
        vocab: the K token strings, where there are any.
        image_shape: (C, H, W) of images.
        labels: [M] class labels, where the data has them.
        num_train: rows of the published training part, which stand first; None where no split is published.
    """

    tokens: np.ndarray
    vocab_size: int
    report: DatasetReport
    holdout: float
    vocab: Vocabulary | None = None
    image_shape: tuple[int, int, int] | None = None
    labels: np.ndarray | None = None
    num_train: int | None = None


def assemble(rows: LoadedRows, spec: DatasetSpec, info: DatasetInfo) -> TokenDataset:
    """Checks the rows, takes the spec's subset, and splits it.

    A published split is kept unless the spec states a holdout: then both parts are pooled and split by the seed.

    Raises:
        DatasetError: the tokens are no data set (see `pack_tokens`), or a part would be empty.
    """
    source = rows.report.source
    tokens = pack_tokens(rows.tokens, rows.vocab_size, source=source)
    labels = None if rows.labels is None else rows.labels.astype(np.uint8, copy=False)
    num_train = rows.num_train if spec.holdout is None else None
    report = rows.report
    chosen = np.arange(len(tokens))
    if spec.max_rows is not None and spec.max_rows < len(tokens):
        chosen = splits.choose_rows(len(tokens), spec.max_rows, spec.split_seed, num_train)
        dropped = dict(sorted({**report.dropped, NOT_CHOSEN: len(tokens) - len(chosen)}.items()))
        report = replace(report, rows_kept=len(chosen), dropped=dropped)
        tokens = tokens[chosen]
        labels = None if labels is None else labels[chosen]
    if num_train is not None:
        parts = splits.published_split(chosen, num_train, source=source)
    else:
        holdout = rows.holdout if spec.holdout is None else spec.holdout
        parts = splits.seeded_split(len(tokens), holdout, spec.split_seed, source=source)
    logger.info("%s: %s", spec.name, report.summary())
    for note in report.notes:
        logger.warning("%s: %s", spec.name, note)
    return TokenDataset(
        name=spec.name,
        tokens=read_only(tokens),
        vocab_size=rows.vocab_size,
        kind=info.kind,
        vocab=rows.vocab,
        image_shape=rows.image_shape,
        labels=None if labels is None else read_only(labels),
        splits=parts,
        report=report,
    )
