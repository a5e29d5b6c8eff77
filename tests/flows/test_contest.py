"""What a retraining makes of champion, challenger and previous, and how it says so; no server is needed."""

from dataclasses import replace
from typing import Any, cast

import pytest

from flows.contest.contest import DATA, EXTENDS, JUDGED, RECIPE, SOURCE, Contest
from flows.contest.decision import decide
from flows.lineage.registry import Registry, Version
from flows.parameters import RetrainParameters
from flows.recipes.changes import resolve
from flows.results import EvaluateResult, Headline, ModelScores, Score, StepScores, Survey, over_seeds
from pairflow.errors import SpecError
from pairflow.spec import DatasetSpec, DistillationSpec, ModelSpec, TrainingSpec, parse

_SURVEY = Survey(
    dataset_digest="d" * 64,
    source="/data/rows",
    num_rows=90,
    num_held_out=10,
    engine="cpu/1",
    misfit=None,
    cannot_extend=None,
)
_TOKENS = DatasetSpec(name="tokens", path="/data/rows", vocab_size=5)


class _Aliases:
    """A registry that knows versions by alias."""

    def __init__(self, **versions: Version) -> None:
        self._versions = versions

    def find(self, name: str, alias: str) -> Version | None:
        return self._versions.get(alias)


def _version(number: int, tags: dict[str, str]) -> Version:
    return Version("pairflow-x", number, f"m-{number}", "r", (), tags, "")


def _contest(champion: Version | None = None, survey: Survey = _SURVEY, **fields: Any) -> Contest:
    given = {"dataset": DatasetSpec(name="digits"), "name": "x", "trials": 3, **fields}
    parameters = RetrainParameters.model_validate(given)
    return Contest(parameters, resolve(parameters.study), "pairflow-x", survey, champion)


def _nothing_to_do(contest: Contest, **versions: Version) -> str | None:
    return contest.nothing_to_do(cast(Registry, _Aliases(**versions)))


class TestNothingToDo:
    def test_without_a_champion_there_is(self) -> None:
        contest = _contest()
        assert _nothing_to_do(contest, challenger=_version(1, contest.tags_of(None))) is None
        assert contest.reason == "there is no champion yet"

    def test_the_champion_is_made_of_this(self) -> None:
        champion = _version(3, _contest().tags_of(None))
        said = _nothing_to_do(_contest(champion))
        assert said is not None
        assert "90 training rows" in said
        assert "version 3, the champion" in said

    @pytest.mark.parametrize(
        ("fields", "differs"),
        [
            ({"method": "udlm"}, True),
            ({"model": ModelSpec(architecture="unet", hidden_size=16)}, True),
            ({"training": TrainingSpec(num_steps=7)}, True),
            ({"coupling": {"num_steps": 7}}, True),
            ({"preset": "laptop"}, True),
            # How models are compared, or where, makes no other model; nor do settings that the method does not use.
            ({"margin": 0.5, "confidence": 0.6, "steps": 8, "trials": 9, "num_samples": 10}, False),
            ({"shard_size": 3, "format": "parquet", "num_workers": 1, "store": "/elsewhere"}, False),
            ({"distillation": DistillationSpec(num_steps=3)}, False),
        ],
    )
    def test_other_settings(self, fields: dict[str, Any], differs: bool) -> None:
        contest = _contest(_version(3, _contest().tags_of(None)), **fields)
        assert (_nothing_to_do(contest) is None) is differs
        if differs:
            assert contest.reason == "settings differ from those of version 3, the champion"

    def test_a_refined_method_has_its_own_settings(self) -> None:
        champion = _version(3, _contest(method="pairflow+dcd").tags_of(None))
        other = _contest(champion, method="pairflow+dcd", distillation=DistillationSpec(num_steps=3))
        assert _nothing_to_do(other) is None
        redi = _contest(
            _version(3, _contest(method="udlm+redi").tags_of(None)), method="udlm+redi", redi={"num_pairs": 7}
        )
        assert _nothing_to_do(redi) is None

    def test_other_data_or_another_engine(self) -> None:
        champion = _version(3, _contest().tags_of(None))
        data = _contest(champion, _SURVEY.model_copy(update={"dataset_digest": "e" * 64}))
        assert _nothing_to_do(data) is None
        assert data.reason.startswith("data differ")
        assert _nothing_to_do(_contest(champion, _SURVEY.model_copy(update={"engine": "cpu/2"}))) is None
        assert _nothing_to_do(_contest(_version(3, {}))) is None
        assert _contest(_version(3, {})).reason.startswith("data and settings differ")

    def test_extended_pairs_serve_until_exact_ones_are_wanted(self) -> None:
        champion = _version(3, _contest().tags_of(None) | {EXTENDS: "f" * 64})
        assert _nothing_to_do(_contest(champion, extend=True)) is not None
        exact = _contest(champion)
        assert _nothing_to_do(exact) is None
        assert exact.reason == "the pairs of version 3, the champion, extend others, and exact ones are wanted"
        assert _nothing_to_do(_contest(_version(3, _contest().tags_of(None)), extend=True)) is not None

    def test_a_rollback_is_not_undone(self) -> None:
        contest = _contest(_version(1, {}))
        said = _nothing_to_do(contest, previous=_version(2, contest.tags_of(None)))
        assert said is not None
        assert "`pairflow rollback pairflow-x` brings it back" in said

    def test_a_challenger_lost_against_this_champion_under_this_rule(self) -> None:
        contest = _contest(_version(1, {}))
        challenger = _version(4, contest.tags_of(None))
        said = _nothing_to_do(contest, challenger=challenger)
        assert said is not None
        assert "version 4" in said
        assert _nothing_to_do(_contest(_version(2, {})), challenger=challenger) is None
        assert _nothing_to_do(_contest(_version(1, {}), margin=0.5), challenger=challenger) is None
        assert contest.tags_of(None).keys() >= {DATA, RECIPE, SOURCE, JUDGED}


