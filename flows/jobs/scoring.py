"""Samples one trained model with few steps and measures the samples, over trials."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from flows.results import Score, StepScores
from pairflow.checkpoint import LoadedModel
from pairflow.metrics import Evaluator
from pairflow.sampling import network_calls, sample
from pairflow.spec import EvaluationSpec

# Metrics are versioned as engines are: a figure that is computed differently has another fingerprint.
METRICS_VERSION = "metrics/1"
_SEEDS_PER_TRIAL = 2**32  # trials draw from seeds far apart, so that they share no draws with a neighbouring seed
_MAX_SEED = 2**63


@dataclass(frozen=True)
class Scored:
    """What one model reaches.

    Attributes:
        steps: scores by number of sampling steps.
        samples: number of steps -> the first trial's first samples [`kept`, D].
    """

    steps: tuple[StepScores, ...]
    samples: dict[int, np.ndarray]


def score(
    loaded: LoadedModel,
    evaluator: Evaluator,
    spec: EvaluationSpec,
    *,
    kept: int,
    on_calls: Callable[[int], object],
) -> Scored:
    """Draws `spec.num_samples` samples a trial for each number of steps, and measures them.

    Two models that are scored with one spec get the same seeds, so their figures differ by the models alone.

    Args:
        loaded: the trained model.
        evaluator: of the dataset.
        spec: what to draw.
        kept: samples of the first trial to keep for pictures.
        on_calls: told the network calls (times samples) that are done; a cached one counts as done.
    """
    steps, samples = [], {}
    for num_steps in spec.steps:
        calls = network_calls(num_steps, spec.final_step)
        trials: list[dict[str, float]] = []
        spent: list[float] = []
        seconds = 0.0
        for trial in range(spec.num_trials):
            started = time.perf_counter()
            drawn = sample(
                loaded.model,
                loaded.process,
                spec,
                num_samples=spec.num_samples,
                num_steps=num_steps,
                length=loaded.length,
                seed=(spec.seed + trial * _SEEDS_PER_TRIAL) % _MAX_SEED,
                progress=False,
            )
            seconds += time.perf_counter() - started
            spent.append(drawn.network_calls)
            if trial == 0:
                samples[num_steps] = drawn.tokens[:kept]
            trials.append(evaluator.measure(drawn.tokens))
            on_calls(calls * spec.num_samples)
        steps.append(
            StepScores(
                num_steps=num_steps,
                num_network_calls=float(np.mean(spent)),
                scores={name: _over_trials([each[name] for each in trials]) for name in trials[0]},
                samples_per_second=spec.num_trials * spec.num_samples / seconds,
            )
        )
    return Scored(tuple(steps), samples)


def _over_trials(values: list[float]) -> Score:
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    return Score(mean=float(np.mean(values)), std=deviation, trials=tuple(map(float, values)))
