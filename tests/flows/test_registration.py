"""A refinement and a coupling kind that a test adds go through `study` and `retrain` like those that are there."""

import json
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from flows.results import ComparisonResult, RetrainResult
from pairflow.presets import Preset
from pairflow.spec import COUPLING_KINDS, CouplingSpec, EngineName, PairsFormat

from .retrain_story import tell

_SMALL = {
    "model": {"hidden_size": 16, "num_layers": 1, "num_heads": 2, "cond_size": 8},
    "training": {"num_steps": 3, "batch_size": 16},
    "redi_training": {"num_steps": 2, "batch_size": 16},
}


@pytest.fixture(scope="module")
def story(
    cli_environment: dict[str, str], nursery_address: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict[str, Any]]:
    """Results by step, in the order in which they were asked for."""
    folder = tmp_path_factory.mktemp("rows")
    np.save(folder / "a.npy", np.random.default_rng(0).integers(5, size=(40, 6), dtype=np.uint8))
    common = {**_SMALL, "dataset": {"name": "tokens", "path": str(folder), "vocab_size": 5}}
    evaluation = {"steps": [1, 2], "num_samples": 8}
    rule = {"steps": 1, "trials": 2, "num_samples": 8}
    study = {"flow": "study", "methods": ["udlm+longer", "mirror"], "evaluation": evaluation, **common}
    mirror = {**common, **rule, "name": "mirror", "method": "mirror", "coupling": {"kind": "reversed"}}
    longer = {**common, **rule, "name": "longer", "method": "udlm+longer"}
    steps: dict[str, dict[str, Any]] = {
        "toys": {"toys": True},
        "study": {**study, "coupling": {"kind": "reversed"}},
        "mirror": mirror,
        "mirror again": mirror,
        "mirror, another seed": {**mirror, "coupling": {"kind": "reversed", "seed": 1}},
        "longer": longer,
        "longer again": longer,
        "longer, another setting": {**longer, "redi_training": {"num_steps": 4, "batch_size": 16}},
    }
    told = tell([*steps.values()], cli_environment, nursery_address, tmp_path_factory.mktemp("story"))
    return dict(zip([name for name in steps if name != "toys"], map(json.loads, told), strict=True))


@pytest.mark.timeout(900)
class TestToys:
    def test_they_stand_in_the_table(self, story: dict[str, dict[str, Any]]) -> None:
        study = ComparisonResult.model_validate(story["study"])
        assert [each.label for each in study.evaluation.methods] == ["UDLM + Longer", "Mirror"]
        table = json.loads(Path(study.evaluation.table).read_text())
        assert [each["method"] for each in table["methods"]] == ["udlm+longer", "mirror"]
        assert study.pairs is not None
        assert study.pairs.rows == 36  # a tenth is held out

    def test_the_pairs_are_of_their_kind(self, story: dict[str, dict[str, Any]]) -> None:
        import storage

        study = ComparisonResult.model_validate(story["study"])
        assert study.pairs is not None
        pairs = storage.open_pairs(study.pairs.url)
        assert pairs.manifest.spec["kind"] == "reversed"
        assert np.array_equal(pairs.source[:], pairs.target[:][:, ::-1])

    @pytest.mark.parametrize("name", ["mirror", "longer"])
    def test_unchanged_is_skipped(self, story: dict[str, dict[str, Any]], name: str) -> None:
        first, again = (RetrainResult.model_validate(story[each]) for each in (name, f"{name} again"))
        assert first.outcome in ("first", "challenger")
        assert again.outcome == "skipped"

    @pytest.mark.parametrize("name", ["mirror, another seed", "longer, another setting"])
    def test_a_changed_setting_of_theirs_is_not_skipped(self, story: dict[str, dict[str, Any]], name: str) -> None:
        changed, first = (RetrainResult.model_validate(story[each]) for each in (name, name.partition(",")[0]))
        assert changed.outcome != "skipped"
        assert changed.evaluation is not None
        assert first.evaluation is not None
        models = [each.evaluation.models[0].training_fingerprint for each in (first, changed)]  # type: ignore[union-attr]
        assert models[0] != models[1]


class TestClosedLists:
    """What is listed in a type, because a form or a type checker needs it, is what the registry has."""

    def test_kinds_of_pairs(self) -> None:
        from flows.jobs.sources import SOURCES

        assert set(SOURCES) == {*COUPLING_KINDS, "redi"}
        assert COUPLING_KINDS[CouplingSpec().kind]

    def test_formats(self) -> None:
        from storage.layout import LAYOUTS

        assert set(LAYOUTS) == set(get_args(PairsFormat))

    def test_engines(self) -> None:
        from pairflow.coupling import ENGINES

        assert {"auto", *ENGINES} == set(get_args(EngineName))

    def test_datasets_and_presets(self) -> None:
        from pairflow.datasets import names
        from pairflow.presets import PRESETS
        from pairflow.spec import DatasetName, PresetName

        assert [each.name for each in names()] == list(get_args(DatasetName))
        # What is downloaded can lie there already, under names that are known.
        assert all(bool(each.files) == ("download" in each.origin) for each in names())
        assert list(PRESETS) == list(get_args(PresetName))

    def test_samplers_processes_and_networks(self) -> None:
        from pairflow.models import ARCHITECTURES
        from pairflow.objectives import LOSSES
        from pairflow.processes import PROCESSES
        from pairflow.sampling import SAMPLERS
        from pairflow.spec import ModelSpec, SamplingSpec, TrainingSpec

        for spec, field, registry in (
            (SamplingSpec, "sampler", SAMPLERS),
            (TrainingSpec, "process", PROCESSES),
            (TrainingSpec, "objective", LOSSES),
            (ModelSpec, "architecture", ARCHITECTURES),
        ):
            assert set(registry) == set(get_args(spec.model_fields[field].annotation))

    def test_settings_of_every_refinement_are_groups_of_a_preset(self) -> None:
        from flows.recipes.methods import METHODS

        groups = {name for each in METHODS.values() if each.refinement for name in each.refinement.settings}
        groups |= {each.pairs for each in METHODS.values() if each.pairs}
        assert groups <= set(Preset.model_fields)
