"""What a comparison came to, in a sentence: the same one in the report, in Prefect, in MLflow and on the terminal."""

from collections.abc import Sequence

from flows.results import EvaluateResult, MethodScores, Score

_LEVEL = 0.05
"""Two scores are level if they differ by less than this share of the larger, or than their deviations together."""
TRAINING_MATCH_RATE = "training_match_rate"
_COPIES = 0.01
"""A model copies if its rate is above twice the held-out rows', and by this much: with 1,024 samples, not by chance."""


def verdict(result: EvaluateResult) -> str:
    """Such as "At 1 step PairFlow 2.43 against UDLM 6.45; level from 8 steps"; without a full stop.

    The best comes first. What follows is how it stands at the most steps, and from which number of steps on; and, where
    the best copies training rows, how much.
    """
    return _standing(result) + _copying(result)


def _copying(result: EvaluateResult) -> str:
    """A clause about the best at the fewest steps, if it copies more than rows do that were drawn as the data was."""
    methods = result.methods
    if not (ranked := _ranked(methods, 0)):
        return ""
    best = next(each for each in methods if each.label == ranked[0][0])
    rate, held_out = best.steps[0].scores.get(TRAINING_MATCH_RATE), best.facts.get(f"held_out_{TRAINING_MATCH_RATE}")
    if rate is None or held_out is None or rate.mean <= max(2 * held_out, held_out + _COPIES):
        return ""
    return (
        f"; of {best.label}'s samples there {100 * rate.mean:.2g} % copy training rows, of held-out rows "
        f"{100 * held_out:.2g} %"
    )


def _standing(result: EvaluateResult) -> str:
    steps = [each.num_steps for each in result.methods[0].steps]
    ranked = [_ranked(result.methods, place) for place in range(len(steps))]
    first = ranked[0]
    if not first:
        return f"At {in_steps(steps[0])} no model has a score"
    named = [f"{label} {number(score.mean)}" for label, score in first]
    begin = f"At {in_steps(steps[0])} {named[0]}"
    if len(result.methods) == 1:
        last = ranked[-1]
        return begin if len(steps) == 1 or not last else f"{begin}, at {in_steps(steps[-1])} {number(last[0][1].mean)}"
    if len(first) == 1:
        begin += ", and no other has a score"
    elif _leader(first) is None:
        begin += f" and {' and '.join(named[1:])} are level" if len(first) == 2 else f", then {', '.join(named[1:])}"
    else:
        begin += f" against {named[1]}" if len(first) == 2 else f", then {', '.join(named[1:])}"
    return begin + _onwards(
        steps, [_leader(each) for each in ranked], "" if len(result.methods) == 2 else "the first two "
    )


def measured(result: EvaluateResult) -> str:
    """What the figures of the sentence are, and which way is better."""
    first = result.methods[0]
    return f"{first.headline_text}, {'higher' if first.headline.higher_is_better else 'lower'} is better"


def contest(methods: Sequence[MethodScores]) -> str:
    """Who is compared, the last first: such as "PairFlow against UDLM"."""
    labels = [each.label for each in methods]
    if len(labels) <= 2:
        return " against ".join(reversed(labels))
    return f"{', '.join(labels[:-1])} and {labels[-1]}"


def in_steps(num_steps: int) -> str:
    """A number of sampling steps in words; without any, the greedy end is the one network call."""
    if not num_steps:
        return "1 call"
    return f"{num_steps:,} step{'' if num_steps == 1 else 's'}"


def number(value: float) -> str:
    """Three figures, and never an exponent."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) >= 1e-3 or not value else f"{value:.6f}".rstrip("0").rstrip(".")


def _ranked(methods: Sequence[MethodScores], place: int) -> list[tuple[str, Score]]:
    """Label and headline of those that have it at one number of steps, the best first."""
    headline = methods[0].headline
    found = [(each.label, score) for each in methods if (score := each.steps[place].scores.get(headline.name))]
    return sorted(found, key=lambda each: each[1].mean, reverse=headline.higher_is_better)


def _leader(ranked: Sequence[tuple[str, Score]]) -> str | None:
    """Who is ahead of the next; None where the two are level, or nobody has a score."""
    if not ranked:
        return None
    if len(ranked) == 1:
        return ranked[0][0]
    (label, best), (_, second) = ranked[:2]
    apart = abs(best.mean - second.mean)
    return None if apart <= max(best.std + second.std, _LEVEL * max(abs(best.mean), abs(second.mean))) else label


def _onwards(steps: Sequence[int], leaders: Sequence[str | None], who: str) -> str:
    """How it ends, and from which number of steps on it is so; `who` is level, where two are."""
    if len(steps) == 1:
        return ""
    end, since = leaders[-1], len(steps) - 1
    while since and leaders[since - 1] == end:
        since -= 1
    if not since:
        return "; ahead throughout" if end is not None else f"; {who}level throughout"
    when = f"{'at' if since == len(steps) - 1 else 'from'} {in_steps(steps[since])}"
    return f"; {who}level {when}" if end is None else f"; {end} ahead {when}"
