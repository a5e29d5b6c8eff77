"""The names of MLflow's tags, each written here and nowhere else: ours begin with `pairflow.`, MLflow's with `mlflow.`.

They are stored: runs of years ago bear them, so a name may be added, and none may be changed.
"""

PREFIX = "pairflow."
EXPERIMENT_PREFIX = "pairflow-"  # of the experiments, and a dataset's name

# On the run of a stage: what computed what.
STAGE = "pairflow.stage"
FINGERPRINT = "pairflow.fingerprint"  # of what the run computes; likewise on a logged model
SPEC = "pairflow.spec"
METHOD = "pairflow.method"
TRAINING_SEED = "pairflow.training_seed"
BEGUN_BY = "pairflow.begun_by"  # the outbox that begins the run, or goes on with it
PREFECT_RUN_ID = "pairflow.prefect_run_id"
PREFECT_RUN_URL = "pairflow.prefect_run_url"
RAY_SUBMISSION_ID = "pairflow.ray_submission_id"
RAY_JOB_URL = "pairflow.ray_job_url"
COMMAND = "pairflow.command"
VERSION = "pairflow.version"  # of the code; on a retraining that is decided, the number of the registered version
GIT_DIRTY = "pairflow.git_dirty"
MACHINE = "pairflow.machine."  # and a name: host, cpu, cores, memory_gib, gpus
MACHINE_USED = "pairflow.machine.used"

# Its data and pairs.
DATASET_DIGEST = "pairflow.dataset_digest"
PAIRS_FINGERPRINT = "pairflow.pairs_fingerprint"
PAIRS_URL = "pairflow.pairs_url"
CONTENT_SHA256 = "pairflow.content_sha256"
EXTENDS_FINGERPRINT = "pairflow.extends_fingerprint"
EXTENDS_URL = "pairflow.extends_url"
EXTENDS_DATASET_DIGEST = "pairflow.extends_dataset_digest"

# Its model, and the one that it started from.
CHECKPOINT = "pairflow.checkpoint"
CHECKPOINT_SHA256 = "pairflow.checkpoint_sha256"
MODEL_ID = "pairflow.model_id"
BASE_SHA256 = "pairflow.base_sha256"
BASE_CHECKPOINT = "pairflow.base_checkpoint"
BASE_MODEL_ID = "pairflow.base_model_id"

# The runs and models that a run refers to. Of a comparison, which has several: with `.`, a method's key and its seed.
TRAINING_FINGERPRINT = "pairflow.training_fingerprint"
TRAINING_RUN = "pairflow.training_run"
EVALUATION_RUN = "pairflow.evaluation_run"
PAIRING_RUN = "pairflow.pairing_run"
MODEL = "pairflow.model"

# The files of a comparison, and what a retraining decided.
COMPARISON = "pairflow.comparison"
SAMPLES = "pairflow.samples"
TABLE = "pairflow.table"
REPORT = "pairflow.report"
CANDIDATE_MODEL = "pairflow.candidate_model"
OUTCOME = "pairflow.outcome"
DECISION = "pairflow.decision"
REGISTERED_MODEL = "pairflow.registered_model"

# On a version of a registered model, by which the next retraining knows it again; besides its data, pairs and method.
RECIPE = "pairflow.recipe"
SOURCE = "pairflow.source"
JUDGED = "pairflow.judged"
TRAINING_ROWS = "pairflow.training_rows"
SCORE = "pairflow.score."  # and a metric: the headline with a number of sampling steps
EXTENDS = "pairflow.extends"  # fingerprint of the pairs that its pairs extend; empty of whole ones

# On an experiment and on a registered model, which people can rename.
DATASET = "pairflow.dataset"

# On a registered model.
REGISTERED_AS = "pairflow.registered_as"  # the name that we gave it
ROLLBACK = "pairflow.rollback"  # while its aliases are being exchanged: the versions from and to

# On an input of a run.
DIGEST = "pairflow.digest"  # whole, where MLflow keeps 36 characters

# On a logged model, once it is scored.
HEADLINE = "pairflow.headline"  # the score that tables show first

# MLflow's own.
RUN_NAME = "mlflow.runName"
NOTE = "mlflow.note.content"  # the text at the top of a run's or a model's page
SOURCE_NAME = "mlflow.source.name"
SOURCE_TYPE = "mlflow.source.type"
GIT_COMMIT = "mlflow.source.git.commit"
PARENT_RUN = "mlflow.parentRunId"
MODEL_VERSIONS = "mlflow.modelVersions"
DATA_CONTEXT = "mlflow.data.context"  # of an input: what it was used for
LOGGED_IMAGES = "mlflow.loggedImages"  # there are pictures to step through
SHARED_VIEW = "mlflow.sharedViewState."  # and a name, on an experiment: columns, order and filter of its table
EXPERIMENT_KIND = "mlflow.experimentKind"


def short(tag: str) -> str:
    """One of our names without its prefix, as the JSON of `pairflow lineage` has it."""
    return tag.removeprefix(PREFIX)
