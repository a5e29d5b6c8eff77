"""The jobs of a comparison, known before it starts."""

from types import SimpleNamespace
from typing import Any

import pytest

from flows.parameters import PipelineParameters, StudyParameters
from flows.requests import Plan
from pairflow.spec import DatasetSpec


@pytest.mark.parametrize(
    "parameters",
    [
        PipelineParameters(dataset=DatasetSpec(name="digits")).study,
        StudyParameters(dataset=DatasetSpec(name="digits"), methods=("mdlm", "udlm")),
        StudyParameters(
            dataset=DatasetSpec(name="nci"),
            methods=("udlm", "udlm+redi", "pairflow+dcd", "assigned+redi"),
            training_seeds=(0, 1, 2),
        ),
    ],
    ids=["pipeline", "without pairs", "refined"],
)
def test_jobs_are_those_that_are_asked_for(parameters: StudyParameters) -> None:
    plan = Plan(parameters)
    trained: Any = dict.fromkeys(plan.trainings({}), SimpleNamespace(checkpoint="/runs/1/step-1"))
    stages = {
        "pair": len(plan.pairings()) + len(plan.own_pairings(trained)),
        "train": len(trained),
        "distill": len(plan.refinements({}, trained)),
        "evaluate": 1,
    }
    assert {stage: plan.jobs.count(stage) for stage in stages} == stages
    assert len(plan.jobs) == sum(stages.values())
    assert list(dict.fromkeys(plan.jobs)) in (
        ["pair", "train", "evaluate"],
        ["train", "evaluate"],
        ["pair", "train", "distill", "evaluate"],
    )
    own = plan.jobs[plan.jobs.index("train") :].count("pair")
    assert own == len(plan.own_pairings(trained))
