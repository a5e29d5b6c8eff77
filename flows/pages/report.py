"""`report.html`: one page per evaluation that stands alone, without network, script or other files."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath

from flows.lineage import page_address
from flows.pages.figures import headline
from flows.pages.figures.curves import curve_styles
from flows.pages.tables import score_tables, shown
from flows.pages.verdict import contest, in_steps, measured, number, verdict
from flows.recipes.methods import METHODS
from flows.results import EvaluateResult, MethodScores
from storage import Manifest

_FOLDER = Path(__file__).parent
_TEMPLATE = "report.html.j2"
_HASH = "SHA-256"  # ends the names of facts that are for machines
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
        settings: by group, such as training, and name.
        pictures: in their order.
        pairs: label of a model that was trained on pairs -> their manifest.
        links: title -> where else this evaluation is found; addresses of http and https become links.
        mlflow: where MLflow shows runs, such as http://127.0.0.1:5000; None without a server.
        made: date and time, in words.
        command: that makes it again.
        preset: that the settings began with.
    """

    dataset: str
    data: Mapping[str, object]
    settings: Mapping[str, Mapping[str, object]]
    pictures: Sequence[Picture]
    pairs: Mapping[str, Manifest] = field(default_factory=dict)
    links: Mapping[str, str] = field(default_factory=dict)
    mlflow: str | None = None
    made: str = ""
    command: str | None = None
    preset: str | None = None


