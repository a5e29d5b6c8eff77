"""What a retraining makes of champion, challenger and previous, and how it says so; no server is needed."""

from typing import Any, cast

import pytest

from flows.contest.contest import DATA, EXTENDS, JUDGED, RECIPE, SOURCE, Contest
from flows.lineage.registry import Registry, Version
from flows.parameters import RetrainParameters
from flows.recipes.changes import resolve
from pairflow.errors import SpecError
from pairflow.spec import DatasetSpec, DistillationSpec, ModelSpec, TrainingSpec, parse

from .contest_cases import SURVEY as _SURVEY
from .contest_cases import contest as _contest
from .contest_cases import version as _version

_TOKENS = DatasetSpec(name="tokens", path="/data/rows", vocab_size=5)


class _Aliases:
    """A registry that knows versions by alias."""

    def __init__(self, **versions: Version) -> None:
        self._versions = versions

    def find(self, name: str, alias: str) -> Version | None:
        return self._versions.get(alias)


def _nothing_to_do(contest: Contest, **versions: Version) -> str | None:
    return contest.nothing_to_do(cast(Registry, _Aliases(**versions)))


class TestNothingToDo:
    def test_without_a_champion_there_is(self) -> None:
        contest = _contest()
        assert _nothing_to_do(contest) is None
        assert contest.reason == "there is no champion yet"

    def test_without_a_champion_a_challenger_of_this_was_judged(self) -> None:
        tags = _contest().tags_of(None)
        said = _nothing_to_do(_contest(challenger=_version(1, tags)))
        assert said is not None
        assert said.startswith("version 1 stays challenger, and nothing is champion of pairflow-x: the data (dddd")
        for changed, why in (
            (_contest(challenger=_version(1, tags), method="udlm"), "settings differ from those of version 1"),
            (_contest(challenger=_version(1, tags | {DATA: "c"})), "data differ from those of version 1"),
            (_contest(challenger=_version(1, tags | {EXTENDS: "f"})), "the pairs of version 1, the challenger, extend"),
            # Allowed more steps, the same model may be good enough.
            (_contest(challenger=_version(1, tags), steps=64), "those of version 1, the challenger, which was judged"),
            (_contest(challenger=_version(1, tags), margin=0.5), "which was judged otherwise"),
        ):
            assert _nothing_to_do(changed) is None
            assert changed.reason.startswith("there is no champion yet, and ")
            assert why in changed.reason

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

    def test_a_challenger_of_another_place(self) -> None:
        challenger = _version(1, {SOURCE: "/data/others"})
        with pytest.raises(SpecError, match="the challenger of pairflow-x was made of /data/others"):
            _contest(None, dataset=_TOKENS, name=None, challenger=challenger).check_source()

    def test_what_is_fine(self) -> None:
        champion = _version(1, {SOURCE: "/data/others"})
        for contest in (
            _contest(champion, dataset=_TOKENS, name="x"),
            _contest(champion, name=None),
            _contest(_version(1, {}), dataset=_TOKENS, name=None),
            _contest(None, dataset=_TOKENS, name=None),
        ):
            contest.check_source()


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
