"""What the commands print for people (rich tables) and for scripts (one JSON object)."""

import json
import os
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from flows.home.settings import Settings
from flows.home.token import SIGN_IN
from flows.lineage import page_address
from flows.pages import places
from flows.pages.tables import NETWORK_CALLS, comparison_rows
from flows.pages.verdict import measured, verdict
from flows.results import ComparisonResult, EvaluateResult
from pairflow.spec import OWN_DATA

if TYPE_CHECKING:
    import numpy as np

    from pairflow.datasets import DatasetInfo
    from storage import Manifest


def datasets(settings: Settings, *, as_json: bool) -> None:
    """The registry, with what is at hand on this machine."""
    from pairflow.datasets import names

    rows = [
        {
            "name": info.name,
            "kind": info.kind,
            "length": info.length,
            "vocab_size": info.vocab_size,
            "description": info.description,
            "origin": info.origin,
            "available": _availability(info, settings),
        }
        for info in names()
    ]
    if as_json:
        print(json.dumps(rows))
        return
    table = Table("dataset", "kind", "D", "K", "at hand", "what", box=None, pad_edge=False)  # 80 columns are enough
    for row in rows:
        shown = [row["name"], row["kind"], row["length"] or "data's", row["vocab_size"] or "data's", row["available"]]
        table.add_row(*map(str, shown), str(row["description"]))
    Console().print(table)


def _availability(info: "DatasetInfo", settings: Settings) -> str:
    if info.name in OWN_DATA:
        return "your file"
    if not info.files:
        return "packaged"
    for folder in (settings.data_dir, settings.home / "downloads"):
        if folder is not None and any(any(folder.glob(pattern)) for pattern in info.files):
            return places.short(str(folder))
    return "download"


def scores(result: EvaluateResult) -> None:
    """The methods by number of sampling steps, and what each cost."""
    first = result.methods[0]
    better = "higher" if first.headline.higher_is_better else "lower"
    title = f"{first.headline_text} by number of sampling steps ({better} is better)"
    rows = comparison_rows(result)
    columns = list(rows[0])
    first_cost = columns.index(NETWORK_CALLS)
    # Two tables: a terminal is not wide enough for one.
    _table(title, rows, columns[:first_cost])
    _table(
        "What each took: calls and copies of training rows by steps, wall seconds",
        rows,
        ["method", *columns[first_cost:]],
    )
    for name, value in first.facts.items():
        print(f"{name.replace('_', ' ')}: {value:.4g}")
    print(f"{verdict(result)}.")
    print(f"  {measured(result)}")
    for name in ("figure", "grid", "report", "table"):
        print(f"{name:<7} {places.short(getattr(result, name))}")


def _table(title: str, rows: list[dict[str, object]], columns: list[str]) -> None:
    print(title)  # above a narrow table rich would break it
    table = Table()
    for name in columns:
        table.add_column(name, justify="left" if name == "method" else "right")
    for row in rows:
        table.add_row(*(str(row[name]) for name in columns))
    Console().print(table)


def report(result: ComparisonResult, settings: Settings) -> None:
    """The end of a pipeline or study: the comparison, and where to look further."""
    scores(result.evaluation)
    if result.pairs is not None:
        print(f"pairs   {places.short(result.pairs.url)}")
    print()
    prefect = os.environ.get("PREFECT_API_URL", "").rstrip("/").removesuffix("/api")
    mlflow = settings.mlflow_pages
    ours = not os.environ.get("PREFECT_API_URL") or settings.tracks_at_home
    if ours:
        print("Look further: start the servers, which find all of this,")
        print()
        print(f"  {places.up_command(settings)}")
        print()
        print("and open")
    at = {"prefect": settings.prefect_port, "mlflow": settings.mlflow_port, "ray": settings.ray_port}
    local = {name: f"http://127.0.0.1:{port}" for name, port in at.items()}
    print(f"  {prefect or local['prefect']}/runs/flow-run/{result.prefect_run_id}")
    print("      Prefect: the run, its stages, and what each of them came to")
    if mlflow or settings.tracks_at_home:
        print(f"  {page_address.experiment(result.mlflow_experiment_id, pages=mlflow or local['mlflow'])}")
        print("      MLflow: every model's scores in one table, and what came from what")
    else:
        print(f"  MLflow keeps run {result.mlflow_run_id} in {settings.tracking_uri}")
    print(f"  {settings.ray_pages or local['ray']}")
    print("      Ray: the jobs of later runs, and their logs;")
    print(f"      {SIGN_IN}")


def pairs(url: str, *, num_rows: int, as_json: bool) -> None:
    """The manifest's summary, and the first pairs; molecules as text."""
    import storage

    opened = storage.open_pairs(url)
    manifest = opened.manifest
    rows = min(num_rows, manifest.num_rows)
    source, target = opened.source[:rows], opened.target[:rows]
    if as_json:
        document = {**manifest.model_dump(mode="json"), "url": opened.url}
        document["pairs"] = [
            {"source": x0.tolist(), "target": x1.tolist()} for x0, x1 in zip(source, target, strict=True)
        ]
        print(json.dumps(document))
        return
    for name in ("fingerprint", "format", "num_rows", "length", "vocab_size", "shard_size", "engine", "content_sha256"):
        print(f"{name}: {getattr(manifest, name)}")
    for group in ("dataset", "spec", "summary"):
        print(f"{group}: {json.dumps(getattr(manifest, group))}")
    if not rows:
        return
    table = Table("row", "differ", show_lines=True)
    table.add_column("source (t = 0), then target (t = 1)", overflow="fold")
    for row, x0, x1 in zip(opened.sample_id[:rows], source, target, strict=True):
        shown = Text(f"{_words(x0, manifest)}\n{_text(x1, manifest)}")  # as it is: [O-] is no markup
        table.add_row(str(row), str(int((x0 != x1).sum())), shown)
    Console().print(table)


def _text(target: "np.ndarray", manifest: "Manifest") -> str:
    """A data row as people read it: a molecule's text, or its tokens."""
    if manifest.vocab is None or manifest.dataset.get("kind") != "molecules":
        return _words(target, manifest)
    from pairflow.datasets import Vocabulary

    return Vocabulary(manifest.vocab).decode(target[None])[0]


def _words(tokens: "np.ndarray", manifest: "Manifest") -> str:
    """Any row, all of its tokens: joined if they have words, else as numbers."""
    if manifest.vocab is None:
        return " ".join(map(str, tokens))
    return "".join(manifest.vocab[token] for token in tokens)
