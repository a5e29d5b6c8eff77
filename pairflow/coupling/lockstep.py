"""The backward walk of a batch of rows in lockstep, in torch, against a support in parts (docs/method.md §2).

The same exact sampling as the cpu engine's, Eq. (2.9) with levels drawn by Eq. (2.10) and no scan under Eq. (2.12),
arranged for a device that wants much work at a time: all rows take a step together, the few positions with u < c_t are
gathered in one flat list of draws, and rows that need no look at the support are left out of it. Levels are drawn from
the histogram of match counts and rows by their rank at a level, by the arithmetic of `pairflow.coupling.kernels` in
float64: sources are those of the cpu engine bit for bit, for any number of parts. (The cpu engine stops counting levels
once a bound of the rest decides every draw. All levels counted decide alike, but for a draw within the rounding of the
sums, 10^-16 of all.)

Nothing in here knows how match counts are made: see `pairflow.coupling.parts`.
"""

import torch
from torch import Tensor

from pairflow.coupling.level_draws import best_level, draw_levels, level_weights
from pairflow.coupling.parts import Draws, Moves, SplitSupport
from pairflow.coupling.torch_rng import draw_units
from pairflow.coupling.walk_plan import WalkPlan
from pairflow.rng import REPLICA_SHIFT, Purpose

_KEYS_PER_DRAW = 1 << 22  # positions whose draws are made at once: some 30 bytes · 8 of working memory each
_NEGLIGIBLE = 1e-20  # τ ≠ 1, as in the cpu engine: a weight that cannot change a float64 sum of 2^32 rows


def walk(
    targets: Tensor, sample_ids: Tensor, replicas: Tensor, support: SplitSupport, plan: WalkPlan
) -> tuple[Tensor, Tensor]:
    """Walks every target back to its source: PairFlow (arXiv 2512.20063), Algorithm 1.

    Args:
        targets: [B, D] int64, on the device where the walk's own arithmetic happens.
        sample_ids: [B] int64, the 64 bits of the ids that key the draws.
        replicas: [B] int64, the number of the source that is drawn.

    Returns:
        The sources, [B, D] int64, and at how many steps each row's support was scanned, [B] int64.
    """
    return _Walk(targets, sample_ids, replicas << REPLICA_SHIFT, support, plan).run()


