"""Models of two steps, with the card that the train job leaves beside them."""

from pathlib import Path

from pairflow.data_card import DataCard
from pairflow.datasets import TokenDataset, load
from pairflow.presets import preset
from pairflow.spec import DatasetSpec, TrainingSpec
from pairflow.training import fit

TRAINING = TrainingSpec(num_steps=2, batch_size=4, coupling="independent", warmup_steps=1)


def trained(spec: DatasetSpec, folder: Path) -> tuple[Path, TokenDataset]:
    """(checkpoint, training part)."""
    train = load(spec, progress=False).part("train")
    model = preset("demo", spec.name).model.model_copy(update={"hidden_size": 16})
    fitted = fit(
        model,
        TRAINING,
        train.tokens,
        vocab_size=train.vocab_size,
        image_shape=train.image_shape,
        checkpoint_dir=folder / "checkpoints",
        progress=False,
    )
    vocab = None if train.vocab is None else train.vocab.tokens
    DataCard(dataset=spec, digest=train.digest, kind=train.kind, vocab=vocab).write(fitted.checkpoint)
    return fitted.checkpoint, train
