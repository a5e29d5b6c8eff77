"""What each stage hands back: small pydantic models, written by the job and read by its flow."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from pairflow.spec import PairsFormat, Spec

R = TypeVar("R", bound=Spec)

NUM_SAMPLES = "num_samples"
"""The score that others are counted out of, where there is one."""


@dataclass(frozen=True)
class Found(Generic[R]):
    """A result that was there already.

    Attributes:
        result: as the job that made it handed it back, but for `skipped` and `seconds`.
        run: what would have been run, as its lines on a terminal begin.
        sentence: that there was nothing to do.
        data: what was read of the data when they were last read.
        notes: what a reader of results must know of the data.
    """

    result: R
    run: str
    sentence: str
    data: str
    notes: tuple[str, ...]


class PrepareResult(Spec):
    """A dataset's rows in the store."""

    url: str
    fingerprint: str
    format: PairsFormat
    source: str
    """Where the rows were read from."""
    rows_read: int
    rows_kept: int
    dropped: dict[str, int]
    """Reason → rows."""
    examples: dict[str, tuple[str, ...]]
    """Reason → the first few, each with its place in the source."""
    notes: tuple[str, ...]
    splits: dict[str, int]
    """Part → rows."""
    digest: str
    digests: dict[str, str]
    """Part → digest, by which pairs and models know it."""
    length: int
    vocab_size: int
    vocab: tuple[str, ...] | None
    skipped: bool
    """True if they were there already and nothing was read."""
    seconds: float
    """Wall seconds of this job."""


class PairResult(Spec):
    """Coupled pairs in the store."""

    url: str
    fingerprint: str
    format: PairsFormat
    rows: int
    num_shards: int
    content_sha256: str
    dataset_digest: str
    engine: str
    extends: str | None
    """Fingerprint of the earlier pairs that these extend, which makes them approximate; None of a whole coupling."""
    skipped: bool
    """True if the pairs were there already and nothing was computed."""
    seconds: float
    """Wall seconds of this job, from the request to the commit (or to finding the pairs)."""
    rows_per_second: float
    """Of the run that made the pairs: rows over wall seconds of coupling and writing."""
    pairing_seconds: float
    """Of the same run: wall seconds of making and writing."""
    mean_hamming: float | None
    """Mean number of positions at which a source differs from its target, over the rows that run made."""
    keep_rate: float | None
    """Fraction of those rows' positions at which a source equals its target."""
    mlflow_run_id: str | None
    mlflow_experiment_id: str = ""


class TrainResult(Spec):
    """A trained denoiser, distilled or not."""

    fingerprint: str
    method: str
    training_seed: int
    checkpoint: str
    """Folder with the finished checkpoint (safetensors)."""
    checkpoint_sha256: str
    """Of its tensors: what the fingerprints of all that is made from this model cover."""
    base_checkpoint: str | None
    """The model that it was started from, for DCD and ReDi."""
    num_steps: int
    num_parameters: int
    loss: float
    """Running mean of the training loss, nats a token."""
    validation_nll: float | None
    """Bound on the held-out negative log-likelihood, nats a token; None where nothing is held out."""
    dataset_digest: str
    pairs_fingerprint: str | None
    pairs_url: str | None
    pairing_seconds: float
    """Wall seconds in which its pairs were made; 0 without."""
    training_seconds: float
    """Spent on optimiser steps and validation, over all sessions of an interrupted training."""
    skipped: bool
    seconds: float
    """Wall seconds of this job."""
    mlflow_run_id: str
    mlflow_experiment_id: str = ""
    mlflow_model_id: str


class Score(Spec):
    """One metric at one number of sampling steps: of one model over trials, or of one method over training seeds."""

    mean: float
    std: float
    """Sample standard deviation; 0 for a single one."""
    trials: tuple[float, ...] = ()
    """Of one model: each trial's that has it, in the order of their seeds, which all models share."""


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


class MethodScores(Spec):
    """One method at every number of sampling steps."""

    method: str
    label: str
    """For tables and figures: no two in one result have the same."""
    reference: str | None
    """How a model was named that stands beside the methods, such as pairflow-qm9@champion; None for a method."""
    headline: Headline
    facts: dict[str, float]
    """What a reader needs to judge the scores, such as a classifier's accuracy."""
    notes: tuple[str, ...] = ()
    """What was not measured, and why."""
    steps: tuple[StepScores, ...]

    @property
    def headline_text(self) -> str:
        """The headline's label; a count of samples says of how many."""
        samples = self.steps[0].scores.get(NUM_SAMPLES)
        return self.headline.label if samples is None else f"{self.headline.label} of {samples.mean:,.0f} samples"


