"""What each score is called, measured in, and whether more of it is better: for tables, axes and reports."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Label:
    """How a score is shown.

    Attributes:
        text: for a heading, without the unit.
        unit: for an axis; empty for pure numbers.
        higher_is_better: None where neither end is.
    """

    text: str
    unit: str = ""
    higher_is_better: bool | None = None

    @property
    def direction(self) -> str:
        """Which way is better, in words; empty where neither is."""
        return {True: "higher is better", False: "lower is better", None: ""}[self.higher_is_better]


LABELS = {  # in the order in which they are shown
    "num_samples": Label("samples"),
    "num_valid": Label("valid", "molecules", True),
    "num_unique": Label("distinct valid", "molecules", True),
    "num_novel": Label("novel among the distinct", "molecules", True),
    "num_valid_authors": Label("valid (authors' protocol)", "strings", True),
    "num_unique_authors": Label("distinct valid (authors' protocol)", "strings", True),
    "num_novel_authors": Label("novel (authors' protocol)", "strings", True),
    "qed_wasserstein": Label("QED: distance to the data", "Wasserstein", False),
    "log_p_wasserstein": Label("logP: distance to the data", "Wasserstein", False),
    "molecular_weight_wasserstein": Label("weight: distance to the data", "Wasserstein, g/mol", False),
    "ring_count_wasserstein": Label("rings: distance to the data", "Wasserstein, rings", False),
    "internal_diversity": Label("internal diversity", "1 − mean Tanimoto", True),
    "frechet_chemnet_distance": Label("Fréchet ChemNet Distance", "squared", False),
    "fid": Label("FID", "squared", False),
    "inception_score": Label("Inception Score", "classes", True),
    "frechet_classifier_features": Label("Fréchet distance (classifier features)", "squared", False),
    "frechet_random_features": Label("Fréchet distance (random features)", "squared", False),
    "marginal_total_variation": Label("marginal total variation", "0 to 1", False),
    "neighbour_total_variation": Label("neighbour total variation", "0 to 1", False),
    "training_match_rate": Label("copies of training rows", "fraction"),
    "nearest_training_hamming": Label("distance to the nearest training row", "tokens"),
    "unique_rate": Label("distinct samples", "fraction", True),
    "mean_hamming": Label("distance from source to sample", "tokens"),
    "straightness": Label("straightness of paths", "0 to 1"),
}


def label(name: str) -> Label:
    """How the score of that name is shown; one that is not listed is shown by its name."""
    return LABELS.get(name, Label(name.replace("_", " ")))


def in_order(names: Iterable[str]) -> list[str]:
    """Each name once, in the order in which scores are shown; those that are not listed come last, as they are."""
    places = {name: place for place, name in enumerate(LABELS)}
    return sorted(dict.fromkeys(names), key=lambda name: places.get(name, len(places)))
