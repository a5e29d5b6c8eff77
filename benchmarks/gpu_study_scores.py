"""What the models of gpu_study.py reach: their samples measured, in tables, and the weights that are kept.

    python benchmarks/gpu_study_scores.py score OUT             measures; writes results/gpu_study_*.json
    python benchmarks/gpu_study_scores.py tables                prints what these say, as in docs/results.md
    python benchmarks/gpu_study_scores.py weights OUT FOLDER    the kept models, as `pairflow export-model` takes them

The machine of a results file is the one that measured; each model says on which device it was trained.
"""

import argparse
import json
import shutil
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from gpu_study_plan import ENDS, STUDIES
from machine import RESULTS, write_results

from pairflow import datasets, metrics
from pairflow.data_card import DataCard
from pairflow.metrics import extras


def load_samples(path: Path) -> dict[int, np.ndarray]:
    """By network calls, samples [N, D]."""
    head, body = path.read_bytes().split(b"\n", 1)
    facts = json.loads(head)
    shape = (len(facts["calls"]), *facts["shape"])
    raw = np.frombuffer(zlib.decompress(body), np.uint8)
    if raw.size != np.prod(shape):
        raw = np.unpackbits(raw, count=int(np.prod(shape)))
    return dict(zip(map(int, facts["calls"]), raw.reshape(shape), strict=True))


def weights(out: Path, folder: Path) -> None:
    """Writes the models that are kept to folders that any command takes, each called by its data.

    From there those in `flows/pretrained` went their way by `pairflow evaluate --model` and `pairflow export-model`; in
    their pages the folder's name was changed to pretrained:NAME by hand, and the source of the data added.
    """
    for name, study in STUDIES.items():
        for entry in study.entries:
            if not entry.kept:
                continue
            made = folder / study.dataset.name
            shutil.copytree(out / name / entry.name / "weights", made)
            settings = json.loads((made / "config.json").read_text())
            (made / "config.json").write_text(json.dumps(settings | {"method": entry.method}, indent=1) + "\n")
            train = datasets.load(study.dataset).part("train")
            tokens = None if train.vocab is None else train.vocab.tokens
            DataCard(dataset=study.dataset, digest=train.digest, kind=train.kind, vocab=tokens).write(made)
            print(made)


_MEASURED = (
    *("num_valid", "num_unique", "num_novel", "num_valid_authors", "num_unique_authors", "num_novel_authors"),
    *("frechet_classifier_features", "training_match_rate", "nearest_training_hamming", "unique_rate"),
)


def score(out: Path) -> None:
    """Measures the samples of all models with the library's evaluators, and prints what they reach."""
    extras.chemnet_release = lambda: None  # minutes for each model
    for name, study in STUDIES.items():
        folders = sorted(path.parent for path in (out / name).glob("*/facts.json"))
        if not folders:
            continue
        evaluator = metrics.evaluator(datasets.load(study.dataset), progress=False)
        rows: list[dict[str, Any]] = []
        for folder in folders:
            facts = json.loads((folder / "facts.json").read_text())
            kept = folder / "scores.json"
            if not kept.exists():
                kept.write_text(json.dumps({end: _measured(folder / f"{end}.z", evaluator) for end in ENDS}))
            del facts["curve"]
            rows.append(facts | {"scores": json.loads(kept.read_text())})
        measured = {key: value for key, value in evaluator.facts.items() if key.endswith(_MEASURED)}
        head = {"study": name, "dataset": study.dataset.model_dump(mode="json"), "facts": measured}
        settings = study.settings.model_dump(mode="json", exclude={"evaluation"})
        print(write_results(f"gpu_study_{name}", [head | {"settings": settings, "models": rows}]))


def _measured(path: Path, evaluator: Any) -> dict[str, dict[str, float]]:
    """By network calls, what the samples of an end reach."""
    if not path.exists():  # masks have one end
        return {}
    scores = {}
    for calls, samples in load_samples(path).items():
        found = evaluator.measure(samples)
        scores[str(calls)] = {name: float(f"{found[name]:.5g}") for name in _MEASURED if name in found}
    return scores


_COPIES = "training_match_rate"


def tables() -> None:
    """Prints, by study, mean ± deviation over the seeds of the headline by network calls, and copies at 2 and 17."""
    for path in sorted(RESULTS.glob("gpu_study_*.json")):
        (result,) = json.loads(path.read_text())["results"]
        rows: dict[tuple[str, ...], list[dict[str, Any]]] = {}
        for model in result["models"]:
            for end, scores in model["scores"].items():
                if scores:
                    key = (model["method"], model["objective"], model["variant"], end)
                    rows.setdefault(key, []).append(scores)
        calls = sorted({int(each) for scores in rows.values() for score in scores for each in score})
        shown = [*map(str, calls)]
        print(f"\n{path.stem}\n| method | objective | variant | end | seeds | {' | '.join(shown)} | copies |")
        for key, seeds in sorted(rows.items(), key=lambda row: (row[0][2], row[0][1], row[0][3], row[0][0])):
            first = seeds[0][max(seeds[0], key=int)]
            name = "frechet_classifier_features" if "frechet_classifier_features" in first else "num_unique_authors"
            cells = [_cell([seed[each][name] for seed in seeds if each in seed]) for each in shown]
            copies = [np.mean([seed[each][_COPIES] for seed in seeds]) for each in ("2", "17") if each in seeds[0]]
            told = ", ".join(f"{share:.1%}" for share in copies)
            print(f"| {' | '.join(key)} | {len(seeds)} | {' | '.join(cells)} | {told} |")


def _cell(values: list[float]) -> str:
    if not values:
        return ""
    digits = 2 if max(values) < 30 else 0
    spread = f" ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{np.mean(values):.{digits}f}{spread}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    steps = parser.add_subparsers(dest="step", required=True)
    steps.add_parser("score").add_argument("out", type=Path)
    steps.add_parser("tables")
    weights_ = steps.add_parser("weights")
    weights_.add_argument("out", type=Path)
    weights_.add_argument("folder", type=Path)
    options = parser.parse_args()
    if options.step == "score":
        score(options.out)
    elif options.step == "tables":
        tables()
    else:
        weights(options.out, options.folder)


if __name__ == "__main__":
    main()
