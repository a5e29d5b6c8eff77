"""The parameters of the flows: one frozen model each; it is the Prefect form and the command line's target.

What is scientific is a spec of `pairflow.spec`, or changes to a preset's; what is merely operational (store, format,
shard size, workers) stands beside it and enters no fingerprint. The command line's options are made of these models
(`flows.stages.command_line`), and what jobs get of them is `flows.requests`.
"""

from typing import Annotated, Any, Self, TypeVar

from pydantic import Field, GetJsonSchemaHandler, model_validator
from pydantic_core import CoreSchema

from flows.home import references
from flows.recipes import forms
from flows.recipes.changes import assigned, assignments, groups, settable
from flows.recipes.methods import METHODS, BaseName, MethodName, RefinedName
from pairflow.presets import Preset
from pairflow.spec import CouplingSpec, DatasetSpec, EngineName, PairsFormat, PresetName, RediSpec, Seed, Spec, parse

Reference = Annotated[str, Field(min_length=1, max_length=4096)]
"""To a model: see `flows.home.references`."""


class FlowParameters(Spec):
    """What every flow wants to know."""

    dataset: DatasetSpec = Field(default_factory=lambda: DatasetSpec(), description="Which data.")
    store: str | None = Field(
        None,
        description="fsspec URL or folder of the pair store; default PAIRFLOW_STORE, else `store` in PAIRFLOW_HOME.",
    )
    overrides: tuple[str, ...] = Field(
        (),
        max_length=256,
        description="Any other setting, each as GROUP.FIELD=VALUE; `pairflow presets --preset demo --dataset digits` "
        "lists them with their values.",
    )

    @model_validator(mode="before")
    @classmethod
    def _override(cls, given: Any) -> Any:
        """An override is a setting said in one line: it becomes the field that it names."""
        if not isinstance(given, dict) or not given.get("overrides"):
            return given
        texts = given["overrides"]
        if not isinstance(texts, list | tuple) or not all(isinstance(each, str) for each in texts):
            return given  # refused by the field's type, in its words
        rest = {name: value for name, value in given.items() if name != "overrides"}
        return assigned(cls, rest, assignments(texts))

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """As Prefect's form shows it, which goes by `position`, and as its server checks what is sent."""
        schema = handler(core_schema)
        forms.shape(handler.resolve_ref_schema(schema), handler, settable(cls))
        return schema


class WithEngine(FlowParameters):
    """Of every flow that couples, or names pairs by what couples them."""

    engine: EngineName = Field(
        "auto", description="Coupling engine: auto picks the fastest exact one; dense is the oracle, for small data."
    )


class PrepareParameters(FlowParameters):
    """Read a dataset once, and keep its rows in the store: screened, tokenised, split."""

    format: PairsFormat = Field("zarr", description="File format of the prepared rows.")
    num_workers: int | None = Field(
        None, ge=1, description="Tasks at once (1 or more); default as many as the cluster's CPUs allow."
    )


class Sharded(Spec):
    """How pairs are made and written."""

    format: PairsFormat = Field("zarr", description="File format of the coupled pairs.")
    shard_size: int | None = Field(
        None,
        ge=1,
        description="Rows a shard (1 or more); never changes the content; default about two seconds' work of one core.",
    )
    num_workers: int | None = Field(
        None, ge=1, description="Shards coupled at once (1 or more); default as many as the cluster's CPUs allow."
    )


class FromPreset(WithEngine):
    """Settings of a preset; each model below takes changes to some of its groups."""

    preset: PresetName = Field(
        "demo",
        description="Where what is not given below comes from: demo (minutes), laptop (longer), paper, "
        "or few-step (minutes; not the paper's loss and end, but what needs the fewest network calls).",
    )


_OfAModel: Any = groups("coupling", "assignment", "model", "training", "evaluation")
_OfAll: Any = groups(*Preset.model_fields)
_OfAllButTheEvaluation: Any = groups(*(name for name in Preset.model_fields if name != "evaluation"))


