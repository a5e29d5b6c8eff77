"""How Ray's head is started."""

from pathlib import Path

from ray.dashboard import consts

from flows.cluster.local import head_command


def test_a_job_may_wait_for_a_gpu_for_days(tmp_path: Path) -> None:
    """By the name under which Ray looks for it; by default it gives up after a quarter of an hour."""
    _, environment = head_command(tmp_path, 8265, object_store_mb=200)
    assert int(environment[consts.RAY_JOB_START_TIMEOUT_SECONDS_ENV_VAR]) >= 7 * 24 * 3600
