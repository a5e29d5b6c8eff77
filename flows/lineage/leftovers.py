"""Sends what processes that are gone could not: files of outboxes that nobody empties any more."""

import logging
import os
from dataclasses import dataclass
from pathlib import Path

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from flows.lineage.outbox import left_behind, read_operations
from flows.lineage.search import Artifacts
from flows.lineage.waiting import first_line, passes
from flows.lineage.writer import RunWriter

_logger = logging.getLogger("pairflow.lineage")


@dataclass(frozen=True)
class Sent:
    """What became of the files that were left.

    Attributes:
        sent: MLflow has all of them now.
        refused: MLflow refuses them; they are kept under another name.
    """

    sent: tuple[Path, ...]
    refused: tuple[Path, ...]


def send_leftovers(folder: Path, client: MlflowClient, artifacts: Artifacts) -> Sent:
    """Sends, and removes, every outbox file whose process is gone.

    A run that was not begun yet is begun; in one that a later process has finished only the metrics are added.

    Args:
        folder: of the files.
        client: MLflow's.
        artifacts: where the files of a new experiment go.

    Raises:
        MlflowException: MLflow does not answer; what is not sent stays.
    """
    sent, refused = [], []
    for path in sorted(folder.glob("*.jsonl")):
        with left_behind(path) as file:
            if file is None:
                continue
            try:
                _send(file, RunWriter(client, artifacts, late=True))
            except (MlflowException, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
                if isinstance(error, MlflowException) and passes(error):
                    raise
                kept = path.rename(path.with_suffix(".refused"))
                refused.append(kept)
                _logger.warning("MLflow refuses what an earlier run left, kept as %s: %s", kept, first_line(error))
            else:
                path.unlink()
                sent.append(path)
                _logger.info("sent to MLflow what an earlier run had left in %s", path)
    return Sent(tuple(sent), tuple(refused))


def _send(file: int, writer: RunWriter) -> None:
    position = 0
    ended = False
    while True:
        operations, end = read_operations(file, position)
        if end == position:
            break
        writer.deliver(operations)
        ended = operations[-1]["do"] == "end"
        position = end
    if not position and os.fstat(file).st_size:
        raise ValueError("no whole line is in it")
    if position and not ended:
        writer.abandon()
