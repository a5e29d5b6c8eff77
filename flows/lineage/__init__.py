"""What came from what, kept in MLflow: dataset digest → pairs fingerprint → training run → model → evaluation.

The only importer of mlflow (which reads its environment then: `flows.settings.prepare_environment` comes first).
One experiment per dataset; a run per stage, found again by its fingerprint, so that a rerun adds nothing and an
interrupted stage goes on in its own run; a parent run per pipeline or study.
"""

from flows.lineage.errors import LineageError
from flows.lineage.registry import Registry
from flows.lineage.stage_run import StageRun
from flows.lineage.tracking import Lineage
from flows.lineage.versions import Version, name_of

__all__ = ["Lineage", "LineageError", "Registry", "StageRun", "Version", "name_of"]
