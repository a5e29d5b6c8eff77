"""What a chain tells of a run."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from mlflow.entities import Run

_RUN_TAGS = (
    *("stage", "method", "training_seed", "fingerprint", "prefect_run_id", "prefect_run_url", "ray_submission_id"),
    *("ray_job_url", "version", "git_dirty", "command"),
    *("machine.host", "machine.cpu", "machine.cores", "machine.memory_gib", "machine.gpus", "machine.used"),
)


def facts_of_tags(tags: Mapping[str, str], names: Iterable[str]) -> dict[str, Any]:
    """Those of some `pairflow.*` tags that are there, without the prefix."""
    return {name: tags[f"pairflow.{name}"] for name in names if f"pairflow.{name}" in tags}


def facts_of_run(run: Run) -> dict[str, Any]:
    """Who made it, when, with what code, where, and its figures but for the load of the machine."""
    facts = {"run_id": run.info.run_id, "experiment_id": run.info.experiment_id}
    facts |= facts_of_tags(run.data.tags, _RUN_TAGS)
    if (commit := run.data.tags.get("mlflow.source.git.commit")) is not None:
        facts["git_commit"] = commit
    if run.info.start_time:
        facts["started"] = datetime.fromtimestamp(run.info.start_time / 1000, UTC).isoformat(timespec="seconds")
        if run.info.end_time:
            facts["seconds"] = (run.info.end_time - run.info.start_time) / 1000
    facts["metrics"] = {key: value for key, value in run.data.metrics.items() if not key.startswith("system/")}
    return facts
