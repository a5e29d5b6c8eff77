"""A model as a folder of its own, as model hubs take it; whatever takes a checkpoint's folder takes it, too.

<folder>/model.safetensors    the averaged weights alone, and what its process is made of, if anything
<folder>/config.json          the checkpoint's state
<folder>/data.json            what its tokens mean, where that is known
<folder>/README.md            its page
"""

import json
import os
import shutil
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file

from pairflow.checkpoint import AVERAGED, PROCESS, read
from pairflow.checkpoint_files import EXPORTED_STATE, EXPORTED_TENSORS, file_sha256
from pairflow.data_card import CARD
from pairflow.errors import SpecError


def export(checkpoint: Path, folder: Path, *, page: str, method: str | None = None) -> None:
    """Writes a model to a folder.

    Args:
        checkpoint: a step-N folder.
        folder: where to; it is there whole or not at all.
        page: text of the page, in markdown.
        method: that made the model, where it is known; the settings then say it.

    Raises:
        CheckpointError: the checkpoint is missing or damaged.
        SpecError: the folder is there and not empty, or cannot be written.
    """
    tensors, state = read(checkpoint)
    card = checkpoint / CARD
    kept = {name: value for name, value in tensors.items() if name.startswith((AVERAGED, PROCESS))}
    averaged = {name.removeprefix(AVERAGED): value for name, value in kept.items()}
    partial = folder.with_name(f".{folder.name}.{os.getpid()}")
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise SpecError(f"{folder}: something is there already; name a folder that is new or empty")
        partial.mkdir(parents=True)
        save_file(averaged, partial / EXPORTED_TENSORS, metadata={"format": "pt"})
        sums = {"sha256": file_sha256(partial / EXPORTED_TENSORS), "exported_from": state["sha256"]}
        document = {**state, **({} if method is None else {"method": method}), **sums}
        (partial / EXPORTED_STATE).write_text(json.dumps(document, indent=1, allow_nan=False) + "\n")
        shutil.copymode(partial / EXPORTED_STATE, partial / EXPORTED_TENSORS)  # safetensors lets nobody else read it
        (partial / "README.md").write_text(page, encoding="utf-8")
        if card.is_file():
            shutil.copy(card, partial / CARD)
        if folder.is_dir():
            folder.rmdir()
        partial.rename(folder)
    except (OSError, SafetensorError) as error:  # the latter of a full disk, too
        raise SpecError(f"{folder}: cannot be written: {error}; name a folder that can be") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