def write(result: EvaluateResult, page: Page, path: Path) -> None:
    """Writes the page; a picture that is not there is left out."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

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
        contest=contest(result.methods),
        verdict=verdict(result),
        measured=measured(result),
        at_a_glance=_at_a_glance(result, page),
        curves=Markup(headline.draw(result.methods)),  # noqa: S704 - it escapes its texts
        colors={
            each.label: headline.color(style.color)
            for each, style in zip(result.methods, curve_styles(result.methods), strict=True)
        },
        steps=[in_steps(step.num_steps) for step in result.methods[0].steps],
        speeds=_speeds(result.methods),
        tables=score_tables(result.methods),
        costs=_costs(result),
        models=_models(result, page.mlflow),
        facts=_facts(result.methods),
        notes=list(dict.fromkeys(note for each in result.methods for note in each.notes)),
        data={name: value for name, value in page.data.items() if not name.endswith(_HASH)},
        pairs=[(label, _pairs(manifest)) for label, manifest in page.pairs.items()],
        hashes=_hashes(result, page),
        pictures=[(each, _data(each.path)) for each in page.pictures if each.path.is_file()],
        links=[(title, value, _is_address(value)) for title, value in page.links.items()],
    )
    path.write_text(text, encoding="utf-8")


def address(pages: str | None, experiment_id: str, run_id: str, place: str) -> str:
    """Where a reader opens a page that is logged with a run: in MLflow if a server shows it, else the file itself."""
    if pages is None:
        return place if "://" in place else Path(place).as_uri()
    return page_address.run(run_id, experiment_id, pages=pages, artifact=PurePath(place).name)


def roles(methods: Sequence[MethodScores]) -> dict[str, str]:
    """Label -> what a model is here: its alias, such as 'champion'; else 'baseline', 'candidate', 'method' or 'model'.

    A method without pairs is the baseline of those with pairs, and of models by reference. Against a champion what is
    left is the candidate.
    """
    aliases = {each.label: _alias(each.reference) for each in methods}
    plain = {each.label: each.reference is None and METHODS[each.method].pairs is None for each in methods}
    tried = [each.label for each in methods if not aliases[each.label] and not plain[each.label]]
    found = {}
    for each in methods:
        if (alias := aliases[each.label]) is not None:
            found[each.label] = alias
        elif plain[each.label] and tried:
            found[each.label] = "baseline"
        elif "champion" in aliases.values():
            found[each.label] = "candidate"
        else:
            found[each.label] = "method" if each.reference is None else "model"
    return found


def _alias(reference: str | None) -> str | None:
    alias = (reference or "").rpartition("@")[2]
    return alias if reference is not None and "@" in reference and alias in _ALIASES else None


def _speeds(methods: Sequence[MethodScores]) -> dict[str, list[tuple[str, str]]]:
    """Label -> (network calls a sample, samples a second) for each number of steps."""
    return {
        each.label: [(number(step.num_network_calls), number(step.samples_per_second)) for step in each.steps]
        for each in methods
    }


def _at_a_glance(result: EvaluateResult, page: Page) -> list[tuple[str, str]]:
    """What a reader wants to know first, by name."""
    samples = page.settings.get("evaluation", {})
    sampled = f"{samples['num samples']} samples × {samples['num trials']}" if "num samples" in samples else ""
    steps = [step.num_steps for step in result.methods[0].steps]
    sizes = {_size(each.num_parameters) for each in result.models if each.num_parameters is not None}
    labels = {each.method: each.label for each in reversed(result.methods) if each.reference is None}
    spent = [
        f"{labels[cost.method]} {_time(cost.pairing.mean + cost.training.mean + cost.refinement.mean)}"
        for cost in result.costs
    ]
    facts = {
        "Made": page.made,
        "Data": f"{page.dataset}, {page.data['training part']}" if "training part" in page.data else page.dataset,
        "Settings": f"preset {page.preset}" if page.preset else "",
        "Model size": " and ".join(sorted(sizes)),
        "Sampled": f"{sampled}, in {_in_list(steps)}".removeprefix(", "),
        "Time to make": ", ".join(spent),
    }
    return [(name, text) for name, text in facts.items() if text]


def _in_list(steps: Sequence[int]) -> str:
    """Such as "1 call and 1, 2, 4 steps"."""
    some = [each for each in steps if each]
    listed = f"{', '.join(map(str, some))} step{'' if some == [1] else 's'}" if some else ""
    return " and ".join(filter(None, [in_steps(0) if 0 in steps else "", listed]))


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


def _models(result: EvaluateResult, mlflow: str | None) -> list[dict[str, str | None]]:
    """The rows of the table of what was compared."""
    part = roles(result.methods)
    return [
        {
            "label": each.label,
            "role": part[each.label],
            "seed": str(each.training_seed),
            "weights": "" if each.num_parameters is None else f"{each.num_parameters:,}",
            "reference": each.reference or "",
            "run": each.mlflow_run_id,
            "address": None
            if mlflow is None
            else page_address.run(each.mlflow_run_id, result.mlflow_experiment_id, pages=mlflow),
        }
        for each in result.models
    ]


def _hashes(result: EvaluateResult, page: Page) -> list[tuple[str, str]]:
    """What tells machines which is which, by name."""
    found = [("evaluation of all", result.fingerprint)]
    found += [(name, str(value)) for name, value in page.data.items() if name.endswith(_HASH)]
    for each in result.models:
        name = f"{each.label}, seed {each.training_seed}"
        about = {
            "checkpoint, SHA-256": each.checkpoint_sha256,
            "training": each.training_fingerprint,
            "evaluation": each.evaluation_fingerprint,
            "MLflow run": each.mlflow_run_id,
            "MLflow model": each.mlflow_model_id,
        }
        found += [(f"{name}: {kind}", value) for kind, value in about.items() if value]
    for label, manifest in page.pairs.items():
        found += [(f"pairs of {label}: fingerprint", manifest.fingerprint)]
        found += [(f"pairs of {label}: content, SHA-256", manifest.content_sha256)]
    return found


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
        "rows": f"{manifest.num_rows:,}",
        "engine": manifest.engine,
        **{text: f"{value:.4g}" for text, value in found.items() if isinstance(value, int | float)},
    }


def _data(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode("ascii")


def _is_address(value: str) -> bool:
    return value.startswith(("http://", "https://"))


def _size(num_parameters: int) -> str:
    """A network's size as people say it."""
    for unit, size in (("million ", 1e6), ("thousand ", 1e3)):
        if num_parameters >= size:
            return f"{num_parameters / size:.3g} {unit}weights"
    return f"{num_parameters} weights"


def _time(seconds: float) -> str:
    """A span of time as people say it."""
    if seconds < 100:
        return f"{seconds:.3g} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 100 else f"{minutes / 60:.1f} h"
