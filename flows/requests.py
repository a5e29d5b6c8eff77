"""What jobs are asked for: concrete, made once of a flow's parameters at its entry. No job knows of presets."""

from typing import Self

from pydantic import Field

from flows.parameters import FlowParameters, FromPreset, PairParameters, Reference
from flows.recipes.changes import resolve
from pairflow.presets import Preset
from pairflow.spec import CouplingSpec, DatasetSpec, EngineName, PairsFormat, RediSpec, Seed, Spec


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
