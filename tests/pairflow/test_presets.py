"""Presets: complete, valid, the authors' numbers where they say so, and clear about what they lack."""

from typing import get_args

import pytest
from pydantic import ValidationError

from pairflow.errors import SpecError
from pairflow.presets import Preset, preset
from pairflow.spec import DatasetName, ModelSpec


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


def test_what_is_missing_is_named():
    with pytest.raises(
        SpecError, match=r"'paper' has no settings for dataset 'digits'; .* qm9, zinc-250k, mnist-binary"
    ):
        preset("paper", "digits")
    with pytest.raises(SpecError, match="preset: got 'huge', expected one of demo, laptop, paper"):
        preset("huge", "qm9")


def test_a_preset_is_frozen_and_refuses_unknown_fields():
    demo = preset("demo", "digits")
    with pytest.raises(ValidationError):
        demo.training = demo.training
    with pytest.raises(ValidationError, match="batch"):
        Preset.model_validate({**demo.model_dump(), "batch": 1})