class _Walk:
    """The states of a batch and what is known about them."""

    def __init__(
        self, targets: Tensor, sample_ids: Tensor, replicas: Tensor, support: SplitSupport, plan: WalkPlan
    ) -> None:
        self.targets, self.sample_ids, self.replicas = targets, sample_ids, replicas
        self.support, self.plan = support, plan
        self.states, self.counted = targets.clone(), targets.clone()  # `counted`: the states of the match counts
        self.num_scans = torch.zeros_like(sample_ids)

    def run(self) -> tuple[Tensor, Tensor]:
        levels = torch.arange(self.plan.length + 1, device=self.targets.device)
        if self.plan.num_steps > 1:
            present = self.support.start(self.targets).sum(0) > 0
            self.in_support = present[:, -1]
            # Most matches that a row has which is no copy of the target; −1 if all are copies.
            self.nearest = torch.where(present[:, :-1], levels[:-1], -1).amax(1)
        for step in range(self.plan.num_steps):
            if self.plan.exact_marginals:
                rows, positions = self._moves_of_marginals(step)
            else:
                rows, positions = self._moves_of_draws(step)
            units, _ = self._draw(step, Purpose.REPLACE, rows, positions)
            self.states[rows, positions] = _other_tokens(self.states[rows, positions], self.plan.vocab_size, units)
        return self.states, self.num_scans

    def _draw(self, step: int, purpose: Purpose, rows: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        return draw_units(self.plan.seed, self.sample_ids[rows], self.replicas[rows], step, positions, purpose)

    def _candidates(self, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """(rows, positions, u) of all positions whose first unit is below c_t, ordered by row; u is the second."""
        device, length, ceiling = self.targets.device, self.plan.length, self.plan.ceiling(step)
        positions = torch.arange(length, device=device)
        found = []
        rows_at_once = max(1, _KEYS_PER_DRAW // length)
        for start in range(0, len(self.targets), rows_at_once):
            rows = torch.arange(start, min(start + rows_at_once, len(self.targets)), device=device)
            first, second = self._draw(step, Purpose.MOVE, rows[:, None], positions[None])
            where = (first < ceiling).nonzero()
            found.append((where[:, 0] + start, where[:, 1], second[where[:, 0], where[:, 1]]))
        return torch.cat([f[0] for f in found]), torch.cat([f[1] for f in found]), torch.cat([f[2] for f in found])

    def _moves_of_draws(self, step: int) -> tuple[Tensor, Tensor]:
        """The positions that move in a step at τ = 1: those whose row, drawn from the posterior, has their token."""
        rows, positions, units = self._candidates(step)
        own = self.states == self.targets
        agrees = own[rows, positions]  # the answer wherever the target is all of the posterior
        alone = self._alone(step, own)
        drawn = (~alone[rows]).nonzero()[:, 0]
        if len(drawn):
            scanned, rows_of_draws = torch.unique_consecutive(rows[drawn], return_inverse=True)
            at = positions[drawn]
            tokens = self._draw_tokens(step, scanned, rows_of_draws, at, units[drawn])
            agrees[drawn] = tokens == self.states[rows[drawn], at]
        return rows[agrees], positions[agrees]

    def _draw_tokens(self, step: int, scanned: Tensor, rows: Tensor, positions: Tensor, units: Tensor) -> Tensor:
        """The tokens at `positions` of rows drawn from the posteriors of `scanned`; `rows` counts these."""
        numbers, own_levels = self._scan(scanned)
        histogram = self._with_own(numbers.sum(0), own_levels)
        levels = draw_levels(histogram, self.plan.gamma(step), units, rows)
        at_level = histogram[rows, levels]
        _, row_units = self._draw(step, Purpose.REPLACE, scanned[rows], positions)
        ranks = (row_units * at_level.to(torch.float64)).to(torch.int64)
        # A target that the support does not hold comes last at its level.
        is_own = (levels == own_levels[rows]) & (ranks == at_level - 1)
        tokens = self.targets[scanned[rows], positions]
        asked = (~is_own).nonzero()[:, 0]
        rows, levels, ranks, positions = rows[asked], levels[asked], ranks[asked], positions[asked]
        up_to = numbers[:, rows, levels].cumsum(0)  # [P, N]: the parts' runs of ranks end here
        parts = (up_to <= ranks).sum(0)
        before = torch.where(parts > 0, up_to.gather(0, (parts - 1).clamp(min=0)[None])[0], 0)
        tokens[asked] = self.support.tokens(parts, Draws(rows, levels, ranks - before, positions))
        return tokens

    def _moves_of_marginals(self, step: int) -> tuple[Tensor, Tensor]:
        """The positions that move in a step at τ ≠ 1, from S^i of every position, Eq. (2.8)."""
        own = self.states == self.targets
        agreement = own.to(torch.float64)
        scanned = (~self._alone(step, own)).nonzero()[:, 0]
        if len(scanned):
            agreement[scanned] = self._agreement(step, scanned, agreement[scanned])
        rate = self.plan.ceiling(step) * agreement
        others = float(self.plan.vocab_size - 1)
        probability = 1 - 1 / (1 + others * (rate / (1 - rate) / others) ** (1 / self.plan.temperature))
        rows, positions, length = [], torch.arange(self.plan.length, device=self.targets.device), self.plan.length
        rows_at_once = max(1, _KEYS_PER_DRAW // length)
        for start in range(0, len(self.targets), rows_at_once):
            some = torch.arange(start, min(start + rows_at_once, len(self.targets)), device=self.targets.device)
            units, _ = self._draw(step, Purpose.MOVE, some[:, None], positions[None])
            rows.append((units < probability[some]).nonzero() + torch.tensor([start, 0], device=self.targets.device))
        where = torch.cat(rows)
        return where[:, 0], where[:, 1]

    def _agreement(self, step: int, scanned: Tensor, own: Tensor) -> Tensor:
        """S^i = Σ_m w_m·1[d_m^i = z^i], Eq. (2.3), of `scanned` rows [R, D]; `own` is 1 at a target's token."""
        numbers, own_levels = self._scan(scanned)
        histogram = self._with_own(numbers.sum(0), own_levels)
        # τ > 1 raises small agreements to a power below 1, so that smaller weights show.
        weights = level_weights(
            self.plan.gamma(step), _NEGLIGIBLE ** max(1.0, self.plan.temperature), self.plan.length + 1
        )
        below_best = best_level(histogram)[:, None] - torch.arange(self.plan.length + 1, device=histogram.device)
        table = torch.tensor([*weights, 0.0], dtype=torch.float64, device=histogram.device)
        powers = table[torch.where(below_best < 0, len(weights), below_best.clamp(max=len(weights)))]
        sums = self.support.agreement(self.states[scanned], powers).sum(0)
        own_powers = powers.gather(1, own_levels.clamp(min=0)[:, None]) * (own_levels >= 0)[:, None]
        return (sums + own * own_powers) / (histogram * powers).sum(1, keepdim=True)

    def _alone(self, step: int, own: Tensor) -> Tensor:
        """[B], whether the target is so far ahead of all other rows that the posterior is its copies.

        At t = 1 γ is infinite. Later a row at distance d from the target is at least d − k from a state that k moves
        lead to, against k of the target itself.
        """
        if step == 0:
            return torch.ones_like(own[:, 0])
        exponents = 2 * (self.plan.length - own.sum(1)) - (self.plan.length - self.nearest)
        return (self.nearest < 0) | (exponents <= self.plan.dominating_exponent(step, self.support.num_rows))

    def _scan(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Histograms of `rows` by part, [P, R, D+1], and their targets' levels where the support lacks them, or −1."""
        self.num_scans[rows] += 1
        states, counted = self.states[rows], self.counted[rows]
        changed = states != counted
        per_row = changed.sum(1)
        moves = Moves(
            torch.cat([per_row.new_zeros(1), per_row.cumsum(0)]),
            changed.nonzero()[:, 1],
            counted[changed],
            states[changed],
        )
        self.counted[rows] = states
        own_levels = (states == self.targets[rows]).sum(1)
        return self.support.scan(rows, moves), torch.where(self.in_support[rows], -1, own_levels)

    @staticmethod
    def _with_own(histogram: Tensor, own_levels: Tensor) -> Tensor:
        """`histogram` [R, D+1] with one row more where the target is not in the support."""
        return histogram.scatter_add(1, own_levels.clamp(min=0)[:, None], (own_levels >= 0).to(torch.int64)[:, None])


def _other_tokens(tokens: Tensor, vocab_size: int, units: Tensor) -> Tensor:
    """One of the K−1 tokens other than each of `tokens`, uniformly."""
    others = (units * float(vocab_size - 1)).to(torch.int64)
    return others + (others >= tokens)
