"""Presets: complete, valid, the authors' numbers where they say so, and clear about what they lack."""

from typing import get_args

import pytest
from pydantic import ValidationError

from pairflow.errors import SpecError
from pairflow.presets import SIZES, Preset, preset
from pairflow.spec import DatasetName, ModelSpec, PresetName

PAPER = ("qm9", "zinc-250k", "mnist-binary", "cifar-10")


@pytest.mark.parametrize("dataset", get_args(DatasetName))
def test_demo_has_settings_for_every_dataset(dataset):
    demo = preset("demo", dataset)
    assert Preset.model_validate_json(demo.model_dump_json()) == demo
    images = dataset in ("digits", "patches", "mnist-binary", "cifar-10")
    assert demo.model.architecture == ("unet" if images else "dit")


@pytest.mark.parametrize(
    ("dataset", "batch_size", "num_steps", "learning_rate", "schedule", "warmup_steps"),
    [
        ("qm9", 1024, 50_000, 3e-4, "cosine", 1000),
        ("zinc-250k", 256, 200_000, 3e-4, "constant", 2500),
        ("mnist-binary", 256, 10_000, 2e-4, "constant", 2000),
        ("cifar-10", 512, 300_000, 2e-4, "constant", 5000),
    ],
)
def test_paper_is_the_authors_table(dataset, batch_size, num_steps, learning_rate, schedule, warmup_steps):
    paper = preset("paper", dataset)
    training = paper.training
    assert (training.batch_size, training.num_steps, training.learning_rate) == (
        batch_size,
        num_steps,
        learning_rate,
    )
    assert (training.lr_schedule, training.warmup_steps) == (schedule, warmup_steps)
    assert (training.ema_decay, training.gradient_clip, training.time_epsilon) == (0.9999, 1.0, 1e-3)
    assert (paper.coupling.num_steps, paper.coupling.temperature) == (20, 1.0)
    if dataset in ("qm9", "zinc-250k"):
        assert paper.model == ModelSpec(
            hidden_size=768, num_layers=12, num_heads=12, cond_size=128, dropout=0.1, absolute_positions=False
        )
    else:
        mults = {"mnist-binary": (1, 2, 2), "cifar-10": (1, 2, 2, 2)}[dataset]
        assert (paper.model.hidden_size, paper.model.channel_mults, paper.model.num_res_blocks) == (128, mults, 2)


@pytest.mark.parametrize(
    ("dataset", "num_steps", "update_teacher_every", "num_pairs"),
    [
        ("qm9", 10_000, 2000, 20_000),
        ("zinc-250k", 30_000, 5000, 20_000),
        ("mnist-binary", 5000, 1000, 10_000),
        ("cifar-10", 50_000, 10_000, 10_000),
    ],
)
def test_paper_distils_as_the_authors_do(dataset, num_steps, update_teacher_every, num_pairs):
    paper = preset("paper", dataset)
    dcd, redi = paper.distillation, paper.redi
    assert (dcd.num_steps, dcd.update_teacher_every, dcd.num_intervals) == (num_steps, update_teacher_every, 64)
    assert (dcd.learning_rate, dcd.lr_schedule, dcd.warmup_steps, dcd.ema_decay) == (6e-5, "constant", 0, 0.999)
    assert (dcd.gamma_noisiest, dcd.gamma_cleanest, dcd.states) == (-1.0, -4.0, "gaussian")
    assert (redi.num_pairs, redi.num_steps, redi.sampling.sampler, redi.sampling.final_step) == (
        num_pairs,
        256,
        "euler",
        "greedy",
    )
    tuning = paper.redi_training
    assert (tuning.coupling, tuning.process, tuning.num_steps) == ("paired", "uniform", num_steps)
    assert dcd.batch_size == tuning.batch_size == paper.training.batch_size


@pytest.mark.parametrize("name", get_args(PresetName))
def test_every_preset_distils_in_whole_rounds(name):
    for dataset in get_args(DatasetName):
        if name not in ("demo", "few-step") and dataset not in {"laptop": ("digits", "qm9")}.get(name, PAPER):
            continue
        dcd = preset(name, dataset).distillation
        assert dcd.num_steps % dcd.update_teacher_every == 0
        assert dcd.num_steps // dcd.update_teacher_every in (5, 6)


def test_sizes_are_ordered():
    for sizes in SIZES.values():
        assert list(sizes) == ["tiny", "small"]
        assert sizes["tiny"].hidden_size < sizes["small"].hidden_size


def test_what_is_missing_is_named():
    with pytest.raises(
        SpecError, match=r"'paper' has no settings for dataset 'digits'; .* qm9, zinc-250k, mnist-binary"
    ):
        preset("paper", "digits")
    with pytest.raises(SpecError, match="preset: got 'huge', expected one of demo, laptop, paper, few-step"):
        preset("huge", "qm9")  # type: ignore[arg-type]


def test_a_preset_is_frozen_and_refuses_unknown_fields():
    demo = preset("demo", "digits")
    with pytest.raises(ValidationError):
        demo.training = demo.training  # type: ignore[misc]
    with pytest.raises(ValidationError, match="batch"):
        Preset.model_validate({**demo.model_dump(), "batch": 1})


def test_few_step_is_the_demo_but_for_loss_sources_and_end():
    """So that two runs of one dataset differ by these alone."""
    for dataset in get_args(DatasetName):
        settings = preset("few-step", dataset)
        assert (settings.training.objective, settings.assignment.sources_per_target) == ("cross_entropy", 8)
        assert (settings.evaluation.sampler, settings.evaluation.final_step) == ("euler", "argmax")
        assert Preset.model_validate(settings.model_dump()) == settings  # made of copies, which nobody checked
        same = settings.model_copy(
            update={
                name: getattr(settings, name).model_copy(update=fields)
                for name, fields in (
                    ("assignment", {"sources_per_target": preset("demo", dataset).assignment.sources_per_target}),
                    ("training", {"objective": "elbo"}),
                    ("evaluation", {"sampler": "ancestral", "final_step": "greedy"}),
                )
            }
        )
        assert same == preset("demo", dataset)
