"""`pairflow export-model`: a model as a folder that a model hub takes, with a page that says what it is."""

import json
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import storage
from flows.home import kept_results
from flows.home.environment import prepare_environment
from flows.home.kept_results import KeptFolder
from flows.home.places import absolute_path
from flows.home.settings import Settings
from flows.lineage import models
from flows.pages.tables import score_tables
from flows.pages.verdict import in_steps
from flows.recipes.methods import METHODS
from flows.results import ModelScores, TrainResult
from pairflow import checkpoint_files
from pairflow.data_card import DataCard

_USE = """\
```python
from pairflow.checkpoint import load_model
from pairflow.sampling import sample
from pairflow.spec import SamplingSpec

model = load_model("{folder}")
how = SamplingSpec.suited_to(model.training.objective)
drawn = sample(model.model, model.process, how, num_samples=16, num_steps=4, length=model.length, seed=0)
```

`drawn.tokens` is [16, {length}]. Or, without a line of Python:

```
pairflow sample --model {folder} --num-samples 16 --steps 4 --out samples.{ending}
```
"""


def export_to_folder(reference: str, folder: Path, *, license_name: str | None) -> Path:
    """Writes a model, its settings and its page to a folder that is new or empty.

    Args:
        reference: of the model, see `flows.lineage.models.resolve`.
        folder: where to.
        license_name: of the weights, as hubs name it; None leaves it open.

    Returns:
        The folder, absolute.

    Raises:
        CheckpointError: there is no such model, or it is damaged.
        SpecError: something is there already, or it cannot be written.
    """
    settings = Settings.read()
    prepare_environment(settings)
    folder = absolute_path(folder, "DIR")
    found = models.resolve(reference, settings)
    state, card = checkpoint_files.read_state(found.checkpoint), DataCard.read(found.checkpoint)
    made = kept_results.read(found.checkpoint.parent.parent / "result.json", TrainResult)
    method = made.method if made is not None else state.get("method")  # of another's checkpoint nobody knows
    page = _page(folder.name, state, card, method, made, _scores(found.sha256, settings), license_name)
    from pairflow.exported import export

    export(found.checkpoint, folder, page=page, method=method)
    return folder


def _scores(sha256: str, settings: Settings) -> ModelScores | None:
    """The last scores that are kept of these weights."""
    kept = KeptFolder.at(settings.evaluations_dir, settings)
    files = storage.list_files(kept.place())
    names = [PurePosixPath(each) for each in files if each.endswith("/scores.json")]
    names.sort(key=lambda each: files[str(each)].modified, reverse=True)
    read = (kept.below(str(each.parent)).read(each.name, ModelScores) for each in names)
    return next((each for each in read if each is not None and each.checkpoint_sha256 == sha256), None)


def _page(
    folder: str,
    state: Mapping[str, Any],
    card: DataCard | None,
    method: str | None,
    made: TrainResult | None,
    scores: ModelScores | None,
    license_name: str | None,
) -> str:
    data = card.dataset.name if card is not None else "tokens"
    title = data if method not in METHODS else f"{data}: {METHODS[method].label}"
    kind = card.kind if card is not None else "tokens"
    tags = ["discrete-flow-matching", kind, *([method.replace("+", "-")] if method is not None else ())]
    head = {"library_name": "pairflow", "tags": tags} | ({"license": license_name} if license_name else {})
    front = "\n".join(f"{name}: {json.dumps(value)}" for name, value in head.items())
    sizes = f"{state['length']} tokens, each one of {state['vocab_size']}"
    ending = {"molecules": "smi", "images": "png"}.get(kind, "npy")
    parts = [
        f"---\n{front}\n---",
        f"# {title}",
        f"A discrete generative model of {kind} ({sizes}), trained for {state['step']:,} steps on {data}.",
        "## Samples of it",
        _USE.format(folder=folder, length=state["length"], ending=ending).rstrip(),
        *_score_part(scores),
        "## What made it",
        "The weights are the averaged ones. `config.json` has the settings and what the training came to, `data.json` "
        "what the tokens mean."
        + (f" The data's digest is `{card.digest}`." if card is not None else "")
        + (f" The training's fingerprint is `{made.fingerprint}`." if made is not None else ""),
        _settings(state, card),
        "## Licence",
        f"The weights: {license_name}." if license_name else "Nothing is said of the weights' licence.",
        "The data that they were trained on have a licence of their own.",
    ]
    return "\n\n".join(parts) + "\n"


def _score_part(scores: ModelScores | None) -> list[str]:
    if scores is None:
        return ["## Scores", "None is known where this was exported: `pairflow evaluate` measures them."]
    steps = [in_steps(each.num_steps) for each in scores.steps]
    lines = [f"| score | {' | '.join(steps)} |", f"| --- |{' ---: |' * len(steps)}"]
    for table in score_tables([scores]):
        cells = " | ".join(cell.text for cell in table.rows[scores.label])
        about = ", ".join(filter(None, (table.label.unit, table.label.direction)))
        lines.append(f"| {table.label.text}{f' ({about})' if about else ''} | {cells} |")
    return ["## Scores", "By number of sampling steps; ± is the deviation over trials.", "\n".join(lines)]


def _settings(state: Mapping[str, Any], card: DataCard | None) -> str:
    chosen = {name: state[name] for name in ("model", "training", "distillation") if state.get(name) is not None}
    if card is not None:
        chosen = {"dataset": card.dataset.model_dump(mode="json", exclude_none=True), **chosen}
    return f"```json\n{json.dumps(chosen, indent=1)}\n```"
