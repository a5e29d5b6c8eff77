"""The facts that a node of a trace has of a run or a model."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from mlflow.entities import Run

from flows.lineage import tags as tag

_RUN_TAGS = (
    *(tag.STAGE, tag.METHOD, tag.TRAINING_SEED, tag.FINGERPRINT, tag.PREFECT_RUN_ID, tag.PREFECT_RUN_URL),
    *(tag.RAY_SUBMISSION_ID, tag.RAY_JOB_URL, tag.VERSION, tag.GIT_DIRTY, tag.COMMAND),
    *(f"{tag.MACHINE}{name}" for name in ("host", "cpu", "cores", "memory_gib", "gpus")),
    tag.MACHINE_USED,
)


def facts_of_tags(tags: Mapping[str, str], names: Iterable[str]) -> dict[str, Any]:
    """Those of some tags that are there, by their names without the prefix."""
    return {tag.short(name): tags[name] for name in names if name in tags}


def facts_of_run(run: Run) -> dict[str, Any]:
    """Who made it, when, with what code, where, and its figures but for the load of the machine."""
    facts = {"run_id": run.info.run_id, "experiment_id": run.info.experiment_id}
    facts |= facts_of_tags(run.data.tags, _RUN_TAGS)
    if (commit := run.data.tags.get(tag.GIT_COMMIT)) is not None:
        facts["git_commit"] = commit
    if run.info.start_time:
        facts["started"] = datetime.fromtimestamp(run.info.start_time / 1000, UTC).isoformat(timespec="seconds")
        if run.info.end_time:
            facts["seconds"] = (run.info.end_time - run.info.start_time) / 1000
    facts["metrics"] = {key: value for key, value in run.data.metrics.items() if not key.startswith("system/")}
    return facts
