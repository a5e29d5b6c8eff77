"""How a contest for the place of champion ends, and how it is said; no server is needed."""

from dataclasses import replace

import pytest

from flows.contest.contest import DATA
from flows.contest.decision import decide
from flows.results import EvaluateResult, Headline, ModelScores, Score, StepScores, over_seeds

from .contest_cases import SURVEY, contest, version


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
        decision = decide(contest(), version(1, {}), _evaluation(_scores([3, 4, 5], "PairFlow")))
        assert decision.outcome == "first"
        assert decision.sentence == "Version 1 is the first champion of pairflow-x: valid molecules is 4."
        assert decision.figures == {"candidate": 4}
        assert "champion so far" not in decision.page

    def test_a_first_one_that_is_good_for_nothing(self) -> None:
        decision = decide(contest(), version(1, {}), _evaluation(_scores([0, 0, 0], "PairFlow")))
        assert decision.outcome == "challenger"
        assert "nothing is champion" in decision.sentence
        distance = decide(contest(), version(1, {}), _evaluation(_scores([0, 0, 0], "PairFlow", higher=False)))
        assert distance.outcome == "first"  # no better distance than that

    @pytest.mark.parametrize(
        ("candidate", "challenger", "outcome", "serves", "begins"),
        [
            ([0, 0, 0], [0, 0, 0], "challenger", None, "Version 2 is the challenger after version 1, and nothing is"),
            ([4, 5, 6], [0, 0, 0], "first", 2, "Version 2 is the first champion of pairflow-x: valid molecules at 4"),
            ([14, 15, 17], [4, 5, 6], "first", 2, "Version 2 is the first champion of pairflow-x: valid molecules at"),
            # On this data the earlier one is good for something, and the new one is no better.
            ([0, 0, 0], [4, 5, 6], "challenger", 1, "Version 1, the challenger so far, is the first champion of"),
            ([4, 5, 6], [4, 5, 6], "challenger", 1, "Version 1, the challenger so far, is the first champion of"),
        ],
    )
    def test_the_place_is_empty(
        self, candidate: list[float], challenger: list[float], outcome: str, serves: int | None, begins: str
    ) -> None:
        about = contest(challenger=version(1, {DATA: "c" * 64, "pairflow.training_rows": "80"}))
        assert about.comparable
        scored = _evaluation(_scores(candidate, "PairFlow"), _scores(challenger, "PairFlow (pairflow-x@challenger)"))
        decision = decide(about, version(2, {}), scored)
        assert (decision.outcome, decision.serves and decision.serves.number) == (outcome, serves)
        assert decision.sentence.startswith(begins)
        assert "against the challenger's" in decision.sentence
        assert "|  | candidate: version 2 | challenger so far: version 1 |" in decision.page.splitlines()
        assert (decision.figures["candidate"], decision.figures["challenger"]) == (
            sum(candidate) / 3,
            sum(challenger) / 3,
        )

    def test_the_place_is_empty_and_distances_are_compared(self) -> None:
        """Every distance is good for something: the smaller one serves."""
        about = contest(challenger=version(1, {}))
        near, far = (_scores(values, "PairFlow", higher=False) for values in ([1, 2, 3], [11, 12, 13]))
        assert decide(about, version(2, {}), _evaluation(near, far)).serves == version(2, {})
        assert decide(about, version(2, {}), _evaluation(far, near)).serves == about.challenger

    def test_better_and_worse(self) -> None:
        about = contest(version(1, {DATA: "c" * 64, "pairflow.training_rows": "80"}))
        good, bad = _scores([20, 21, 22], "PairFlow"), _scores([10, 11, 12], "PairFlow (pairflow-x@champion)")
        decision = decide(about, version(2, {}), _evaluation(good, bad))
        assert decision.outcome == "promoted"
        assert decision.serves == version(2, {})
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
        decision = decide(about, version(2, {}), _evaluation(bad, good))
        assert decision.outcome == "challenger"
        assert decision.serves is None
        assert decision.sentence.startswith("Version 1 stays champion, version 2 is a challenger:")

    def test_a_score_that_only_one_of_them_has(self) -> None:
        """Such as a distance over the valid molecules, where one model made none."""
        about = contest(version(1, {}))
        have, lack = _scores([20, 21, 22], "PairFlow", internal_diversity=0.8), _scores([0, 0, 0], "the champion")
        page = decide(about, version(2, {}), _evaluation(have, lack)).page
        assert "| internal diversity | 0.8 | – |" in page.splitlines()
        page = decide(about, version(2, {}), _evaluation(lack, have)).page
        assert "| internal diversity | – | 0.8 |" in page.splitlines()

    def test_a_champion_of_another_language(self) -> None:
        survey = SURVEY.model_copy(update={"misfit": "its vocab_size is 5, that of the data is 6"})
        about = replace(contest(version(1, {})), survey=survey)
        assert not about.comparable
        decision = decide(about, version(2, {}), _evaluation(_scores([3, 4, 5], "PairFlow")))
        assert decision.outcome == "challenger"
        assert "its vocab_size is 5" in decision.sentence
