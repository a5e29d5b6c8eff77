"""REF: one grammar, and the model or the node of a trace that each form stands for."""

from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from flows.cluster.protocol import JobContext
from flows.command.app import app
from flows.home import references
from flows.home.kept_checkpoints import Checkpoints
from flows.home.kept_results import KeptFolder
from flows.home.references import CheckpointUrl, Digits, Folder, ModelId, Other, PairsUrl, Pretrained, RegisteredModel
from flows.home.settings import Settings
from flows.lineage import models, tags
from flows.lineage import trial as trials
from flows.lineage.errors import LineageError
from flows.lineage.registry import Registry
from flows.lineage.tracing import starts
from flows.lineage.tracking import Lineage
from pairflow.data_card import DataCard
from pairflow.errors import CheckpointError
from pairflow.spec import DatasetSpec

from .model_files import trained

# MLflow's own: of a SQLAlchemy that is newer than it, and of its own type hints.
pytestmark = pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning")

_ID, _HASH = "m-" + "0a" * 16, "0123456789abcdef" * 4


class TestGrammar:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            (_ID, ModelId(_ID)),
            (f"models:/{_ID}", ModelId(_ID)),
            ("pairflow-qm9@champion", RegisteredModel("pairflow-qm9", "champion")),
            ("models:/pairflow-qm9@champion", RegisteredModel("pairflow-qm9", "champion")),
            ("pairflow-qm9/3", RegisteredModel("pairflow-qm9", "3")),
            ("pretrained:qm9", Pretrained("qm9")),
            (_HASH, Digits(_HASH)),
            (_HASH[:6], Digits(_HASH[:6])),
            ("123456", Digits("123456")),
            (f"/store/pairs/{_HASH}.zarr", PairsUrl(f"/store/pairs/{_HASH}.zarr", _HASH)),
            (f"s3://a/b/pairs/{_HASH}.parquet/", PairsUrl(f"s3://a/b/pairs/{_HASH}.parquet", _HASH)),
            (f"s3://a/b/runs/{_HASH}", CheckpointUrl(f"s3://a/b/runs/{_HASH}", _HASH, None)),
            (f"s3://a/runs/{_HASH}/checkpoints/step-00000012/", CheckpointUrl(f"s3://a/runs/{_HASH}", _HASH, 12)),
            (f"/home/runs/{_HASH}", Other(f"/home/runs/{_HASH}")),
            (f"file:///runs/{_HASH}", Other(f"file:///runs/{_HASH}")),
            ("qm9", Other("qm9")),
            *((text, Other(text)) for text in ("pretrained:", "pretrained:../x", "pretrained:A", "retrained:qm9")),
            ("/nosuch/folder", Other("/nosuch/folder")),
            ("", Other("")),
            # Too short, too long, in capitals, no hexadecimal digits, of another folder, not quite a model's.
            *((text, Other(text)) for text in (_HASH[:5], f"{_HASH}0", _HASH.upper(), "12345g")),
            *((text, Other(text)) for text in (f"/x/{_HASH}.zarr", f"/pairs/{_HASH}.csv", f"/pairs/{_HASH[:9]}.zarr")),
            *((text, Other(text)) for text in ("m-123", _ID[:-1], "a@b@c", "a/b/3", "a@", "@b", "a/", "-a@b", "a/x")),
        ],
    )
    def test_form(self, text: str, expected: references.Reference) -> None:
        assert references.parse(text) == expected

    def test_paths_mean_the_same_elsewhere(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("HOME", str(tmp_path))
        for name in ("abcdef", "qm9", "m"):  # a folder that is there comes before what its name looks like
            (tmp_path / name).mkdir()
            assert references.parse(name) == references.parse(f"~/{name}") == Folder(tmp_path / name)
            assert references.absolute(name) == references.absolute(f"./{name}") == str(tmp_path / name)
        url = f"pairs/{_HASH}.zarr"
        assert references.parse(url) == PairsUrl(str(tmp_path / url), _HASH)
        assert references.absolute(f"~/{url}") == references.absolute(url) == str(tmp_path / url)
        for text in (_ID, f"models:/{_ID}", "a@b", "models:/a/3", _HASH, "digits", f"s3://b/{url}"):
            assert references.absolute(text) == text

    @given(st.text())
    def test_any_text_is_something(self, text: str) -> None:
        """Of no kind but `Other` unless it is made of what that kind is made of."""
        kind = type(references.parse(text))
        plain = text.isascii() and not any(each.isspace() for each in text)
        assert kind in (Other, Folder) or (kind is PairsUrl and "pairs/" in text) or plain

    @pytest.mark.parametrize(
        "text", ["\0", "~\0", "~\ud800", "~nobody-of-this-name/x", "x" * 5000, "/".join(["x" * 300] * 20), "\ud800"]
    )
    def test_what_can_be_no_path(self, text: str) -> None:
        assert references.parse(text) == Other(text)
        with pytest.raises(CheckpointError, match="no model"):
            models.resolve(text, Settings())


@dataclass(frozen=True)
class _Known:
    """One training that this home and MLflow know, its model registered, and all that stands for the model."""

    settings: Settings
    lineage: Lineage
    model_id: str
    run_id: str
    fingerprint: str
    checkpoint: Path
    version: str


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> _Known:
    settings = Settings(home=tmp_path_factory.mktemp("known"))
    fingerprint = "fedcba9876543210" * 4
    checkpoint, train = trained(DatasetSpec(name="digits", max_rows=40), settings.runs_dir / fingerprint)
    (settings.runs_dir / fingerprint / "result.json").write_text("{}")  # it is finished, and says nothing of MLflow
    lineage = Lineage(settings)
    context = JobContext(submission_id=None, flow_run_id="1")
    with lineage.run("digits", "train", fingerprint, name="train", specs={}, context=context) as run:
        sha256 = models.FoundModel.at(checkpoint).sha256
        made = {tags.DATASET_DIGEST: train.digest, tags.CHECKPOINT_SHA256: sha256, tags.FINGERPRINT: fingerprint}
        run.tag(made)
        model_id = run.log_model("digits-udlm", checkpoint, params={}, tags=made)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trials, "sample_once", lambda *_: None)  # test_registry.py is about that
        version = Registry(lineage).register("digits", model_id, description="", tags={})
    Registry(lineage).promote(version, "the first")
    return _Known(settings, lineage, model_id, run.run_id, fingerprint, checkpoint, str(version.number))