class TestSource:
    def test_another_place_needs_a_name(self) -> None:
        champion = _version(1, {SOURCE: "/data/others"})
        with pytest.raises(SpecError, match=r"made of /data/others, .* is /data/rows.*NAME\), or --name tokens "):
            _contest(champion, dataset=_TOKENS, name=None).check_source()

    def test_what_is_fine(self) -> None:
        champion = _version(1, {SOURCE: "/data/others"})
        for contest in (
            _contest(champion, dataset=_TOKENS, name="x"),
            _contest(champion, name=None),
            _contest(_version(1, {}), dataset=_TOKENS, name=None),
            _contest(None, dataset=_TOKENS, name=None),
        ):
            contest.check_source()


def _scores(trials: list[float], label: str, *, higher: bool = True, **others: float) -> ModelScores:
    score = Score(mean=sum(trials) / len(trials), std=1, trials=tuple(trials))
    scores = {"num_valid": score, **{name: Score(mean=value, std=0) for name, value in others.items()}}
    return ModelScores(
        method="pairflow",
        label=label,
        reference=None,
        training_seed=0,
        checkpoint_sha256="s",
        training_fingerprint="f",
        evaluation_fingerprint="e",
        headline=Headline(name="num_valid", label="valid molecules", higher_is_better=higher),
        facts={},
        steps=(StepScores(num_steps=4, num_network_calls=5, scores=scores, samples_per_second=1),),
        mlflow_run_id="r",
        mlflow_model_id="m",
    )


def _evaluation(*models: ModelScores) -> EvaluateResult:
    return EvaluateResult(
        fingerprint="f",
        models=models,
        methods=over_seeds(models),
        costs=(),
        table="t",
        figure="f",
        grid="g",
        trajectories="t.png",
        report="r.html",
        report_address="file:///r.html",
        skipped=False,
        seconds=0,
    )


