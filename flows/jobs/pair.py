"""The pair job: `python -m flows.jobs.pair` on the Ray cluster."""

import contextlib
import logging
import sys
import time
from dataclasses import dataclass

from pydantic import JsonValue

import storage
from flows.cluster.protocol import JobContext, ProgressLines, Speed, main
from flows.home.settings import Settings
from flows.jobs import finished, inputs
from flows.jobs.shards import ShardStatistics
from flows.jobs.sources import PairSource, Resources, source_of
from flows.jobs.turns import turn
from flows.lineage import page_text
from flows.lineage import tags as tag
from flows.lineage.stage_run import StageRun
from flows.lineage.tracking import Lineage
from flows.pages.figures import pair_quality
from flows.requests import PairRequest
from flows.results import PairResult
from pairflow.errors import ShardCorruptError, StoreError
from pairflow.spec import Spec
from storage import Manifest, PairsHeader, ShardPlan

_logger = logging.getLogger("pairflow.job")


def run(request: PairRequest, context: JobContext) -> PairResult:
    """Couples what is not coupled yet, and commits.

    Raises:
        DatasetError: the data cannot be had.
        StoreError: the store cannot be read or written.
        SpecError: the coupling does not fit the data.
    """
    started = time.perf_counter()
    settings = Settings.read()
    data = inputs.load(request.dataset, settings)
    train = data.train
    source = source_of(request, data, settings)
    fingerprint = source.fingerprint
    if request.expected_fingerprint not in (None, fingerprint):
        raise StoreError(
            f"the pairs to repair have the fingerprint {request.expected_fingerprint}, but this data, coupling and "
            f"engine {source.engine_version} give {fingerprint}: the data or the engine has changed since they were "
            f"made; put {data.whole.report.source} back as it was, repair them with the release that made them, or "
            "make new ones with `pairflow pair`"
        )
    url = storage.pairs_url(settings.store, fingerprint, request.format)
    header = PairsHeader(
        fingerprint=fingerprint,
        format=request.format,
        num_rows=source.num_rows,
        length=train.length,
        vocab_size=train.vocab_size,
        shard_size=request.shard_size or source.shard_size,
        spec=source.document,
        dataset=inputs.provenance(data),
        engine=source.engine_version,
        vocab=None if train.vocab is None else train.vocab.tokens,
        sources_per_target=source.sources_per_target,
    )
    lineage = Lineage(settings)
    work = _Work(url, header, data, source, settings, request.num_workers)
    with contextlib.ExitStack() as stack:
        if not storage.has_manifest(url):
            stack.enter_context(turn(url))
        return _make_or_find(work, lineage, request, context, started)


def _make_or_find(
    work: "_Work", lineage: Lineage, request: PairRequest, context: JobContext, started: float
) -> PairResult:
    """The pairs: found whole, put right, or made."""
    url, data, source, fingerprint = work.url, work.data, work.source, work.header.fingerprint
    repaired = work.repair()
    manifest = storage.find_manifest(url)
    skipped = manifest is not None and not repaired
    # Asked only where nothing is to be made: an MLflow that is away holds no work up.
    run_id = lineage.finished(request.dataset.name, "pair", fingerprint) if skipped else None
    if manifest is not None and run_id is not None:
        _logger.info("%s", finished.pairs_are_whole(url))
        found = finished.pair_result(url, manifest, run_id, lineage.experiment(request.dataset.name))
        return found.model_copy(update={"skipped": True, "seconds": time.perf_counter() - started})
    specs: dict[str, Spec] = {"dataset": request.dataset, **source.specs}
    name = f"pair {request.dataset.name} {source.name}"
    with lineage.run(request.dataset.name, "pair", fingerprint, name=name, specs=specs, context=context) as stage:
        base, earlier = source.base, source.earlier
        stage.use(data.as_input("coupling"), model_id=None if base is None else base.mlflow_model_id)
        stage.tag({tag.DATASET_DIGEST: data.train.digest, tag.PAIRS_FINGERPRINT: fingerprint, tag.PAIRS_URL: url})
        stage.tell({"Pairs": page_text.pairs(fingerprint, url, None)})
        if earlier is not None:
            extends = earlier.pairs.manifest
            stage.tag(
                {
                    tag.EXTENDS_FINGERPRINT: extends.fingerprint,
                    tag.EXTENDS_URL: earlier.pairs.url,
                    tag.EXTENDS_DATASET_DIGEST: str(extends.dataset["digest"]),
                }
            )
            stage.tell({"Extends": page_text.pairs(extends.fingerprint, earlier.pairs.url, None)})
        if base is not None:
            stage.tag({tag.BASE_SHA256: base.sha256, tag.BASE_CHECKPOINT: base.place})
            if base.mlflow_model_id is not None:
                stage.tag({tag.BASE_MODEL_ID: base.mlflow_model_id})
        if manifest is None:
            manifest = work.couple(stage)
        stage.tag({tag.CONTENT_SHA256: manifest.content_sha256})
        stage.log(inputs.figures(manifest))
        stage.tell({"Time": f"pairing {inputs.pairing_seconds(manifest):,.1f} s with the engine {manifest.engine}"})
        if (picture := pair_quality.picture(manifest, work.settings)) is not None:
            lineage.attach(stage.run_id, picture)
        made = finished.pair_result(url, manifest, stage.run_id, stage.experiment_id)
        return made.model_copy(update={"skipped": skipped, "seconds": time.perf_counter() - started})


