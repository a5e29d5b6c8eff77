"""A contest for the place of champion, its data and its rivals, as tests of it write them."""

from typing import Any

from flows.contest.contest import Contest
from flows.lineage.registry import Version
from flows.parameters import RetrainParameters
from flows.recipes.changes import resolve
from flows.results import Survey
from pairflow.spec import DatasetSpec

SURVEY = Survey(
    dataset_digest="d" * 64,
    source="/data/rows",
    num_rows=90,
    num_held_out=10,
    engine="cpu/1",
    misfit=None,
    cannot_extend=None,
)


def version(number: int, tags: dict[str, str]) -> Version:
    return Version("pairflow-x", number, f"m-{number}", "r", (), tags, "")


def contest(
    champion: Version | None = None, survey: Survey = SURVEY, challenger: Version | None = None, **fields: Any
) -> Contest:
    given = {"dataset": DatasetSpec(name="digits"), "name": "x", "trials": 3, **fields}
    parameters = RetrainParameters.model_validate(given)
    return Contest(parameters, resolve(parameters.study), "pairflow-x", survey, champion, challenger)
