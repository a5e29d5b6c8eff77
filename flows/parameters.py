"""The parameters of the flows: one frozen model each; it is the Prefect form, the CLI's target and the job's request.

What is scientific comes as specs of `pairflow.spec`; what is merely operational (store, format, shard size, workers)
stands beside them and enters no fingerprint.
"""

from collections.abc import Mapping
from typing import Any, Literal, TypeVar

from pydantic import Field

from pairflow.errors import SpecError
from pairflow.presets import Preset, preset
from pairflow.spec import (
    CouplingSpec,
    DatasetSpec,
    EvaluationSpec,
    ModelSpec,
    PresetName,
    Spec,
    TrainingSpec,
    parse,
)

Coupling = Literal["independent", "paired"]
# What people call the two ways of training, in tables, figures and run names.
LABELS: dict[Coupling, str] = {"independent": "UDLM (independent)", "paired": "PairFlow (paired)"}


class FlowParameters(Spec):
    """What every flow wants to know."""

    dataset: DatasetSpec = Field(default_factory=lambda: DatasetSpec(), description="Which data.")
    engine: Literal["auto", "cpu", "cuda", "dense"] = Field(
        "auto", description="Coupling engine: auto picks the fastest exact one; dense is the oracle, for small data."
    )
    store: str | None = Field(
        None,
        description="fsspec URL or folder of the pair store; default PAIRFLOW_STORE, else `store` in PAIRFLOW_HOME.",
    )


class _Sharded(Spec):
    format: Literal["zarr", "parquet"] = Field("zarr", description="File format of the coupled pairs.")
    shard_size: int | None = Field(
        None,
        ge=1,
        description="Rows a shard (1 or more); never changes the content; default about two seconds' work of one core.",
    )
    num_workers: int | None = Field(
        None, ge=1, description="Shards coupled at once (1 or more); default as many as the cluster's CPUs allow."
    )


class _FromPreset(Spec):
    preset: PresetName = Field(
        "demo", description="Where what is not given below comes from: demo (minutes), laptop (longer) or paper."
    )
    coupling: CouplingSpec | None = Field(None, description="How sources are coupled; default by preset.")
    model: ModelSpec | None = Field(None, description="The denoiser; default by preset.")
    training: TrainingSpec | None = Field(None, description="How it is trained; default by preset.")
    evaluation: EvaluationSpec | None = Field(None, description="What is sampled; default by preset.")


class PairParameters(_Sharded, FlowParameters):
    """Couple every training row with a source point and keep the pairs in the store."""

    coupling: CouplingSpec = Field(
        default_factory=lambda: CouplingSpec(), description="How every row gets its source point."
    )
    expected_fingerprint: str | None = Field(
        None, description="Stop before any work if the pairs would be others; `pairflow verify --repair` sets it."
    )


class _OnPairs(Spec):
    pairs: str | None = Field(
        None, description="URL of the pairs that a paired model is trained on; default this coupling's in the store."
    )


class TrainParameters(_OnPairs, _FromPreset, FlowParameters):
    """Train a denoiser on stored pairs, or with independent sources."""


class EvaluateParameters(_OnPairs, _FromPreset, FlowParameters):
    """Sample trained models with few steps, measure, and compare."""

    models: tuple[Coupling, ...] = Field(
        ("independent", "paired"),
        min_length=1,
        description="Trained models to compare: independent (UDLM), paired (PairFlow).",
    )


class PipelineParameters(_Sharded, _FromPreset, FlowParameters):
    """Data to report: pair, train with and without pairs, evaluate both."""


P = TypeVar("P", TrainParameters, EvaluateParameters, PipelineParameters)
A = TypeVar("A", bound=Spec)


def recipe(parameters: TrainParameters | EvaluateParameters | PipelineParameters) -> Preset:
    """The preset of the dataset, with what was given in its place.

    Raises:
        SpecError: the preset has no settings for this dataset.
    """
    base = preset(parameters.preset, parameters.dataset.name)
    given = {name: spec for name in Preset.model_fields if (spec := getattr(parameters, name, None)) is not None}
    return base.model_copy(update=given)


def with_overrides(parameters: P, assignments: Mapping[str, Any]) -> P:
    """Parameters with single fields changed, such as `{"training.num_steps": 50}`; the preset keeps the others.

    Raises:
        SpecError: a name that does not exist, or a value that does not fit.
    """
    data = parameters.model_dump(mode="json")
    groups = recipe(parameters).model_dump(mode="json", include=set(type(parameters).model_fields))
    defaults = {"dataset": data["dataset"], **groups}
    for name, value in assignments.items():
        group, _, field = name.partition(".")
        if group not in defaults or not field:
            raise SpecError(
                f"{name}: there is no such setting; expected GROUP.FIELD with GROUP one of {', '.join(defaults)}"
            )
        data[group] = (data[group] or defaults[group]) | {field: value}
    return parse(type(parameters), data)


def with_coupling(training: TrainingSpec, coupling: Coupling) -> TrainingSpec:
    """`training` with the other kind of sources; all else equal, so that models can be compared."""
    return training.model_copy(update={"coupling": coupling})


def validated(parameters_type: type[A], parameters: Any) -> A:
    """Parameters, checked once more: the form in the Prefect UI has a switch that turns its own checks off.

    Raises:
        SpecError: one line per field that does not fit.
    """
    data = parameters.model_dump(mode="json") if isinstance(parameters, Spec) else parameters
    return parse(parameters_type, data)
