"""A training job in this process: `python streamed_job.py PAIRS`. Settings are in the environment."""

import sys

from flows.cluster.protocol import JobContext
from flows.jobs import train
from flows.parameters import TrainParameters
from flows.recipes.changes import with_assignments
from flows.requests import TrainRequest

SETTINGS = {"dataset.name": "digits", "training.num_steps": 150, "training.batch_size": 64, "model.hidden_size": 16}

if __name__ == "__main__":
    parameters = with_assignments(TrainParameters(pairs=sys.argv[1]), SETTINGS)
    result = train.run(TrainRequest.of(parameters), JobContext(submission_id=None, flow_run_id="1"))
    print(result.model_dump_json())
