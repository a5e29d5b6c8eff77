"""The coupling by assignment: in every block of rows, fresh uniform sources are matched one to one (docs/method.md §7).

For each replica the rows are put in a keyed order and cut into blocks. A block draws as many sources, each token
uniform over the vocabulary, and gives each row one of them so that the total Hamming distance is least, Eq. (7.1). So
every row is used once a replica and all sources are used: both marginals are exact, whatever the block size, Eq. (7.2);
larger blocks are straighter, Eq. (7.3).

**What a pair depends on**: the source of a row is a pure function of (seed, data, B, replica). Draws are keyed by the
place in the replica's order, and a block is solved by one thread, so how many blocks are made at once, by whom and in
which order never shows.

**Ties**: of several best assignments the one taken depends on the order in which rows and sources are given to the
solver. Rows are given in an order of its own keyed draws, and sources as they were drawn, so neither a row's number in
the data nor its place in the block favours it, and equal rows are treated alike: over the seeds, the sources by place
are i.i.d. uniform too. It is not claimed that each best assignment is equally likely.

**Noise of the data's marginals** (`spec.noise`): a block draws its sources from π, and a match counts −log π of its
token, Eq. (7.9), in whole units. All else is as with uniform noise, for which each match counts 1.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pairflow.coupling.block_memory import blocks_that_fit
from pairflow.coupling.blocks import Block, BlockPlan
from pairflow.coupling.checks import check_tokens
from pairflow.coupling.gains import count_gains, match_weights, most_gain
from pairflow.coupling.match_counts import count_matches
from pairflow.coupling.optimal import most_matches
from pairflow.coupling.result import Coupled
from pairflow.errors import SpecError
from pairflow.marginals import cumulated, marginals, tokens_of
from pairflow.rng import Purpose, draw_one_each, draw_pairs, uniform_tokens

if TYPE_CHECKING:
    from pairflow.spec import CouplingSpec


_PLACE, _TURN = 0, 1  # of draws: in which order rows are cut into blocks, and in which they are given to the solver
_ROWS_PER_PASS = 8  # rows whose matches are counted together
_DRAWS_AT_ONCE = 1 << 18  # some 20 MB of working memory


@dataclass(frozen=True, eq=False)
class BlockPairs:
    """A run of pairs in the store's order.

    Attributes:
        source: [n, D], the dtype of the data.
        target: [n, D].
        sample_id: [n] int64, by pair its row of the data.
        replica: [n] int64.
    """

    source: NDArray[Any]
    target: NDArray[Any]
    sample_id: NDArray[np.int64]
    replica: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class SourceNoise:
    """The law of the sources, and what matches with them count.

    Attributes:
        vocab_size: K.
        sums: [D, K], cumulated marginals; None for uniform sources.
        weights: [D, K], whole units; None where each match counts 1.
        most: what a pair counts at most.
    """

    vocab_size: int
    sums: NDArray[np.float64] | None
    weights: NDArray[np.int64] | None
    most: int

    @classmethod
    def of(cls, tokens: NDArray[np.integer], vocab_size: int, spec: "CouplingSpec") -> "SourceNoise":
        """That of a spec; `tokens` [M, D] are all rows of the training part, which are counted where it is theirs."""
        if spec.noise == "uniform":
            return cls(vocab_size, None, None, tokens.shape[1])
        marginal = marginals(tokens, vocab_size)
        weights = match_weights(marginal)
        return cls(vocab_size, cumulated(marginal), weights, most_gain(weights))

    @property
    def dtype(self) -> type[np.unsignedinteger[Any]]:
        """Of what pairs count."""
        return np.uint8 if self.most < 256 else np.uint16 if self.most < 65_536 else np.uint32

    def draw(self, seed: int, places: NDArray[np.int64], length: int, replica: int) -> NDArray[np.int64]:
        """Sources by their place in a replica's order, [n, D]."""
        if self.sums is None:
            return uniform_tokens(seed, places, length, self.vocab_size, replica, Purpose.MATCHED)
        return tokens_of(draw_pairs(seed, places, 0, length, Purpose.MATCHED, replica)[0], self.sums)

    def count(
        self, sources: NDArray[Any], rows: NDArray[np.unsignedinteger], counts: NDArray[np.unsignedinteger]
    ) -> None:
        """Fills counts [n, B] for some rows [n, D] and all sources, by column [D, B]."""
        if self.weights is None:
            count_matches(sources, rows, counts)
        else:
            count_gains(sources, rows, self.weights[np.arange(rows.shape[1]), rows], counts)


