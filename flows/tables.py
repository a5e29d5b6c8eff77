"""The comparison as a table in the paper's layout: a row a method, a column a number of sampling steps."""

from flows.results import EvaluateResult, MethodScores, Score

NETWORK_CALLS = "network calls"
"""The first column after the scores: in the order of the steps."""


def comparison_rows(result: EvaluateResult) -> list[dict[str, object]]:
    """The headline score by steps, then the costs, of every method."""
    costs = {each.method: each for each in result.costs}
    rows: list[dict[str, object]] = []
    for method in result.methods:
        cost = costs.get(method.method) if method.reference is None else None
        by_steps = {str(step.num_steps): shown(step.scores[method.headline.name]) for step in method.steps}
        rows.append(
            {
                "method": method.label,
                **by_steps,
                NETWORK_CALLS: _calls(method),
                "pairing (s)": "" if cost is None else shown(cost.pairing),
                "training (s)": "" if cost is None else shown(cost.training),
                "refinement (s)": "" if cost is None else shown(cost.refinement),
            }
        )
    return rows


def shown(score: Score) -> str:
    """Mean and, if there is one, deviation."""
    return f"{score.mean:.4g}" + (f" ± {score.std:.2g}" if score.std else "")


def _calls(method: MethodScores) -> str:
    """Network calls a sample, in the order of the steps."""
    return ", ".join(f"{step.num_network_calls:.3g}" for step in method.steps)
