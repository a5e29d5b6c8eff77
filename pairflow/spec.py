"""Frozen specifications: everything scientific about a run, and its fingerprint.

A spec is at the same time the Prefect parameter, the CLI's target, the Ray job's request, the manifest's provenance
and the MLflow parameters. Operations (addresses, workers, shard size, format, retries) never enter a spec. Data,
coupling and network are here; training, distillation and sampling in `pairflow.spec_learning`; import all from here.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from pairflow.names import NameOf
from pairflow.spec_base import Seed, Spec, canonical_json, fingerprint, in_full, parse
from pairflow.spec_learning import (
    DistillationSpec,
    EvaluationSpec,
    FinalStep,
    ImageFeatures,
    ObjectiveName,
    OptimizerSpec,
    RediSpec,
    SamplingSpec,
    TrainingSpec,
)

DatasetName = Literal[
    "digits", "nci", "patches", "qm9", "zinc-250k", "mnist-binary", "cifar-10", "tokens", "smiles", "text"
]
OWN_DATA: tuple[DatasetName, ...] = ("tokens", "smiles", "text")
"""What lies where the user says, and has rows added to it."""
PresetName = Literal["demo", "laptop", "paper", "few-step"]
EngineName = Literal["auto", "cpu", "cuda", "dense"]
"""Of a coupling engine; auto is the fastest exact one of a machine."""
PairsFormat = Literal["zarr", "parquet"]
"""How pairs lie in a store; here, so that parameters have it without loading the store."""
DEFAULT_BLOCK_SIZE = 4096
"""Rows that an assignment matches together: docs/coupling.md says what more and fewer would bring and cost."""


class DatasetSpec(Spec):
    """Which data, how much of it, and how it is split."""

    name: DatasetName = Field(
        "digits",
        description="Name in the registry; your own are 'tokens', an array, 'smiles', molecules, and 'text'.",
    )
    path: str | None = Field(
        None,
        description="For 'tokens' a .npy, .npz, .parquet, .arrow, .feather or .zarr of integers [M, D], for 'smiles' a "
        ".smi, .txt, .csv, .tsv or .sdf (also .gz, .zst, .bz2), .parquet, .arrow or .feather, for 'text' a .txt; or a "
        "folder of such files (not .zarr), which are read in the order of their names; for 'smiles' and 'text' also a "
        "pattern such as rows/*.smi.",
    )
    column: str | None = Field(
        None,
        min_length=1,
        max_length=1024,
        description="Only with a path: of several columns (or arrays of an .npz), the one to read; default 'smiles' of "
        "a table of molecules, 'tokens' of one with lists of integers.",
    )
    vocab_size: int | None = Field(
        None, ge=2, le=2**32, description="Only for 'tokens': K, at least the largest token + 1."
    )
    vocab_path: str | None = Field(
        None,
        description="Only for 'tokens': a JSON list of K strings, instead of vocab_size.",
    )
    window: int | None = Field(
        None, ge=1, le=65_535, description="Only for 'text': D, the units that a row has; default 128."
    )
    unit: Literal["bytes", "characters"] | None = Field(
        None, description="Only for 'text': what a token is; default bytes, which has K 256."
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
        own: dict[str, str | int | None] = {"vocab_size": self.vocab_size, "vocab_path": self.vocab_path}
        if self.name not in OWN_DATA:
            own |= {"path": self.path, "column": self.column}
        if self.name == "text":
            own |= {"column": self.column}
        elif given := [key for key, value in {"window": self.window, "unit": self.unit}.items() if value is not None]:
            raise ValueError(f"{', '.join(given)} can only be given for dataset 'text', got '{self.name}'")
        if self.name != "tokens":
            if given := [key for key, value in own.items() if value is not None]:
                also = ", 'smiles' or 'text'" if given == ["path"] else " or 'smiles'" if "column" in given else ""
                raise ValueError(f"{', '.join(given)} can only be given for dataset 'tokens'{also}, got '{self.name}'")
            if self.name == "smiles" and self.path is None:
                raise ValueError(
                    "dataset 'smiles' needs a path to a .smi, .txt, .csv, .tsv, .sdf, .parquet, .arrow or .feather "
                    "file, or a folder of them"
                )
            if self.name == "text" and self.path is None:
                raise ValueError("dataset 'text' needs a path to a .txt file, or a folder of them")
            return self
        if self.path is None:
            raise ValueError("dataset 'tokens' needs a path to a .npy, .npz, .parquet or .zarr array, or to a folder")
        if (self.vocab_size is None) == (self.vocab_path is None):
            raise ValueError("dataset 'tokens' needs exactly one of vocab_size and vocab_path")
        return self

    @model_serializer(mode="wrap")
    def _as_before(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A field that came later is left out where it is not set: fingerprints are those of before."""
        fields: dict[str, Any] = handler(self)
        for name in ("column", "window", "unit"):
            if fields.get(name) is None:
                fields.pop(name, None)
        return fields