def couple_pairs(
    data: ArrayLike,
    start: int,
    stop: int,
    *,
    vocab_size: int,
    spec: "CouplingSpec",
    noise: SourceNoise | None = None,
    num_threads: int = 1,
) -> BlockPairs:
    """Pairs `start` to `stop` (exclusive) of the R·M, in the store's order; their blocks are made whole.

    Args:
        data: [M, D], all rows of the training part.
        start: from 0.
        stop: at most R·M.
        vocab_size: K.
        spec: of kind 'assignment'.
        noise: of these data and this spec, for who makes pairs in many calls; made here by default.
        num_threads: blocks at a time; fewer if memory holds fewer.

    Raises:
        SpecError: an array or a value does not fit, or memory does not hold one block.
    """
    given = np.asarray(data)
    tokens = check_tokens(given, "target", vocab_size)
    plan = BlockPlan.of(len(tokens), spec)
    if not 0 <= start < stop <= plan.num_pairs:
        raise SpecError(f"pairs {start} to {stop}: expected some of the {plan.num_pairs} pairs, from 0")
    blocks = plan.blocks(start, stop)
    first = blocks[0].first_pair
    rows = np.concatenate([_rows(plan, spec.seed, block) for block in blocks])
    replica = np.concatenate([np.full(block.stop - block.start, block.replica) for block in blocks])
    source = np.empty((len(rows), tokens.shape[1]), tokens.dtype)
    noise = SourceNoise.of(tokens, vocab_size, spec) if noise is None else noise
    for block, _, found in _made(tokens, blocks, plan, noise, spec, num_threads):
        source[block.first_pair - first :][: len(found)] = found
    run = slice(start - first, stop - first)
    return BlockPairs(source[run].astype(given.dtype, copy=False), given[rows[run]], rows[run], replica[run])


