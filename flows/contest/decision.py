"""How a contest for the place of champion ends, in a sentence and a table."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from flows.contest import promotion
from flows.contest.contest import DATA, ROWS, Contest
from flows.lineage.registry import Version
from flows.pages.artifacts import mlflow_link
from flows.pages.tables import score_names, shown
from flows.recipes.methods import METHODS
from flows.results import EvaluateResult, ModelScores, Score
from pairflow.metrics.labels import label

_DIGITS = 12  # of an id or a digest, where people read it
Outcome: TypeAlias = Literal["first", "promoted", "challenger"]


@dataclass(frozen=True)
class Decision:
    """How a contest ended.

    Attributes:
        outcome: as in `RetrainResult`.
        sentence: the decision and its reason.
        page: the same with a table, in markdown: for the run's page and the version's.
        figures: for MLflow, by name.
    """

    outcome: Outcome
    sentence: str
    page: str
    figures: Mapping[str, float]


def decide(contest: Contest, version: Version, evaluation: EvaluateResult) -> Decision:
    """Whether a candidate takes the champion's place; the first one does without a contest.

    Args:
        contest: what it is about.
        version: the candidate's.
        evaluation: of the candidate, and after it of the champion if that could be measured.
    """
    candidate, champion = evaluation.models[0], next(iter(evaluation.models[1:]), None)
    outcome, sentence, figures = _outcome(contest, version, candidate, champion)
    return Decision(outcome, sentence, _page(contest, sentence, version, candidate, champion), figures)


def _outcome(
    contest: Contest, version: Version, candidate: ModelScores, champion: ModelScores | None
) -> tuple[Outcome, str, dict[str, float]]:
    rule, score, what = contest.parameters, _headline(candidate), candidate.headline_text
    figures = {"candidate": score.mean}
    this, before = f"Version {version.number}", contest.champion
    if before is None:
        if candidate.headline.higher_is_better and score.mean <= 0:
            return (
                "challenger",
                f"{this} is a challenger, and nothing is champion: {what} is {score.mean:.4g} at {rule.steps} "
                "steps; train it longer, or allow more steps.",
                figures,
            )
        return (
            "first",
            f"{this} is the first champion of {contest.name}: {what} is {score.mean:.4g}.",
            figures,
        )
    if champion is None:
        return (
            "challenger",
            f"{this} is a challenger, as it cannot be compared with version {before.number}, the champion: "
            f"{contest.survey.misfit}. To let it serve, give it the alias champion on MLflow's page of {contest.name}.",
            figures,
        )
    verdict = promotion.judge(
        score.trials,
        _headline(champion).trials,
        higher_is_better=candidate.headline.higher_is_better,
        margin=rule.margin,
        confidence=rule.confidence,
    )
    words = promotion.in_words(
        verdict,
        label=what,
        num_steps=rule.steps,
        trials=rule.trials,
        margin=rule.margin,
        confidence=rule.confidence,
    )
    figures |= {
        "champion": verdict.champion,
        "difference": verdict.difference,
        "difference_at_least": verdict.at_least,
        "difference_required": verdict.required,
    }
    if verdict.promote:
        return "promoted", f"{this} replaces version {before.number} as champion: {words}.", figures
    return (
        "challenger",
        f"Version {before.number} stays champion, version {version.number} is a challenger: {words}.",
        figures,
    )


def _page(
    contest: Contest, sentence: str, version: Version, candidate: ModelScores, champion: ModelScores | None
) -> str:
    survey, rule = contest.survey, contest.parameters
    models = [candidate]
    columns = [_Column("candidate", version, str(survey.num_rows), survey.dataset_digest)]
    if champion is not None and contest.champion is not None:
        models.append(champion)
        tags = contest.champion.tags
        columns.append(_Column("champion so far", contest.champion, tags.get(ROWS, ""), tags.get(DATA, "")))
    rows = [["", *(f"{each.role}: version {each.version.number}" for each in columns)], ["---"] * (1 + len(columns))]
    for name in score_names(models):
        text = candidate.headline.label if name == candidate.headline.name else label(name).text
        rows.append([text, *(shown(each.steps[0].scores.get(name)) for each in models)])
    rows += [
        ["method", *(METHODS[each.method].label for each in models)],
        ["training rows", *(each.rows for each in columns)],
        ["dataset digest", *(_short(each.digest) for each in columns)],
        ["MLflow model", *(_short(each.version.model_id) for each in columns)],
        ["evaluation", *(_link(each.mlflow_run_id) for each in models)],
    ]
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in rows)
    return (
        f"{sentence}\n\n{table}\n\n"
        f"Trained because {contest.reason}. Scores at {rule.steps} sampling steps, over {rule.trials} trials of "
        f"{contest.preset.evaluation.num_samples:,} samples with the same seeds, against {survey.num_held_out:,} rows "
        f"held out. Asked for: better by {rule.margin:.3g} of the champion's score, confidence {rule.confidence:g}.\n"
    )


def _link(run_id: str) -> str:
    """A run as a narrow cell of a table."""
    return str(mlflow_link(run_id)).replace(f"[{run_id}]", f"[{_short(run_id)}]") if run_id else ""


def _short(name: str) -> str:
    return f"{name[:_DIGITS]}…" if len(name) > _DIGITS else name


@dataclass(frozen=True)
class _Column:
    role: str
    version: Version
    rows: str
    digest: str


def _headline(scores: ModelScores) -> Score:
    return scores.steps[0].scores[scores.headline.name]
