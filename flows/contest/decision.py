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
        serves: the version that is to be champion from now on; None where that stays as it was.
    """

    outcome: Outcome
    sentence: str
    page: str
    figures: Mapping[str, float]
    serves: Version | None


def decide(contest: Contest, version: Version, evaluation: EvaluateResult) -> Decision:
    """Whether a candidate takes the champion's place; the first one does without a contest.

    Where nothing is champion yet, the better of the candidate and the challenger of before is the first one, unless
    that is good for nothing as well.

    Args:
        contest: what it is about.
        version: the candidate's.
        evaluation: of the candidate, and after it of the rival if that could be measured.
    """
    candidate, rival = evaluation.models[0], next(iter(evaluation.models[1:]), None)
    figures = {"candidate": _headline(candidate).mean}
    if rival is None:
        outcome, sentence = _alone(contest, version, candidate)
        serves = version if outcome == "first" else None
    else:
        verdict, words = _compared(contest, candidate, rival)
        figures |= {
            contest.role: verdict.champion,
            "difference": verdict.difference,
            "difference_at_least": verdict.at_least,
            "difference_required": verdict.required,
        }
        judged = _against_champion if contest.champion is not None else _against_challenger
        outcome, sentence, serves = judged(contest, version, verdict, words, candidate.headline.higher_is_better)
    return Decision(outcome, sentence, _page(contest, sentence, version, evaluation), figures, serves)


def _alone(contest: Contest, version: Version, candidate: ModelScores) -> tuple[Outcome, str]:
    """Without a rival, or with one that cannot be measured on this data."""
    score, what = _headline(candidate).mean, candidate.headline_text
    this, champion = f"Version {version.number}", contest.champion
    if champion is not None:
        return (
            "challenger",
            f"{this} is a challenger, as it cannot be compared with version {champion.number}, the champion: "
            f"{contest.survey.misfit}. To let it serve, give it the alias champion on MLflow's page of {contest.name}.",
        )
    if _worthless(score, candidate.headline.higher_is_better):
        return (
            "challenger",
            f"{this} is a challenger, and nothing is champion: {what} is {score:.4g} at {contest.parameters.steps} "
            "steps; train it longer, or allow more steps.",
        )
    return "first", f"{this} is the first champion of {contest.name}: {what} is {score:.4g}."


def _against_champion(
    contest: Contest, version: Version, verdict: promotion.Verdict, words: str, higher_is_better: bool
) -> tuple[Outcome, str, Version | None]:
    before = _number(contest.champion)
    if verdict.promote:
        return "promoted", f"Version {version.number} replaces version {before} as champion: {words}.", version
    return "challenger", f"Version {before} stays champion, version {version.number} is a challenger: {words}.", None


def _against_challenger(
    contest: Contest, version: Version, verdict: promotion.Verdict, words: str, higher_is_better: bool
) -> tuple[Outcome, str, Version | None]:
    """The place is empty: the better one has it, if it is good for anything."""
    this, before = version.number, _number(contest.challenger)
    if _worthless(verdict.candidate if verdict.promote else verdict.champion, higher_is_better):
        sentence = f"Version {this} is the challenger after version {before}, and nothing is champion: {words}"
        return "challenger", f"{sentence}; train it longer, or allow more steps.", None
    if verdict.promote:
        return "first", f"Version {this} is the first champion of {contest.name}: {words}.", version
    return (
        "challenger",
        f"Version {before}, the challenger so far, is the first champion of {contest.name}, and version {this} is a "
        f"challenger: {words}.",
        contest.challenger,
    )


def _compared(contest: Contest, candidate: ModelScores, rival: ModelScores) -> tuple[promotion.Verdict, str]:
    rule = contest.parameters
    verdict = promotion.judge(
        _headline(candidate).trials,
        _headline(rival).trials,
        higher_is_better=candidate.headline.higher_is_better,
        margin=rule.margin,
        confidence=rule.confidence,
    )
    words = promotion.in_words(
        verdict,
        label=candidate.headline_text,
        num_steps=rule.steps,
        trials=rule.trials,
        margin=rule.margin,
        confidence=rule.confidence,
        rival=contest.role,
    )
    return verdict, words


def _worthless(score: float, higher_is_better: bool) -> bool:
    """Such as no valid molecule at all: a model that must not serve."""
    return higher_is_better and score <= 0


def _number(version: Version | None) -> int | None:
    return None if version is None else version.number


def _page(contest: Contest, sentence: str, version: Version, evaluation: EvaluateResult) -> str:
    candidate, rival = evaluation.models[0], next(iter(evaluation.models[1:]), None)
    experiment_id = evaluation.mlflow_experiment_id
    survey, rule = contest.survey, contest.parameters
    models = [candidate]
    columns = [_Column("candidate", version, str(survey.num_rows), survey.dataset_digest)]
    if rival is not None and contest.rival is not None:
        models.append(rival)
        tags = contest.rival.tags
        columns.append(_Column(f"{contest.role} so far", contest.rival, tags.get(ROWS, ""), tags.get(DATA, "")))
    rows = [["", *(f"{each.role}: version {each.version.number}" for each in columns)], ["---"] * (1 + len(columns))]
    for name in score_names(models):
        text = candidate.headline.label if name == candidate.headline.name else label(name).text
        rows.append([text, *(shown(each.steps[0].scores.get(name)) for each in models)])
    rows += [
        ["method", *(METHODS[each.method].label for each in models)],
        ["training rows", *(each.rows for each in columns)],
        ["dataset digest", *(_short(each.digest) for each in columns)],
        ["MLflow model", *(_short(each.version.model_id) for each in columns)],
        ["evaluation", *(_link(each.mlflow_run_id, experiment_id) for each in models)],
    ]
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in rows)
    return (
        f"{sentence}\n\n{table}\n\n"
        f"Trained because {contest.reason}. Scores at {rule.steps} sampling step{'s' * (rule.steps != 1)}, over "
        f"{rule.trials} trials of {contest.preset.evaluation.num_samples:,} samples with the same seeds, against "
        f"{survey.num_held_out:,} rows held out. Asked for: better by {rule.margin:.3g} of the {contest.role}'s score, "
        f"confidence {rule.confidence:g}.\n"
    )


def _link(run_id: str, experiment_id: str) -> str:
    """A run as a narrow cell of a table."""
    link = mlflow_link(run_id, experiment_id, "scores")
    return "" if not link else _short(link) if link == run_id else link


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
