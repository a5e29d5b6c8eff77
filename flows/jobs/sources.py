"""Where pairs come from, a class a kind: a coupling of the training part, or a model (ReDi). Registered once, below."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from pydantic import JsonValue

from flows.home.settings import Settings
from flows.jobs import inputs
from flows.jobs.extension import NOT_EXTENDED, Earlier
from flows.jobs.shards import ShardStatistics, couple_shards, default_shard_size
from flows.lineage import models, stored_pairs
from flows.lineage.models import FoundModel
from flows.lineage.provenance import EARLIER_PAIRS
from flows.requests import PairRequest
from pairflow.coupling import resolve_engine
from pairflow.errors import SpecError
from pairflow.spec import CouplingSpec, RediSpec, Spec, parse
from storage import PairsHeader, ShardPlan

if TYPE_CHECKING:  # torch is for a model's own pairs, and seconds of every other job
    from pairflow.checkpoint import LoadedModel


@dataclass(frozen=True)
class Resources:
    """What the tasks of a pairing get, and who is told of each: see `couple_shards`."""

    cpus_per_task: float
    gpus_per_task: float
    num_workers: int | None
    support_parts: int
    on_shard: Callable[[ShardStatistics], None]


class PairSource(ABC):
    """One kind of pairs: how they are made, known and described.

    Attributes:
        fingerprint: by which the pairs are known: of all that decides about them.
        engine_version: what makes them, as the manifest says it.
        num_rows: pairs.
        sources_per_target: R.
        shard_size: rows a shard where nobody asks for a number.
        base: the model that makes them, if one does.
        earlier: pairs of earlier data that these extend, if any.
        scanning_steps: steps a row at which the support may be looked at; None where there is no walk.
        name: for the run, such as "T20".
        specs: for the run's lineage.
        document: for the manifest; its `kind` is the one that it is registered under.
    """

    fingerprint: str
    engine_version: str
    base: FoundModel | None
    earlier: Earlier | None

    @classmethod
    @abstractmethod
    def of(cls, request: PairRequest, data: inputs.Data, settings: Settings) -> Self:
        """Those that are asked for.

        Raises:
            PairFlowError: they cannot be made of this data.
        """

    @property
    @abstractmethod
    def name(self) -> str: ...

    @property
    @abstractmethod
    def specs(self) -> dict[str, Spec]: ...

    @property
    @abstractmethod
    def document(self) -> dict[str, JsonValue]: ...

    @property
    @abstractmethod
    def num_rows(self) -> int: ...

    @property
    def sources_per_target(self) -> int:
        return 1

    @property
    @abstractmethod
    def shard_size(self) -> int: ...

    @property
    def scanning_steps(self) -> int | None:
        return None

    @abstractmethod
    def make(self, url: str, header: PairsHeader, shards: Sequence[ShardPlan], resources: Resources) -> None:
        """Makes and writes shards as Ray tasks."""


@dataclass(frozen=True)
class RowByRow(PairSource):
    """Pairs of training rows, each row's source by itself: the closed form's walk, or uniform draws.

    Attributes:
        fingerprint: of the pairs.
        engine: resolved name.
        earlier: pairs of earlier data that these extend, if any.
    """

    spec: CouplingSpec
    data: inputs.Data
    engine: str
    engine_version: str
    fingerprint: str
    earlier: Earlier | None
    base: FoundModel | None = None

    @classmethod
    def of(cls, request: PairRequest, data: inputs.Data, settings: Settings) -> Self:
        """Of a training part; `request.extend` are pairs that they extend.

        Raises:
            StoreError: there is nothing whole to extend there.
            SpecError: it was coupled otherwise.
        """
        spec = parse(CouplingSpec, request.wanted)
        resolved = resolve_engine(request.engine, spec)
        fingerprint, version = inputs.pairs_fingerprint(spec, data.facts.train, resolved)
        if request.extend is None:
            return cls(spec, data, resolved, version, fingerprint, None)
        earlier = Earlier.of(stored_pairs.url_of(request.extend, settings.store), data.train, spec, version)
        fingerprint, _ = inputs.pairs_fingerprint(spec, data.facts.train, resolved, earlier.pairs)
        return cls(spec, data, resolved, version, fingerprint, earlier)

    @property
    def name(self) -> str:
        return f"{self.spec.title}{'' if self.earlier is None else ' extended'}"

    @property
    def specs(self) -> dict[str, Spec]:
        return {"coupling": self.spec}

    @property
    def document(self) -> dict[str, JsonValue]:
        """For the manifest."""
        extends = {} if self.earlier is None else {EARLIER_PAIRS: self.earlier.document}
        return {**self.spec.model_dump(mode="json"), **extends}

    @property
    def num_rows(self) -> int:
        return len(self.data.train) * self.spec.sources_per_target

    @property
    def sources_per_target(self) -> int:
        return self.spec.sources_per_target

    @property
    def shard_size(self) -> int:
        """Rows a shard where nobody asks for a number."""
        return default_shard_size(len(self.data.train), self.data.train.length)

    @property
    def scanning_steps(self) -> int | None:
        """Steps a row at which the support may be looked at."""
        return self.spec.num_steps

    def make(self, url: str, header: PairsHeader, shards: Sequence[ShardPlan], resources: Resources) -> None:
        """Couples and writes shards as Ray tasks."""
        couple_shards(
            url,
            header,
            self.data.train,
            shards,
            self.spec if self.earlier is None else self.earlier.spec_of_new(self.spec),
            engine=self.engine,
            cpus_per_task=resources.cpus_per_task,
            gpus_per_task=resources.gpus_per_task or float(self.engine == "cuda"),
            num_workers=resources.num_workers,
            support_parts=resources.support_parts,
            on_shard=resources.on_shard,
            earlier=self.earlier,
        )


@dataclass(frozen=True)
class Redi(PairSource):
    """A model's own pairs: sources, and what it samples from them.

    Attributes:
        fingerprint: of the pairs.
        base: the model.
        loaded: the same, loaded on the CPU.
    """

    spec: RediSpec
    base: FoundModel
    loaded: "LoadedModel"
    fingerprint: str
    engine_version: str = inputs.REDI_ENGINE
    earlier: None = None

    @classmethod
    def of(cls, request: PairRequest, data: inputs.Data, settings: Settings) -> Self:
        """Of a model of this data, `request.base_model`.

        Raises:
            CheckpointError: the model cannot be loaded.
            SpecError: it is of another vocabulary, length or process.
        """
        from pairflow.checkpoint import load_model
        from pairflow.distillation.dcd import check_teacher

        spec = parse(RediSpec, request.wanted)
        if request.base_model is None:
            raise SpecError("ReDi's pairs need base_model (--model REF), the model that makes them")
        base = models.resolve(request.base_model, settings)
        loaded = load_model(base.checkpoint, device="cpu")
        check_teacher(loaded, data.train.vocab_size, data.train.length, data.train.image_shape)
        return cls(spec, base, loaded, inputs.redi_fingerprint(spec, data.facts.train, base.sha256))

    @property
    def name(self) -> str:
        return self.spec.title

    @property
    def specs(self) -> dict[str, Spec]:
        return {"redi": self.spec}

    @property
    def document(self) -> dict[str, JsonValue]:
        """For the manifest; the model's digest is what another machine can check."""
        return {"kind": "redi", "model_sha256": self.base.sha256, **self.spec.model_dump(mode="json")}

    @property
    def num_rows(self) -> int:
        return self.spec.num_pairs

    @property
    def shard_size(self) -> int:
        from flows.jobs.redi_shards import SHARD_SIZE

        return SHARD_SIZE

    def make(self, url: str, header: PairsHeader, shards: Sequence[ShardPlan], resources: Resources) -> None:
        """Draws and writes shards as Ray tasks."""
        from flows.jobs.redi_shards import draw_shards

        draw_shards(
            url,
            header,
            self.loaded,
            shards,
            self.spec,
            cpus_per_task=resources.cpus_per_task,
            gpus_per_task=resources.gpus_per_task,
            num_workers=resources.num_workers,
            on_shard=resources.on_shard,
        )


