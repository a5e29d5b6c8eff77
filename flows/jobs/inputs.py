"""What the jobs work on, and by which fingerprints its products are known."""

from dataclasses import dataclass
from functools import cached_property

from pydantic import JsonValue

import storage
from flows.home.settings import Settings
from flows.jobs import known_data, prepared_data
from flows.jobs.known_data import DataFacts, PartFacts
from flows.lineage import stored_pairs
from flows.lineage.models import FoundModel
from flows.lineage.provenance import Input
from flows.recipes.methods import DEFAULT_PAIRS, Method, coupling_of
from flows.requests import EvaluateRequest, TrainRequest
from pairflow import coupling
from pairflow.datasets import TokenDataset
from pairflow.errors import SpecError, StoreError
from pairflow.presets import Preset
from pairflow.spec import CouplingSpec, DatasetSpec, OptimizerSpec, PairsFormat, RediSpec, fingerprint

REDI_ENGINE = "redi/2"
"""Version of how a model's own pairs are drawn: part of their fingerprint, as a coupling engine's is of its own."""


@dataclass(frozen=True)
class Data:
    """A dataset as a job sees it: only its training part is coupled and trained on.

    Attributes:
        spec: which data.
        whole: its rows.
        url: where the store has them.
    """

    spec: DatasetSpec
    whole: TokenDataset
    url: str

    @cached_property
    def train(self) -> TokenDataset:
        """The rows that are coupled and trained on."""
        return self.whole.part("train")

    @cached_property
    def test(self) -> TokenDataset | None:
        """The rows held out, if there are any."""
        return self.whole.part("test") if len(self.whole.splits.get("test", ())) else None

    @cached_property
    def facts(self) -> DataFacts:
        """What decides about fingerprints, and may be asked for where nobody has read the data."""
        report = self.whole.report
        return DataFacts(
            spec=self.spec,
            train=PartFacts.of(self.train),
            test=None if self.test is None else PartFacts.of(self.test),
            summary=report.summary(),
            source=report.source,
            notes=report.notes,
        )

    def as_input(self, role: str) -> Input:
        """The training part, for lineage."""
        report = self.whole.report
        return Input(
            name=self.train.name,
            digest=self.train.digest,
            role=role,
            source={"source": report.source, "prepared": self.url},
            profile={
                "num_rows": len(self.train),
                "length": self.train.length,
                "vocab_size": self.train.vocab_size,
                "rows_read": report.rows_read,
                "rows_kept": report.rows_kept,
                "dropped": report.dropped,
            },
        )


def load(spec: DatasetSpec, settings: Settings) -> Data:
    """A dataset, as the store has it, or prepared and kept there; the log says what was read, the home what is known.

    Raises:
        DatasetError: it cannot be found, downloaded, read, tokenised or split.
        StoreError: the store cannot be read, or not written where the data must be prepared.
    """
    return prepare(spec, settings)[0]


def prepare(
    spec: DatasetSpec,
    settings: Settings,
    *,
    format: PairsFormat = "zarr",
    num_workers: int | None = None,
) -> tuple[Data, bool]:
    """As `load`, and whether it was there; the rest is how it is prepared, see `flows.jobs.prepared_data`."""
    before = known_data.identity(spec, settings)
    whole, fingerprint, was_there = prepared_data.open_or_make(
        spec,
        settings,
        known_as=known_data.prepared(spec, before, settings),
        format=format,
        num_workers=num_workers,
    )
    data = Data(spec, whole, storage.dataset_url(settings.store, fingerprint))
    known_data.note(data.facts, fingerprint, before, settings)
    return data, was_there


def pairs_fingerprint(
    spec: CouplingSpec, train: PartFacts, engine: str, earlier: storage.Pairs | None = None
) -> tuple[str, str]:
    """(fingerprint, engine version) of the coupling of a training part, which may extend earlier pairs."""
    version = coupling.engine_version(coupling.resolve_engine(engine, spec))
    extends = {} if earlier is None else {"extends": earlier.manifest.content_sha256}
    return fingerprint(spec, dataset=train.digest, engine=version, **extends), version


def find_pairs(
    request: TrainRequest | EvaluateRequest, group: str, data: DataFacts, settings: Settings
) -> storage.Pairs:
    """The pairs that a base is trained on: those that were named, or this coupling's in the store.

    Args:
        request: for its settings, its engine and the pairs that it names; they are those of one method, or PairFlow's.
        group: of the settings, by which they are made.

    Raises:
        StoreError: they are not there, or only in part.
        SpecError: they were made of other data, or by a model.
    """
    if request.pairs is not None and (group == DEFAULT_PAIRS or isinstance(request, TrainRequest)):
        pairs = storage.open_pairs(stored_pairs.url_of(request.pairs, settings.store))
        _check_data(pairs, data)
        if pairs.manifest.spec.get("kind") == "redi":
            raise SpecError(
                f"the pairs at {pairs.url} were made by a model (ReDi); train on them with `pairflow distill`, or name "
                "pairs of `pairflow pair` without --model"
            )
        _check_noise(pairs, coupling_of(request.settings, group).noise)
        return pairs
    wanted, _ = pairs_fingerprint(coupling_of(request.settings, group), data.train, request.engine)
    return _in_store(wanted, data, settings, "make them with `pairflow pair`, or name others with --pairs")


