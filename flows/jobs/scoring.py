"""Samples one trained model with few steps and measures the samples, over trials."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from flows.pages.figures.trajectories import STATES_SHOWN, Trajectory
from flows.results import Score, StepScores, mean_and_deviation
from pairflow.checkpoint import LoadedModel
from pairflow.metrics import Evaluator
from pairflow.sampling import Paths, network_calls, sample
from pairflow.spec import EvaluationSpec

_SEEDS_PER_TRIAL = 2**32  # trials draw from seeds far apart, so that they share no draws with a neighbouring seed
_MAX_SEED = 2**63


@dataclass(frozen=True)
class Scored:
    """What one model reaches.

    Attributes:
        steps: scores by number of sampling steps.
        samples: number of steps -> the first trial's first samples [`kept`, D].
        trajectory: of the same samples, with the most steps of which every state is shown, or the fewest there are.
    """

    steps: tuple[StepScores, ...]
    samples: dict[int, np.ndarray]
    trajectory: Trajectory


def score(
    loaded: LoadedModel,
    evaluator: Evaluator,
    spec: EvaluationSpec,
    *,
    kept: int,
    on_calls: Callable[[int], object],
) -> Scored:
    """Draws `spec.num_samples` samples a trial for each number of steps, and measures them and their paths.

    `mean_hamming` and `straightness` of the paths (`pairflow.sampling.Paths`) come beside the evaluator's metrics. A
    metric that some trials do not have, such as a distance where no molecule is valid, is that of the others, and is
    absent where none has it.

    Two models that are scored with one spec get the same seeds, so their figures differ by the models alone.

    Args:
        loaded: the trained model.
        evaluator: of the dataset.
        spec: what to draw.
        kept: samples of the first trial to keep for pictures.
        on_calls: told the network calls (times samples) that are done; a cached one counts as done.
    """
    steps, samples = [], {}
    followed = max((each for each in spec.steps if each <= STATES_SHOWN - 2), default=min(spec.steps))
    states: list[np.ndarray] = []
    for num_steps in spec.steps:
        calls = network_calls(num_steps, spec.final_step)
        trials: list[dict[str, float]] = []
        spent: list[float] = []
        seconds = 0.0
        for trial in range(spec.num_trials):
            paths = Paths(kept if trial == 0 and num_steps == followed else 0)
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
                observer=paths,
            )
            seconds += time.perf_counter() - started
            spent.append(drawn.network_calls)
            if trial == 0:
                samples[num_steps] = drawn.tokens[:kept]
                states = paths.states if num_steps == followed else states
            of_paths = {"mean_hamming": paths.mean_hamming}
            if paths.straightness is not None:
                of_paths["straightness"] = paths.straightness
            trials.append(evaluator.measure(drawn.tokens) | of_paths)
            on_calls(calls * spec.num_samples)
        steps.append(
            StepScores(
                num_steps=num_steps,
                num_network_calls=float(np.mean(spent)),
                scores=over_trials(trials),
                samples_per_second=spec.num_trials * spec.num_samples / seconds,
            )
        )
    return Scored(tuple(steps), samples, Trajectory.of(followed, states))


def over_trials(trials: Sequence[Mapping[str, float]]) -> dict[str, Score]:
    """Mean and sample deviation of every metric, over the trials that have it."""
    scores = {}
    for name in dict.fromkeys(name for each in trials for name in each):
        values = [each[name] for each in trials if name in each]
        scores[name] = mean_and_deviation(values).model_copy(update={"trials": tuple(map(float, values))})
    return scores