class ModelScores(MethodScores):
    """One model at every number of sampling steps."""

    training_seed: int
    checkpoint_sha256: str
    training_fingerprint: str | None
    pairs_fingerprint: str | None = None
    """Of the pairs that it was trained on, if any."""
    evaluation_fingerprint: str
    num_parameters: int | None = None
    """Weights of its network; None of scores that an earlier release kept."""
    mlflow_run_id: str
    mlflow_model_id: str | None


def over_seeds(models: Sequence[ModelScores]) -> tuple[MethodScores, ...]:
    """The scores by label: mean and deviation over a method's models' means, or a lone model's over its trials."""
    methods = []
    for label in dict.fromkeys(each.label for each in models):
        alike = [each for each in models if each.label == label]
        first = alike[0]
        steps = (
            first.steps
            if len(alike) == 1
            else tuple(map(_mean_step, zip(*(each.steps for each in alike), strict=True)))
        )
        methods.append(
            MethodScores(
                method=first.method,
                label=label,
                reference=first.reference,
                headline=first.headline,
                facts=first.facts,
                notes=first.notes,
                steps=steps,
            )
        )
    return tuple(methods)


def _mean_step(steps: Sequence[StepScores]) -> StepScores:
    names = dict.fromkeys(name for each in steps for name in each.scores)
    # A score that some models do not have, such as a distance where no molecule is valid, is the others'.
    means = {name: [each.scores[name].mean for each in steps if name in each.scores] for name in names}
    return StepScores(
        num_steps=steps[0].num_steps,
        num_network_calls=statistics.fmean(each.num_network_calls for each in steps),
        scores={name: mean_and_deviation(values) for name, values in means.items()},
        samples_per_second=statistics.fmean(each.samples_per_second for each in steps),
    )


def mean_and_deviation(values: Sequence[float]) -> Score:
    """Mean and sample standard deviation, 0 for a single value."""
    return Score(mean=statistics.fmean(values), std=statistics.stdev(values) if len(values) > 1 else 0.0)


class MethodCost(Spec):
    """What one method cost on the machine that it was made on, over the training seeds; wall seconds."""

    method: str
    pairing: Score
    """Making the pairs that its models are trained on: the base's in closed form, and ReDi's own."""
    training: Score
    """Training the base."""
    refinement: Score
    """Distilling it, or training it further; 0 for a base."""


class EvaluateResult(Spec):
    """The comparison: one table, one figure, one grid of samples."""

    fingerprint: str
    models: tuple[ModelScores, ...]
    methods: tuple[MethodScores, ...]
    """The same, over the training seeds."""
    costs: tuple[MethodCost, ...]
    """Of the methods; what a model cost that was named by reference is not known here."""
    table: str
    """Path of the JSON table."""
    figure: str
    """Path of the comparison figure (PNG)."""
    grid: str
    """Path of the grid of samples (PNG)."""
    trajectories: str
    """Path of the picture of a few samples on their way from source to result (PNG)."""
    report: str
    """Path of the page that has it all (HTML)."""
    report_address: str
    """Where that page is shown: in MLflow if a server answers for it, else the file itself."""
    mlflow_experiment_id: str = ""
    """Of the runs of its models."""
    skipped: bool
    seconds: float


class Survey(Spec):
    """The data of a retraining, as it is now."""

    dataset_digest: str
    """Of the training part, which decides about the model."""
    source: str
    num_rows: int
    """Of the training part."""
    num_held_out: int
    engine: str | None
    """Version of the engine that would couple it; None where nothing is to be coupled."""
    misfit: str | None
    """Why champion or challenger cannot be measured on this data; None if it can, or there is none."""
    cannot_extend: str | None
    """Why its pairs cannot be extended; None if they can, or nobody asked."""


class RetrainResult(Spec):
    """What a retraining came to."""

    outcome: Literal["skipped", "first", "promoted", "challenger"]
    """first: the candidate is the first champion. challenger: not better by the margin, or not comparable."""
    sentence: str
    """The decision and its reason."""
    name: str
    """Of the registered model."""
    champion: int | None
    """Version that is in use now."""
    candidate: int | None
    """Version of the model that this run is about; None if it was skipped."""
    evaluation: EvaluateResult | None
    mlflow_run_id: str | None


class ComparisonResult(Spec):
    """The comparison of methods, and everything that it was made of."""

    pairs: PairResult | None
    """Those that PairFlow is trained on."""
    other_pairs: tuple[PairResult, ...] = ()
    """Those of bases whose pairs are made otherwise."""
    redi_pairs: tuple[PairResult, ...]
    trainings: tuple[TrainResult, ...]
    distillations: tuple[TrainResult, ...]
    evaluation: EvaluateResult
    mlflow_run_id: str
    mlflow_experiment_id: str
    prefect_run_id: str
