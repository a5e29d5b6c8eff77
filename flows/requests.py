"""What is asked of whom, made once of a flow's parameters at its entry: of jobs, requests that are concrete, as no job
knows of presets; of the stages of a comparison, parameters, whoever runs them or looks for what they left.
"""

from typing import Any, Self

from pydantic import Field

from flows.parameters import (
    DistillParameters,
    EvaluateParameters,
    FlowParameters,
    FromPreset,
    PairParameters,
    Reference,
    StudyParameters,
    TrainParameters,
)
from flows.recipes.changes import resolve, with_seed
from flows.recipes.methods import DEFAULT_PAIRS, METHODS, Method, bases, coupling_of, in_order, pair_groups
from flows.results import ComparisonResult, EvaluateResult, PairResult, TrainResult
from pairflow.presets import Preset
from pairflow.spec import CouplingSpec, DatasetSpec, EngineName, PairsFormat, RediSpec, Seed, Spec, fingerprint


class Request(Spec):
    """Of every job.

    Attributes:
        dataset: that it is about.
    """

    dataset: DatasetSpec

    @classmethod
    def of(cls, parameters: FlowParameters) -> Self:
        """What a flow's parameters come to; fields of the same name are taken as they are.

        Raises:
            SpecError: the preset has no settings for this dataset, or the changes do not fit it.
        """
        fields = {name: getattr(parameters, name) for name in cls.model_fields if hasattr(parameters, name)}
        if isinstance(parameters, FromPreset):
            fields["settings"] = resolve(parameters)
        if isinstance(parameters, PairParameters):
            fields["wanted"] = parameters.wanted
        return cls(**fields)


class PrepareRequest(Request):
    """A dataset that is wanted in the store; the fields are those of `PrepareParameters`."""

    format: PairsFormat = "zarr"
    num_workers: int | None = None


class RequestWithEngine(Request):
    """Of every job that couples, or names pairs by what couples them.

    Attributes:
        engine: of couplings.
    """

    engine: EngineName = "auto"


class PairRequest(RequestWithEngine):
    """Pairs that are wanted in the store; the fields are those of `PairParameters`."""

    wanted: CouplingSpec | RediSpec = Field(union_mode="smart")
    base_model: str | None = None
    extend: str | None = None
    expected_fingerprint: str | None = None
    format: PairsFormat = "zarr"
    shard_size: int | None = None
    num_workers: int | None = None


class TrainRequest(RequestWithEngine):
    """A model that is wanted.

    Attributes:
        settings: all of them; the method says which decide about its model.
        pairs: URL of those it is trained on; None: those of these settings.
    """

    method: str
    settings: Preset
    pairs: str | None = None


class DistillRequest(TrainRequest):
    """A model that is wanted of another one; None: of the base of these settings."""

    base_model: str | None = None


class EvaluateRequest(RequestWithEngine):
    """Models that are to be measured, side by side; the fields are those of `EvaluateParameters`."""

    settings: Preset
    methods: tuple[str, ...] = ()
    models: tuple[Reference, ...] = ()
    training_seeds: tuple[Seed, ...] | None = None
    pairs: str | None = None


class SurveyRequest(RequestWithEngine):
    """What there is to retrain on, and whether the rival can be measured there.

    Attributes:
        coupling: how sources are coupled; None if the method needs none.
        rival: whom a candidate is compared with: the champion, else the challenger.
        extend: URL of the rival's pairs, if they are to be extended.
    """

    coupling: CouplingSpec | None = None
    rival: Reference | None = None
    extend: str | None = None


Key = tuple[str, int | None]
"""Method and training seed."""
Pairs = dict[str, PairResult]
"""By the group of settings that they are made by."""