class PairParameters(Sharded, WithEngine):
    """Couple every training row with a source point, and keep the pairs; `pairflow pair --model`: a model's own."""

    coupling: CouplingSpec | None = Field(
        None, description="How every training row gets its source point; default in closed form, 20 steps."
    )
    redi: RediSpec | None = Field(None, description="ReDi, in place of a coupling: how base_model makes its own pairs.")
    base_model: str | None = Field(None, description=f"For ReDi: {references.MODEL}.")

    extend: str | None = Field(
        None,
        min_length=1,
        description=f"Pairs of earlier data: {references.PAIRS}. Rows that they have are taken over, new ones are "
        "coupled. An approximation, as the posterior of every row is over all data; default none.",
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
    def wanted(self) -> CouplingSpec | RediSpec:
        """The pairs that are asked for, concretely."""
        return self.redi or self.coupling or CouplingSpec()


class _OnPairs(Spec):
    pairs: str | None = Field(
        None,
        description=f"The pairs that PairFlow is trained on: {references.PAIRS}; default this coupling's in the store.",
    )


class TrainParameters(_OnPairs, _OfAModel, FromPreset):
    """Train a denoiser on stored pairs, or with independent sources."""

    method: BaseName = Field(
        "pairflow",
        description="pairflow: on stored pairs. assigned: on pairs by optimal assignment. udlm: independent sources. "
        "mdlm: masks. Decides process and coupling of training.",
    )

    @model_validator(mode="after")
    def _pairs_are_used(self) -> Self:
        if self.pairs is not None and METHODS[self.method].pairs is None:
            raise ValueError(f"pairs: '{self.method}' is trained without any; leave them out, or name another method")
        return self


class DistillParameters(_OnPairs, _OfAll, FromPreset):
    """Distil a trained model (DCD), or train it further on pairs that it made (ReDi)."""

    method: RefinedName = Field("udlm+dcd", description="The base, and what is done with it: +dcd or +redi.")
    base_model: str | None = Field(
        None, description=f"The model to start from: {references.MODEL}; default the base of these settings."
    )


class EvaluateParameters(_OnPairs, _OfAll, FromPreset):
    """Sample trained models with few steps, measure, and compare."""

    methods: tuple[MethodName, ...] = Field(
        ("udlm", "pairflow"), description="Methods to compare; their models must be trained. May be none beside models."
    )
    models: tuple[Reference, ...] = Field(
        (), max_length=32, description=f"More models, by reference (up to 32): {references.MODEL}."
    )
    training_seeds: tuple[Seed, ...] | None = Field(
        None, min_length=1, description="Scores are the mean over the models of these seeds; default the preset's one."
    )

    @model_validator(mode="after")
    def _something_to_evaluate(self) -> Self:
        if not self.methods and not self.models:
            raise ValueError("there is nothing to evaluate: give methods (--methods), models (--model REF), or both")
        return self


class PipelineParameters(Sharded, _OfAModel, FromPreset):
    """Data to report: pair in closed form and by assignment, train with and without pairs, evaluate all three."""

    @property
    def study(self) -> "StudyParameters":
        """The same as the comparison that it is."""
        return validated(StudyParameters, {**self.model_dump(mode="json"), "methods": ("udlm", "pairflow", "assigned")})


class StudyParameters(Sharded, _OfAll, FromPreset):
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


class RetrainParameters(Sharded, _OfAllButTheEvaluation, FromPreset):
    """Train anew if data or settings have changed, and let the better of candidate and champion serve."""

    name: str | None = Field(
        None,
        pattern=r"^[a-z0-9][a-z0-9-]{0,63}$",
        description="The registered model is pairflow-NAME (small letters, digits, dashes); default the dataset's "
        "name. Data of your own in several places need a name each.",
    )
    method: MethodName = Field("pairflow", description="How the model is made; +dcd also distils it, for few steps.")
    steps: int = Field(
        4, ge=1, le=1024, description="Sampling steps that you can afford (1 to 1,024): the models are compared there."
    )
    margin: float = Field(
        0.01,
        ge=0,
        le=10,
        description="By which fraction of the champion's score the candidate must be better (0 to 10), beyond chance.",
    )
    confidence: float = Field(
        0.95,
        ge=0.5,
        lt=1,
        description="How sure that must be (0.5 to below 1): one minus the chance to promote one that is not better.",
    )
    trials: int = Field(
        5, ge=2, le=100, description="Trials of candidate and champion, with the same seeds (2 to 100)."
    )
    num_samples: int | None = Field(None, ge=2, description="Samples a trial (2 or more); default by preset.")
    extend: bool = Field(
        False,
        description="Couple new rows only, and take the champion's pairs over for the others: quicker, but an "
        "approximation, as the posterior of every row is over all data.",
    )

    @property
    def registered_as(self) -> str:
        """NAME in pairflow-NAME."""
        return self.name or self.dataset.name

    @property
    def study(self) -> StudyParameters:
        """The same as the comparison that trains and evaluates it."""
        shared = {name: getattr(self, name) for name in StudyParameters.model_fields if hasattr(self, name)}
        evaluation = {"steps": (self.steps,), "num_trials": self.trials, "num_samples": self.num_samples}
        return parse(StudyParameters, shared | {"methods": (self.method,), "evaluation": evaluation})


A = TypeVar("A", bound=Spec)


def validated(parameters_type: type[A], parameters: Any) -> A:
    """Parameters, checked once more: the form in the Prefect UI has a switch that turns its own checks off.

    Raises:
        SpecError: one line per field that does not fit.
    """
    data = parameters.model_dump(mode="json") if isinstance(parameters, Spec) else parameters
    return parse(parameters_type, data)
