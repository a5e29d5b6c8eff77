"""Few-step scores where MLflow can sort and compare them: tables and Compare show a metric's last step only.

So every score is also a metric of its own for each number of sampling steps, such as `num_valid.steps_4`; and the
experiment has a view, which is a tag that MLflow's page reads, with the headline's as columns and a row a model.
"""

import functools
import json
import re
import time
from collections.abc import Iterable, Mapping

from mlflow import MlflowClient
from mlflow.entities import Metric

from flows.lineage import page_address
from flows.lineage import tags as tag
from flows.lineage.tracking import Lineage
from flows.lineage.waiting import or_none
from flows.results import ModelScores

_COLUMN = re.compile(r"metrics\.`(?P<name>.+)\.steps_(?P<steps>\d+)`")
_MOST = 4500  # characters, of 5,000 that MLflow takes


def note(lineage: Lineage, scores: ModelScores, training_run: str | None) -> None:
    """Says a model's scores where it is looked for: on its training's run, its page, and the experiment's table.

    Args:
        lineage: the MLflow that has them.
        scores: of the model.
        training_run: that made it, if it is known here; one that was deleted is left alone.

    Raises:
        LineageError: MLflow does not answer.
    """
    ask, client = lineage.insist, lineage.client
    experiment_id = lineage.experiment_of(scores.mlflow_run_id)
    known = ask(lambda: client.get_experiment(experiment_id)).tags
    of_view, model_id = f"{tag.SHARED_VIEW}{page_address.VIEW}", scores.mlflow_model_id
    tags = {of_view: view(scores, known.get(of_view))}
    if tag.NOTE not in known:
        tags[tag.NOTE] = introduction(experiment_id)
    for name, value in tags.items():
        ask(functools.partial(client.set_experiment_tag, experiment_id, name, value))
    found, now = by_steps(scores), int(time.time() * 1000)
    if training_run is not None and lineage.is_active(training_run):
        metrics = [Metric(name, value, now, 0) for name, value in found.items()]
        ask(lambda: client.log_batch(training_run, metrics=metrics))
    if model_id is not None:
        versions = json.loads(lineage.model_tags(model_id).get(tag.MODEL_VERSIONS, "[]"))
        ask(lambda: client.set_logged_model_tags(model_id, {tag.HEADLINE: scores.headline.name}))
        for each in versions:
            for name, value in version_tags(scores.headline.name, found).items():
                ask(functools.partial(_tag_version, client, each["name"], str(each["version"]), name, value))


def metric(name: str, num_steps: int) -> str:
    """What a score with so many sampling steps is called."""
    return f"{name}.steps_{num_steps}"


def by_steps(scores: ModelScores) -> dict[str, float]:
    """Every score with every number of steps, the headline first, as MLflow lists metrics as they came."""
    names = dict.fromkeys([scores.headline.name, *(name for step in scores.steps for name in step.scores)])
    return {
        metric(name, step.num_steps): step.scores[name].mean
        for name in names
        for step in scores.steps
        if name in step.scores
    }


def headline(scores: ModelScores) -> dict[str, float]:
    """The headline alone."""
    begin = f"{scores.headline.name}.steps_"
    return {name: value for name, value in by_steps(scores).items() if name.startswith(begin)}


def view(scores: ModelScores, before: str | None) -> str:
    """The experiment's view as MLflow's page reads it: what was in it before stays, in the order of the steps."""
    columns = set(_columns(before)) | {(scores.headline.name, step.num_steps) for step in scores.steps}
    ordered = sorted(columns, key=lambda column: (column[0] != scores.headline.name, *column))
    while True:
        shown = [f"metrics.`{metric(*column)}`" for column in ordered]
        about = [f"params.`{name}`" for name in ("method", "preset", "seed")]
        state = {
            "searchFilter": f"tags.`{tag.STAGE}` = 'evaluate'",
            "orderByKey": shown[0],
            "orderByAsc": not scores.headline.higher_is_better,
            "selectedColumns": [*about, *shown],
        }
        text = json.dumps(state)
        if len(text) <= _MOST or len(ordered) == 1:
            return text
        ordered.pop()


def introduction(experiment_id: str) -> str:
    """The text above the experiment's table."""
    return f"**[Scores by number of sampling steps]({page_address.experiment(experiment_id)})**, a row a model\n"


def version_tags(headline_name: str, metrics: Mapping[str, float]) -> dict[str, str]:
    """The headline's scores as tags of a registered version."""
    return {f"{tag.SCORE}{name}": f"{value:.6g}" for name, value in _of(headline_name, metrics)}


def in_words(headline_name: str, metrics: Mapping[str, float]) -> str:
    """The headline's scores as a line of a version's page, or nothing where there are none."""
    by_steps = [(name.rpartition("_")[2], value) for name, value in _of(headline_name, metrics)]
    found = [f"{steps if steps != '0' else 'none (1 call)'}: {value:.4g}" for steps, value in by_steps]
    return f"{headline_name} by number of sampling steps: {', '.join(found)}" if found else ""


def _of(headline_name: str, metrics: Mapping[str, float]) -> list[tuple[str, float]]:
    """Those of one score, fewest steps first."""
    begin = f"{headline_name}.steps_"
    found = [(name, value) for name, value in metrics.items() if name.startswith(begin)]
    return sorted(found, key=lambda each: int(each[0].removeprefix(begin)))


def _columns(before: str | None) -> Iterable[tuple[str, int]]:
    """The scores of a view, as far as they are ours."""
    try:
        shown = json.loads(before or "{}").get("selectedColumns", [])
    except (json.JSONDecodeError, AttributeError):  # somebody overwrote it on MLflow's page
        return
    for column in shown:
        if (found := _COLUMN.fullmatch(str(column))) is not None:
            yield found["name"], int(found["steps"])


def _tag_version(client: MlflowClient, name: str, number: str, key: str, value: str) -> None:
    """A version that was deleted meanwhile is nobody's loss."""
    or_none(lambda: client.set_model_version_tag(name, number, key, value))
