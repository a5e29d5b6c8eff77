"""The loop that training and distillation share: steps, metrics, validation, checkpoints, a progress bar."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from tqdm import tqdm

from pairflow import checkpoint
from pairflow.errors import CheckpointError
from pairflow.integers import check_integer
from pairflow.learner import Learner, learning_rate
from pairflow.objectives import Objective
from pairflow.throughput import peak_flops, training_flops
from pairflow.validation import Validator


@dataclass(frozen=True)
class StepMetrics:
    """What `on_step` is told, every `log_every` steps and after the last one.

    Attributes:
        step: optimiser steps done, from 1.
        loss: mean over the steps since the last report, in nats per token.
        learning_rate: of this step.
        grad_norm: before clipping, of this step.
        tokens_per_second: target tokens trained on per second since the last report.
        validation_nll: in nats per token, at the steps where it was measured.
        flop_utilisation: share of the GPUs' bfloat16 peak that the model's own operations used since the last report;
            None on a CPU, and on a GPU whose peak is not known.
    """

    step: int
    loss: float
    learning_rate: float
    grad_norm: float
    tokens_per_second: float
    validation_nll: float | None = None
    flop_utilisation: float | None = None

    @property
    def validation_bits(self) -> float | None:
        """The validation NLL in bits per token."""
        return None if self.validation_nll is None else self.validation_nll / math.log(2)


@dataclass(frozen=True)
class FitResult:
    """What a finished training left.

    Attributes:
        checkpoint: folder of the last checkpoint; of a replica that sees none, where its own would be.
        loss: running mean of the training loss, nats per token.
        validation_nll: bound on the held-out negative log-likelihood, nats per token; None without validation rows.
        steps: optimiser steps.
        seconds: spent training, over all sessions of a resumed run.
    """

    checkpoint: Path
    loss: float
    validation_nll: float | None
    steps: int
    seconds: float

    @property
    def validation_bits(self) -> float | None:
        """The validation NLL in bits per token."""
        return None if self.validation_nll is None else self.validation_nll / math.log(2)


@dataclass(frozen=True)
class Cadence:
    """How often what happens, in steps.

    Attributes:
        checkpoint_every: between checkpoints; the last step always has one.
        log_every: between calls of `on_step`.
        validate_every: between validations; at the end only if None.
    """

    checkpoint_every: int
    log_every: int
    validate_every: int | None

    def check(self) -> None:
        """Raises SpecError for an interval below one step, or that is no whole number."""
        for name, value in vars(self).items():
            if value is not None:
                check_integer(value, name, 1)


@torch.enable_grad()  # a Ctrl-C on the way into or out of torch.no_grad(), as in a notebook, leaves it off for ever
def run(
    learner: Learner,
    objective: Objective,
    directory: Path,
    *,
    cadence: Cadence,
    validator: Validator | None,
    on_step: Callable[[StepMetrics], None] | None,
    title: str,
    progress: bool,
) -> FitResult:
    """Takes steps until the spec's last one; see `pairflow.training.fit`."""
    num_steps = learner.spec.num_steps
    reporter = _Reporter(learner, directory)
    hidden = not progress or learner.replica.rank > 0
    with tqdm(initial=learner.step, total=num_steps, desc=title, unit="step", disable=hidden) as bar:
        while learner.step < num_steps:
            learner.advance(objective)
            bar.update()
            last = learner.step == num_steps
            saves = last or learner.step % cadence.checkpoint_every == 0
            every = cadence.validate_every
            validates = validator and (last or (every and learner.step % every == 0))
            if not (saves or validates or learner.step % cadence.log_every == 0):
                continue
            metrics = reporter.report(validator if validates else None)
            bar.set_postfix(loss=f"{metrics.loss:.3f}", refresh=False)
            if on_step is not None:
                on_step(metrics)
                reporter.go_on()
            if saves:
                learner.save(directory, objective)
    folder = checkpoint.latest(directory)
    if folder is None and learner.replica.rank == 0:
        raise CheckpointError(f"the checkpoints in {directory} were removed while training")
    return FitResult(folder or directory, learner.loss, learner.validation_nll, learner.step, learner.seconds)


class _Reporter:
    """Turns the steps since its last report into metrics, and keeps the clock."""

    def __init__(self, learner: Learner, directory: Path) -> None:
        self.learner, self.directory = learner, directory
        length = learner.identity["length"]
        self._tokens_per_step = learner.spec.batch_size * length
        self._peak, self._flops_per_token = None, 0.0
        if learner.device.type == "cuda":
            self._peak = peak_flops(torch.cuda.get_device_name(learner.device))
        if self._peak is not None:
            self._peak *= learner.replica.world_size
            self._flops_per_token = training_flops(learner.model, length) / length
        self._clock, self._step = time.perf_counter(), learner.step

    def go_on(self) -> None:
        """Leaves out of the clock what was done since the last report: it was no training."""
        self._clock = time.perf_counter()

    def report(self, validator: Validator | None) -> StepMetrics:
        learner = self.learner
        loss = learner.drain(self.directory)
        elapsed = time.perf_counter() - self._clock
        speed = (learner.step - self._step) * self._tokens_per_step / elapsed
        nll = None
        if validator is not None:
            nll = learner.validation_nll = validator.nll(learner.ema.model, learner.process)
        now = time.perf_counter()
        learner.seconds += now - self._clock
        self._clock, self._step = now, learner.step
        return StepMetrics(
            step=learner.step,
            loss=loss,
            learning_rate=learning_rate(learner.spec, learner.step - 1),
            grad_norm=learner.last_grad_norm,
            tokens_per_second=speed,
            validation_nll=nll,
            flop_utilisation=None if self._peak is None else speed * self._flops_per_token / self._peak,
        )