class TestDecision:
    def test_the_first_one(self) -> None:
        decision = decide(_contest(), _version(1, {}), _evaluation(_scores([3, 4, 5], "PairFlow")))
        assert decision.outcome == "first"
        assert decision.sentence == "Version 1 is the first champion of pairflow-x: valid molecules is 4."
        assert decision.figures == {"candidate": 4}
        assert "champion so far" not in decision.page

    def test_a_first_one_that_is_good_for_nothing(self) -> None:
        decision = decide(_contest(), _version(1, {}), _evaluation(_scores([0, 0, 0], "PairFlow")))
        assert decision.outcome == "challenger"
        assert "nothing is champion" in decision.sentence
        distance = decide(_contest(), _version(1, {}), _evaluation(_scores([0, 0, 0], "PairFlow", higher=False)))
        assert distance.outcome == "first"  # no better distance than that

    def test_better_and_worse(self) -> None:
        contest = _contest(_version(1, {DATA: "c" * 64, "pairflow.training_rows": "80"}))
        good, bad = _scores([20, 21, 22], "PairFlow"), _scores([10, 11, 12], "PairFlow (pairflow-x@champion)")
        decision = decide(contest, _version(2, {}), _evaluation(good, bad))
        assert decision.outcome == "promoted"
        assert decision.sentence.startswith(
            "Version 2 replaces version 1 as champion: valid molecules at 4 steps is 21"
        )
        assert decision.figures["difference"] == 10
        for line in (
            "|  | candidate: version 2 | champion so far: version 1 |",
            "| valid molecules | 21 ± 1 | 11 ± 1 |",
            "| training rows | 90 | 80 |",
            f"| dataset digest | {'d' * 12}… | {'c' * 12}… |",
        ):
            assert line in decision.page.splitlines()
        decision = decide(contest, _version(2, {}), _evaluation(bad, good))
        assert decision.outcome == "challenger"
        assert decision.sentence.startswith("Version 1 stays champion, version 2 is a challenger:")

    def test_a_score_that_only_one_of_them_has(self) -> None:
        """Such as a distance over the valid molecules, where one model made none."""
        contest = _contest(_version(1, {}))
        have, lack = _scores([20, 21, 22], "PairFlow", internal_diversity=0.8), _scores([0, 0, 0], "the champion")
        page = decide(contest, _version(2, {}), _evaluation(have, lack)).page
        assert "| internal diversity | 0.8 | – |" in page.splitlines()
        page = decide(contest, _version(2, {}), _evaluation(lack, have)).page
        assert "| internal diversity | – | 0.8 |" in page.splitlines()

    def test_a_champion_of_another_language(self) -> None:
        survey = _SURVEY.model_copy(update={"misfit": "its vocab_size is 5, that of the data is 6"})
        contest = replace(_contest(_version(1, {})), survey=survey)
        assert not contest.comparable
        decision = decide(contest, _version(2, {}), _evaluation(_scores([3, 4, 5], "PairFlow")))
        assert decision.outcome == "challenger"
        assert "its vocab_size is 5" in decision.sentence


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"name": "../x"}, "name"),
        ({"name": ""}, "name"),
        ({"name": "-x"}, "name"),
        ({"steps": 0}, "steps"),
        ({"steps": 1025}, "steps"),
        ({"trials": 1}, "trials"),
        ({"num_samples": 1}, "num_samples"),
        ({"margin": -0.01}, "margin"),
        ({"margin": float("nan")}, "margin"),
        ({"confidence": 0.4}, "confidence"),
        ({"confidence": 1.0}, "confidence"),
        ({"method": "mdlm+dcd"}, "method"),
        ({"dataset": {"name": "tokens"}}, "needs a path"),
        ({"evaluation": {"steps": [4]}}, "evaluation"),
        ({"training_seeds": [0]}, "training_seeds"),
    ],
)
def test_parameters_that_do_not_fit(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(SpecError, match=says):
        parse(RetrainParameters, fields)


def test_a_preset_without_this_dataset() -> None:
    chosen = parse(RetrainParameters, {"dataset": {"name": "nci"}, "preset": "paper"}).study
    with pytest.raises(SpecError, match="no settings for dataset 'nci'"):
        resolve(chosen)


def test_the_evaluation_is_at_the_affordable_steps() -> None:
    study = _contest(steps=2, trials=7, num_samples=33).parameters.study
    assert study.evaluation is not None
    assert (study.evaluation.steps, study.evaluation.num_trials, study.evaluation.num_samples) == ((2,), 7, 33)
    assert study.methods == ("pairflow",)
