"""Whether a new model takes the champion's place: a paired comparison with its uncertainty counted.

Both are sampled in n trials with the same seeds and measured against the same held-out data. With a_i and b_i the
scores of candidate and champion in trial i, s = 1 where more is better and −1 where less is, and m the margin,

    c_i = s (a_i − b_i) − m |b_i|

is by how much the candidate beats the champion and the margin in that trial. It is promoted if the lower end of the
one-sided t interval of their mean, c̄ − t_{q, n−1} · sd(c) / √n, is above 0, q being the confidence. So a candidate
whose true advantage is the margin at most is promoted with probability 1 − q at most, as far as trials are normal.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

from pairflow.errors import SpecError


@dataclass(frozen=True)
class Verdict:
    """A comparison in figures; differences are positive where the candidate is better.

    Attributes:
        candidate: mean score.
        champion: mean score.
        difference: mean advantage of the candidate.
        at_least: `difference` less its uncertainty: where the interval begins.
        required: the margin, in units of the score.
        promote: whether `at_least` is above `required`.
    """

    candidate: float
    champion: float
    difference: float
    at_least: float
    required: float
    promote: bool


def judge(
    candidate: Sequence[float],
    champion: Sequence[float],
    *,
    higher_is_better: bool,
    margin: float,
    confidence: float,
) -> Verdict:
    """Compares the scores of two models, trial by trial.

    Args:
        candidate: a score a trial.
        champion: of the same trials.
        higher_is_better: how scores are read.
        margin: advantage that is asked for, as a fraction of the champion's score.
        confidence: of the one-sided interval, 0.5 to 1.

    Raises:
        SpecError: fewer than two trials, or not as many of one as of the other.
    """
    if len(candidate) != len(champion) or len(candidate) < 2:
        raise SpecError(
            f"a comparison needs two trials or more, as many of both models; got {len(candidate)} and {len(champion)}"
        )
    from scipy import special

    sign = 1.0 if higher_is_better else -1.0
    pairs = list(zip(candidate, champion, strict=True))
    beyond = [sign * (ours - theirs) - margin * abs(theirs) for ours, theirs in pairs]
    quantile = float(special.stdtrit(len(pairs) - 1, confidence))  # of Student's t
    bound = statistics.fmean(beyond) - quantile * statistics.stdev(beyond) / sqrt(len(pairs))
    required = margin * statistics.fmean(abs(theirs) for theirs in champion)
    return Verdict(
        candidate=statistics.fmean(candidate),
        champion=statistics.fmean(champion),
        difference=statistics.fmean(sign * (ours - theirs) for ours, theirs in pairs),
        at_least=bound + required,
        required=required,
        promote=bound > 0,
    )


def in_words(
    verdict: Verdict,
    *,
    label: str,
    num_steps: int,
    trials: int,
    margin: float,
    confidence: float,
    rival: str = "champion",
) -> str:
    """The figures of a comparison as the second half of a sentence.

    Args:
        verdict: the comparison.
        label: of the score.
        num_steps: sampling steps of both models.
        trials: how many.
        margin: see `judge`.
        confidence: see `judge`.
        rival: what the other model is, where nothing is champion.
    """
    seen = (
        f"{label} at {num_steps} step{'s' if num_steps > 1 else ''} is {verdict.candidate:.4g} against the {rival}'s "
        f"{verdict.champion:.4g} (means of {trials} trials with the same seeds)"
    )
    if verdict.difference <= 0:
        return f"{seen}, which is {'the same' if verdict.difference == 0 else 'worse'}"
    asked = f"and {verdict.required:.3g} ({margin:.3g} of the {rival}'s score) is asked for"
    if verdict.at_least <= 0:
        return f"{seen}, better by {verdict.difference:.3g}, but perhaps by chance (confidence {confidence:g}), {asked}"
    sure = f"better by {verdict.difference:.3g}, by {verdict.at_least:.3g} at least with confidence {confidence:g}"
    return f"{seen}, {sure}, {asked}"
