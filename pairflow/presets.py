"""Named settings: `demo` takes minutes, `laptop` longer, `paper` is the authors' (docs/method.md §3 and §5).

All of these have the paper's loss and end, so that what they compare is the paper's. `few-step` has not.
"""

from typing import get_args

from pydantic import Field

from pairflow.errors import SpecError
from pairflow.spec import (
    CouplingSpec,
    DatasetName,
    DistillationSpec,
    EvaluationSpec,
    ModelSpec,
    PresetName,
    RediSpec,
    SamplingSpec,
    Spec,
    TrainingSpec,
)

# Networks for a machine without a GPU, by architecture; the paper's are in `_paper`.
SIZES: dict[str, dict[str, ModelSpec]] = {
    "dit": {
        "tiny": ModelSpec(hidden_size=96, num_layers=4, num_heads=4, cond_size=64),
        "small": ModelSpec(hidden_size=128, num_layers=4, num_heads=4, cond_size=128),
    },
    "unet": {
        "tiny": ModelSpec(architecture="unet", hidden_size=32, channel_mults=(1, 1), num_res_blocks=1, cond_size=64),
        "small": ModelSpec(architecture="unet", hidden_size=48, channel_mults=(1, 2), num_res_blocks=1, cond_size=128),
    },
}


class Preset(Spec):
    """All of a comparison but the data; train with `coupling` both 'paired' and 'independent' to compare.

    `distillation`, `redi` and `redi_training` are the same for every model that they start from.
    """

    coupling: CouplingSpec = Field(description="How sources are coupled, in closed form.")
    assignment: CouplingSpec = Field(description="How sources are matched to rows, for the method 'assigned'.")
    model: ModelSpec = Field(description="The denoiser.")
    training: TrainingSpec = Field(description="How it is trained.")
    evaluation: EvaluationSpec = Field(description="What is sampled.")
    distillation: DistillationSpec = Field(description="How DCD distils.")
    redi: RediSpec = Field(description="The pairs that ReDi makes.")
    redi_training: TrainingSpec = Field(description="How ReDi trains on its pairs.")


def preset(name: PresetName, dataset_name: DatasetName) -> Preset:
    """The settings called `name` for a dataset.

    Raises:
        SpecError: no such preset, or it has no settings for that dataset; the message names those that there are.
    """
    if name not in PRESETS:
        raise SpecError(f"preset: got {name!r}, expected one of {', '.join(get_args(PresetName))}")
    by_dataset = PRESETS[name]
    if dataset_name not in by_dataset:
        raise SpecError(
            f"preset '{name}' has no settings for dataset {dataset_name!r}; it has them for {', '.join(by_dataset)}"
        )
    return by_dataset[dataset_name]


def _preset(
    model: ModelSpec,
    training: TrainingSpec,
    evaluation: EvaluationSpec,
    *,
    distillation: tuple[int, int],
    redi: RediSpec,
    learning_rates: tuple[float, float] = (6e-5, 1e-4),
    tuning_steps: int | None = None,
) -> Preset:
    """A preset whose DCD takes (steps, steps a round), and whose ReDi fine-tunes for `tuning_steps`, or for as many.

    `learning_rates` are those of DCD (the authors') and of ReDi's fine-tuning (ours: none is published).
    """
    num_steps, update_teacher_every = distillation
    return Preset(
        coupling=CouplingSpec(num_steps=20),
        # Strings gain from several sources a row whatever the loss; images do by cross-entropy alone: docs/results.md.
        assignment=CouplingSpec(kind="assignment", sources_per_target=8 if model.architecture == "dit" else 1),
        model=model,
        training=training,
        evaluation=evaluation,
        distillation=DistillationSpec(
            num_steps=num_steps,
            update_teacher_every=update_teacher_every,
            batch_size=training.batch_size,
            learning_rate=learning_rates[0],
        ),
        redi=redi,
        redi_training=TrainingSpec(
            num_steps=tuning_steps or num_steps,
            batch_size=training.batch_size,
            learning_rate=learning_rates[1],
            lr_schedule="constant",
            warmup_steps=0,
        ),
    )


def _paper_dit() -> ModelSpec:
    return ModelSpec(hidden_size=768, num_layers=12, num_heads=12, cond_size=128, dropout=0.1, absolute_positions=False)


