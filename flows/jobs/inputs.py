"""What the jobs work on, and by which fingerprints its products are known."""

from dataclasses import dataclass
from functools import cached_property

from pydantic import JsonValue

import storage
from flows.jobs.protocol import ProgressLines
from flows.parameters import Coupling, EvaluateParameters, TrainParameters, recipe, with_coupling
from flows.provenance import Input
from flows.settings import Settings
from pairflow import coupling, datasets
from pairflow.datasets import TokenDataset
from pairflow.errors import SpecError, StoreError
from pairflow.presets import Preset
from pairflow.spec import CouplingSpec, DatasetSpec, fingerprint


@dataclass(frozen=True)
class Data:
    """A dataset as a job sees it: only its training part is coupled and trained on."""

    spec: DatasetSpec
    whole: TokenDataset

    @cached_property
    def train(self) -> TokenDataset:
        """The rows that are coupled and trained on."""
        return self.whole.part("train")

    @cached_property
    def test(self) -> TokenDataset | None:
        """The rows held out, if there are any."""
        return self.whole.part("test") if len(self.whole.splits.get("test", ())) else None

    def as_input(self, role: str) -> Input:
        """The training part, for lineage."""
        report = self.whole.report
        return Input(
            name=self.train.name,
            digest=self.train.digest,
            role=role,
            source={"source": report.source},
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
    """Loads a dataset; it says in the log what it read.

    Raises:
        DatasetError: it cannot be found, downloaded, read, tokenised or split.
    """
    return Data(spec, datasets.load(spec, data_dir=settings.data_dir, progress=ProgressLines))


def pairs_fingerprint(spec: CouplingSpec, train: TokenDataset, engine: str) -> tuple[str, str]:
    """(fingerprint, engine version) of the coupling of a training part."""
    version = coupling.engine_version(coupling.resolve_engine(engine, spec))
    return fingerprint(spec, dataset=train.digest, engine=version), version


def find_pairs(parameters: TrainParameters | EvaluateParameters, data: Data, settings: Settings) -> storage.Pairs:
    """The pairs that a paired model is trained on: those that were named, or this coupling's in the store.

    Raises:
        StoreError: they are not there, or only in part.
        SpecError: they were made of other data.
    """
    if parameters.pairs is not None:
        pairs = storage.open_pairs(parameters.pairs)
        digest = pairs.manifest.dataset["digest"]
        if digest != data.train.digest:
            raise SpecError(
                f"the pairs at {pairs.url} were made of other data: their dataset digest is {digest}, that of "
                f"{data.train.name} is {data.train.digest}; couple this dataset with `pairflow pair`"
            )
        return pairs
    wanted, _ = pairs_fingerprint(recipe(parameters).coupling, data.train, parameters.engine)
    urls = [storage.pairs_url(settings.store, wanted, format) for format in ("zarr", "parquet")]
    for url in urls:
        if storage.find_manifest(url) is not None:
            return storage.open_pairs(url)
    raise StoreError(
        f"no finished pairs of {data.spec.name} with this coupling in {settings.store} (looked for "
        f"{' and '.join(urls)}); make them with `pairflow pair`, or name others with --pairs"
    )


def training_fingerprint(preset: Preset, kind: Coupling, train: TokenDataset, pairs: str | None) -> str:
    """Fingerprint of the model that a recipe makes of a training part, and of the pairs of that fingerprint."""
    inputs = {"dataset": train.digest, "model": fingerprint(preset.model)}
    if kind == "paired" and pairs is not None:
        inputs["pairs"] = pairs
    return fingerprint(with_coupling(preset.training, kind), **inputs)


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
