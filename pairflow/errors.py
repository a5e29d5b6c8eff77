"""The errors that PairFlow raises on purpose; each message says what, got, expected and the remedy."""


class PairFlowError(Exception):
    """Base of every error that a user can do something about; the CLI prints it without a traceback."""


class SpecError(PairFlowError, ValueError):
    """A parameter or an array does not fit: wrong type, shape, range or combination."""


class DatasetError(PairFlowError):
    """A dataset cannot be found, downloaded, read, tokenised or split."""


class CheckpointError(PairFlowError):
    """A checkpoint is missing, damaged, or belongs to another model."""


class TrainingError(PairFlowError):
    """Training cannot go on: a loss that is not finite, or data that does not fit the model."""


class StoreError(PairFlowError):
    """The pair store cannot be reached, read or written."""


class ShardCorruptError(StoreError):
    """A shard, record or manifest on disk is not what its hash says."""


class ShardConflictError(StoreError):
    """Two writers disagree about the content or the plan of one coupling."""


class ManifestVersionError(StoreError):
    """A manifest was written by a format version that this release does not read."""


class JobFailedError(PairFlowError):
    """A Ray job ended without a result; the message carries the job's own error."""
