"""Answers a command of which all is done already, in a second: no server is started, and no run of a flow is begun."""

import logging
from collections.abc import Callable, Iterable
from typing import Any

from flows.command.terminal_log import TerminalHandler, Verbosity
from flows.home.settings import Settings
from flows.jobs import evaluations, finished, finished_comparison
from flows.parameters import FlowParameters, PipelineParameters, StudyParameters
from flows.requests import DistillRequest, EvaluateRequest, PairRequest, PrepareRequest, TrainRequest
from flows.results import Found

_Finder = Callable[[Any, Settings], tuple[Any, Iterable[Found[Any]]] | None]


def answer(name: str, parameters: FlowParameters, settings: Settings, verbosity: Verbosity) -> Any:
    """The result of a flow that would find everything done, said as the flow would say it; None: run the flow.

    Args:
        name: of the flow.
        parameters: of the flow.
        settings: where to look.
        verbosity: of what is said on the terminal.
    """
    finder = _FINDERS.get(name)
    found = None if finder is None else finder(parameters, settings.at_store(parameters.store))
    if found is None:
        return None
    result, stages = found
    terminal = TerminalHandler(verbosity)
    for each in stages:
        lines = [(logging.INFO, each.data), *((logging.WARNING, note) for note in each.notes)]
        for level, text in (*lines, (logging.INFO, each.sentence)):
            said = {"msg": text, "levelno": level, "levelname": logging.getLevelName(level), "flow_run_name": each.run}
            if level >= terminal.level:
                terminal.handle(logging.makeLogRecord(said))
    return result


def _one(found: Found[Any] | None) -> tuple[Any, Iterable[Found[Any]]] | None:
    return None if found is None else (found.result, (found,))


def _comparison(parameters: StudyParameters, stage: str, settings: Settings) -> tuple[Any, Iterable[Found[Any]]] | None:
    found = finished_comparison.find(parameters, stage, settings)
    return None if found is None else (found.result, found.stages)


def _pipeline(parameters: PipelineParameters, settings: Settings) -> tuple[Any, Iterable[Found[Any]]] | None:
    return _comparison(parameters.study, "pipeline", settings)


def _study(parameters: StudyParameters, settings: Settings) -> tuple[Any, Iterable[Found[Any]]] | None:
    return _comparison(parameters, "study", settings)


_FINDERS: dict[str, _Finder] = {
    "prepare": lambda parameters, settings: _one(finished.find_prepared(PrepareRequest.of(parameters), settings)),
    "pair": lambda parameters, settings: _one(finished.find_pairs(PairRequest.of(parameters), settings)),
    "train": lambda parameters, settings: _one(finished.find_model(TrainRequest.of(parameters), settings)),
    "distill": lambda parameters, settings: _one(finished.find_model(DistillRequest.of(parameters), settings)),
    "evaluate": lambda parameters, settings: _one(evaluations.find(EvaluateRequest.of(parameters), settings)),
    "pipeline": _pipeline,
    "study": _study,
}
"""Of flows whose result is a function of what was asked for; a retraining also depends on what serves now."""
