"""The histories of Prefect and MLflow in a real PostgreSQL, which a role of few rights gets into by password."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from flows.service.database import Database, chosen, refuse_another, remember
from flows.service.postgres import prepare
from flows.service.supervision import ServiceError
from pairflow.errors import PairFlowError, SpecError

from ..ports import free_port
from . import postgres_server
from .postgres_server import PostgresServer
from .user import User, words_of

_PASSWORD = "s3cret/of:the@test"  # noqa: S105
_TINY = {"dataset": {"name": "nci", "max_rows": 300}}


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    programs = postgres_server.binaries()
    if programs is None:
        pytest.skip("no PostgreSQL under /usr/lib/postgresql: apt-get install postgresql")
    with postgres_server.running(programs) as started:
        started.execute(f"CREATE ROLE maker LOGIN CREATEDB PASSWORD '{_PASSWORD}'")
        started.execute(f"CREATE ROLE guest LOGIN PASSWORD '{_PASSWORD}'")
        yield started


@pytest.fixture(autouse=True)
def no_password_of_the_developer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("PGPASSWORD", "PGUSER", "PGHOST", "PGSSLMODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PGPASSFILE", str(tmp_path / "none"))


def _database(server: PostgresServer, owner: str = "maker", name: str = "runs", password: str | None = _PASSWORD):
    return Database(owner, "127.0.0.1", server.port, name, password)


def _home(tmp_path: Path, name: str = "home") -> Path:
    (tmp_path / name).mkdir()
    return tmp_path / name


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("mysql://u:hidden@h/d", "another scheme"),
        ("postgresql://h/d", "no user"),
        ("postgresql://u:hidden@/d", "no host"),
        ("", "another scheme"),
        ("postgresql://u:hidden@h:port/d", "cannot be read"),
        ("postgresql://u:hidden@h:70000/d", "cannot be read"),
        ("postgresql://u:hidden@h/d?sslmode=require", "PGSSLMODE"),
        ("postgresql://u:hidden@h/d%22;drop", "letters"),
        ("postgresql://u:hidden@h/../d", "letters"),
        (f"postgresql://u:hidden@h/{'d' * 51}", "letters"),
    ],
)
def test_url_that_is_refused(url: str, says: str) -> None:
    with pytest.raises(SpecError, match=says) as caught:
        Database.parse(url)
    assert "hidden" not in str(caught.value)


def test_urls_of_both_servers_hold_no_password() -> None:
    database = Database.parse("postgresql://us%40er:p%2Fw@[::1]/runs")
    assert database.prefect_url == "postgresql+asyncpg://us%40er@[::1]:5432/runs_prefect"
    assert database.mlflow_url == "postgresql+psycopg://us%40er@[::1]:5432/runs_mlflow"
    assert database.environment() == {
        "PAIRFLOW_DATABASE_URL": "postgresql://us%40er@[::1]:5432/runs",
        "PGPASSWORD": "p/w",
    }
    assert "p/w" not in repr(database)
    assert Database.parse("postgresql://u@h").name == "pairflow"


def test_which_database_is_chosen(tmp_path: Path) -> None:
    (tmp_path / "service").mkdir()
    assert chosen(tmp_path, None, None) is None
    remember(tmp_path, Database.parse("postgresql://u:hidden@h/last"))
    assert "hidden" not in (tmp_path / "service" / "database").read_text()
    by_variable = "postgresql://u:pw@h/variable"
    assert str(chosen(tmp_path, None, None)) == "postgresql://u@h:5432/last"
    assert chosen(tmp_path, None, by_variable) == Database("u", "h", 5432, "variable", "pw")
    assert str(chosen(tmp_path, "postgresql://u@h/option", by_variable)) == "postgresql://u@h:5432/option"
    with pytest.raises(SpecError, match="others see command lines") as caught:
        chosen(tmp_path, "postgresql://u:hidden@h/d", None)
    assert "hidden" not in str(caught.value)
    refuse_another(tmp_path, None)
    refuse_another(tmp_path, Database.parse("postgresql://u:other@h/last"))
    with pytest.raises(SpecError, match="run already, with their histories in postgresql://u@h:5432/last"):
        refuse_another(tmp_path, Database.parse(by_variable))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"password": "wrong"}, "password authentication failed.*PGPASSWORD"),
        ({"password": None}, "no password supplied.*PGPASSWORD"),
        ({"user": "nobody-here"}, "authentication failed"),
        ({"port": 1}, "refused.*start the server"),
        ({"user": "guest", "name": "absent"}, 'CREATE DATABASE "absent_prefect" OWNER "guest";'),
    ],
)
def test_what_is_missing_is_said(server: PostgresServer, tmp_path: Path, changes: dict[str, object], says: str) -> None:
    given = {"user": "maker", "host": "127.0.0.1", "port": server.port, "name": "runs", "password": _PASSWORD}
    with pytest.raises(ServiceError, match=says) as caught:
        prepare(Database(**(given | changes)), _home(tmp_path), lambda _: None)
    assert _PASSWORD not in str(caught.value)


def test_a_database_that_may_not_be_filled(server: PostgresServer, tmp_path: Path) -> None:
    server.execute("CREATE DATABASE strict_prefect")
    server.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC", "strict_prefect")
    with pytest.raises(ServiceError, match='GRANT CREATE ON SCHEMA public TO "guest"'):
        prepare(_database(server, "guest", "strict"), _home(tmp_path), lambda _: None)


def test_databases_that_an_administrator_made(server: PostgresServer, tmp_path: Path) -> None:
    for ending in ("prefect", "mlflow"):
        server.execute(f"CREATE DATABASE given_{ending} OWNER guest")
    said: list[str] = []
    prepare(_database(server, "guest", "given"), _home(tmp_path), said.append)
    assert said == []


def test_databases_of_another_home(server: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = _home(tmp_path)
    said: list[str] = []
    monkeypatch.setenv("PGPASSWORD", _PASSWORD)
    prepare(_database(server, name="shared", password=None), ours, said.append)
    assert said == ["made the database shared_prefect on 127.0.0.1", "made the database shared_mlflow on 127.0.0.1"]
    with pytest.raises(PairFlowError, match=f"that of another home, {ours} on .*DROP SCHEMA pairflow CASCADE"):
        prepare(_database(server, name="shared"), _home(tmp_path, "other"), said.append)
    ours.rename(tmp_path / "moved")
    prepare(_database(server, name="shared"), tmp_path / "moved", said.append)
    assert len(said) == 2


def test_from_up_to_down_and_up_again(
    server: PostgresServer, service_environment: dict[str, str], tmp_path: Path
) -> None:
    ports = {f"PAIRFLOW_{name}_PORT": str(free_port()) for name in ("PREFECT", "MLFLOW", "RAY")}
    user = User(
        service_environment | {"PAIRFLOW_HOME": str(tmp_path / "home"), "PGPASSFILE": str(tmp_path / "none")} | ports
    )
    try:
        url = str(_database(server))
        up = user.run("up", "--detach", PAIRFLOW_DATABASE_URL=url.replace("maker@", "maker:s3cret%2Fof%3Athe%40test@"))
        assert up.returncode == 0, up.stderr
        assert f"Database {url}" in up.stdout

        run_id = user.start("pair", _TINY)
        run = user.wait_for_state(run_id, "Completed", "Failed", "Crashed", timeout_s=180)
        assert run["state_name"] == "Completed", run["state"]
        recorded = server.execute("SELECT id::text, name, state_name FROM flow_run", "runs_prefect")
        assert recorded == [(run_id, "pair nci T20 · 285 rows", "Completed")]
        tagged = "SELECT value, status FROM tags JOIN runs USING (run_uuid) WHERE key = 'pairflow.prefect_run_id'"
        assert server.execute(tagged, "runs_mlflow") == [(run_id, "FINISHED")]
        deployments = "SELECT name FROM deployment ORDER BY name"
        registered = server.execute(deployments, "runs_prefect")
        assert ("pair",) in registered
        assert list(user.home.rglob("*.db")) == []

        _assert_nobody_sees_the_password(user, up.stdout + up.stderr)
        assert user.run("down").returncode == 0
        # Where the histories are is remembered, the password is not.
        refused = user.run("up", "--detach")
        assert refused.returncode == 1
        assert "no password supplied" in refused.stderr
        assert user.processes() == []
        again = user.run("up", "--detach", PGPASSWORD=_PASSWORD)
        assert again.returncode == 0, again.stderr
        assert user.flow_run(run_id)["state_name"] == "Completed"
        assert server.execute(deployments, "runs_prefect") == registered
    finally:
        user.run("down")


def _assert_nobody_sees_the_password(person: User, said: str) -> None:
    """Neither on a command line, nor in a file of the home, nor in the environment of what needs none."""
    written = [path for path in person.home.rglob("*") if path.is_file()]
    assert any(path.name == "prefect.log" for path in written)
    for spelling in (_PASSWORD, "s3cret%2Fof%3Athe%40test"):
        assert spelling not in said
        assert [path for path in written if spelling.encode() in path.read_bytes()] == []
        assert not any(spelling in words_of(each) for each in psutil.Process().children(recursive=True))
    knowing = set()
    for each in person.processes():
        words = words_of(each)
        assert _PASSWORD not in words
        with contextlib.suppress(psutil.NoSuchProcess):
            if _PASSWORD in each.environ().values():
                knowing.add(next(word for word in ("supervisord", "prefect", "mlflow") if word in words))
    assert knowing == {"supervisord", "prefect", "mlflow"}
