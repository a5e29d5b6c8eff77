"""What MLflow is told of a run as it begins: its tags, its parameters, and the first lines of its page."""

import time
from collections.abc import Mapping
from dataclasses import dataclass

from flows.cluster.protocol import JobContext
from flows.lineage import page_text
from flows.lineage import tags as tag
from flows.lineage.outbox import Operation
from flows.lineage.provenance import code_version, flatten, hardware
from pairflow.spec import Spec, canonical_json


@dataclass(frozen=True)
class Beginning:
    """How a run begins."""

    lines: dict[str, str]
    """Of its page, by what they say."""
    operation: Operation
    """For the outbox."""


def beginning(
    dataset: str,
    stage: str,
    fingerprint: str,
    *,
    name: str,
    specs: Mapping[str, Spec],
    context: JobContext,
    about: Mapping[str, str],
    started: float | None,
) -> Beginning:
    """How the run of a stage begins; the arguments are those of `Lineage.run`."""
    lines = page_text.origin(context)
    code, machine = code_version(), hardware()
    lines |= {"Code": page_text.code(code), "Machine": page_text.machine(machine)}
    begun_by = f"{stage}-{fingerprint[:12]}-{time.time_ns()}"
    tags = {
        tag.RUN_NAME: name,
        tag.NOTE: page_text.describe(lines),
        tag.SOURCE_NAME: f"pairflow {stage}",
        tag.SOURCE_TYPE: "LOCAL",
        tag.STAGE: stage,
        tag.FINGERPRINT: fingerprint,
        tag.SPEC: canonical_json({key: spec.model_dump(mode="json") for key, spec in specs.items()}),
        tag.PREFECT_RUN_ID: context.flow_run_id,
        tag.RAY_SUBMISSION_ID: context.submission_id,
        tag.PREFECT_RUN_URL: context.flow_run_url,
        tag.RAY_JOB_URL: context.ray_job_url,
        tag.COMMAND: context.command,
        tag.PARENT_RUN: context.parent_mlflow_run_id,
        tag.BEGUN_BY: begun_by,
        **code,
        **{f"{tag.MACHINE}{key}": str(value) for key, value in machine.items()},
    }
    known = {"dataset": dataset, **({"preset": context.preset} if context.preset else {})}
    begin = {
        "do": "begin",
        "dataset": dataset,
        "stage": stage,
        "fingerprint": fingerprint,
        "name": name,
        "started": int((time.time() if started is None else started) * 1000),
        "tags": {key: value for key, value in tags.items() if value},
        "params": {**known, **(about or {}), **flatten(specs)},
    }
    return Beginning(lines, begin)
