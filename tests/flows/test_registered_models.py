"""Models that are registered: loaded back before they are, found again, and put in use by the commands."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flows.cluster.protocol import JobContext
from flows.home.settings import Settings
from flows.lineage import models
from flows.lineage import tags as tag
from flows.lineage import trial as trials
from flows.lineage.errors import LineageError
from flows.lineage.registry import Registry
from flows.lineage.tracking import Lineage
from pairflow.errors import CheckpointError
from pairflow.spec import DatasetSpec

from .conftest import Cli, Finished
from .model_files import trained


@pytest.fixture(scope="module")
def lineage(tmp_path_factory: pytest.TempPathFactory) -> Lineage:
    return Lineage(Settings(home=tmp_path_factory.mktemp("registered")))


def _logged(lineage: Lineage, checkpoint: Path, fingerprint: str) -> tuple[str, Path]:
    """(id of a new logged model, the folder of its files)."""
    context = JobContext(submission_id=None, flow_run_id="1")
    with lineage.run("digits", "train", fingerprint, name="train", specs={}, context=context) as run:
        model_id = run.log_model("digits-udlm", checkpoint, params={}, tags={})
    return model_id, Path(lineage.client.get_logged_model(model_id).artifact_location.removeprefix("file://"))


def _versions(lineage: Lineage) -> set[str]:
    """Numbers of the versions of pairflow-digits."""
    return {each.version for each in lineage.client.search_model_versions("name = 'pairflow-digits'")}


@pytest.mark.slow
def test_models_that_are_damaged_or_gone_are_not_registered(lineage: Lineage, tmp_path: Path) -> None:
    checkpoint, _ = trained(DatasetSpec(name="digits", max_rows=40), tmp_path)
    settings = Settings(home=tmp_path / "home", mlflow_uri=lineage.client.tracking_uri)
    damaged, files = _logged(lineage, checkpoint, "damaged")
    tensors = files / "artifacts" / checkpoint.name / "tensors.safetensors"
    content = bytearray(tensors.read_bytes())
    content[8] ^= 1  # the first byte of the header, a brace
    tensors.write_bytes(content)
    registry, before = Registry(lineage), _versions(lineage)
    with pytest.raises(LineageError, match=r"cannot be loaded back.*tensors\.safetensors is damaged"):
        registry.register("digits", damaged, description="", tags={})
    gone, files = _logged(lineage, checkpoint, "gone")
    shutil.rmtree(files)
    with pytest.raises(LineageError, match="cannot be loaded back"):
        registry.register("digits", gone, description="", tags={})
    with pytest.raises((LineageError, CheckpointError), match=gone):
        models.resolve(gone, settings)
    assert _versions(lineage) == before


def test_models_of_an_older_layout_are_still_found(lineage: Lineage, tmp_path: Path) -> None:
    """Releases before this one logged the checkpoint's files and nothing else."""
    checkpoint, _ = trained(DatasetSpec(name="digits", max_rows=40), tmp_path)
    client = lineage.client
    model_id = str(client.create_logged_model(lineage.experiment("digits"), name="old").model_id)
    client.log_model_artifacts(model_id, str(checkpoint))
    client.finalize_logged_model(model_id, "READY")
    settings = Settings(home=tmp_path / "home", mlflow_uri=client.tracking_uri)
    found = models.resolve(model_id, settings)
    assert (found.sha256, found.mlflow_model_id) == (models.FoundModel.at(checkpoint).sha256, model_id)


def _answer(done: Finished) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(done.last_line)
    return answer


def test_the_commands(bare_cli: Cli, lineage: Lineage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trials, "sample_once", lambda model_id, tracking_uri: None)  # the command's own trial is real
    registry = Registry(lineage)
    checkpoint, _ = trained(DatasetSpec(name="digits", max_rows=40), tmp_path)
    ids = [_logged(lineage, checkpoint, name)[0] for name in ("one", "two")]
    first, second = (registry.register("digits", id_, description="", tags={}) for id_ in ids)
    where = {"PAIRFLOW_HOME": str(tmp_path / "home"), "MLFLOW_TRACKING_URI": lineage.client.tracking_uri}
    registry.promote(first, "the first")
    done = bare_cli("rollback", "digits", **where)
    assert (done.code, done.stdout) == (1, "")
    assert done.stderr.startswith("error: pairflow-digits has no version before its champion")
    done = bare_cli("register", ids[1], "--as", "champion", "--reason", "fewer **steps**", "--json", **where)
    assert done.code == 0, done.stderr
    answer = json.loads(done.last_line)
    assert (answer["number"], answer["aliases"], answer["description"]) == (2, ["champion"], "fewer **steps**")
    done = bare_cli("rollback", "pairflow-digits", "--reason", "it was not", "--json", **where)
    assert done.code == 0, done.stderr
    answer = json.loads(done.last_line)
    assert (answer["champion"]["number"], answer["previous"]["number"]) == (first.number, second.number) == (1, 2)
    assert registry.at("pairflow-digits", "champion").number == 1
    np.save(tmp_path / "rows.npy", np.arange(120).reshape(40, 3) % 5)
    own, _ = trained(DatasetSpec(name="tokens", path=str(tmp_path / "rows.npy"), vocab_size=5), tmp_path / "own")
    done = bare_cli("register", _logged(lineage, own, "own")[0], "--json", **where)
    assert json.loads(done.last_line)["tags"][tag.SOURCE] == str(tmp_path / "rows.npy")
    assert "Waiting up to" not in done.stderr
    # One that an earlier release registered has no source; asked for again it gets it, and the new text.
    lineage.client.delete_model_version_tag("pairflow-tokens", "1", tag.SOURCE)
    again = bare_cli("register", _answer(done)["model_id"], "--reason", "said anew", "--json", **where)
    assert (_answer(again)["number"], _answer(again)["description"]) == (1, "said anew")
    assert _answer(again)["tags"] == _answer(done)["tags"]
    assert _answer(bare_cli("register", _answer(done)["model_id"], "--json", **where)) == _answer(again)
    done = bare_cli("register", str(checkpoint), **where)
    assert done.code == 1
    assert "has not an id in MLflow" in done.stderr
