"""`pairflow up`, `status`, `down` and `logs`: the servers on this machine."""

import json as json_module
import shlex
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.table import Table

from flows.command import options as opt
from flows.command import signals
from flows.home.places import resolved_home
from flows.home.settings import Settings
from flows.home.token import USER
from flows.service import database as databases
from flows.service import health, stack, watch
from flows.service.programs import SERVER_NAMES, ProgramName, urls
from flows.service.remains import end_all
from flows.service.supervision import Supervisor
from pairflow.paths import default_home

_STOP_TIMEOUT_S = 120.0  # runs in progress stop their jobs, then each program has its turn
_OPEN = (
    "PAIRFLOW_AUTH=off: Prefect and MLflow ask nobody for a token. Every user of this machine, and web pages in your "
    "browser, can read and change the histories and run code as you; Ray alone still asks."
)
_LETS_IN = "it answers who has no token: `pairflow down` and `pairflow up`"
LogName = Literal[ProgramName, "supervisor"]


def add_to(app: typer.Typer) -> None:
    """Adds the commands to the command line."""
    app.command("up")(up)
    app.command("status")(status)
    app.command("down")(down)
    app.command("logs")(logs)


def up(
    detach: Annotated[
        bool, typer.Option("--detach", help="Leave the servers running; `pairflow down` ends them.")
    ] = False,
    database: Annotated[
        str | None,
        typer.Option(
            metavar="postgresql://USER@HOST/NAME",
            help="Keep the histories of Prefect and MLflow in PostgreSQL, in NAME_prefect and NAME_mlflow, which are "
            "made; the password comes from PGPASSWORD or ~/.pgpass. The next `up` does so again.",
        ),
    ] = None,
) -> None:
    """Start Prefect, MLflow, Ray and a worker on this machine, and register the flows; Ctrl-C ends all of it.

    Flow runs are then started in Prefect's UI, or by `pairflow pair` and its like in another terminal. Where the
    servers run already, this says so.
    """
    settings = Settings.read()
    supervisor = Supervisor(settings.home)
    variable = None if settings.database_url is None else settings.database_url.get_secret_value()
    wanted = databases.chosen(settings.home, database, variable)
    started = time.monotonic()
    ours = False
    try:
        with stack.one_at_a_time(settings, _say):
            ours = supervisor.pid() is None
            if ours:
                _say_if_unseen(settings, wanted)
                stack.start(settings, supervisor, _say, wanted)
            else:
                databases.refuse_another(settings.home, wanted)
                stack.attach(Settings.read(), supervisor, _say)
        if not ours:
            _show_urls(Settings.read())
            return
        _say(f"ready after {time.monotonic() - started:.0f} s")
        _show_urls(settings)
        if detach:
            print("`pairflow status` shows how they are, `pairflow down` ends them.")
            return
        print("Ctrl-C ends all of it.", flush=True)
        stack.wait(supervisor)
    except KeyboardInterrupt:
        if not ours:  # what another `up` runs, or is about to, is none of ours to end
            raise
        signals.take_your_time(_STOP_TIMEOUT_S, at_once=lambda: end_all(settings.home, timeout_s=2))
        _say("ending; runs in progress stop their Ray jobs")
        stack.stop(settings, supervisor)
        _say("all ended; `pairflow up` finds everything again")
        raise typer.Exit(128 + signal.SIGINT) from None


