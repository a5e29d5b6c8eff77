"""What a flow says on the terminal of the command that runs it."""

import logging
import os

import pytest

from flows.cluster.protocol import PROGRESS
from flows.command.terminal_log import TerminalHandler, Verbosity, fitted, line
from pairflow.errors import StoreError

_OURS, _PREFECTS = "/home/me/flows/stages/run_job.py", "/venv/site-packages/prefect/flow_engine.py"


def _record(message: str, level: int = logging.INFO, *, path: str = _OURS, **more: object) -> logging.LogRecord:
    record = logging.LogRecord("prefect.flow_runs", level, path, 1, message, (), None)
    vars(record).update(more)
    return record


@pytest.mark.parametrize(
    ("name", "message", "level", "expected"),
    [
        ("pair nci closed form T20", "nci: 48 of 60 rows kept", logging.INFO, "pair nci ▸ 48 of 60 rows kept"),
        ("pair nci closed form T20", "pair nci: 3 of 9 rows", logging.INFO, "pair nci ▸ 3 of 9 rows"),
        ("train nci udlm", "nci: 48 rows", logging.INFO, "train nci udlm ▸ 48 rows"),
        ("train nci udlm", "Finished in state Completed('loss 1.2')", logging.INFO, "train nci udlm ▸ loss 1.2"),
        ("train nci udlm", "it is slow", logging.WARNING, "train nci udlm ▸ warning: it is slow"),
        ("evaluate nci UDLM and PairFlow", "done", logging.INFO, "evaluate nci ▸ done"),
        (None, "of a library", logging.WARNING, "warning: of a library"),
    ],
)
def test_lines_are_short(name: str | None, message: str, level: int, expected: str) -> None:
    assert line(_record(message, level, flow_run_name=name)) == expected


@pytest.mark.parametrize(
    ("verbosity", "expected"),
    [
        (Verbosity.QUIET, ["error"]),
        (Verbosity.NORMAL, ["ours", "progress", "warning", "error"]),
        (Verbosity.VERBOSE, ["ours in detail", "ours", "progress", "Prefect's", "warning", "error"]),
    ],
)
def test_verbosity_decides_what_is_said(
    verbosity: Verbosity, expected: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    handler = TerminalHandler(verbosity)
    for record in (
        _record("Prefect's in detail", logging.DEBUG, path=_PREFECTS),
        _record("ours in detail", logging.DEBUG),
        _record("ours"),
        _record("progress", **{PROGRESS: True}),
        _record("Prefect's", path=_PREFECTS),
        _record("Finished in state Failed", logging.ERROR, path=_PREFECTS),
        _record("known", logging.ERROR, exc_info=(StoreError, StoreError("said by the command"), None)),
        _record("warning", logging.WARNING, path=_PREFECTS),
        _record("error", logging.ERROR, path=_PREFECTS),
    ):
        if record.levelno >= handler.level:
            handler.handle(record)
    said = capsys.readouterr()
    assert said.out == ""
    assert [each.removeprefix("warning: ") for each in expected] == [
        text.split(": ")[-1][9 * (verbosity is Verbosity.VERBOSE and ": " not in text) :]
        for text in said.err.splitlines()
    ]


def test_a_stage_says_what_it_came_to_and_nothing_twice(capsys: pytest.CaptureFixture[str]) -> None:
    handler = TerminalHandler(Verbosity.NORMAL)
    whole = {"flow_run_id": "1", "flow_run_name": "pipeline nci demo"}
    stage = {"flow_run_id": "2", "flow_run_name": "pair nci closed form"}
    handler.handle(_record("Beginning flow run", path=_PREFECTS, **whole))
    handler.handle(_record("nci: 48 rows kept", **stage))
    handler.handle(_record("nci: 48 rows kept", **{**stage, "flow_run_name": "train nci udlm"}))
    handler.handle(_record("Finished in state Completed('48 pairs')", path=_PREFECTS, **stage))
    evaluation = {"flow_run_id": "3", "flow_run_name": "evaluate nci UDLM", "flow_name": "evaluate"}
    handler.handle(_record("Finished in state Completed('level')", path=_PREFECTS, **evaluation))
    handler.handle(_record("Finished in state Completed('level')", path=_PREFECTS, **whole))
    assert capsys.readouterr().err == "pair nci ▸ 48 rows kept\npair nci ▸ 48 pairs\n"


def test_lines_fit_a_terminal_and_paths_stay_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.get_terminal_size", lambda *_, **__: os.terminal_size((80, 24)))
    words = "pair nci ▸ " + "word " * 30 + "end"
    shown = fitted(words)
    assert max(map(len, shown.splitlines())) <= 80
    assert shown.split() == words.split()
    path = "pair nci ▸ " + "word " * 14 + "/home/me/a folder/of pairs"
    assert fitted(path) == path