@dataclass(frozen=True)
class Assignment(PairSource):
    """Pairs of training rows whose sources are matched to them, a block of rows at a time (docs/method.md §7)."""

    spec: CouplingSpec
    data: inputs.Data
    engine_version: str
    fingerprint: str
    base: None = None
    earlier: None = None

    @classmethod
    def of(cls, request: PairRequest, data: inputs.Data, settings: Settings) -> Self:
        """Of a training part.

        Raises:
            SpecError: memory does not hold a block, or earlier pairs are to be extended.
        """
        from pairflow.coupling.assignment import check_memory

        spec = parse(CouplingSpec, request.wanted)
        if request.extend is not None:
            raise SpecError(NOT_EXTENDED)
        check_memory(len(data.train), data.train.length, spec)
        fingerprint, version = inputs.pairs_fingerprint(spec, data.facts.train, request.engine)
        return cls(spec, data, version, fingerprint)

    @property
    def name(self) -> str:
        return self.spec.title

    @property
    def specs(self) -> dict[str, Spec]:
        return {"coupling": self.spec}

    @property
    def document(self) -> dict[str, JsonValue]:
        """For the manifest."""
        return self.spec.model_dump(mode="json")

    @property
    def num_rows(self) -> int:
        return len(self.data.train) * self.spec.sources_per_target

    @property
    def sources_per_target(self) -> int:
        return self.spec.sources_per_target

    @property
    def shard_size(self) -> int:
        """One block: no shard's task makes what another's makes too."""
        from pairflow.coupling.blocks import BlockPlan

        return BlockPlan.of(len(self.data.train), self.spec).size

    def make(self, url: str, header: PairsHeader, shards: Sequence[ShardPlan], resources: Resources) -> None:
        """Matches and writes shards as Ray tasks."""
        from flows.jobs.assignment_shards import match_shards

        match_shards(
            url,
            header,
            self.data.train,
            shards,
            self.spec,
            cpus_per_task=resources.cpus_per_task,
            num_workers=resources.num_workers,
            on_shard=resources.on_shard,
        )


SOURCES: dict[str, type[PairSource]] = {
    "closed_form": RowByRow,
    "independent": RowByRow,
    "assignment": Assignment,
    "redi": Redi,
}
"""By the kind that a manifest bears."""


def source_of(request: PairRequest, data: inputs.Data, settings: Settings) -> PairSource:
    """Where the pairs that are asked for come from.

    Raises:
        PairFlowError: they cannot be made of this data.
    """
    kind = request.wanted.kind if isinstance(request.wanted, CouplingSpec) else "redi"
    return SOURCES[kind].of(request, data, settings)
