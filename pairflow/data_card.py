"""What a model's tokens mean: a small file in the folder of its checkpoint, which goes wherever the model goes."""

from pathlib import Path

from pairflow.errors import CheckpointError
from pairflow.spec import DatasetSpec, Spec

CARD = "data.json"
"""Its name."""


class DataCard(Spec):
    """What a model's tokens mean.

    Attributes:
        dataset: that it was trained on.
        digest: SHA-256 of the training part.
        kind: "molecules", "images" or "tokens".
        vocab: the K token strings, where there are any.
    """

    dataset: DatasetSpec
    digest: str
    kind: str
    vocab: tuple[str, ...] | None

    def write(self, checkpoint: Path) -> None:
        """Leaves the card in a checkpoint's folder, whole or not at all."""
        partial = checkpoint / f".{CARD}.partial"
        partial.write_text(self.model_dump_json(indent=1) + "\n")
        partial.replace(checkpoint / CARD)

    @classmethod
    def read(cls, checkpoint: Path) -> "DataCard | None":
        """The card of a checkpoint, or None: the library trains without.

        Raises:
            CheckpointError: the file is there and damaged.
        """
        try:
            text = (checkpoint / CARD).read_bytes()
        except FileNotFoundError:
            return None
        try:
            return cls.model_validate_json(text)
        except ValueError as error:
            raise CheckpointError(f"{checkpoint / CARD} is damaged: {error}; remove the file") from None