def _paper() -> dict[str, Preset]:
    molecules = EvaluationSpec(steps=(1, 2, 4, 8, 16, 32, 64), num_samples=1024, num_trials=10)
    return {
        "qm9": _preset(
            _paper_dit(),
            TrainingSpec(
                num_steps=50_000,
                batch_size=1024,
                learning_rate=3e-4,
                lr_schedule="cosine",
                min_learning_rate=3e-6,
                warmup_steps=1000,
                ema_decay=0.9999,
            ),
            molecules,
            distillation=(10_000, 2000),
            redi=RediSpec(num_pairs=20_000),
        ),
        "zinc-250k": _preset(
            _paper_dit(),
            TrainingSpec(
                num_steps=200_000,
                batch_size=256,
                learning_rate=3e-4,
                lr_schedule="constant",
                warmup_steps=2500,
                ema_decay=0.9999,
            ),
            molecules,
            distillation=(30_000, 5000),
            redi=RediSpec(num_pairs=20_000),
        ),
        "mnist-binary": _preset(
            ModelSpec(
                architecture="unet",
                hidden_size=128,
                channel_mults=(1, 2, 2),
                num_res_blocks=2,
                attention_resolutions=(14,),
                cond_size=512,
            ),
            TrainingSpec(
                num_steps=10_000,
                batch_size=256,
                learning_rate=2e-4,
                lr_schedule="constant",
                warmup_steps=2000,
                ema_decay=0.9999,
            ),
            EvaluationSpec(steps=(1, 2, 4, 8, 16), num_samples=10_000),
            distillation=(5000, 1000),
            redi=RediSpec(num_pairs=10_000),
        ),
        "cifar-10": _preset(
            ModelSpec(
                architecture="unet",
                hidden_size=128,
                channel_mults=(1, 2, 2, 2),
                num_res_blocks=2,
                attention_resolutions=(16,),
                cond_size=512,
            ),
            TrainingSpec(
                num_steps=300_000,
                batch_size=512,
                learning_rate=2e-4,
                lr_schedule="constant",
                warmup_steps=5000,
                ema_decay=0.9999,
            ),
            EvaluationSpec(steps=(8, 16, 32, 64, 128, 256, 512, 1024), num_samples=50_000),
            distillation=(50_000, 10_000),
            redi=RediSpec(num_pairs=10_000),
        ),
    }


def _laptop() -> dict[str, Preset]:
    """Small networks, trained until a comparison shows: docs/results.md has what the QM9 one reached."""
    training = TrainingSpec(num_steps=2600, batch_size=128, learning_rate=1e-3, warmup_steps=200)
    return {
        "digits": _brief(SIZES["unet"]["small"], training, (1, 2, 4, 8, 16)),
        "qm9": _brief(SIZES["dit"]["small"], training, (1, 2, 4, 8, 16, 32), num_trials=3),
    }


def _demo() -> dict[str, Preset]:
    """Sized so that one model trains in about two minutes on two cores: small nets, few steps, a high learning rate."""
    steps = (1, 2, 4, 8, 16)
    unet, strings = SIZES["unet"]["tiny"], SIZES["dit"]["tiny"]
    deep_unet = unet.model_copy(update={"hidden_size": 16, "channel_mults": (1, 2, 2)})

    def training(num_steps: int, batch_size: int) -> TrainingSpec:
        return TrainingSpec(num_steps=num_steps, batch_size=batch_size, learning_rate=2e-3)

    return {
        "digits": _brief(unet, training(1500, 128), steps),
        "nci": _brief(strings, training(600, 64), (*steps, 32)),
        "patches": _brief(unet, training(1000, 64), (*steps, 32)),
        "qm9": _brief(strings, training(900, 64), (*steps, 32)),
        "zinc-250k": _brief(strings, training(400, 64), (*steps, 32)),
        "mnist-binary": _brief(deep_unet, training(400, 64), steps, num_samples=512),
        "cifar-10": _brief(deep_unet, training(300, 16), (8, 16, 32), num_samples=128),
        "tokens": _brief(strings, training(600, 64), (*steps, 32)),
        "smiles": _brief(strings, training(900, 64), (*steps, 32)),
        "text": _brief(strings, training(300, 64), (*steps, 32)),
    }


def _brief(model: ModelSpec, training: TrainingSpec, steps: tuple[int, ...], **evaluation: int) -> Preset:
    """DCD for a fifth of the training, in five rounds, and ReDi for three, at rates that so few steps need.

    On `digits` ReDi helped at one step after that, and did not after a fifth; its pairs take 64 steps each.
    """
    round_steps = max(1, training.num_steps // 25)
    return _preset(
        model,
        training,
        EvaluationSpec(steps=steps, **evaluation),
        distillation=(5 * round_steps, round_steps),
        redi=RediSpec(num_pairs=2048, num_steps=64),
        learning_rates=(training.learning_rate / 4, training.learning_rate / 4),
        tuning_steps=training.num_steps * 3 // 5,
    )


def _few_step() -> dict[str, Preset]:
    """The demo's networks and budgets, with what came out ahead at every number of network calls (docs/results.md):
    cross-entropy, Euler's steps, an argmax end, and eight matched sources a row."""
    return {
        name: each.model_copy(
            update={
                "assignment": each.assignment.model_copy(update={"sources_per_target": 8}),
                "training": each.training.model_copy(update={"objective": "cross_entropy"}),
                "evaluation": each.evaluation.model_copy(
                    update=SamplingSpec.suited_to("cross_entropy").model_dump(include={"sampler", "final_step"})
                ),
            }
        )
        for name, each in _demo().items()
    }


PRESETS: dict[str, dict[str, Preset]] = {
    "demo": _demo(),
    "laptop": _laptop(),
    "paper": _paper(),
    "few-step": _few_step(),
}