class Plan:
    """Of one comparison; what a stage gets may depend on what earlier ones left."""

    def __init__(self, parameters: StudyParameters) -> None:
        self.parameters = parameters
        self.preset = resolve(parameters)
        self.methods = in_order(parameters.methods)
        self.seeds = tuple(dict.fromkeys(parameters.training_seeds or (None,)))
        self.refined = [METHODS[name] for name in self.methods if METHODS[name].refinement is not None]
        self.pair_groups = pair_groups(self.methods, self.preset)

    @property
    def specs(self) -> dict[str, Spec]:
        """For the MLflow run: all that decides about the result."""
        return {
            "dataset": self.parameters.dataset,
            **{name: getattr(self.preset, name) for name in type(self.preset).model_fields},
        }

    def fingerprint(self, pairs: Pairs) -> str:
        """Of the comparison; without pairs it is the dataset's spec that says what data it is about."""
        about = ",".join(made.fingerprint for made in pairs.values()) or fingerprint(self.parameters.dataset)
        seeds = ",".join(map(str, self.seeds))
        return fingerprint(self.preset, data=about, methods=",".join(self.methods), seeds=seeds)

    def pairings(self, extend: str | None = None) -> dict[str, PairParameters]:
        """The pairs that the methods are trained on, by group of settings; PairFlow's may extend those at a URL."""
        return {
            group: PairParameters(
                **self._common,
                **self._sharding,
                coupling=coupling_of(self.preset, group),
                extend=extend if group == DEFAULT_PAIRS else None,
            )
            for group in self.pair_groups
        }

    def trainings(self, pairs: Pairs) -> dict[Key, TrainParameters]:
        """The base of every method, with every seed."""
        return {
            (base, seed): TrainParameters(
                **self._common,
                **self._chosen(seed, TrainParameters),
                method=base,
                pairs=_url(pairs, METHODS[base].pairs),
            )
            for seed in self.seeds
            for base in bases(self.methods)
        }

    def own_pairings(self, trained: dict[Key, TrainResult]) -> tuple[PairParameters, ...]:
        """The pairs that models make themselves."""
        return tuple(
            PairParameters(
                **self._common, **self._sharding, redi=spec, base_model=trained[method.base, seed].checkpoint
            )
            for method, spec in self._paired_anew
            for seed in self.seeds
        )

    def refinements(self, pairs: Pairs, trained: dict[Key, TrainResult]) -> dict[Key, DistillParameters]:
        """Every refined method, with every seed."""
        return {
            (method.name, seed): DistillParameters(
                **self._common,
                **self._chosen(seed, DistillParameters),
                method=method.name,
                base_model=trained[method.base, seed].checkpoint,
                pairs=_url(pairs, method.refined_on(self.preset)),
            )
            for seed in self.seeds
            for method in self.refined
        }

    def evaluation(self, pairs: Pairs, models: tuple[str, ...] = ()) -> EvaluateParameters:
        """All models, and others by reference, at once: what measures them is prepared once."""
        return EvaluateParameters(
            **self._common,
            **self._chosen(None, EvaluateParameters),
            methods=self.methods,
            models=models,
            training_seeds=self.parameters.training_seeds,
            pairs=_url(pairs, DEFAULT_PAIRS),
        )

    @property
    def jobs(self) -> tuple[str, ...]:
        """The stages whose jobs do the work, in their order, where nothing of it is done."""
        num_seeds = len(self.seeds)
        return (
            *("pair" for _ in self.pair_groups),
            *("train" for _ in range(num_seeds * len(bases(self.methods)))),
            *("pair" for _ in range(num_seeds * len(self._paired_anew))),
            *("distill" for _ in range(num_seeds * len(self.refined))),
            "evaluate",
        )

    @property
    def _paired_anew(self) -> list[tuple[Method, RediSpec]]:
        """Methods that are refined on pairs which a model makes, and how."""
        made = [(method, method.refinement.own_pairs(self.preset)) for method in self.refined if method.refinement]
        return [(method, spec) for method, spec in made if spec is not None]

    @property
    def _common(self) -> dict[str, Any]:
        return {name: getattr(self.parameters, name) for name in ("dataset", "engine", "store")}

    @property
    def _sharding(self) -> dict[str, Any]:
        return {name: getattr(self.parameters, name) for name in ("format", "shard_size", "num_workers")}

    def _chosen(self, seed: int | None, parameters_type: type[Spec]) -> dict[str, Any]:
        """The preset's name, and its specs with a training seed, as far as a stage has them."""
        seeded = with_seed(self.preset, seed)
        specs = {name: getattr(seeded, name) for name in Preset.model_fields if name in parameters_type.model_fields}
        return {"preset": self.parameters.preset, **specs}


def _url(pairs: Pairs, group: str | None) -> str | None:
    return pairs[group].url if group in pairs else None


def result_of(
    pairs: Pairs,
    redi_pairs: tuple[PairResult, ...],
    trained: dict[Key, TrainResult],
    refined: dict[Key, TrainResult],
    evaluation: EvaluateResult,
    *,
    mlflow_run_id: str,
    mlflow_experiment_id: str,
    prefect_run_id: str,
) -> ComparisonResult:
    """A comparison of what its stages left."""
    return ComparisonResult(
        pairs=pairs.get(DEFAULT_PAIRS),
        other_pairs=tuple(made for group, made in pairs.items() if group != DEFAULT_PAIRS),
        redi_pairs=redi_pairs,
        trainings=tuple(trained.values()),
        distillations=tuple(refined.values()),
        evaluation=evaluation,
        mlflow_run_id=mlflow_run_id,
        mlflow_experiment_id=mlflow_experiment_id,
        prefect_run_id=prefect_run_id,
    )
