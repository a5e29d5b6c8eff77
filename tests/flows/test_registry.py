"""The registry: aliases that move in an order that no kill can spoil, and what is refused."""

import json
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from flows import models
from flows.jobs.protocol import JobContext
from flows.lineage import Lineage, LineageError, Registry, Version, name_of
from flows.lineage import trial as trials
from flows.lineage.versions import Versions
from flows.settings import Settings
from pairflow.errors import CheckpointError
from pairflow.spec import DatasetSpec

from .conftest import Cli
from .model_files import trained

pytestmark = [
    # MLflow's own: of a SQLAlchemy that is newer than it, and of its own type hints.
    pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning"),
]

_WRITES = (
    "update_model_version",
    "set_registered_model_alias",
    "delete_registered_model_alias",
    "set_registered_model_tag",
    "delete_registered_model_tag",
)


class _KilledError(BaseException):
    """The process ends here."""


@pytest.fixture(scope="module")
def lineage(tmp_path_factory: pytest.TempPathFactory) -> Lineage:
    return Lineage(Settings(home=tmp_path_factory.mktemp("registry")))


@pytest.fixture
def registry(lineage: Lineage, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    """A registry that takes models without files: the trial has tests of its own."""
    monkeypatch.setattr(trials, "sample_once", lambda model_id, tracking_uri: None)
    yield Registry(lineage)
    for model in lineage.client.search_registered_models():
        lineage.client.delete_registered_model(model.name)


def _versions(lineage: Lineage, registry: Registry, count: int) -> list[Version]:
    experiment = lineage.experiment("nci")
    run_id = lineage.client.create_run(experiment).info.run_id
    made = [lineage.client.create_logged_model(experiment, name="m", source_run_id=run_id) for _ in range(count)]
    ids = [str(model.model_id) for model in made]
    return [registry.register("nci", id_, description="text", tags={"pairflow.method": "udlm"}) for id_ in ids]


def _aliases(lineage: Lineage) -> dict[str, int]:
    found = lineage.client.get_registered_model("pairflow-nci").aliases
    return {alias: int(number) for alias, number in found.items()}


def test_promotions_move_the_aliases_and_say_why(lineage: Lineage, registry: Registry) -> None:
    first, second, third = _versions(lineage, registry, 3)
    assert registry.find("pairflow-nci", "champion") is None
    assert registry.promote(first, "the first") is None
    assert _aliases(lineage) == {"champion": 1}
    registry.challenge(second, "close")
    assert _aliases(lineage) == {"champion": 1, "challenger": 2}
    before = registry.promote(second, "FCD **3.1** against 3.4")
    assert (before.number if before else None) == 1
    assert _aliases(lineage) == {"champion": 2, "previous": 1}
    registry.promote(third, "better still")
    assert _aliases(lineage) == {"champion": 3, "previous": 2}
    champion = registry.at("pairflow-nci", "champion")
    assert (champion.number, champion.description, champion.aliases) == (3, "better still", ("champion",))
    assert champion.model_id == third.model_id
    assert champion.tags == {"pairflow.method": "udlm"}
    assert registry.at("pairflow-nci", "2").description == "FCD **3.1** against 3.4"
    with pytest.raises(LineageError, match="is the champion; it cannot challenge itself"):
        registry.challenge(champion, "again")


def test_a_rollback_exchanges_champion_and_previous(lineage: Lineage, registry: Registry) -> None:
    first, second = _versions(lineage, registry, 2)
    with pytest.raises(LineageError, match="has no alias 'champion'"):
        registry.rollback("pairflow-nci", "no")
    registry.promote(first, "the first")
    with pytest.raises(LineageError, match="no version before its champion, version 1"):
        registry.rollback("pairflow-nci", "no")
    registry.promote(second, "figures")
    now, before = registry.rollback("pairflow-nci", "bad\nmolecules")
    assert (now.number, before.number) == (1, 2)
    assert _aliases(lineage) == {"champion": 1, "previous": 2}
    assert now.description == "> Champion again, after version 2: bad molecules\n\nthe first"
    assert before.description == "> Rolled back to version 1: bad molecules\n\nfigures"
    now, before = registry.rollback("pairflow-nci", "they were fine")
    assert _aliases(lineage) == {"champion": 2, "previous": 1}
    assert now.description == "> Champion again, after version 1: they were fine\n\nfigures"
    lineage.client.delete_model_version("pairflow-nci", "1")
    with pytest.raises(LineageError, match="no version before"):
        registry.rollback("pairflow-nci", "gone")


def _promote(registry: Registry) -> None:
    registry.promote(registry.at("pairflow-nci", "3"), "why")


def _roll_back(registry: Registry) -> None:
    registry.rollback("pairflow-nci", "why")


@pytest.mark.parametrize(
    ("move", "ends"),
    [(_promote, {"champion": 3, "previous": 1}), (_roll_back, {"champion": 2, "previous": 1, "challenger": 3})],
)
def test_killed_between_any_two_writes_and_repeated(
    lineage: Lineage,
    registry: Registry,
    monkeypatch: pytest.MonkeyPatch,
    move: Callable[[Registry], None],
    ends: dict[str, int],
) -> None:
    """Before write k, for each k: there is a champion all the same, and the same call again ends as one alone."""
    _versions(lineage, registry, 3)
    client, kills = lineage.client, 0
    for last in range(20):
        for alias, number in {"champion": "1", "previous": "2", "challenger": "3"}.items():
            client.set_registered_model_alias("pairflow-nci", alias, number)
        with monkeypatch.context() as patch:
            _die_before(last, client, patch)
            try:
                move(registry)
            except _KilledError:
                kills += 1
            else:
                break
        assert _aliases(lineage)["champion"] in {1, ends["champion"]}
        move(registry)
        assert _aliases(lineage) == ends
    assert kills >= 4
    assert _aliases(lineage) == ends


def _die_before(last: int, client: MlflowClient, patch: pytest.MonkeyPatch) -> None:
    done = 0

    def dying(write: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **keywords: Any) -> Any:
            nonlocal done
            if done == last:
                raise _KilledError
            done += 1
            return write(*arguments, **keywords)

        return call

    for name in _WRITES:
        patch.setattr(client, name, dying(getattr(client, name)))


def test_a_promotion_ends_a_rollback_that_was_killed(lineage: Lineage, registry: Registry) -> None:
    first, second, third = _versions(lineage, registry, 3)
    registry.promote(first, "1")
    registry.promote(second, "2")
    lineage.client.set_registered_model_tag("pairflow-nci", "pairflow.rollback", '{"from": 2, "to": 1}')
    registry.promote(third, "3")
    assert _aliases(lineage) == {"champion": 3, "previous": 1}
    # A version that is gone by then is not gone back to.
    lineage.client.set_registered_model_tag("pairflow-nci", "pairflow.rollback", '{"from": 3, "to": 2}')
    lineage.client.delete_model_version("pairflow-nci", "2")
    registry.promote(third, "3")
    assert _aliases(lineage) == {"champion": 3, "previous": 1}


def test_promotions_at_the_same_time_leave_one_champion(lineage: Lineage, registry: Registry) -> None:
    first, second, third = _versions(lineage, registry, 3)
    registry.promote(first, "start")
    failed: list[BaseException] = []

    def promote(version: Version) -> None:
        try:
            for _ in range(3):
                registry.promote(version, "race")
        except BaseException as error:  # shown by the test
            failed.append(error)

    threads = [threading.Thread(target=promote, args=(version,)) for version in (second, third)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert registry.find("pairflow-nci", "champion") is not None
    for thread in threads:
        thread.join()
    assert failed == []
    assert _aliases(lineage)["champion"] in {2, 3}
    assert set(_aliases(lineage)) == {"champion", "previous"}


def test_a_model_is_registered_once(lineage: Lineage, registry: Registry) -> None:
    (first,) = _versions(lineage, registry, 1)
    again = registry.register("nci", first.model_id, description="another", tags={})
    assert (again.number, again.description) == (1, "text")
    (second,) = _versions(lineage, registry, 1)
    assert second.number == 2
    lineage.client.delete_model_version("pairflow-nci", "2")
    assert registry.register("nci", second.model_id, description="", tags={}).number == 3
    links = json.loads(lineage.client.get_logged_model(first.model_id).tags["mlflow.modelVersions"])
    assert links == [{"name": "pairflow-nci", "version": 1}]


def test_what_is_not_there_is_named(lineage: Lineage, registry: Registry) -> None:
    first, second = _versions(lineage, registry, 2)
    registry.promote(first, "the first")
    lineage.client.delete_model_version("pairflow-nci", "2")
    for name, which, says in (
        ("pairflow-nci", "nosuch", r"has no alias 'nosuch'; it has champion \(version 1\); versions 1$"),
        ("pairflow-nci", "2", r"has no version 2; it has champion \(version 1\); versions 1$"),
        ("pairflow-nci", "champion@x", "has no alias 'champion@x'"),
        ("pairflow-x", "champion", "has no registered model 'pairflow-x'; it has pairflow-nci"),
    ):
        with pytest.raises(LineageError, match=says):
            registry.at(name, which)
    assert registry.find("pairflow-x", "champion") is None
    with pytest.raises(LineageError, match="did not do what the registry needs"):
        registry.promote(second, "deleted")
    assert _aliases(lineage) == {"champion": 1}
    with pytest.raises(LineageError, match="not found"):
        registry.register("nci", f"m-{'0' * 32}", description="", tags={})


@pytest.mark.parametrize("name", ["../x", "a b", "a@b", "", "a/b", "x" * 129, "a:b", "-x", "ä"])
def test_names_that_are_none(registry: Registry, name: str) -> None:
    with pytest.raises(LineageError, match="is no name of a registered model"):
        registry.at(name, "champion")
    if not name.startswith("-"):
        with (
            pytest.raises(LineageError, match="is no name of a registered model")
            if name
            else pytest.raises(LineageError)
        ):
            registry.rollback(name, "why")


def test_names_of_datasets() -> None:
    assert name_of("zinc-250k") == "pairflow-zinc-250k"
    with pytest.raises(LineageError, match="is no name"):
        name_of("../x")


def test_a_server_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with socket.socket() as taken:  # bound and not listening: nobody else gets the port
        taken.bind(("127.0.0.1", 0))
        away = Versions(MlflowClient(f"http://me:secret@127.0.0.1:{taken.getsockname()[1]}"))
        for ask in (away.at, away.find):
            with pytest.raises(LineageError, match="did not do what the registry needs") as told:
                ask("pairflow-nci", "champion")
            assert "secret" not in str(told.value)


def _logged(lineage: Lineage, checkpoint: Path, fingerprint: str) -> tuple[str, Path]:
    """(id of a new logged model, the folder of its files)."""
    context = JobContext(submission_id=None, flow_run_id="1")
    with lineage.run("digits", "train", fingerprint, name="train", specs={}, context=context) as run:
        model_id = run.log_model("digits-udlm", checkpoint, params={}, tags={})
    return model_id, Path(lineage.client.get_logged_model(model_id).artifact_location.removeprefix("file://"))


def test_models_that_are_damaged_or_gone_are_not_registered(lineage: Lineage, tmp_path: Path) -> None:
    checkpoint, _ = trained(DatasetSpec(name="digits", max_rows=40), tmp_path)
    settings = Settings(home=tmp_path / "home", mlflow_uri=lineage.client.tracking_uri)
    damaged, files = _logged(lineage, checkpoint, "damaged")
    tensors = files / "artifacts" / checkpoint.name / "tensors.safetensors"
    content = bytearray(tensors.read_bytes())
    content[8] ^= 1  # the first byte of the header, a brace
    tensors.write_bytes(content)
    registry = Registry(lineage)
    with pytest.raises(LineageError, match=r"cannot be loaded back.*tensors\.safetensors is damaged"):
        registry.register("digits", damaged, description="", tags={})
    gone, files = _logged(lineage, checkpoint, "gone")
    shutil.rmtree(files)
    with pytest.raises(LineageError, match="cannot be loaded back"):
        registry.register("digits", gone, description="", tags={})
    with pytest.raises((LineageError, CheckpointError), match=gone):
        models.resolve(gone, settings)
    assert lineage.client.search_registered_models("name = 'pairflow-digits'") == []


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


def test_the_commands(bare_cli: Cli, lineage: Lineage, registry: Registry, tmp_path: Path) -> None:
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
    done = bare_cli("register", str(checkpoint), **where)
    assert done.code == 1
    assert "has not an id in MLflow" in done.stderr