def couple_block(
    targets: NDArray[np.unsignedinteger], *, noise: SourceNoise, seed: int, replica: int, first: int
) -> NDArray[np.unsignedinteger]:
    """The sources of one block's rows.

    Args:
        targets: [B, D] tokens, in the replica's order.
        noise: what sources are drawn from.
        seed: keys the draws.
        replica: which source of these rows.
        first: place of the first row in the replica's order, which keys the draws too.

    Returns:
        Sources, [B, D] with the dtype of `targets`.
    """
    size, length = targets.shape
    sources = np.empty_like(targets)
    at_once = max(1, _DRAWS_AT_ONCE // length)
    for start in range(0, size, at_once):
        places = np.arange(first + start, first + min(start + at_once, size))
        sources[start : start + at_once] = noise.draw(seed, places, length, replica)
    turn_draws = draw_one_each(seed, np.arange(first, first + size), _TURN, Purpose.ORDER, replica)
    turns = np.argsort(turn_draws, kind="stable")
    shuffled, columns = targets[turns], np.ascontiguousarray(sources.T)
    matches = np.empty((size, size), noise.dtype)
    for start in range(0, size, _ROWS_PER_PASS):
        rows = slice(start, start + _ROWS_PER_PASS)
        noise.count(columns, shuffled[rows], matches[rows])
    matched = np.empty_like(sources)
    matched[turns] = sources[most_matches(matches, noise.most)[0]]
    return matched


def couple_rows(
    target: NDArray[np.unsignedinteger],
    support: NDArray[np.unsignedinteger],
    *,
    vocab_size: int,
    spec: "CouplingSpec",
    sample_ids: NDArray[np.uint64],
    replicas: NDArray[np.uint64],
    num_threads: int,
    progress: Callable[[int], None] | None = None,
) -> Coupled:
    """The sources of some rows of `support`, of which every block that they lie in is made; see `couple`."""
    ids, copies = sample_ids.astype(np.int64), replicas.astype(np.int64)
    outside = int(sample_ids.max()) >= len(support)
    if outside or not np.array_equal(support[ids], target):
        raise SpecError(
            "coupling 'assignment' matches rows of the whole data with each other: every target must be the row of the "
            "support that its sample id names (by default target and support are the same)"
        )
    plan = BlockPlan.of(len(support), spec)
    # By replica the place of every row that is asked for, and with it the block.
    place = np.empty(len(ids), np.int64)
    for replica in np.unique(copies):
        asked = copies == replica
        places = np.empty(len(support), np.int64)
        places[row_order(spec.seed, int(replica), len(support))] = np.arange(len(support))
        place[asked] = places[ids[asked]]
    per_replica = -(-len(support) // plan.size)
    keys, block_of = np.unique(copies * per_replica + place // plan.size, return_inverse=True)
    blocks = [
        Block(replica, start, min(start + plan.size, len(support)), 0)
        for replica, start in ((int(key) // per_replica, int(key) % per_replica * plan.size) for key in keys)
    ]
    asked_by_block = np.split(np.argsort(block_of, kind="stable"), np.cumsum(np.bincount(block_of))[:-1])
    source = np.empty_like(target)
    noise = SourceNoise.of(support, vocab_size, spec)
    for block, number, found in _made(support, blocks, plan, noise, spec, num_threads):
        asked = asked_by_block[number]
        source[asked] = found[place[asked] - block.start]
        if progress is not None:
            progress(len(asked))
    return Coupled(source, np.zeros(len(target), np.int64))


@functools.lru_cache(maxsize=2)  # the blocks of a replica are made one after the other
def row_order(seed: int, replica: int, num_rows: int) -> NDArray[np.int64]:
    """The keyed order of the rows in a replica: by place the row, [M] int64, read-only."""
    order = np.argsort(draw_one_each(seed, np.arange(num_rows), _PLACE, Purpose.ORDER, replica), kind="stable")
    order.flags.writeable = False
    return order


def check_memory(num_rows: int, length: int, spec: "CouplingSpec") -> None:
    """Raises SpecError if this machine's free memory does not hold one block; says which block size it holds."""
    # What marginals let a pair count is known with the data; most take two bytes.
    blocks_that_fit(BlockPlan.of(num_rows, spec).size, length, 1 if length < 256 and spec.noise == "uniform" else 2)


def _rows(plan: BlockPlan, seed: int, block: Block) -> NDArray[np.int64]:
    return row_order(seed, block.replica, plan.num_rows)[block.start : block.stop]


def _made(
    tokens: NDArray[np.unsignedinteger],
    blocks: Sequence[Block],
    plan: BlockPlan,
    noise: SourceNoise,
    spec: "CouplingSpec",
    num_threads: int,
) -> Iterator[tuple[Block, int, NDArray[np.unsignedinteger]]]:
    """Each block with its number among them and the sources of its rows, in the replica's order."""

    def make(block: Block) -> NDArray[np.unsignedinteger]:
        targets = np.ascontiguousarray(tokens[_rows(plan, spec.seed, block)])
        return couple_block(targets, noise=noise, seed=spec.seed, replica=block.replica, first=block.start)

    fitting = blocks_that_fit(plan.size, tokens.shape[1], np.dtype(noise.dtype).itemsize)
    pool = ThreadPoolExecutor(min(num_threads, len(blocks), fitting))
    try:
        for number, found in enumerate(pool.map(make, blocks)):
            yield blocks[number], number, found
    finally:
        pool.shutdown(cancel_futures=True)
