"""The data and the pairs that gpu_study.py trains on, made once and read by all of its processes."""

import json
import re
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from gpu_study_plan import STUDIES, Entry, Study
from weighed_matches import weighed

from flows.recipes.methods import DEFAULT_PAIRS, METHODS
from pairflow.coupling import couple
from pairflow.spec import CouplingSpec, DatasetSpec

_VALIDATION_ROWS = 1024


def key(spec: DatasetSpec) -> str:
    return f"{spec.name}-{spec.max_rows or 'all'}"


def prepare(folder: Path) -> None:
    """Writes the training part and some held-out rows of every study's data."""
    from pairflow import datasets

    folder.mkdir(parents=True, exist_ok=True)
    for study in STUDIES.values():
        path = folder / f"{key(study.dataset)}.npz"
        if path.exists():
            continue
        data = datasets.load(study.dataset)
        train, test = data.part("train"), data.part("test")
        facts = {"vocab_size": train.vocab_size, "image_shape": train.image_shape, "rows": len(train.tokens)}
        np.savez_compressed(
            path, train=_packed(train.tokens), test=_packed(test.tokens[:_VALIDATION_ROWS]), facts=json.dumps(facts)
        )
        print(path, facts)


def _packed(tokens: np.ndarray) -> np.ndarray:
    return tokens.astype(np.min_scalar_type(int(tokens.max())))


@dataclass
class Data:
    """What a training needs of a dataset."""

    train: np.ndarray
    test: np.ndarray
    vocab_size: int
    image_shape: tuple[int, int, int] | None

    @classmethod
    def read(cls, folder: Path, spec: DatasetSpec) -> "Data":
        with np.load(folder / f"{key(spec)}.npz") as arrays:
            facts = json.loads(str(arrays["facts"]))
            shape = facts["image_shape"]
            return cls(arrays["train"], arrays["test"], facts["vocab_size"], None if shape is None else tuple(shape))


def couplings(study: Study) -> dict[str, CouplingSpec]:
    """The couplings that a study's models are trained on, by their file's name."""
    found: dict[str, CouplingSpec] = {}
    for entry in study.entries:
        group = group_of(entry)
        if group is not None:
            found[pairs_name(entry, group)] = _coupling(study, entry, group)
    return found


def group_of(entry: Entry) -> str | None:
    """The group of settings by which a model's stored pairs are made, its own or its base's."""
    return DEFAULT_PAIRS if entry.paired and entry.base.method == "udlm" else METHODS[entry.base.method].pairs


def _replicas(entry: Entry) -> int | None:
    match = re.search(r"replicas-(\d+)$", entry.variant)
    return int(match[1]) if match else None


def pairs_name(entry: Entry, group: str) -> str:
    name = f"{group}-weighed" if entry.weighed else f"{group}-marginal" if entry.marginal else group
    return name if _replicas(entry) is None else f"{name}-{_replicas(entry)}"


def _coupling(study: Study, entry: Entry, group: str) -> CouplingSpec:
    spec: CouplingSpec = getattr(study.settings, group)
    if entry.marginal:
        spec = spec.model_copy(update={"noise": "marginal"})
    return spec if _replicas(entry) is None else spec.model_copy(update={"sources_per_target": _replicas(entry)})


def make_pairs(folder: Path, scratch: Path, names: tuple[str, ...]) -> None:
    """Couples the data of studies, every coupling once."""
    for name in names:
        study = STUDIES[name]
        data = Data.read(folder, study.dataset)
        for label, spec in couplings(study).items():
            path = pairs_path(scratch, study, label)
            if path.exists():
                continue
            started = time.perf_counter()
            ids = np.tile(np.arange(len(data.train)), spec.sources_per_target)
            copies = np.repeat(np.arange(spec.sources_per_target), len(data.train))
            if "-weighed" in label:
                source = weighed(data.train, data.vocab_size, spec.sources_per_target, spec.seed)
            else:
                source = couple(
                    data.train[ids], data.train, vocab_size=data.vocab_size, spec=spec, sample_ids=ids, replicas=copies
                )
            seconds = time.perf_counter() - started
            path.parent.mkdir(parents=True, exist_ok=True)
            facts = {
                "seconds": seconds,
                "mean_hamming": float((source != data.train[ids]).sum(1).mean()),
                "sources_per_target": spec.sources_per_target,
                "kind": spec.kind,
            }
            path.with_suffix(".json").write_text(json.dumps(facts))
            partial = path.with_suffix(".part.npy")
            np.save(partial, source)
            partial.rename(path)
            print(f"{name} {label}: {facts}", flush=True)


def pairs_path(scratch: Path, study: Study, label: str) -> Path:
    return scratch / "pairs" / f"{key(study.dataset)}-{label}.npy"
