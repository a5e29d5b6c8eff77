"""`report.html`: one page per evaluation that stands alone, without network, script or other files."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from flows.pages.tables import score_tables, shown
from flows.results import EvaluateResult, MethodScores, ModelScores
from storage import Manifest

_FOLDER = Path(__file__).parent
_TEMPLATE = "report.html.j2"
_ALIASES = ("champion", "challenger", "previous")


@dataclass(frozen=True)
class Picture:
    """A picture of the page.

    Attributes:
        title: above it.
        path: of the PNG.
        about: how to read it, a sentence.
    """

    title: str
    path: Path
    about: str = ""


@dataclass(frozen=True)
class Page:
    """What the page shows besides the result; every string is escaped.

    Attributes:
        dataset: name of the data.
        data: facts about it, by name.
        settings: what was sampled, and how, by name.
        pictures: in their order.
        pairs: label of a model that was trained on pairs -> their manifest.
        links: title -> where else this evaluation is found; addresses of http and https become links.
        mlflow: where MLflow shows runs, such as http://127.0.0.1:5000, and the experiment's id; None without a server.
    """

    dataset: str
    data: Mapping[str, object]
    settings: Mapping[str, object]
    pictures: Sequence[Picture]
    pairs: Mapping[str, Manifest] = field(default_factory=dict)
    links: Mapping[str, str] = field(default_factory=dict)
    mlflow: tuple[str, str] | None = None


def write(result: EvaluateResult, page: Page, path: Path) -> None:
    """Writes the page; a picture that is not there is left out."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    text = environment.get_template(_TEMPLATE).render(
        page=page,
        result=result,
        headline=result.methods[0],
        roles=roles(result.methods),
        steps=[step.num_steps for step in result.methods[0].steps],
        speeds=_speeds(result.methods),
        tables=score_tables(result.methods),
        costs=_costs(result),
        models=[_model(each, page.mlflow) for each in result.models],
        facts=_facts(result.methods),
        notes=list(dict.fromkeys(note for each in result.methods for note in each.notes)),
        pairs=[(label, _pairs(manifest)) for label, manifest in page.pairs.items()],
        pictures=[(each, _data(each.path)) for each in page.pictures if each.path.is_file()],
        links=[(title, value, _is_address(value)) for title, value in page.links.items()],
    )
    path.write_text(text, encoding="utf-8")


def address(pages: str | None, experiment_id: str, run_id: str, path: Path) -> str:
    """Where a reader opens a page that is logged with a run: in MLflow if a server shows it, else the file itself."""
    if pages is None:
        return path.as_uri()
    return f"{_run_address(pages, experiment_id, run_id)}/artifacts/{path.name}"


def _run_address(server: str, experiment_id: str, run_id: str) -> str:
    return f"{server}/#/experiments/{experiment_id}/runs/{run_id}"


def roles(methods: Sequence[MethodScores]) -> dict[str, str]:
    """Label -> what a model is here: its alias, such as 'champion'; else 'candidate' against a champion, or 'model'.

    Models that a method names are the 'baseline'.
    """
    aliases = {each.label: _alias(each.reference) for each in methods}
    contest = "champion" in aliases.values()
    named = {True: "candidate", False: "model"}
    return {
        each.label: aliases[each.label] or ("baseline" if each.reference is None else named[contest])
        for each in methods
    }


def _alias(reference: str | None) -> str | None:
    alias = (reference or "").rpartition("@")[2]
    return alias if reference is not None and "@" in reference and alias in _ALIASES else None


def _speeds(methods: Sequence[MethodScores]) -> dict[str, list[tuple[str, str]]]:
    """Label -> (network calls a sample, samples a second) for each number of steps."""
    return {
        each.label: [(_count(step.num_network_calls), _count(step.samples_per_second)) for step in each.steps]
        for each in methods
    }


def _costs(result: EvaluateResult) -> list[tuple[str, str, str, str, str]]:
    """Label, and wall seconds of pairing, training and refinement; pairing over training as a share."""
    labels = {each.method: each.label for each in reversed(result.methods) if each.reference is None}
    rows = []
    for cost in result.costs:
        spent = cost.training.mean + cost.refinement.mean
        share = f"{100 * cost.pairing.mean / spent:.3g} %" if spent and cost.pairing.mean else ""
        parts = (shown(cost.pairing), shown(cost.training), shown(cost.refinement))
        rows.append((labels[cost.method], *parts, share))
    return rows


def _model(scores: ModelScores, mlflow: tuple[str, str] | None) -> dict[str, str | None]:
    """The row of a model in the table of what was compared."""
    address = None
    if mlflow is not None:
        address = _run_address(*mlflow, scores.mlflow_run_id)
    return {
        "label": scores.label,
        "seed": str(scores.training_seed),
        "reference": scores.reference or "",
        "checkpoint": scores.checkpoint_sha256,
        "training": scores.training_fingerprint or "",
        "evaluation": scores.evaluation_fingerprint,
        "model_id": scores.mlflow_model_id or "",
        "run": scores.mlflow_run_id,
        "address": address,
    }


def _facts(methods: Sequence[MethodScores]) -> list[tuple[str, list[str]]]:
    """A row a fact, a cell a model."""
    names = dict.fromkeys(name for each in methods for name in each.facts)
    return [
        (name.replace("_", " "), [f"{each.facts[name]:.4g}" if name in each.facts else "" for each in methods])
        for name in names
    ]


def _pairs(manifest: Manifest) -> dict[str, str]:
    figures = {"mean_hamming": "mean Hamming distance (tokens)", "keep_rate": "share of tokens kept"}
    found = {text: manifest.summary.get(name) for name, text in figures.items()}
    return {
        "fingerprint": manifest.fingerprint,
        "rows": f"{manifest.num_rows:,}",
        "engine": manifest.engine,
        "content SHA-256": manifest.content_sha256,
        **{text: f"{value:.4g}" for text, value in found.items() if isinstance(value, int | float)},
    }


def _data(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode("ascii")


def _is_address(value: str) -> bool:
    return value.startswith(("http://", "https://"))


def _count(number: float) -> str:
    """Three figures, and never an exponent."""
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"
