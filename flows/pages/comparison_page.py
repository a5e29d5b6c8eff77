"""The MLflow run of a comparison of methods: its links, curves and text."""

from pathlib import Path

from flows.lineage import page_address, page_text, score_table
from flows.lineage import tags as tag
from flows.lineage.stage_run import StageRun
from flows.lineage.tracking import Lineage
from flows.pages.tables import comparison_rows
from flows.pages.verdict import measured, verdict
from flows.recipes.methods import METHODS
from flows.results import ComparisonResult


def fill(parent: StageRun, result: ComparisonResult, lineage: Lineage) -> None:
    """Makes the comparison's run the place from which everything else is found, and its page readable on its own.

    Raises:
        LineageError: MLflow does not answer.
    """
    _link(parent, result)
    _log(parent, result)
    _introduce(parent, result, lineage)


def _link(parent: StageRun, result: ComparisonResult) -> None:
    """Tags for programs: `pairflow lineage` follows them."""
    evaluation = result.evaluation
    tags = {tag.COMPARISON: evaluation.figure, tag.SAMPLES: evaluation.grid, tag.TABLE: evaluation.table}
    tags[tag.REPORT] = evaluation.report_address
    tags[tag.DATASET_DIGEST] = result.trainings[0].dataset_digest
    if result.pairs is not None:
        tags |= {tag.PAIRS_FINGERPRINT: result.pairs.fingerprint, tag.PAIRS_URL: result.pairs.url}
        tags[tag.PAIRING_RUN] = result.pairs.mlflow_run_id or ""
    for trained in (*result.trainings, *result.distillations):
        name = f"{METHODS[trained.method].key}.seed{trained.training_seed}"
        tags |= {f"{tag.TRAINING_RUN}.{name}": trained.mlflow_run_id, f"{tag.MODEL}.{name}": trained.mlflow_model_id}
    for scored in evaluation.models:
        name = f"{METHODS[scored.method].key}.seed{scored.training_seed}"
        tags[f"{tag.EVALUATION_RUN}.{name}"] = scored.mlflow_run_id
    parent.tag(tags)


def _log(parent: StageRun, result: ComparisonResult) -> None:
    """The headline's curves and the costs, by method."""
    evaluation = result.evaluation
    for method in evaluation.methods:
        for step in method.steps:
            score = step.scores[method.headline.name]
            name = f"{method.headline.name}.{METHODS[method.method].key}"
            parent.log({score_table.metric(name, step.num_steps): score.mean})
            parent.log({name: score.mean}, step=step.num_steps)
    for cost in evaluation.costs:
        seconds = {part: getattr(cost, part).mean for part in ("pairing", "training", "refinement")}
        key = METHODS[cost.method].key
        parent.log({f"{part}_seconds.{key}": value for part, value in seconds.items()})
        if learning := seconds["training"] + seconds["refinement"]:
            parent.log({f"pairing_to_training_seconds.{key}": seconds["pairing"] / learning})


def _introduce(parent: StageRun, result: ComparisonResult, lineage: Lineage) -> None:
    """The text of the page: its data, its stages, its table by steps, its files."""
    evaluation = result.evaluation
    used = {
        each.digest: each
        for trained in (*result.trainings, *result.distillations)
        for each in lineage.inputs_of(trained.mlflow_run_id)
    }
    parent.use(*used.values())
    models = {f"{each.method}, seed {each.training_seed}": each for each in (*result.trainings, *result.distillations)}
    stages = {f"training of {name}": each.mlflow_run_id for name, each in models.items()}
    stages |= {
        f"evaluation of {each.method}, seed {each.training_seed}": each.mlflow_run_id for each in evaluation.models
    }
    if result.pairs is not None and result.pairs.mlflow_run_id is not None:
        stages = {"pairing": result.pairs.mlflow_run_id} | stages
    data = [each for each in used.values() if "url" not in each.source]
    scores = page_address.experiment(parent.experiment_id)
    files = [Path(path).name for path in (evaluation.report, evaluation.figure, evaluation.grid)]
    parent.tell(
        {
            "Data": "; ".join(page_text.dataset(each.name, each.digest, each.profile) for each in data),
            "Stages": ", ".join(
                page_text.run_link(run_id, name, parent.experiment_id) for name, run_id in stages.items()
            ),
            "Files": f"{', '.join(files)} under Artifacts; the table is {page_text.code_span(evaluation.table)}",
        },
        first=f"**{verdict(evaluation)}.** {measured(evaluation).capitalize()}; [all scores]({scores})\n\n"
        f"{page_text.table(comparison_rows(evaluation))}",
    )
