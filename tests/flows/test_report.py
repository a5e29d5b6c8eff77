"""What an evaluation shows: absent scores, who is best, curves that can be told apart, and a page that stands alone."""

import base64
import io
from html.parser import HTMLParser
from pathlib import Path

import pytest
from markupsafe import escape
from PIL import Image

from flows.jobs.scoring import over_trials
from flows.pages.figures.curves import comparison, curve_styles
from flows.pages.report import Page, Picture, address, roles, write
from flows.pages.tables import ABSENT, comparison_rows, score_tables
from flows.pages.verdict import verdict
from flows.results import (
    EvaluateResult,
    Headline,
    MethodCost,
    ModelScores,
    Score,
    StepScores,
    mean_and_deviation,
    over_seeds,
)

_HOSTILE = "<script>alert('x')</script>"
_VALID = Headline(name="num_valid", label="valid molecules", higher_is_better=True)


def model(label: str, method: str, *by_step: dict[str, float], reference: str | None = None) -> ModelScores:
    steps = tuple(
        StepScores(
            num_steps=2**place,
            num_network_calls=2**place + 1,
            scores={name: Score(mean=value, std=0) for name, value in scores.items()},
            samples_per_second=100,
        )
        for place, scores in enumerate(by_step)
    )
    return ModelScores(
        method=method,
        label=label,
        reference=reference,
        headline=_VALID,
        facts={"training_molecules": 7, "held_out_qed_wasserstein": 0.1},
        notes=(f"not measured: {_HOSTILE}",),
        steps=steps,
        training_seed=0,
        checkpoint_sha256="c" * 64,
        training_fingerprint=None,
        pairs_fingerprint=None,
        evaluation_fingerprint="e" * 64,
        mlflow_run_id="r" * 32,
        mlflow_model_id=None,
    )


def result_of(folder: Path, *models: ModelScores) -> EvaluateResult:
    names = dict.fromkeys(each.method for each in models if each.reference is None)
    costs = [
        MethodCost(
            method=name,
            pairing=mean_and_deviation([1]),
            training=mean_and_deviation([100]),
            refinement=Score(mean=0, std=0),
        )
        for name in names
    ]
    files = {
        name: str(folder / name) for name in ("table", "figure", "grid", "trajectories", "report", "report_address")
    }
    return EvaluateResult(
        fingerprint="f" * 64,
        models=models,
        methods=over_seeds(models),
        costs=tuple(costs),
        mlflow_experiment_id="1",
        skipped=False,
        seconds=1,
        **files,
    )


@pytest.fixture
def contest(tmp_path: Path) -> EvaluateResult:
    return result_of(
        tmp_path,
        model(
            "UDLM",
            "udlm",
            {"num_samples": 8, "num_valid": 0},
            {"num_samples": 8, "num_valid": 5, "qed_wasserstein": 0.2},
        ),
        model(
            f"PairFlow ({_HOSTILE})",
            "pairflow",
            {"num_samples": 8, "num_valid": 2, "qed_wasserstein": 0.4},
            {"num_samples": 8, "num_valid": 6, "qed_wasserstein": 0.1},
            reference="0123",
        ),
        model(
            "PairFlow (pairflow-nci@champion)",
            "pairflow",
            {"num_samples": 8, "num_valid": 1},
            {"num_samples": 8, "num_valid": 6, "qed_wasserstein": 0.3},
            reference="pairflow-nci@champion",
        ),
    )


def test_a_score_that_some_trials_lack_is_that_of_the_others() -> None:
    scores = over_trials([{"num_valid": 0.0}, {"num_valid": 2.0, "qed_wasserstein": 0.25}])
    assert scores["num_valid"].trials == (0, 2)
    assert scores["num_valid"].mean == 1
    assert scores["num_valid"].std == pytest.approx(2**0.5)
    assert scores["qed_wasserstein"] == Score(mean=0.25, std=0, trials=(0.25,))


def test_a_score_that_some_models_of_a_method_lack_is_that_of_the_others() -> None:
    lacking, other = (
        model("UDLM", "udlm", {"num_valid": 0}),
        model("UDLM", "udlm", {"num_valid": 4, "internal_diversity": 0.9}),
    )
    (method,) = over_seeds([lacking, other])
    assert method.steps[0].scores["num_valid"].mean == 2
    assert method.steps[0].scores["internal_diversity"] == Score(mean=0.9, std=0)


def test_tables_mark_the_best_and_leave_out_what_is_absent(contest: EvaluateResult) -> None:
    tables = {table.name: table for table in score_tables(contest.methods)}
    assert list(tables) == ["num_valid", "qed_wasserstein"]  # the headline first, the number of samples never
    udlm, candidate, champion = contest.methods
    assert [cell.text for cell in tables["qed_wasserstein"].rows[udlm.label]] == [ABSENT, "0.2"]
    assert [cell.best for cell in tables["qed_wasserstein"].rows[candidate.label]] == [False, True]  # alone: no best
    assert [cell.best for cell in tables["num_valid"].rows[candidate.label]] == [True, True]
    assert [cell.best for cell in tables["num_valid"].rows[champion.label]] == [False, True]  # a tie is both's
    assert comparison_rows(contest)[0]["2 steps"] == "5"


def test_where_all_are_alike_none_is_best(tmp_path: Path) -> None:
    alike = over_seeds([model("UDLM", "udlm", {"num_valid": 2}), model("MDLM", "mdlm", {"num_valid": 2})])
    (table,) = score_tables(alike)
    assert not any(cell.best for cells in table.rows.values() for cell in cells)


