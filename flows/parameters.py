"""The parameters of the flows: one frozen model each; it is the Prefect form, the CLI's target and the job's request.

What is scientific comes as specs of `pairflow.spec`; what is merely operational (store, format, shard size, workers)
stands beside them and enters no fingerprint.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import Field, GetJsonSchemaHandler, model_validator
from pydantic_core import CoreSchema

from flows.recipes import forms
from flows.recipes.methods import METHODS, BaseName, MethodName, RefinedName
from pairflow.errors import SpecError
from pairflow.presets import Preset, preset
from pairflow.spec import (
    CouplingSpec,
    DatasetSpec,
    DistillationSpec,
    EvaluationSpec,
    ModelSpec,
    PresetName,
    RediSpec,
    Seed,
    Spec,
    TrainingSpec,
    parse,
)

Reference = Annotated[str, Field(min_length=1, max_length=4096)]  # to a model: see flows/lineage/models.py

# What the method decides, so that no setting beside it can say something else.
_OF_THE_METHOD = tuple(
    f"{group}.{field}" for group in ("training", "redi_training") for field in ("process", "coupling")
)


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

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """As Prefect's form shows it, which goes by `position`, and as its server checks what is sent."""
        schema = handler(core_schema)
        forms.shape(handler.resolve_ref_schema(schema)["properties"], handler)
        return schema


class Sharded(Spec):
    """How pairs are made and written."""

    format: Literal["zarr", "parquet"] = Field("zarr", description="File format of the coupled pairs.")
    shard_size: int | None = Field(
        None,
        ge=1,
        description="Rows a shard (1 or more); never changes the content; default about two seconds' work of one core.",
    )
    num_workers: int | None = Field(
        None, ge=1, description="Shards coupled at once (1 or more); default as many as the cluster's CPUs allow."
    )


class TrainedFromPreset(FlowParameters):
    """A model's settings, each by preset where it is not given."""

    preset: PresetName = Field(
        "demo", description="Where what is not given below comes from: demo (minutes), laptop (longer) or paper."
    )
    coupling: CouplingSpec | None = Field(None, description="How sources are coupled; default by preset.")
    model: ModelSpec | None = Field(None, description="The denoiser; default by preset.")
    training: TrainingSpec | None = Field(None, description="How it is trained; default by preset.")


class _FromPreset(TrainedFromPreset):
    evaluation: EvaluationSpec | None = Field(None, description="What is sampled; default by preset.")


class Refinements(Spec):
    """What is done with a trained model."""

    distillation: DistillationSpec | None = Field(None, description="How DCD distils; default by preset.")
    redi: RediSpec | None = Field(None, description="The pairs that ReDi makes; default by preset.")
    redi_training: TrainingSpec | None = Field(None, description="How ReDi trains on its pairs; default by preset.")


class PairParameters(Sharded, FlowParameters):
    """Couple every training row with a source point, or a model's sources with its samples; keep the pairs."""

    coupling: CouplingSpec | None = Field(
        None, description="How every training row gets its source point; default in closed form, 20 steps."
    )
    redi: RediSpec | None = Field(None, description="ReDi, in place of a coupling: how base_model makes its own pairs.")
    base_model: str | None = Field(
        None,
        description="For ReDi: a checkpoint's folder, a training's fingerprint, an MLflow model id m-…, or a "
        "registered model such as pairflow-qm9@champion.",
    )

    extend: str | None = Field(
        None,
        min_length=1,
        description="URL of pairs of earlier data: rows that they have are taken over, new ones are coupled. An "
        "approximation, as the posterior of every row is over all data; default none.",
    )
    expected_fingerprint: str | None = Field(
        None, description="Stop before any work if the pairs would be others; `pairflow verify --repair` sets it."
    )

    @model_validator(mode="after")
    def _one_kind_of_pairs(self) -> Self:
        if self.redi is not None and self.coupling is not None:
            raise ValueError("either coupling or redi can be given, got both; leave one out")
        if self.redi is not None and self.extend is not None:
            raise ValueError("extend is for a coupling, and ReDi's pairs are a model's own; leave one out")
        if (self.redi is None) != (self.base_model is None):
            lacks = "base_model (--model REF): the model that makes them" if self.redi is not None else "redi"
            raise ValueError(f"ReDi's pairs need both a model and redi; give {lacks}")
        return self

    @property
    def closed_form(self) -> CouplingSpec:
        """The coupling of training rows, where it is not ReDi."""
        return self.coupling or CouplingSpec()


