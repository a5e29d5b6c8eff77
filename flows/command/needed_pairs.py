"""Who refers to pairs and to prepared data: asked of MLflow before any are removed.

Not to have been able to ask is never a "nobody".
"""

import re
from pathlib import Path
from typing import TYPE_CHECKING

from flows.home.environment import prepare_environment
from flows.home.settings import Settings
from pairflow.errors import StoreError

if TYPE_CHECKING:
    from storage import Inventory

_FINGERPRINT = re.compile(rb"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")
_REMEDY = "set PAIRFLOW_HOME or MLFLOW_TRACKING_URI to those of the runs that made these pairs"


def by_fingerprint(settings: Settings) -> dict[str, str] | None:
    """MLflow runs that made or used pairs or data, by fingerprint or digest; None where there is no history to ask.

    Runs that somebody has deleted count as well, as they can be restored, and so does what MLflow has not been sent.

    Raises:
        LineageError: MLflow cannot be reached.
    """
    waiting = _unsent(settings.home / "mlflow" / "unsent")
    if not settings.has_history:
        return waiting or None  # nothing was ever run here, and asking would make a database
    prepare_environment(settings)
    from flows.lineage.tracking import Lineage

    lineage = Lineage(settings)
    runs = lineage.runs_of_pairs()
    return (waiting or None) if runs is None else waiting | lineage.runs_of_data() | runs


def check_knows(runs: dict[str, str] | None, inventory: "Inventory", *, insist: bool) -> None:
    """A history that knows nothing of a store cannot say that nobody needs what is in it.

    Args:
        runs: of `by_fingerprint`.
        inventory: of the store.
        insist: also that a run refers to one of its couplings at least.

    Raises:
        StoreError: there is no history, or it is another's.
    """
    complete = {each.fingerprint for each in inventory.couplings if each.state == "complete"}
    if runs is None:
        raise StoreError(
            f"no MLflow history was found to ask which of the {len(complete)} couplings in {inventory.url} a run "
            f"refers to, so none is removed; {_REMEDY}"
        )
    if insist and complete and complete.isdisjoint(runs):
        raise StoreError(
            f"this MLflow history refers to none of the {len(complete)} couplings in {inventory.url}, so it is not "
            f"likely to be theirs, and none is removed; {_REMEDY}, or remove them with --force"
        )


def _unsent(folder: Path) -> dict[str, str]:
    """Fingerprints that stand in what earlier runs could not send to MLflow, with the file's name."""
    return {
        found.decode(): path.name
        for path in (sorted(folder.iterdir()) if folder.is_dir() else ())
        if path.suffix in (".jsonl", ".refused", ".new")
        for found in _FINGERPRINT.findall(path.read_bytes())
    }
