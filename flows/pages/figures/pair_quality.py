"""What the pairs of a model are like: the figures and the picture of their manifest."""

from pathlib import Path

import storage
from flows.home.settings import Settings
from flows.pages.figures import pictures
from storage import Manifest


def find(fingerprint: str, settings: Settings) -> Manifest | None:
    """The manifest of pairs in the store, in either format; None where they are no more."""
    url = storage.find_pairs(settings.store, fingerprint)
    return None if url is None else storage.find_manifest(url)


def facts(manifest: Manifest) -> dict[str, float]:
    """Mean Hamming distance and keep rate of pairs, where the run that committed them made some.

    The path of a pair is straight (`pairflow.sampling.Paths`): every token goes from source to target at most once.
    """
    names = {"mean_hamming": "pairs_mean_hamming", "keep_rate": "pairs_keep_rate"}
    found = {shown: manifest.summary.get(name) for name, shown in names.items()}
    return {name: float(value) for name, value in found.items() if isinstance(value, int | float)}


def picture(manifest: Manifest, settings: Settings) -> Path | None:
    """Draws a coupling, where its summary has what is needed: not if all its shards were found and none was made."""
    if "hamming_histogram" not in manifest.summary:
        return None
    path = settings.reports_dir / manifest.fingerprint / "coupling.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    pictures.coupling(manifest, path)
    return path