def test_roles(contest: EvaluateResult) -> None:
    udlm, candidate, champion = contest.methods
    assert roles(contest.methods) == {udlm.label: "baseline", candidate.label: "candidate", champion.label: "champion"}
    assert roles(contest.methods[:2]) == {udlm.label: "baseline", candidate.label: "model"}


def test_roles_of_methods_are_told_by_their_pairs(tmp_path: Path) -> None:
    made = [model(name, name, {"num_valid": 1}) for name in ("mdlm", "udlm", "pairflow", "pairflow+dcd")]
    pairflow = {"pairflow": "method", "pairflow+dcd": "method"}
    assert roles(made) == {"mdlm": "baseline", "udlm": "baseline"} | pairflow
    assert roles(made[:2]) == {"mdlm": "method", "udlm": "method"}  # nothing is there to be measured by them
    champion = model("PairFlow (champion)", "pairflow", {"num_valid": 1}, reference="pairflow-nci@champion")
    for retrained in made[1:3]:
        assert roles([retrained, champion]) == {retrained.label: "candidate", champion.label: "champion"}


def test_models_of_one_method_have_its_colour_and_lines_of_their_own(contest: EvaluateResult) -> None:
    udlm, first, second = curve_styles(contest.methods)
    assert first.color == second.color != udlm.color
    assert first.linestyle != second.linestyle
    assert first.filled
    assert not second.filled


@pytest.mark.parametrize(("num_scores", "with_costs"), [(0, False), (0, True), (2, False), (10, True)])
def test_the_comparison_is_drawn_with_few_scores_and_with_many(
    tmp_path: Path, num_scores: int, with_costs: bool
) -> None:
    scores = {"num_valid": 3.0} | {f"score_{number}": float(number) for number in range(num_scores)}
    result = result_of(tmp_path, model("UDLM", "udlm", scores, {"num_valid": 1.0}))
    comparison(result.methods, result.costs if with_costs else (), "made-up", tmp_path / "figure.png")
    with Image.open(tmp_path / "figure.png") as picture:
        assert picture.width == 1540
        assert picture.height > 500


class Reader(HTMLParser):
    """Collects tags; every one that is opened must be closed in order."""

    _VOID = ("meta", "img", "br")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self._VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_stands_alone_and_escapes_every_string(contest: EvaluateResult, tmp_path: Path) -> None:
    Image.new("RGB", (3, 2), "red").save(tmp_path / "a.png")
    page = Page(
        dataset=_HOSTILE,
        data={"source": _HOSTILE, _HOSTILE: 1},
        settings={"evaluation": {"steps": '"><img src=x onerror=alert(1)>'}, _HOSTILE: {_HOSTILE: 2}},
        pictures=[Picture(f'"{_HOSTILE}', tmp_path / "a.png", _HOSTILE), Picture("gone", tmp_path / "gone.png")],
        links={"Prefect flow run": "http://127.0.0.1:4200/runs?a=1&b='2'", "bad": "javascript:alert(1)"},
        mlflow="http://127.0.0.1:5000",
        made="1 May 2026",
        command=f"pairflow pipeline {_HOSTILE}",
        preset=_HOSTILE,
    )
    write(contest, page, tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert text.startswith("<!DOCTYPE html>")
    read = Reader(text)
    tags = [tag for tag, _ in read.tags]
    assert not {"script", "link", "iframe", "object", "form", "base"} & set(tags)
    assert not [name for _, attributes in read.tags for name in attributes if name.startswith("on")]
    sources = [attributes["src"] or "" for tag, attributes in read.tags if tag == "img"]
    assert len(sources) == 1
    with Image.open(io.BytesIO(base64.b64decode(sources[0].removeprefix("data:image/png;base64,")))) as picture:
        assert picture.size == (3, 2)
    links = {attributes["href"] for tag, attributes in read.tags if tag == "a"}
    run = f"http://127.0.0.1:5000/#/experiments/1/runs/{'r' * 32}?workflowType=machine_learning"
    assert links == {"http://127.0.0.1:4200/runs?a=1&b='2'", run}  # the page's text alone has the script's address
    assert "url(" not in text
    policy = [attributes for tag, attributes in read.tags if attributes.get("http-equiv") == "Content-Security-Policy"]
    assert "default-src 'none'" in (policy[0]["content"] or "")
    for shown in (
        _HOSTILE,
        "f" * 64,
        "c" * 64,
        "candidate",
        "champion",
        "baseline",
        ABSENT,
        "QED: distance to the data",
        "1 May 2026",
        f"pairflow pipeline {_HOSTILE}",
    ):
        assert shown in read.text
    assert f"{verdict(contest)}." in read.text


def test_hashes_are_folded_away_and_the_verdict_stands_above(contest: EvaluateResult, tmp_path: Path) -> None:
    page = Page(dataset="nci", data={"training part, SHA-256": "d" * 64, "rows": 7}, settings={}, pictures=[])
    write(contest, page, tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    begin = text.index("<summary>Fingerprints and ids</summary>")
    for digest in ("c" * 64, "d" * 64, "e" * 64, "f" * 64, "r" * 32):
        assert text.index(digest) > begin
    assert text.index(str(escape(verdict(contest)))) < text.index("<h2>")


def test_the_page_is_opened_in_mlflow_where_a_server_shows_it(tmp_path: Path) -> None:
    served = address("http://127.0.0.1:5000", "1", "abc", str(tmp_path / "report.html"))
    assert served == (
        "http://127.0.0.1:5000/#/experiments/1/runs/abc/artifacts/report.html?workflowType=machine_learning"
    )
    assert address(None, "1", "abc", "/a b/report.html") == "file:///a%20b/report.html"
    assert address(None, "1", "abc", "s3://a/reports/report.html") == "s3://a/reports/report.html"
