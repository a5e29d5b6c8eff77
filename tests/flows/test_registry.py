"""The registry: which version has which alias, and what is refused."""

import json
import socket
from collections.abc import Iterator

import pytest
from mlflow import MlflowClient

from flows.home.settings import Settings
from flows.lineage.errors import LineageError
from flows.lineage.registry import Registry
from flows.lineage.search import all_registered
from flows.lineage.tracking import Lineage
from flows.lineage.versions import Versions, name_of

from .registered import aliases, empty_registry, made


@pytest.fixture(scope="module")
def lineage(tmp_path_factory: pytest.TempPathFactory) -> Lineage:
    return Lineage(Settings(home=tmp_path_factory.mktemp("registry")))


@pytest.fixture
def registry(lineage: Lineage, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    yield from empty_registry(lineage, monkeypatch)


def test_promotions_move_the_aliases_and_say_why(lineage: Lineage, registry: Registry) -> None:
    first, second, third = made(lineage, registry, 3)
    assert registry.find("pairflow-nci", "champion") is None
    assert registry.promote(first, "the first") is None
    assert aliases(lineage) == {"champion": 1}
    registry.challenge(second, "close")
    assert aliases(lineage) == {"champion": 1, "challenger": 2}
    before = registry.promote(second, "FCD **3.1** against 3.4")
    assert (before.number if before else None) == 1
    assert aliases(lineage) == {"champion": 2, "previous": 1}
    registry.promote(third, "better still")
    assert aliases(lineage) == {"champion": 3, "previous": 2}
    champion = registry.at("pairflow-nci", "champion")
    assert (champion.number, champion.description, champion.aliases) == (3, "better still", ("champion",))
    assert champion.model_id == third.model_id
    assert champion.tags == {"pairflow.method": "udlm"}
    assert registry.at("pairflow-nci", "2").description == "FCD **3.1** against 3.4"
    with pytest.raises(LineageError, match="is the champion; it cannot challenge itself"):
        registry.challenge(champion, "again")


def test_a_rollback_exchanges_champion_and_previous(lineage: Lineage, registry: Registry) -> None:
    first, second = made(lineage, registry, 2)
    with pytest.raises(LineageError, match="has no alias 'champion'"):
        registry.rollback("pairflow-nci", "no")
    registry.promote(first, "the first")
    with pytest.raises(LineageError, match="no version before its champion, version 1"):
        registry.rollback("pairflow-nci", "no")
    registry.promote(second, "figures")
    now, before = registry.rollback("pairflow-nci", "bad\nmolecules")
    assert (now.number, before.number) == (1, 2)
    assert aliases(lineage) == {"champion": 1, "previous": 2}
    assert now.description == "> Champion again, after version 2: bad molecules\n\nthe first"
    assert before.description == "> Rolled back to version 1: bad molecules\n\nfigures"
    now, before = registry.rollback("pairflow-nci", "they were fine")
    assert aliases(lineage) == {"champion": 2, "previous": 1}
    assert now.description == "> Champion again, after version 1: they were fine\n\nfigures"
    lineage.client.delete_model_version("pairflow-nci", "1")
    with pytest.raises(LineageError, match="no version before"):
        registry.rollback("pairflow-nci", "gone")


def test_a_model_is_registered_once(lineage: Lineage, registry: Registry) -> None:
    (first,) = made(lineage, registry, 1)
    again = registry.register("nci", first.model_id, description="another", tags={})
    assert (again.number, again.description) == (1, "text")
    (second,) = made(lineage, registry, 1)
    assert second.number == 2
    lineage.client.delete_model_version("pairflow-nci", "2")
    assert registry.register("nci", second.model_id, description="", tags={}).number == 3
    links = json.loads(lineage.client.get_logged_model(first.model_id).tags["mlflow.modelVersions"])
    assert links == [{"name": "pairflow-nci", "version": 1}]


def test_a_registered_model_that_somebody_renamed_is_named(lineage: Lineage, registry: Registry) -> None:
    (first,) = made(lineage, registry, 1)
    registry.promote(first, "the first")
    lineage.client.rename_registered_model("pairflow-nci", "our-best")
    says = r"pairflow-nci is called 'our-best' in MLflow at .* now; rename it back on its page"
    for ask in (
        lambda: registry.find("pairflow-nci", "champion"),
        lambda: registry.at("pairflow-nci", "champion"),
        lambda: made(lineage, registry, 1),
    ):
        with pytest.raises(LineageError, match=says):
            ask()
    assert [each.name for each in all_registered(lineage.client)] == ["our-best"]
    lineage.client.rename_registered_model("our-best", "pairflow-nci")
    assert registry.at("pairflow-nci", "champion").number == 1
    lineage.client.rename_registered_model("pairflow-nci", "our-best")
    lineage.client.delete_registered_model_tag("our-best", "pairflow.registered_as")
    assert registry.find("pairflow-nci", "champion") is None


def test_an_alias_that_somebody_took_away_is_named(lineage: Lineage, registry: Registry) -> None:
    registry.check_never_served("pairflow-nci")
    first, second = made(lineage, registry, 2)
    registry.check_never_served("pairflow-nci")  # versions that were registered by hand serve nobody
    registry.promote(first, "the first")
    registry.promote(second, "better")
    registry.check_never_served("pairflow-nci")
    lineage.client.delete_registered_model_alias("pairflow-nci", "champion")
    says = (
        r"took the alias 'champion' of pairflow-nci away, which has 'previous' \(version 1\) .*register pairflow-nci/N"
    )
    with pytest.raises(LineageError, match=says):
        registry.check_never_served("pairflow-nci")
    lineage.client.delete_registered_model_alias("pairflow-nci", "previous")
    registry.check_never_served("pairflow-nci")


def test_what_is_not_there_is_named(lineage: Lineage, registry: Registry) -> None:
    first, second = made(lineage, registry, 2)
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
    assert aliases(lineage) == {"champion": 1}
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