def refinement_pairs(
    method: Method, request: TrainRequest | EvaluateRequest, base: FoundModel, data: DataFacts, settings: Settings
) -> storage.Pairs | None:
    """The pairs that a method's refinement trains on: its base's own, or stored ones of the data; None: it takes none.

    Raises:
        StoreError: they are not there, or only in part.
    """
    if (group := method.refined_on(request.settings)) is not None:
        return find_pairs(request, group, data, settings)
    if method.refinement is None or (spec := method.refinement.own_pairs(request.settings)) is None:
        return None
    options = f"--coupling redi --model {base.place} --num-pairs {spec.num_pairs} --num-steps {spec.num_steps}"
    remedy = f"make them with `pairflow pair`, the same data and {options} --seed {spec.seed}"
    return _in_store(redi_fingerprint(spec, data.train, base.sha256), data, settings, remedy)


def _in_store(wanted: str, data: DataFacts, settings: Settings, remedy: str) -> storage.Pairs:
    url = storage.find_pairs(settings.store, wanted)
    if url is None:
        raise StoreError(
            f"no finished pairs of {data.spec.name} with these settings in {settings.store} (looked for "
            f"pairs/{wanted}.zarr and .parquet); {remedy}"
        )
    return storage.open_pairs(url)


def _check_data(pairs: storage.Pairs, data: DataFacts) -> None:
    manifest, train = pairs.manifest, data.train
    for name, got, expected in (
        ("vocab_size", manifest.vocab_size, train.vocab_size),
        ("length", manifest.length, train.length),
        ("dataset digest", manifest.dataset["digest"], train.digest),
    ):
        if got != expected:
            raise SpecError(
                f"the pairs at {pairs.url} were made of other data: their {name} is {got}, that of {train.name} is "
                f"{expected}; couple this dataset with `pairflow pair`"
            )


def _check_noise(pairs: storage.Pairs, trained: str) -> None:
    got = pairs.manifest.spec.get("noise", "uniform")
    if got != trained:
        remedy = "with method 'assigned' and --set assignment.noise=marginal" if got == "marginal" else "without that"
        raise SpecError(
            f"the pairs at {pairs.url} have sources of {got} noise, and these settings train with {trained} noise; "
            f"train on them {remedy}"
        )


def redi_fingerprint(spec: RediSpec, train: PartFacts, base_sha256: str) -> str:
    """Fingerprint of the pairs that a model makes itself."""
    return fingerprint(spec, dataset=train.digest, model=base_sha256, engine=REDI_ENGINE)


def training_fingerprint(preset: Preset, method: Method, train: PartFacts, pairs: str | None) -> str:
    """Fingerprint of the model that a base method makes of a training part, and of the pairs of that fingerprint."""
    inputs = {"dataset": train.digest, "model": fingerprint(preset.model)}
    if method.pairs is not None and pairs is not None:
        inputs["pairs"] = pairs
    return fingerprint(method.training(preset), **inputs)


def distillation_fingerprint(spec: OptimizerSpec, train: PartFacts, base_sha256: str, pairs: str | None) -> str:
    """Fingerprint of what DCD (on pairs, if it takes any) or ReDi's training makes of a model."""
    inputs = {"dataset": train.digest, "base": base_sha256}
    if pairs is not None:
        inputs["pairs"] = pairs
    return fingerprint(spec, **inputs)


def as_input(pairs: storage.Pairs) -> Input:
    """Coupled pairs, for lineage."""
    manifest = pairs.manifest
    return Input(
        name=f"{manifest.dataset['name']}/pairs",
        digest=manifest.fingerprint,
        role="pairs",
        source={"url": pairs.url, "fingerprint": manifest.fingerprint},
        profile={"num_rows": manifest.num_rows, "content_sha256": manifest.content_sha256, "engine": manifest.engine},
    )


def figures(manifest: storage.Manifest) -> dict[str, float]:
    """The numbers of a manifest's summary."""
    return {name: float(value) for name, value in manifest.summary.items() if isinstance(value, int | float)}


def pairing_seconds(manifest: storage.Manifest) -> float:
    """Wall seconds that all of these pairs take; of an interrupted pairing only the last run was timed."""
    summary = figures(manifest)
    rate = summary.get("rows_per_second", 0)
    return manifest.num_rows / rate if rate else summary.get("seconds", 0.0)


def provenance(data: Data) -> dict[str, JsonValue]:
    """What the pairs' manifest says about the data that they were made of."""
    report = data.whole.report
    return {
        "name": data.spec.name,
        "digest": data.train.digest,
        "spec": data.spec.model_dump(mode="json"),
        "kind": data.train.kind,
        "image_shape": None if data.train.image_shape is None else list(data.train.image_shape),
        "source": report.source,
        "rows_read": report.rows_read,
        "rows_kept": report.rows_kept,
        "dropped": {**report.dropped},
        "notes": [*report.notes],
    }
