"""What each stage hands back: small pydantic models, written by the job and read by its flow."""

from typing import Literal

from pairflow.spec import Spec

NUM_SAMPLES = "num_samples"
"""The score that others are counted out of, where there is one."""


class PairResult(Spec):
    """Coupled pairs in the store."""

    url: str
    fingerprint: str
    format: Literal["zarr", "parquet"]
    rows: int
    num_shards: int
    content_sha256: str
    dataset_digest: str
    engine: str
    skipped: bool
    """True if the pairs were there already and nothing was computed."""
    seconds: float
    """Wall seconds of this job, from the request to the commit (or to finding the pairs)."""
    rows_per_second: float
    """Of the run that made the pairs: rows over wall seconds of coupling and writing."""
    mean_hamming: float | None
    """Mean number of positions at which a source differs from its target, over the rows that run made."""
    keep_rate: float | None
    """Fraction of those rows' positions at which a source equals its target."""
    mlflow_run_id: str | None


class TrainResult(Spec):
    """A trained denoiser."""

    fingerprint: str
    coupling: Literal["paired", "independent"]
    checkpoint: str
    """Folder with the finished checkpoint (safetensors)."""
    num_steps: int
    num_parameters: int
    loss: float
    """Running mean of the training loss, nats a token."""
    validation_nll: float | None
    """Bound on the held-out negative log-likelihood, nats a token; None where nothing is held out."""
    dataset_digest: str
    pairs_fingerprint: str | None
    pairs_url: str | None
    skipped: bool
    seconds: float
    mlflow_run_id: str
    mlflow_model_id: str


class Score(Spec):
    """One metric of one model at one number of sampling steps, over the trials."""

    mean: float
    std: float
    """Sample standard deviation over trials; 0 for a single trial."""


class StepScores(Spec):
    """What one model reaches with one number of sampling steps."""

    num_steps: int
    num_network_calls: float
    """Network evaluations a sample, on average: a cache may answer some."""
    scores: dict[str, Score]
    samples_per_second: float


class Headline(Spec):
    """The score that tables and figures show first."""

    name: str
    label: str
    higher_is_better: bool


class ModelScores(Spec):
    """One model at every number of sampling steps."""

    coupling: Literal["paired", "independent"]
    label: str
    training_fingerprint: str
    evaluation_fingerprint: str
    headline: Headline
    facts: dict[str, float]
    """What a reader needs to judge the scores, such as a classifier's accuracy."""
    steps: tuple[StepScores, ...]
    mlflow_run_id: str
    mlflow_model_id: str

    @property
    def headline_text(self) -> str:
        """The headline's label; a count of samples says of how many."""
        samples = self.steps[0].scores.get(NUM_SAMPLES)
        return self.headline.label if samples is None else f"{self.headline.label} of {samples.mean:,.0f} samples"


class EvaluateResult(Spec):
    """The comparison: one table, one figure, one grid of samples."""

    fingerprint: str
    models: tuple[ModelScores, ...]
    table: str
    """Path of the JSON table."""
    figure: str
    """Path of the comparison figure (PNG)."""
    grid: str
    """Path of the grid of samples (PNG)."""
    skipped: bool
    seconds: float


class PipelineResult(Spec):
    """Everything that one pipeline run made or found."""

    pairs: PairResult
    trainings: tuple[TrainResult, ...]
    evaluation: EvaluateResult
    mlflow_run_id: str
    mlflow_experiment_id: str
    prefect_run_id: str
