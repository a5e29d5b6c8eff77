"""Scores as an evaluation would have them, for tests of how they are shown."""

from flows.recipes.methods import METHODS, MethodName
from flows.results import NUM_SAMPLES, Headline, MethodCost, ModelScores, Score, StepScores


def model_scores(method: MethodName, mean: float, seed: int = 0) -> ModelScores:
    steps = [
        StepScores(
            num_steps=num_steps,
            num_network_calls=num_steps + 1,
            scores={"num_valid": Score(mean=mean * num_steps, std=0.5), NUM_SAMPLES: Score(mean=64, std=0)},
            samples_per_second=10.0,
        )
        for num_steps in (1, 2, 4)
    ]
    return ModelScores(
        method=method,
        label=METHODS[method].label,
        reference=None,
        training_seed=seed,
        checkpoint_sha256="e",
        training_fingerprint="a",
        evaluation_fingerprint="b",
        headline=Headline(name="num_valid", label="valid molecules", higher_is_better=True),
        facts={"training_molecules": 376.0},
        steps=tuple(steps),
        mlflow_run_id="c",
        mlflow_model_id="d",
    )


def costs_of_all() -> tuple[MethodCost, ...]:
    return tuple(
        MethodCost(
            method=name,
            pairing=Score(mean=3, std=0),
            training=Score(mean=30, std=2),
            refinement=Score(mean=0 if method.refinement is None else 9, std=0),
        )
        for name, method in METHODS.items()
    )