@dataclass(frozen=True)
class _Work:
    """What has to be coupled, and with what."""

    url: str
    header: PairsHeader
    data: inputs.Data
    source: PairSource
    settings: Settings
    num_workers: int | None

    def couple(self, stage: StageRun) -> Manifest:
        """Makes the shards that are missing, and commits; the run shows how fast over time."""
        started = time.perf_counter()
        header = storage.begin_pairs(self.url, self.header)
        made = self._make(header, storage.missing_shards(self.url, header), stage)
        seconds = time.perf_counter() - started
        rows = 0 if made is None else made.rows
        summary: dict[str, JsonValue] = {
            "rows": header.num_rows,
            # Shards that an earlier, interrupted run left are not counted in what follows.
            "measured_rows": rows,
            "seconds": seconds,
            "rows_per_second": rows / seconds,
        }
        if (earlier := self.source.earlier) is not None:
            summary["rows_taken_over"] = len(earlier.donors) - earlier.num_new
        if made is not None:
            summary |= made.figures(self.source.scanning_steps)
        return storage.commit_pairs(self.url, header, summary, progress=False)

    def repair(self) -> bool:
        """Puts back what is damaged of committed pairs; False if nothing was, or nothing is committed.

        Where the manifest cannot be put back before shards are made again, the pairs are partial afterwards.

        Raises:
            ShardCorruptError: what is damaged cannot be made again in its place.
        """
        if not storage.has_manifest(self.url) or storage.verify_pairs(self.url, progress=False).ok:
            return False
        done = storage.restore_pairs(self.url, self.header)
        for path in done.restored:
            _logger.warning("put back %s, which was damaged", path)
        for lost in done.lost:
            _logger.warning("lost with %s", lost)
        if not storage.has_manifest(self.url):
            return True
        if done.bad_shards:
            _logger.warning("%s is damaged, shards %s are made again", self.url, done.bad_shards)
            header = storage.begin_pairs(self.url, self.header)
            self._make(header, [header.shard(index) for index in done.bad_shards])
        report = storage.verify_pairs(self.url, progress=False)
        if not report.ok:
            bad = report.bad[0]
            raise ShardCorruptError(
                f"{bad.path} is damaged: {bad.reason}; remove the folder {self.url} and run `pairflow pair` again"
            )
        return True

    def _make(
        self, header: PairsHeader, shards: list[ShardPlan], stage: StageRun | None = None
    ) -> ShardStatistics | None:
        """Couples and writes shards as Ray tasks; what their rows look like, or None where none was to be made."""
        rows = sum(shard.num_rows for shard in shards)
        _logger.info("%d of %d shards to make, %d rows", len(shards), header.num_shards, rows)
        if not shards:
            return None
        made: ShardStatistics | None = None
        with ProgressLines(desc=f"pair {self.data.spec.name}", total=rows, unit="rows") as bar:
            speed = Speed()

            def on_shard(statistics: ShardStatistics) -> None:
                nonlocal made
                made = statistics if made is None else made + statistics
                bar.update(statistics.rows)
                rows_per_second = speed.after(statistics.rows)
                if stage is not None and rows_per_second is not None:
                    stage.log({"live_rows_per_second": rows_per_second}, step=speed.done)

            resources = Resources(
                cpus_per_task=self.settings.cpus_per_task,
                gpus_per_task=self.settings.gpus_per_task,
                num_workers=self.num_workers or self.settings.num_workers,
                support_parts=self.settings.support_parts,
                on_shard=on_shard,
            )
            self.source.make(self.url, header, shards, resources)
        return made


def _beforehand() -> None:
    """What every request needs, and takes a second each: this home's MLflow, and what draws."""
    import matplotlib.figure  # noqa: F401

    Lineage(Settings.read())


if __name__ == "__main__":
    sys.exit(main(PairRequest, run, beforehand=_beforehand))