class _OnPairs(Spec):
    pairs: str | None = Field(
        None, description="URL of the pairs that PairFlow is trained on; default this coupling's in the store."
    )


class TrainParameters(_OnPairs, _FromPreset):
    """Train a denoiser on stored pairs, or with independent sources."""

    method: BaseName = Field(
        "pairflow",
        description="pairflow: on stored pairs. udlm: independent sources. mdlm: masks. Decides process and coupling "
        "of training.",
    )


class DistillParameters(_OnPairs, Refinements, _FromPreset):
    """Distil a trained model (DCD), or train it further on pairs that it made (ReDi)."""

    method: RefinedName = Field("udlm+dcd", description="The base, and what is done with it: +dcd or +redi.")
    base_model: str | None = Field(
        None,
        description="The model to start from: a checkpoint's folder, a training's fingerprint, an MLflow model id m-…, "
        "or a registered model such as pairflow-qm9@champion; default the base of these settings.",
    )


class EvaluateParameters(_OnPairs, Refinements, _FromPreset):
    """Sample trained models with few steps, measure, and compare."""

    methods: tuple[MethodName, ...] = Field(
        ("udlm", "pairflow"), description="Methods to compare; their models must be trained. May be none beside models."
    )
    models: tuple[Reference, ...] = Field(
        (),
        max_length=32,
        description="More models, by reference (up to 32): a checkpoint's folder, a training's fingerprint, an MLflow "
        "model id m-…, or a registered model such as pairflow-qm9@champion.",
    )
    training_seeds: tuple[Seed, ...] | None = Field(
        None, min_length=1, description="Scores are the mean over the models of these seeds; default the preset's one."
    )

    @model_validator(mode="after")
    def _something_to_evaluate(self) -> Self:
        if not self.methods and not self.models:
            raise ValueError("there is nothing to evaluate: give methods (--methods), models (--model REF), or both")
        return self


class PipelineParameters(Sharded, _FromPreset):
    """Data to report: pair, train with and without pairs, evaluate both."""


class StudyParameters(Sharded, Refinements, _FromPreset):
    """The paper's comparison: train, distil and evaluate several methods, with several training seeds."""

    methods: tuple[MethodName, ...] = Field(
        tuple(METHODS), min_length=1, description="Methods to compare; the bases that they start from are trained too."
    )
    training_seeds: tuple[Seed, ...] | None = Field(
        None,
        min_length=1,
        description="Every method is trained once with each, and scores are mean and deviation; default the preset's "
        "one.",
    )


P = TypeVar("P", bound=TrainedFromPreset)
A = TypeVar("A", bound=Spec)


def recipe(parameters: TrainedFromPreset) -> Preset:
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
        if name in _OF_THE_METHOD:
            raise SpecError(f"{name}: got {value!r}, but the method decides it; choose one with --method or --methods")
        if group not in defaults or not field:
            raise SpecError(
                f"{name}: there is no such setting; expected GROUP.FIELD with GROUP one of {', '.join(defaults)}"
            )
        data[group] = (data[group] or defaults[group]) | {field: value}
    return parse(type(parameters), data)


def with_seed(preset: Preset, seed: int | None) -> Preset:
    """`preset` with another seed of all that is trained; None leaves it as it is."""
    if seed is None:
        return preset
    names = ("training", "distillation", "redi_training")
    return preset.model_copy(update={name: getattr(preset, name).model_copy(update={"seed": seed}) for name in names})


def validated(parameters_type: type[A], parameters: Any) -> A:
    """Parameters, checked once more: the form in the Prefect UI has a switch that turns its own checks off.

    Raises:
        SpecError: one line per field that does not fit.
    """
    data = parameters.model_dump(mode="json") if isinstance(parameters, Spec) else parameters
    return parse(parameters_type, data)
