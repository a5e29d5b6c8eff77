"""Frozen specifications: everything scientific about a run, and its fingerprint.

A spec is at the same time the Prefect parameter, the CLI's target, the Ray job's request, the manifest's provenance
and the MLflow parameters. Operations (addresses, workers, shard size, format, retries) never enter a spec.
"""

import hashlib
import json
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from pairflow.errors import SpecError

DatasetName = Literal["digits", "nci", "patches", "qm9", "zinc-250k", "mnist-binary", "cifar-10", "tokens"]
PresetName = Literal["demo", "paper"]
S = TypeVar("S", bound="Spec")
Seed = Annotated[int, Field(ge=0, lt=2**63)]


class Spec(BaseModel):
    """Base of all specs: immutable, and an unknown field is an error rather than ignored."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class DatasetSpec(Spec):
    """Which data, how much of it, and how it is split."""

    name: DatasetName = Field("digits", description="Name in the registry; 'tokens' is your own array.")
    path: str | None = Field(
        None,
        description="Only for 'tokens': a .npy, .npz, .parquet or .zarr of integers [M, D].",
    )
    vocab_size: int | None = Field(
        None, ge=2, le=2**32, description="Only for 'tokens': K, at least the largest token + 1."
    )
    vocab_path: str | None = Field(
        None,
        description="Only for 'tokens': a JSON list of K strings, instead of vocab_size.",
    )
    max_length: int | None = Field(
        None, ge=1, le=65_535, description="Molecules: longest token row D kept; default by dataset."
    )
    max_rows: int | None = Field(
        None, ge=1, description="Keep a seeded random subset of this many rows; default all rows."
    )
    holdout: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Fraction of rows held out (0 to 1, exclusive); default by dataset, or as published.",
    )
    split_seed: Seed = Field(0, description="Seed of the split and of the subset.")

    @model_validator(mode="after")
    def _tokens_need_a_path(self) -> Self:
        own = {"path": self.path, "vocab_size": self.vocab_size, "vocab_path": self.vocab_path}
        if self.name != "tokens":
            if given := [key for key, value in own.items() if value is not None]:
                raise ValueError(f"{', '.join(given)} can only be given for dataset 'tokens', got '{self.name}'")
            return self
        if self.path is None:
            raise ValueError("dataset 'tokens' needs a path to a .npy, .npz, .parquet or .zarr array")
        if (self.vocab_size is None) == (self.vocab_path is None):
            raise ValueError("dataset 'tokens' needs exactly one of vocab_size and vocab_path")
        return self


class CouplingSpec(Spec):
    """How every data point gets its source point (method.md §2, PairFlow Algorithm 1)."""

    kind: Literal["closed_form", "independent"] = Field(
        "closed_form",
        description="closed_form: PairFlow's backward walk. independent: seeded uniform sources.",
    )
    num_steps: int = Field(20, ge=1, le=65_535, description="T, backward Euler steps (1 to 65,535).")
    seed: Seed = Field(0, description="Seed of all keyed draws.")
    temperature: float = Field(
        1.0, gt=0, le=1e6, description="τ of the keep probability (above 0); 1 is the exact walk."
    )
    epsilon: float = Field(
        1e-9,
        ge=0,
        le=1e-3,
        description="Total variation a walk may lose by not scanning the support while its start point provably "
        "dominates the posterior (0 to 0.001; 0: always scan; used at τ = 1).",
    )
    support_size: int | None = Field(
        None,
        ge=1,
        description="Take the posterior over a seeded random subset of this many rows, and the row itself; default "
        "all rows. An approximation, for very large data.",
    )
    sources_per_target: int = Field(
        1, ge=1, le=4096, description="R, independent sources of every row (1 to 4,096); the store holds R·M pairs."
    )


class ModelSpec(Spec):
    """The denoiser p_θ(x_1 | x_t)."""

    architecture: Literal["dit", "unet"] = Field("dit", description="dit for strings, unet for images.")
    hidden_size: int = Field(128, ge=8, le=8192, description="Width (DiT) or base channels (U-Net).")
    num_layers: int = Field(4, ge=1, le=128, description="DiT: transformer blocks.")
    num_heads: int = Field(4, ge=1, le=128, description="Attention heads.")
    cond_size: int = Field(128, ge=8, le=4096, description="Width of the time conditioning.")
    absolute_positions: bool = Field(
        True,
        description="DiT: add a learned embedding of each position to the rotary ones, which are relative; needed "
        "where no token such as <bos> marks the start.",
    )
    dropout: float = Field(0.0, ge=0, lt=1, description="Dropout (0 to below 1).")
    channel_mults: tuple[int, ...] = Field((1, 2, 2), description="U-Net: channel factor by resolution.")
    num_res_blocks: int = Field(2, ge=1, le=8, description="U-Net: residual blocks by resolution.")
    attention_resolutions: tuple[int, ...] = Field(
        (), description="U-Net: image heights at which attention is used, such as 16."
    )

    @model_validator(mode="after")
    def _heads_divide_width(self) -> Self:
        if self.architecture == "dit" and self.hidden_size % (2 * self.num_heads):
            raise ValueError(
                f"hidden_size must be a multiple of 2·num_heads (rotary positions), got "
                f"{self.hidden_size} and {self.num_heads} heads"
            )
        if not self.channel_mults or min(self.channel_mults) < 1:
            raise ValueError(f"channel_mults must be positive, got {self.channel_mults}")
        return self


class TrainingSpec(Spec):
    """How the denoiser is trained (method.md §3)."""

    coupling: Literal["paired", "independent"] = Field(
        "paired",
        description="paired: each row's stored source (PairFlow). independent: a fresh one (UDLM).",
    )
    num_steps: int = Field(1500, ge=1, description="Optimiser steps.")
    batch_size: int = Field(128, ge=1, description="Rows a step.")
    learning_rate: float = Field(3e-4, gt=0, le=1, description="Peak learning rate of AdamW.")
    lr_schedule: Literal["cosine", "constant"] = Field("cosine", description="After the warm-up.")
    min_learning_rate: float = Field(3e-6, ge=0, description="Where the cosine ends.")
    warmup_steps: int = Field(100, ge=0, description="Linear warm-up steps.")
    gradient_clip: float = Field(1.0, gt=0, description="Largest gradient norm.")
    ema_decay: float = Field(0.999, ge=0, lt=1, description="Decay of the averaged weights.")
    time_epsilon: float = Field(1e-3, gt=0, lt=0.5, description="t is drawn from [ε, 1 − ε].")
    seed: Seed = Field(0, description="Seed of weights, data order, times and noise.")


class EvaluationSpec(Spec):
    """What is sampled and measured, by number of sampling steps."""

    steps: tuple[int, ...] = Field(
        (1, 2, 4, 8, 16, 32), description="Numbers of sampling steps to compare (1 to 1,024 each)."
    )
    num_samples: int = Field(1024, ge=2, description="Samples a trial.")
    num_trials: int = Field(1, ge=1, le=100, description="Trials; the table shows mean and deviation.")
    final_step: Literal["ancestral", "greedy"] = Field(
        "greedy", description="Last update: ancestral, or argmax of p_θ (one more network call)."
    )
    seed: Seed = Field(0, description="Seed of all sampling draws.")

    @model_validator(mode="after")
    def _steps_in_range(self) -> Self:
        if not self.steps or any(not 1 <= step <= 1024 for step in self.steps):
            raise ValueError(f"steps must be numbers from 1 to 1,024, got {list(self.steps)}")
        return self


def parse(spec_type: type[S], data: Any) -> S:
    """Validates `data` (a mapping or a spec) into `spec_type`.

    Raises:
        SpecError: one line per field that does not fit, with what was given.
    """
    try:
        return spec_type.model_validate(data)
    except ValidationError as error:
        lines = [
            f"{'.'.join(map(str, item['loc'])) or spec_type.__name__}: {item['msg']}"
            + (f" (got {item['input']!r})" if item["loc"] else "")
            for item in error.errors()
        ]
        raise SpecError("; ".join(lines)) from None


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def fingerprint(spec: Spec, **inputs: str) -> str:
    """SHA-256 (64 hex digits) of a spec and of what it was applied to.

    `inputs` are digests and versions, such as `dataset=train.digest, engine="cpu/1"`. The same spec on the same
    inputs always has the same fingerprint; a changed result needs a changed fingerprint.
    """
    document = {"spec": {type(spec).__name__: spec.model_dump(mode="json")}, "inputs": inputs}
    return hashlib.sha256(canonical_json(document).encode()).hexdigest()
