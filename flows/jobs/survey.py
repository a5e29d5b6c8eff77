"""The survey job: `python -m flows.jobs.survey` on the Ray cluster, where a retraining's data lies."""

import sys

import storage
from flows.cluster.protocol import JobContext, main
from flows.home.settings import Settings
from flows.jobs import contestants, inputs
from flows.jobs.extension import check_alike
from flows.lineage import models
from flows.requests import SurveyRequest
from flows.results import Survey
from pairflow.checkpoint_files import read_state
from pairflow.errors import ManifestVersionError, ShardCorruptError, SpecError
from pairflow.spec import CouplingSpec


def run(request: SurveyRequest, context: JobContext) -> Survey:
    """Looks at the source, reads it if it has changed, and says what is there.

    Raises:
        DatasetError: the data cannot be had.
        CheckpointError: the rival's checkpoint is damaged.
        LineageError: MLflow does not hold the rival.
        StoreError: the pairs that are to be extended cannot be read.
    """
    settings = Settings.read()
    data = inputs.load(request.dataset, settings)
    engine = misfit = cannot_extend = None
    if request.coupling is not None:
        _, engine = inputs.pairs_fingerprint(request.coupling, data.facts.train, request.engine)
        if request.extend is not None:
            cannot_extend = _obstacle(request.extend, data, request.coupling, engine)
    if request.rival is not None:
        rival = models.resolve(request.rival, settings)
        try:
            contestants.check_fits(request.rival, rival, read_state(rival.checkpoint), data.facts)
        except SpecError as error:
            misfit = str(error)
    return Survey(
        dataset_digest=data.train.digest,
        source=data.whole.report.source,
        num_rows=len(data.train),
        num_held_out=0 if data.test is None else len(data.test),
        engine=engine,
        misfit=misfit,
        cannot_extend=cannot_extend,
    )


def _obstacle(url: str, data: inputs.Data, spec: CouplingSpec, engine: str) -> str | None:
    """Why earlier pairs cannot be extended; None if they can.

    Raises:
        StoreError: they cannot be read at this moment, which says nothing about them.
    """
    try:
        if not storage.has_manifest(url):
            return f"there are no whole pairs at {url} any more"
        check_alike(storage.open_pairs(url), data.train, spec, engine)
    except (SpecError, ShardCorruptError, ManifestVersionError) as error:
        return str(error)
    return None


if __name__ == "__main__":
    sys.exit(main(SurveyRequest, run))
