"""Retrainings one after the other in one process, which `tell` forks: `tests.flows.retrain_story '[{...}, ...]'`.

The flows, Prefect's server, MLflow and the store are real; jobs run here instead of on Ray, which takes its seconds
each time (but for the coupling, which needs Ray's tasks, and is forked too). A step is the flow's parameters (of
`retrain`, unless `flow` names another one), the rows of a file that is dropped into the data's folder, `toys`, which
are added then, or the name of a registered model whose champion somebody makes its challenger (`unseat`).
"""

import contextlib
import importlib
import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np


def tell(
    steps: Sequence[dict[str, Any]], environment: Mapping[str, str], nursery_address: Path, folder: Path
) -> list[str]:
    """The result of each step that is a flow, as JSON; what is said goes into two files of the folder."""
    from tests.flows.nursery import Child

    said = folder / "stdout", folder / "stderr"
    words = [json.dumps([*steps])]
    child = Child(
        nursery_address, "tests.flows.retrain_story", words, environment=environment, stdout=said[0], stderr=said[1]
    )
    try:
        code = child.wait(1400)
    except TimeoutError:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        raise
    assert code == 0, said[1].read_text()[-5000:]
    lines = said[0].read_text().splitlines()
    return [line.removeprefix("RESULT ") for line in lines if line.startswith("RESULT ")]


def _run_here(name: str, request: Any, result_type: Any, **options: Any) -> Any:
    from flows.stages.run_job import Ran
    from flows.stages.surroundings import job_context

    # As JSON, which is how a job gets it.
    read = type(request).model_validate_json(request.model_dump_json())
    done = importlib.import_module(f"flows.jobs.{name}").run(read, job_context(submission_id=None))
    return Ran(done, None)


def _unseat(name: str) -> None:
    from mlflow import MlflowClient

    client = MlflowClient()
    champion = client.get_model_version_by_alias(name, "champion")
    client.delete_registered_model_alias(name, "champion")
    client.set_registered_model_alias(name, "challenger", champion.version)


def main(steps: list[dict[str, Any]]) -> None:
    from flows.home.environment import prepare_environment
    from flows.home.settings import Settings

    prepare_environment(Settings.read())
    from flows import distill, evaluate, parameters, retrain, study, train

    for module in (distill, evaluate, retrain, train):
        module.run_job = _run_here
    flows = {"retrain": retrain.retrain, "study": study.study}
    for step in steps:
        if "file" in step:
            np.save(Path(step["file"]), np.array(step["rows"], np.uint8))
            continue
        if "toys" in step:
            import ray

            from flows import pair
            from flows.jobs import pair as pair_job
            from tests.flows import toys

            toys.add()
            ray.init = lambda **_: None  # the toys' shards are made in this process, and nobody else makes them
            pair_job.turn = lambda *_: contextlib.nullcontext()
            pair.run_job = _run_here
            continue
        if "unseat" in step:
            _unseat(step["unseat"])
            continue
        name = step.pop("flow", "retrain")
        result: Any = flows[name](getattr(parameters, f"{name.title()}Parameters").model_validate(step))
        print("RESULT", result.model_dump_json(), flush=True)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
