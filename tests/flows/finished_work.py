"""What the session's pipeline left, asked for again."""

from typing import Any

from flows.home.settings import Settings
from flows.jobs import finished
from flows.parameters import FlowParameters, PairParameters
from flows.recipes.changes import assignments, with_assignments
from flows.requests import PairRequest
from flows.results import PairResult

from .conftest import PIPELINE

Document = dict[str, Any]
DATA = {"name": "nci", "max_rows": 150}
_SET = [str(word) for word in PIPELINE[PIPELINE.index("--set") + 1 :: 2]]


def parameters(parameters_type: type[FlowParameters], **fields: Any) -> Any:
    """Of a flow, with the settings of that pipeline."""
    wanted = parameters_type.model_validate({"dataset": DATA, **fields})
    known = {name.partition(".")[0] for name in type(wanted).model_fields}
    return with_assignments(wanted, assignments([each for each in _SET if each.partition(".")[0] in known]))


def pair(settings: Settings, **fields: Any) -> PairResult | None:
    """What is found of its pairs, or of others."""
    found = finished.find_pairs(PairRequest.of(parameters(PairParameters, **fields)), settings)
    return None if found is None else found.result
