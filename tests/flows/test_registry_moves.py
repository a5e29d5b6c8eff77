"""Aliases of the registry move in an order that neither a kill nor another promotion can spoil."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import BAD_REQUEST

from flows.home.settings import Settings
from flows.lineage.registry import Registry
from flows.lineage.tracking import Lineage
from flows.lineage.versions import Version

from .registered import aliases, empty_registry, made

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
    yield from empty_registry(lineage, monkeypatch)


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
    made(lineage, registry, 3)
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
        assert aliases(lineage)["champion"] in {1, ends["champion"]}
        move(registry)
        assert aliases(lineage) == ends
    assert kills >= 4
    assert aliases(lineage) == ends


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
    first, second, third = made(lineage, registry, 3)
    registry.promote(first, "1")
    registry.promote(second, "2")
    lineage.client.set_registered_model_tag("pairflow-nci", "pairflow.rollback", '{"from": 2, "to": 1}')
    registry.promote(third, "3")
    assert aliases(lineage) == {"champion": 3, "previous": 1}
    # A version that is gone by then is not gone back to.
    lineage.client.set_registered_model_tag("pairflow-nci", "pairflow.rollback", '{"from": 3, "to": 2}')
    lineage.client.delete_model_version("pairflow-nci", "2")
    registry.promote(third, "3")
    assert aliases(lineage) == {"champion": 3, "previous": 1}


def test_promotions_at_the_same_time_leave_one_champion(lineage: Lineage, registry: Registry) -> None:
    first, second, third = made(lineage, registry, 3)
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
    assert aliases(lineage)["champion"] in {2, 3}
    assert set(aliases(lineage)) == {"champion", "previous"}


def test_two_that_give_an_alias_for_the_first_time(
    lineage: Lineage, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow looks whether there is one, then inserts it; in between another process has done so."""
    first, second = made(lineage, registry, 2)
    set_alias, others = lineage.client.set_registered_model_alias, [first, first]

    def set_by_another_first(name: str, alias: str, number: str) -> None:
        if others:
            set_alias(name, alias, str(others.pop().number))
            said = "(sqlite3.IntegrityError) UNIQUE constraint failed: registered_model_aliases.alias"
            raise MlflowException(said, error_code=BAD_REQUEST)
        set_alias(name, alias, number)

    monkeypatch.setattr(lineage.client, "set_registered_model_alias", set_by_another_first)
    others.pop()
    registry.promote(second, "first of all")
    assert others == []
    assert aliases(lineage)["champion"] == 2