COUPLING_KINDS: dict[str, str] = {
    "closed_form": "PairFlow's backward walk.",
    "independent": "seeded uniform sources.",
    "assignment": "sources matched to rows so that the total Hamming distance is least.",
}
"""Every kind of coupling by its name, and what it is."""


class CouplingSpec(Spec):
    """How every data point gets its source point (docs/method.md §2, PairFlow Algorithm 1; §7, ours)."""

    kind: Annotated[str, NameOf(lambda: COUPLING_KINDS)] = Field(
        "closed_form", description=" ".join(f"{name}: {text}" for name, text in COUPLING_KINDS.items())
    )
    num_steps: int = Field(
        20, ge=1, le=65_535, description="T, backward Euler steps (1 to 65,535); none of 'assignment'."
    )
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
    block_size: int | None = Field(
        None,
        ge=1,
        le=2**17,
        # What is not set is not written: specs of other kinds keep their JSON and their fingerprints.
        exclude_if=lambda value: value is None,
        description="Only for 'assignment': B, at most so many rows are matched together (1 to 131,072; default "
        "4,096; all rows if they are fewer). It takes B² bytes, twice that where D > 255.",
    )

    noise: Literal["uniform", "marginal"] = Field(
        "uniform",
        exclude_if=lambda value: value == "uniform",
        description="Only for 'assignment': what sources are drawn from. uniform: any token. marginal: the data's own "
        "tokens at each position, where a rare match counts more; models are then trained with that noise. It helped "
        "images and harmed molecules (docs/results.md).",
    )

    @property
    def title(self) -> str:
        """What tells couplings of one dataset apart, in a word or two."""
        if self.kind != "assignment":
            return f"T{self.num_steps}"
        return f"assignment B{self.block_size}" + (" marginal" if self.noise == "marginal" else "")

    @model_validator(mode="before")
    @classmethod
    def _an_assignment_has_blocks(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("kind") == "assignment" and data.get("block_size") is None:
            return {**data, "block_size": DEFAULT_BLOCK_SIZE}
        return data

    @model_validator(mode="after")
    def _options_are_of_the_kind(self) -> Self:
        if self.kind != "assignment":
            own = {"block_size": self.block_size, "noise": None if self.noise == "uniform" else self.noise}
            if given := [name for name, value in own.items() if value is not None]:
                raise ValueError(
                    f"{' and '.join(given)} can only be given for coupling 'assignment', got '{self.kind}'"
                )
            return self
        fields, walk = CouplingSpec.model_fields, ("num_steps", "temperature", "epsilon", "support_size")
        if given := [f"{name} {got}" for name in walk if (got := getattr(self, name)) != fields[name].default]:
            raise ValueError(
                f"{' and '.join(given)}: coupling 'assignment' takes no walk; leave it out, or use 'closed_form'"
            )
        return self


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


__all__ = [
    "COUPLING_KINDS",
    "DEFAULT_BLOCK_SIZE",
    "OWN_DATA",
    "CouplingSpec",
    "DatasetName",
    "DatasetSpec",
    "DistillationSpec",
    "EngineName",
    "EvaluationSpec",
    "FinalStep",
    "ImageFeatures",
    "ModelSpec",
    "ObjectiveName",
    "OptimizerSpec",
    "PairsFormat",
    "PresetName",
    "RediSpec",
    "SamplingSpec",
    "Seed",
    "Spec",
    "TrainingSpec",
    "canonical_json",
    "fingerprint",
    "in_full",
    "parse",
]