def status(json: opt.Json = False) -> None:
    """Show how the servers are, and whether they do their work; exit code 1 if not all is well, or none runs."""
    settings = Settings.read()
    supervisor = Supervisor(settings.home)
    running = supervisor.pid() is not None
    states = supervisor.states() if running else []
    well = {each.name: each.state == "RUNNING" and health.is_healthy(each.name, settings) for each in states}
    report = watch.read(settings.home) if running else None
    findings = () if report is None else report.findings
    if running and settings.auth == "on":
        found = [name for name in SERVER_NAMES if health.lets_anybody_in(name, settings)]
        findings += tuple(watch.Finding(name=f"{name}: access", reason=_LETS_IN) for name in found)
    faults = [each for each in findings if each.reason is not None]
    at = urls(settings)
    if json:
        rows = [asdict(each) | {"healthy": well[each.name], "url": at.get(each.name)} for each in states]
        kept = databases.remembered(settings.home)
        about = {"home": str(settings.home), "running": running, "database": str(kept) if kept else "sqlite"}
        about["auth"] = settings.auth
        work = [{"name": each.name, "healthy": each.reason is None, "reason": each.reason} for each in findings]
        print(json_module.dumps(about | {"programs": rows, "work": work}))
    elif not running:
        print(f"nothing runs for {settings.home}; `pairflow up` starts it")
    else:
        table = Table("program", "state", "healthy", "for", "pid", "URL", title=f"PairFlow in {settings.home}")
        for each in states:
            since = f"{each.seconds // 60} min" if each.seconds >= 120 else f"{each.seconds} s"
            shown = ("yes" if well[each.name] else "no", since, str(each.pid), at.get(each.name, ""))
            table.add_row(each.name, each.state, *shown)
        Console().print(table)
        _say_faults(faults, len(findings))
        print(_OPEN if settings.auth == "off" else "who may come in: who holds what `pairflow token` prints")
    if not running or faults or not all(well.values()):
        raise typer.Exit(1)


def down() -> None:
    """End the servers and all their processes; what they keep stays."""
    settings = Settings.read()
    supervisor = Supervisor(settings.home)
    found = stack.stop(settings, supervisor)
    print("all ended; `pairflow up` finds everything again" if found else f"nothing runs for {settings.home}")


def logs(
    name: Annotated[LogName, typer.Argument(help="Whose log.")],
    lines: Annotated[int, typer.Option(min=1, help="How many of its last lines.")] = 100,
) -> None:
    """Print the end of a program's log."""
    supervisor = Supervisor(Settings.read().home)
    for line in supervisor.log_lines(name, lines):
        print(line)
    if not supervisor.log_path(name).is_file():
        print(f"there is no log at {supervisor.log_path(name)}; `pairflow up` starts what writes it", file=sys.stderr)
        raise typer.Exit(1)


def _say_if_unseen(settings: Settings, wanted: databases.Database | None) -> None:
    if wanted is not None and databases.remembered(settings.home) is None and (settings.home / "prefect").is_dir():
        _say(f"the histories are now those of {wanted}; what SQLite holds under {settings.home} stays there, unseen")


def _say_faults(faults: Sequence[watch.Finding], looked_at: int) -> None:
    """What the servers do not do although they answer."""
    for each in faults:
        print(f"not well: {each.name}: {each.reason}")
    if looked_at and not faults:
        print(f"their work is done: {looked_at} things that are looked at all the time")


def _show_urls(settings: Settings) -> None:
    at = urls(settings)
    print(f"Prefect  {at['prefect']}  start and follow runs")
    print(f"MLflow   {at['mlflow']}  what came from what")
    print(f"Ray      {at['ray']}  jobs and logs")
    if (kept := databases.remembered(settings.home)) is not None:
        print(f"Database {kept}  both histories, in {kept.prefect_name} and {kept.mlflow_name}")
    closed = settings.auth == "on"
    print("Each page asks once, for what `pairflow token` prints." if closed else _OPEN)
    print("For a notebook or another shell:")
    if closed and settings.home != resolved_home(default_home()):  # whose token it is
        print(f"  export PAIRFLOW_HOME={shlex.quote(str(settings.home))}")
    print(f"  export MLFLOW_TRACKING_URI={at['mlflow']}")
    if closed:  # the token itself must not stand in what is kept of this output
        print(f'  export MLFLOW_TRACKING_USERNAME={USER} MLFLOW_TRACKING_PASSWORD="$(pairflow token)"')
    print(f"  export PREFECT_API_URL={at['prefect']}/api")
    if closed:
        print(f'  export PREFECT_API_AUTH_STRING="{USER}:$(pairflow token)"')


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
