"""Draws samples of a trained model into a file: in this process, without any server."""

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.home.environment import prepare_environment
from flows.home.places import absolute_path
from flows.home.settings import Settings
from flows.lineage import models
from pairflow.data_card import DataCard
from pairflow.errors import PairFlowError, SpecError
from pairflow.spec import SamplingSpec, Spec, parse

if TYPE_CHECKING:
    import numpy as np

    from pairflow.checkpoint import LoadedModel

_Writer = Callable[["LoadedModel", DataCard | None, "np.ndarray", Path], None]


class SampleResult(Spec):
    """A file of samples, and what they cost."""

    out: str
    num_samples: int
    num_steps: int
    network_calls: float
    checkpoint: str


def sample_to_file(
    reference: str, out: Path, sampling: Mapping[str, Any], *, num_samples: int, num_steps: int, seed: int
) -> SampleResult:
    """Draws samples and writes them as the file's ending says; the file is there whole or not at all.

    Args:
        reference: of the model, see `flows.lineage.models.resolve`.
        out: the file.
        sampling: fields of a `SamplingSpec` that somebody chose; the others suit what the model was trained for.
        num_samples: how many.
        num_steps: sampling steps.
        seed: of all draws.

    Raises:
        CheckpointError: there is no such model, or it is damaged.
        SpecError: an ending that does not fit the model, a folder that cannot be written, a number out of its range.
    """
    settings = Settings.read()
    prepare_environment(settings)
    out = absolute_path(out, "--out")
    if not out.parent.is_dir() or not os.access(out.parent, os.W_OK) or out.is_dir():
        raise SpecError(f"--out {out}: expected a file in a folder that is there and can be written")
    found = models.resolve(reference, settings)
    from pairflow.checkpoint import load_model
    from pairflow.sampling import sample

    loaded = load_model(found.checkpoint)
    spec = parse(SamplingSpec, {**SamplingSpec.suited_to(loaded.training.objective).model_dump(), **sampling})
    card = DataCard.read(found.checkpoint)
    write = _writer(loaded, card, out)
    _use_threads(settings)
    drawn = sample(
        loaded.model,
        loaded.process,
        spec,
        num_samples=num_samples,
        num_steps=num_steps,
        length=loaded.length,
        seed=seed,
        progress=sys.stderr.isatty(),
    )
    partial = out.with_name(f".{out.stem}.{os.getpid()}{out.suffix}")
    try:
        write(loaded, card, drawn.tokens, partial)
        partial.replace(out)
    except OSError as error:
        raise SpecError(f"--out {out}: cannot be written: {error}") from None
    finally:
        partial.unlink(missing_ok=True)
    return SampleResult(
        out=str(out),
        num_samples=num_samples,
        num_steps=num_steps,
        network_calls=drawn.network_calls,
        checkpoint=found.place,
    )


def _use_threads(settings: Settings) -> None:
    from flows.jobs.machine import use_threads

    use_threads(settings.threads_per_job)


def _writer(loaded: "LoadedModel", card: DataCard | None, out: Path) -> _Writer:
    """What writes a file of this ending.

    Raises:
        SpecError: the ending is unknown, or not one for this model.
    """
    kinds: dict[str, _Writer] = {".npy": _write_tokens}
    if loaded.image_shape is not None:
        kinds[".png"] = _write_grid
    if card is not None and card.kind == "molecules":
        kinds |= {".smi": _write_smiles, ".txt": _write_smiles, ".png": _write_grid}
    if out.suffix.lower() not in kinds:
        lacks = "" if card is not None else f"; it has no data.json, which says what its tokens mean, in {loaded.path}"
        raise SpecError(f"--out {out}: samples of this model can be written as {', '.join(kinds)}{lacks}")
    return kinds[out.suffix.lower()]


def _write_tokens(loaded: "LoadedModel", card: DataCard | None, tokens: "np.ndarray", path: Path) -> None:
    import numpy as np

    np.save(path, tokens)


def _write_smiles(loaded: "LoadedModel", card: DataCard | None, tokens: "np.ndarray", path: Path) -> None:
    path.write_text("".join(f"{text}\n" for text in _texts(card, tokens)))


def _write_grid(loaded: "LoadedModel", card: DataCard | None, tokens: "np.ndarray", path: Path) -> None:
    from flows.pages.figures import pictures

    if loaded.image_shape is not None:
        cells = [pictures.image(row, loaded.image_shape, loaded.vocab_size) for row in tokens]
    else:
        cells = [pictures.molecule(text) for text in _texts(card, tokens)]
    pictures.grid(cells, path)


def _texts(card: DataCard | None, tokens: "np.ndarray") -> list[str]:
    from pairflow.datasets import Vocabulary

    if card is None or card.vocab is None:
        raise PairFlowError("these tokens have no vocabulary; write them as .npy")
    return Vocabulary(card.vocab).decode(tokens)
