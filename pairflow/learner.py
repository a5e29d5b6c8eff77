"""The moving state of a training: one optimiser step at a time, and in and out of checkpoints."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pairflow import checkpoint, models, processes
from pairflow.batches import Stream, stream_seed
from pairflow.devices import autocast
from pairflow.errors import CheckpointError, TrainingError
from pairflow.models.ema import Ema
from pairflow.objectives import Network, Objective
from pairflow.optimizers import AdamW
from pairflow.replicas import Replica
from pairflow.spec import ModelSpec, OptimizerSpec
from pairflow.spikes import SpikeGuard

_BETAS = (0.9, 0.999)
_LOSS_SMOOTHING = 0.98  # of the running mean that is reported as the final loss
_OPTIMIZER_STATE = ("step", "exp_avg", "exp_avg_sq")


def learning_rate(spec: OptimizerSpec, step: int) -> float:
    """Learning rate of a step (from 0): linear warm-up, then constant, or a cosine that ends at `min_learning_rate`."""
    if step < spec.warmup_steps:
        return spec.learning_rate * (step + 1) / spec.warmup_steps
    if spec.lr_schedule == "constant":
        return spec.learning_rate
    fraction = (step - spec.warmup_steps) / max(1, spec.num_steps - 1 - spec.warmup_steps)
    height = 0.5 * (1 + math.cos(math.pi * min(1.0, fraction)))
    return spec.min_learning_rate + (spec.learning_rate - spec.min_learning_rate) * height


@dataclass
class Learner:
    """The moving state of a training: everything that a checkpoint holds.

    Attributes:
        spec: optimiser, number of steps and seed.
        identity: what makes this run this run; every checkpoint says it and is refused by another run.
        model: the network that is trained; `shared` averages its gradients over the replicas, and `network` is how it
            is called, compiled or not.
        replica: this process's place among those that train together.
    """

    spec: OptimizerSpec
    identity: dict[str, Any]
    device: torch.device
    model: nn.Module
    ema: Ema
    optimizer: AdamW
    process: processes.Process
    network: Network
    shared: nn.Module
    guard: SpikeGuard
    replica: Replica
    step: int = 0
    loss: float = math.nan
    validation_nll: float | None = None
    seconds: float = 0.0
    last_grad_norm: float = math.nan
    _pending: list[tuple[torch.Tensor, torch.Tensor]] = field(default_factory=list)

    @classmethod
    def start(
        cls,
        model_spec: ModelSpec,
        spec: OptimizerSpec,
        process: processes.Process,
        identity: dict[str, Any],
        device: torch.device,
        *,
        compiled: bool = False,
        spike_factor: float | None = None,
        replica: Replica | None = None,
    ) -> "Learner":
        """A learner at step 0, its weights drawn from torch's global generator."""
        replica = Replica() if replica is None else replica
        replica.check(spec.batch_size, spec.accumulate)
        shape = identity["image_shape"]
        model = models.build(
            model_spec,
            vocab_size=process.vocab_size,
            num_states=process.num_states,
            length=identity["length"],
            image_shape=None if shape is None else tuple(shape),
        ).to(device)
        optimizer = AdamW(model.parameters(), lr=spec.learning_rate, betas=_BETAS, weight_decay=0.0, fused=True)
        shared = replica.wrap(model, device)
        network = torch.compile(shared) if compiled else shared
        guard = SpikeGuard(spike_factor, floor=math.log(process.vocab_size), first_step=spec.warmup_steps)
        ema = Ema(model, spec.ema_decay)
        return cls(spec, identity, device, model.train(), ema, optimizer, process, network, shared, guard, replica)

    def take_weights(self, weights: nn.Module) -> None:
        """Starts from another model's weights, which must fit."""
        for own in (self.model, self.ema.model):
            own.load_state_dict(weights.state_dict())

    def advance(self, objective: Objective) -> None:
        """One optimiser step; its loss is read later, by `drain`, so that a GPU need not wait for it."""
        step, seed = self.step, self.spec.seed
        objective.begin(step, self.ema.model)
        torch.manual_seed(stream_seed(seed, Stream.DROPOUT, step) + self.replica.rank)
        generator = torch.Generator(self.device).manual_seed(stream_seed(seed, Stream.NOISE, step))
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.spec, step)
        self.optimizer.zero_grad(set_to_none=True)
        rows = [self.replica.share(tensor) for tensor in objective.draw(step, generator)]
        parts = list(zip(*(tensor.chunk(self.spec.accumulate) for tensor in rows), strict=True))
        loss = torch.zeros((), device=self.device)
        for number, part in enumerate(parts, start=1):
            with self.replica.gradients(self.shared, last=number == len(parts)):
                share = objective.loss(self._call, *part).mean() / len(parts)
                share.backward()
            loss += share.detach()
        grad_norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.spec.gradient_clip)
        self.optimizer.step()
        self.ema.update(step)
        self._pending.append((loss, grad_norm))
        self.step += 1

    def _call(self, x_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        with autocast(self.device):
            return self.network(x_t, t)

    def drain(self, directory: Path) -> float:
        """Reads the losses since the last call, checks them, and returns their mean.

        Raises:
            TrainingError: a loss or gradient that is not finite, or a spike.
        """
        columns = [torch.stack(column) for column in zip(*self._pending, strict=True)]
        losses, grad_norms = self.replica.mean(columns[0]).tolist(), columns[1].tolist()
        first = self.step - len(losses)
        self._pending.clear()
        for step, (loss, grad_norm) in enumerate(zip(losses, grad_norms, strict=True), start=first + 1):
            fault = self.guard.fault(step, loss, grad_norm)
            if fault is not None:
                last_good = checkpoint.latest(directory)
                raise TrainingError(
                    f"{fault}; last good checkpoint: {last_good or 'none'}; try a smaller learning_rate or a longer "
                    "warm-up"
                )
            self.loss = loss if step == 1 else _LOSS_SMOOTHING * self.loss + (1 - _LOSS_SMOOTHING) * loss
        self.last_grad_norm = grad_norms[-1]
        return sum(losses) / len(losses)

    def save(self, directory: Path, objective: Objective) -> None:
        """Writes a checkpoint of everything that the next step depends on; call `drain` first.

        With replicas the first one writes, and the others wait for it.

        Raises:
            CheckpointError: it cannot be written; every replica raises it, so that none waits for one that has ended.
        """
        fault: CheckpointError | None = None
        if self.replica.rank == 0:
            try:
                self._write(directory, objective)
            except CheckpointError as error:
                fault = error
        if not self.replica.all_well(fault is None):
            raise fault or CheckpointError("the first replica could not write its checkpoint, and says why")

    def _write(self, directory: Path, objective: Objective) -> None:
        tensors: dict[str, torch.Tensor] = {}
        for prefix, module in self._modules(objective):
            tensors |= {f"{prefix}{name}": value for name, value in module.state_dict().items()}
        tensors |= {f"{checkpoint.PROCESS}{name}": value for name, value in self.process.tensors.items()}
        for name, weight in self.model.named_parameters():
            for key, value in self.optimizer.state[weight].items():
                tensors[f"optimizer.{key}.{name}"] = value
        progress = {
            "step": self.step,
            "loss": self.loss,
            "validation_nll": self.validation_nll,
            "seconds": self.seconds,
        }
        checkpoint.save(directory, tensors, {**progress, **self.identity})

    def resume(self, directory: Path, objective: Objective) -> None:
        """Takes over the last checkpoint of the folder, if there is one."""
        path = checkpoint.latest(directory)
        if path is None:
            return
        checkpoint.check_state(path, checkpoint.read_state(path), self.identity)
        tensors, state = checkpoint.read(path)
        for prefix, module in self._modules(objective):
            checkpoint.load_weights(module, tensors, prefix, path)
        for name, weight in self.model.named_parameters():
            for key in _OPTIMIZER_STATE:
                stored = tensors.get(f"optimizer.{key}.{name}")
                if stored is None or (key != "step" and stored.shape != weight.shape):
                    raise CheckpointError(
                        f"checkpoint {path}: tensor optimizer.{key}.{name} is missing or does not fit"
                    )
                self.optimizer.state[weight][key] = stored.to(self.device)
        self.step, self.loss = state["step"], state["loss"]
        self.validation_nll, self.seconds = state["validation_nll"], state["seconds"]

    def _modules(self, objective: Objective) -> list[tuple[str, nn.Module]]:
        """(prefix of its tensors, network) of all networks in a checkpoint."""
        others = [(f"{name}.", module) for name, module in objective.modules.items()]
        return [("model.", self.model), ("ema.", self.ema.model), *others]
