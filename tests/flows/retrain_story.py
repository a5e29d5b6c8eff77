"""Retrainings one after the other in this process: `python -m tests.flows.retrain_story '[{...}, ...]'`.

The flows, Prefect's server, MLflow and the store are real; jobs run here instead of on Ray, which takes its seconds
each time (but for the coupling, which needs Ray's tasks). A step is the flow's parameters, or the rows of a file that
is dropped into the data's folder.
"""

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np


def _run_here(name: str, parameters: Any, result_type: Any, **options: Any) -> Any:
    from flows.stages.surroundings import job_context

    return importlib.import_module(f"flows.jobs.{name}").run(parameters, job_context(submission_id=None))


def main(steps: list[dict[str, Any]]) -> None:
    from flows.home.settings import Settings, prepare_environment

    prepare_environment(Settings.read())
    from flows import evaluate, retrain, train
    from flows.parameters import RetrainParameters

    for module in (evaluate, retrain, train):
        module.run_job = _run_here
    for step in steps:
        if "file" in step:
            np.save(Path(step["file"]), np.array(step["rows"], np.uint8))
            continue
        result = retrain.retrain(RetrainParameters.model_validate(step))
        print("RESULT", result.model_dump_json(), flush=True)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
