"""The moving state of a training: one optimiser step at a time, and in and out of checkpoints."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from pairflow import checkpoint, models, processes
from pairflow.batches import Batches, Stream, stratified_times, stream_seed
from pairflow.devices import autocast
from pairflow.errors import CheckpointError, TrainingError
from pairflow.models.ema import Ema
from pairflow.spec import ModelSpec, TrainingSpec

_BETAS = (0.9, 0.999)
_LOSS_SMOOTHING = 0.98  # of the running mean that is reported as the final loss


def learning_rate(spec: TrainingSpec, step: int) -> float:
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
    """The moving state of a training: everything that a checkpoint holds."""

    spec: TrainingSpec
    identity: dict[str, Any]
    device: torch.device
    model: torch.nn.Module
    ema: Ema
    optimizer: torch.optim.AdamW
    process: processes.Process
    step: int = 0
    loss: float = math.nan
    validation_nll: float | None = None
    seconds: float = 0.0
    last_grad_norm: float = math.nan
    _pending: list[tuple[torch.Tensor, torch.Tensor]] = field(default_factory=list)

    @classmethod
    def start(
        cls, model_spec: ModelSpec, spec: TrainingSpec, identity: dict[str, Any], device: torch.device
    ) -> "Learner":
        shape = identity["image_shape"]
        model = models.build(
            model_spec,
            vocab_size=identity["vocab_size"],
            length=identity["length"],
            image_shape=None if shape is None else tuple(shape),
        ).to(device)
        optimizer = torch.optim.AdamW(
            model.parameters(), lr=spec.learning_rate, betas=_BETAS, weight_decay=0.0, fused=True
        )
        process = processes.build("uniform", identity["vocab_size"])
        return cls(spec, identity, device, model.train(), Ema(model, spec.ema_decay), optimizer, process)

    def advance(self, batches: Batches) -> None:
        """One optimiser step; its loss is read later, by `drain`, so that a GPU need not wait for it."""
        step, seed = self.step, self.spec.seed
        torch.manual_seed(stream_seed(seed, Stream.DROPOUT, step))
        generator = torch.Generator(self.device).manual_seed(stream_seed(seed, Stream.NOISE, step))
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.spec, step)
        target, source = batches.batch(step)
        t = stratified_times(len(target), self.spec.time_epsilon, generator)
        if source is None:
            source = self.process.draw_source((target.shape[0], target.shape[1]), generator)
        x_t = self.process.corrupt(source, target, t, generator)
        with autocast(self.device):
            logits = self.model(x_t, t)
        loss = self.process.loss(logits, x_t, target, t).mean()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        grad_norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.spec.gradient_clip)
        self.optimizer.step()
        self.ema.update(step)
        self._pending.append((loss.detach(), grad_norm))
        self.step += 1

    def drain(self, directory: Path) -> float:
        """Reads the losses since the last call, checks them, and returns their mean."""
        losses, grad_norms = (torch.stack(column).tolist() for column in zip(*self._pending, strict=True))
        first = self.step - len(losses)
        self._pending.clear()
        for step, (loss, grad_norm) in enumerate(zip(losses, grad_norms, strict=True), start=first + 1):
            if not (math.isfinite(loss) and math.isfinite(grad_norm)):
                last_good = checkpoint.latest(directory)
                raise TrainingError(
                    f"training diverged at step {step}: loss {loss}, gradient norm {grad_norm}; last good checkpoint: "
                    f"{last_good or 'none'}; try a smaller learning_rate or a longer warm-up"
                )
            self.loss = loss if step == 1 else _LOSS_SMOOTHING * self.loss + (1 - _LOSS_SMOOTHING) * loss
        self.last_grad_norm = grad_norms[-1]
        return sum(losses) / len(losses)

    def save(self, directory: Path) -> None:
        """Writes a checkpoint of everything that the next step depends on; call `drain` first."""
        tensors = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        tensors |= {f"ema.{name}": value for name, value in self.ema.model.state_dict().items()}
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

    def resume(self, directory: Path) -> None:
        """Takes over the last checkpoint of the folder, if there is one."""
        path = checkpoint.latest(directory)
        if path is None:
            return
        checkpoint.check_state(path, checkpoint.read_state(path), self.identity)
        tensors, state = checkpoint.read(path)
        checkpoint.load_weights(self.model, tensors, "model.", path)
        checkpoint.load_weights(self.ema.model, tensors, "ema.", path)
        for name, weight in self.model.named_parameters():
            for key in ("step", "exp_avg", "exp_avg_sq"):
                stored = tensors.get(f"optimizer.{key}.{name}")
                if stored is None or (key != "step" and stored.shape != weight.shape):
                    raise CheckpointError(
                        f"checkpoint {path}: tensor optimizer.{key}.{name} is missing or does not fit"
                    )
                self.optimizer.state[weight][key] = stored.to(self.device)
        self.step, self.loss = state["step"], state["loss"]
        self.validation_nll, self.seconds = state["validation_nll"], state["seconds"]
