"""The model that MLflow loads and serves: a request in, samples out. It uses `pairflow` alone.

A copy of this file lies in every logged model, beside a copy of the library. MLflow runs it where the model is loaded
(models from code), so that nothing is unpickled; nobody imports it.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel, PythonModelContext

from pairflow.checkpoint import load_model
from pairflow.data_card import DataCard
from pairflow.datasets.vocabulary import Vocabulary
from pairflow.errors import PairFlowError, SpecError
from pairflow.sampling import MAX_STEPS, sample
from pairflow.spec import SamplingSpec, parse

_MAX_SAMPLES = 10_000
_MAX_SEED = 2**63 - 1


class Sampler(PythonModel):
    """Samples of one checkpoint, as `pairflow sample` draws them: sample i depends on the seed and i alone."""

    def load_context(self, context: PythonModelContext) -> None:  # MLflow goes by the name of the parameter
        """Reads the checkpoint.

        Raises:
            CheckpointError: it is damaged.
        """
        folder = Path(context.artifacts["checkpoint"])
        self._loaded = load_model(folder)
        self._card = DataCard.read(folder)

    def predict(  # type: ignore[override]  # it takes no params beside the row
        self, context: PythonModelContext, model_input: pd.DataFrame
    ) -> pd.DataFrame | np.ndarray:
        """Draws what one row asks for: n, steps and seed; and final_step and top_p, where they are given.

        Returns:
            Molecules: a table of n rows with the column "smiles". Images: intensities, uint8 [n, H, W], or
            [n, H, W, C] of several channels. Else tokens, [n, D].

        Raises:
            MlflowException: INVALID_PARAMETER_VALUE, which is 400 over HTTP.
        """
        try:
            return self._draw(model_input)
        except PairFlowError as error:
            raise MlflowException.invalid_parameter_value(str(error)) from None

    def _draw(self, requests: pd.DataFrame) -> pd.DataFrame | np.ndarray:
        if len(requests) != 1:
            raise SpecError(f"got {len(requests)} rows, expected one: a request, such as n = 8, steps = 4, seed = 0")
        (row,) = requests.to_dict(orient="records")  # and not a row of pandas, where one fraction makes all floats
        given = {str(name): value for name, value in row.items() if value is not None and value == value}  # no NaN
        num_samples = _number(given, "n", 1, _MAX_SAMPLES)
        num_steps = _number(given, "steps", 1, MAX_STEPS)
        seed = _number(given, "seed", 0, _MAX_SEED)
        loaded = self._loaded
        asked = {name: given[name] for name in ("final_step", "top_p") if name in given}
        spec = parse(SamplingSpec, {**SamplingSpec.suited_to(loaded.training.objective).model_dump(), **asked})
        drawn = sample(
            loaded.model,
            loaded.process,
            spec,
            num_samples=num_samples,
            num_steps=num_steps,
            length=loaded.length,
            seed=seed,
            progress=False,
        )
        if self._card is not None and self._card.vocab is not None and self._card.kind == "molecules":
            return pd.DataFrame({"smiles": Vocabulary(self._card.vocab).decode(drawn.tokens)})
        if loaded.image_shape is None:
            return drawn.tokens
        shaped = drawn.tokens.reshape(num_samples, *loaded.image_shape).astype(np.float64)
        pixels = np.round(shaped * (255 / (loaded.vocab_size - 1))).astype(np.uint8)  # token k of K is k/(K−1)
        return pixels[:, 0] if loaded.image_shape[0] == 1 else np.moveaxis(pixels, 1, -1)


def _number(given: dict[str, object], name: str, least: int, most: int) -> int:
    value = given.get(name)
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or not least <= value <= most:
        raise SpecError(f"{name}: got {value!r}, expected a whole number from {least:,} to {most:,}")
    return int(value)


set_model(Sampler())
