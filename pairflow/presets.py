"""Named settings: `demo` runs on a laptop in minutes, `paper` is the authors' (method.md §3)."""

from typing import get_args

from pairflow.errors import SpecError
from pairflow.spec import CouplingSpec, DatasetName, EvaluationSpec, ModelSpec, PresetName, Spec, TrainingSpec


class Preset(Spec):
    """All of a comparison but the data; train with `coupling` both 'paired' and 'independent' to compare."""

    coupling: CouplingSpec
    model: ModelSpec
    training: TrainingSpec
    evaluation: EvaluationSpec


def preset(name: PresetName, dataset_name: DatasetName) -> Preset:
    """The settings called `name` for a dataset.

    Raises:
        SpecError: no such preset, or it has no settings for that dataset; the message names those that there are.
    """
    if name not in _PRESETS:
        raise SpecError(f"preset: got {name!r}, expected one of {', '.join(get_args(PresetName))}")
    by_dataset = _PRESETS[name]
    if dataset_name not in by_dataset:
        raise SpecError(
            f"preset '{name}' has no settings for dataset {dataset_name!r}; it has them for {', '.join(by_dataset)}"
        )
    return by_dataset[dataset_name]


def _preset(model: ModelSpec, training: TrainingSpec, evaluation: EvaluationSpec, num_steps: int = 20) -> Preset:
    return Preset(coupling=CouplingSpec(num_steps=num_steps), model=model, training=training, evaluation=evaluation)


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
        ),
    }


def _demo() -> dict[str, Preset]:
    """Sized so that one model trains in about two minutes on two cores: small nets, few steps, a high learning rate."""
    steps = (1, 2, 4, 8, 16)
    unet = ModelSpec(architecture="unet", hidden_size=24, channel_mults=(1, 1), num_res_blocks=1, cond_size=64)
    wide_unet = unet.model_copy(update={"hidden_size": 32})
    deep_unet = unet.model_copy(update={"hidden_size": 16, "channel_mults": (1, 2, 2)})
    strings = ModelSpec(hidden_size=96, num_layers=4, num_heads=4, cond_size=64)

    def training(num_steps: int, batch_size: int, learning_rate: float = 2e-3) -> TrainingSpec:
        return TrainingSpec(num_steps=num_steps, batch_size=batch_size, learning_rate=learning_rate)

    return {
        "digits": _preset(wide_unet, training(1500, 128), EvaluationSpec(steps=steps)),
        "nci": _preset(strings, training(600, 64), EvaluationSpec(steps=(*steps, 32))),
        "patches": _preset(wide_unet, training(1000, 64), EvaluationSpec(steps=(*steps, 32))),
        "qm9": _preset(strings, training(900, 64), EvaluationSpec(steps=(*steps, 32))),
        "zinc-250k": _preset(strings, training(400, 64), EvaluationSpec(steps=(*steps, 32))),
        "mnist-binary": _preset(deep_unet, training(400, 64), EvaluationSpec(steps=steps, num_samples=512)),
        "cifar-10": _preset(deep_unet, training(300, 16), EvaluationSpec(steps=(8, 16, 32), num_samples=128)),
        "tokens": _preset(strings, training(600, 64), EvaluationSpec(steps=(*steps, 32))),
    }


_PRESETS: dict[str, dict[str, Preset]] = {"demo": _demo(), "paper": _paper()}