def _references_of(known: _Known) -> dict[str, str]:
    """Reference -> what a trace of it starts from."""
    model, version = f"model:{known.model_id}", f"version:pairflow-digits/{known.version}"
    return {
        known.model_id: model,
        f"models:/{known.model_id}": model,
        "pairflow-digits@champion": version,
        f"models:/pairflow-digits/{known.version}": version,
        known.fingerprint: model,
        known.fingerprint[:6]: model,
        str(known.checkpoint): model,
        str(known.checkpoint.parents[1]): model,
        known.run_id: f"run:{known.run_id}",
    }


def test_every_form_stands_for_the_model_and_for_its_node(known: _Known) -> None:
    sha256 = models.FoundModel.at(known.checkpoint).sha256
    for reference, node in _references_of(known).items():
        assert models.resolve(reference, known.settings).sha256 == sha256
        assert models.for_job(reference) == reference
        assert starts.find(references.parse(reference), known.lineage.client).nodes == (node,)


def test_a_model_of_a_store_is_fetched(tmp_path: Path) -> None:
    """Where another machine trained it, which shares no disk."""
    there, here = (Settings(home=tmp_path / name, store_url="memory://references/store") for name in ("a", "b"))
    run = KeptFolder.at(there.runs_dir / _HASH, there)
    checkpoint, _ = trained(DatasetSpec(name="digits", max_rows=40), run.here)
    place = f"memory://references/store/runs/{_HASH}/checkpoints/step-00000002"
    for reference in (place, run.place(), _HASH[:8]):
        with pytest.raises(CheckpointError, match=r"no (checkpoint|model)"):
            models.resolve(reference, here)
    Checkpoints(run).keep(last=True)
    with pytest.raises(CheckpointError, match="is not finished"):
        models.resolve(_HASH[:8], here)
    (run.here / "result.json").write_text("{}")
    run.keep("result.json")
    for reference in (place, run.place(), f"{run.place()}/checkpoints", _HASH, _HASH[:8]):
        found = models.resolve(reference, here)
        assert found.place == place
        assert found.checkpoint == here.runs_dir / _HASH / "checkpoints" / "step-00000002"
        assert found.sha256 == models.FoundModel.at(checkpoint).sha256
        assert DataCard.read(found.checkpoint) == DataCard.read(checkpoint)
        assert models.for_job(reference) == reference
    assert models.on_this_disk(place, here) == found.checkpoint


def test_what_comes_along_was_made_elsewhere(known: _Known) -> None:
    with pytest.raises(LineageError, match=r"pretrained:digits comes with PairFlow, .*README.md"):
        starts.find(references.parse("pretrained:digits"), known.lineage.client)


def test_a_run_that_made_no_model(known: _Known) -> None:
    client = known.lineage.client
    other = client.create_run(known.lineage.experiment("digits")).info.run_id
    for run_id in (other, "0" * 32):
        with pytest.raises(CheckpointError, match=f"no model '{run_id}': no training under"):
            models.resolve(run_id, known.settings)


def test_a_home_without_a_history_does_not_get_one_by_asking(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no training under"):
        models.resolve("0" * 32, Settings(home=tmp_path))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("reference", ["m-123", "", "abc", "cccccc", "/nosuch"])
def test_nothing_to_trace(reference: str, known: _Known, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.environ", {"PAIRFLOW_HOME": str(known.settings.home), "HOME": str(known.settings.home)})
    done = CliRunner().invoke(app, ["lineage", reference])
    assert done.exit_code == 1
    assert isinstance(done.exception, LineageError), done.exception
    assert f"expected {references.ANYTHING}" in str(done.exception)
