"""The documents of a coupling (header, shard records, manifest) and the plan of its shards."""

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, JsonValue, ValidationError, model_validator

from pairflow.errors import ShardConflictError, SpecError
from pairflow.spec import PairsFormat, Spec

FORMAT_VERSION = 1
"""Of the layout on disk; a reader refuses any other (docs/format.md)."""

TokenDtype = Literal["uint8", "uint16", "uint32"]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]

_FINGERPRINT = re.compile("[0-9a-f]{64}")


def token_dtype(vocab_size: int) -> TokenDtype:
    """Name of the smallest unsigned type that holds the tokens 0..K-1."""
    if vocab_size <= 2**8:
        return "uint8"
    return "uint16" if vocab_size <= 2**16 else "uint32"


def check_fingerprint(fingerprint: str) -> str:
    """The fingerprint, if it is one: it becomes a folder's name, so nothing else may pass.

    Raises:
        SpecError: it is not 64 lower-case hexadecimal digits.
    """
    if not isinstance(fingerprint, str) or not _FINGERPRINT.fullmatch(fingerprint):
        raise SpecError(
            f"a fingerprint is 64 hexadecimal digits, got {fingerprint!r}; make it with pairflow.spec.fingerprint"
        )
    return fingerprint


@dataclass(frozen=True, slots=True)
class ShardPlan:
    """Rows `start` to `stop` (exclusive) of a coupling, written together."""

    index: int
    start: int
    stop: int

    @property
    def num_rows(self) -> int:
        return self.stop - self.start


def plan_shards(num_rows: int, shard_size: int) -> tuple[ShardPlan, ...]:
    """Cuts rows 0..N-1 into shards of `shard_size`, the last one perhaps shorter.

    Raises:
        SpecError: either number is below 1.
    """
    for name, value in (("num_rows", num_rows), ("shard_size", shard_size)):
        if value < 1:
            raise SpecError(f"{name} must be at least 1, got {value}")
    starts = range(0, num_rows, shard_size)
    return tuple(ShardPlan(i, start, min(start + shard_size, num_rows)) for i, start in enumerate(starts))


class PairsHeader(Spec):
    """What a coupling is and how it is cut; fixed before its first shard is written.

    All fields but `shard_size` (and what `dataset` says beyond its digest) must agree between all writers of a URL.

    Raises:
        SpecError: a field does not fit.
    """

    fingerprint: Sha256 = Field(description="pairflow.spec.fingerprint of spec, dataset and engine.")
    format: PairsFormat = Field(description="zarr or parquet.")
    num_rows: int = Field(ge=1, description="N, pairs; dataset rows times sources_per_target.")
    length: int = Field(ge=1, le=65_535, description="D, tokens in a row.")
    vocab_size: int = Field(ge=2, le=2**32, description="K; tokens are 0..K-1.")
    dtype: TokenDtype = Field(
        default_factory=lambda fields: token_dtype(fields["vocab_size"]),
        description="Of source and target: the smallest unsigned type that holds K-1.",
    )
    shard_size: int = Field(ge=1, description="Rows a shard; the last one may be shorter.")
    spec: dict[str, JsonValue] = Field(description="The CouplingSpec.")
    dataset: dict[str, JsonValue] = Field(description="Name, digest and report of the data.")
    engine: str = Field(min_length=1, description="Engine and its version, such as cpu/1.")
    vocab: tuple[str, ...] | None = Field(None, description="The K token strings, where tokens have any.")
    sources_per_target: int = Field(1, ge=1, description="Sources drawn for each target.")

    if not TYPE_CHECKING:  # a type checker sees pydantic's signature

        def __init__(self, **fields: Any) -> None:
            try:
                super().__init__(**fields)
            except ValidationError as error:
                found = "; ".join(
                    f"{'.'.join(map(str, item['loc'])) or 'header'}: {item['msg']}" for item in error.errors()
                )
                raise SpecError(f"not a valid {type(self).__name__}: {found}") from None

    @model_validator(mode="after")
    def _fields_agree(self) -> Self:
        if self.dtype != (smallest := token_dtype(self.vocab_size)):
            raise ValueError(f"dtype must be {smallest} for vocab_size {self.vocab_size}, got {self.dtype}")
        if self.vocab is not None and len(self.vocab) != self.vocab_size:
            raise ValueError(f"vocab has {len(self.vocab)} tokens, but vocab_size is {self.vocab_size}")
        if self.num_rows % self.sources_per_target:
            raise ValueError(
                f"num_rows counts pairs, so {self.num_rows} should be a multiple of sources_per_target, "
                f"{self.sources_per_target}"
            )
        return self

    def plan(self) -> tuple[ShardPlan, ...]:
        """The shards, in order."""
        return plan_shards(self.num_rows, self.shard_size)

    def shard(self, index: int) -> ShardPlan:
        """One shard of the plan.

        Raises:
            SpecError: there is no such shard.
        """
        if not 0 <= index < self.num_shards:
            raise SpecError(f"shard {index} is not in the plan: there are {self.num_shards}, numbered from 0")
        start = index * self.shard_size
        return ShardPlan(index, start, min(start + self.shard_size, self.num_rows))

    @property
    def num_shards(self) -> int:
        return -(-self.num_rows // self.shard_size)

    def part_name(self, index: int) -> str:
        """The shard's number with leading zeros, so that names sort as rows do."""
        return f"{index:0{max(5, len(str(self.num_shards - 1)))}d}"

    def check_same_coupling(self, other: "PairsHeader", path: str) -> None:
        """Raises ShardConflictError unless both describe the same pairs; `path` is where `other` lies."""
        for name in PairsHeader.model_fields:
            mine, theirs = getattr(self, name), getattr(other, name)
            if name == "dataset":
                # Where the data came from may differ between two machines; what it is may not.
                name, mine, theirs = "dataset.digest", mine.get("digest"), theirs.get("digest")
            if name != "shard_size" and mine != theirs:
                raise ShardConflictError(
                    f"{path} belongs to another coupling: its {name} is {theirs!r}, expected {mine!r}; "
                    "choose another store, or delete that folder if nothing needs it"
                )


class StoredObject(Spec):
    """A file of a coupling, as it was written."""

    # Neither absolute nor upwards nor hidden: whatever a manifest says, nothing outside its folder is touched.
    name: str = Field(pattern=r"^\w[\w.-]*(/\w[\w.-]*)*$", description="Path below the coupling's folder.")
    num_bytes: int = Field(ge=0, description="Size of the file.")
    sha256: Sha256 = Field(description="Of the file's bytes.")


class ShardRecord(Spec):
    """Says that a shard is written, and exactly what was written."""

    fingerprint: Sha256 = Field(description="Of the coupling that the shard belongs to.")
    index: int = Field(ge=0, description="Number of the shard.")
    start: int = Field(ge=0, description="First row.")
    stop: int = Field(ge=1, description="Row after the last.")
    objects: tuple[StoredObject, ...] = Field(description="The shard's files.")
    content_sha256: Sha256 = Field(description="Of its tokens and sample ids, whatever the format.")


class ArrayInfo(Spec):
    """Shape and type of one array of the whole coupling."""

    shape: tuple[int, ...] = Field(description="Rows first.")
    dtype: str = Field(description="numpy's name, such as uint8.")


class Manifest(PairsHeader):
    """A committed coupling: its header, and every file that belongs to it."""

    arrays: dict[str, ArrayInfo] = Field(description="sample_id, target and source.")
    shards: tuple[ShardRecord, ...] = Field(description="All shards, in order.")
    metadata: tuple[StoredObject, ...] = Field(description="Files that belong to no shard (zarr.json).")
    content_sha256: Sha256 = Field(description="Of all pairs; the same for every format and shard size.")
    summary: dict[str, JsonValue] = Field(description="Figures of the run that committed it.")
    created_by: str = Field(description="Package and version.")

    @model_validator(mode="after")
    def _shards_follow_the_plan(self) -> Self:
        ranges = [ShardPlan(shard.index, shard.start, shard.stop) for shard in self.shards]
        # Their number first: a plan of any length can be said in a few digits.
        if len(ranges) != self.num_shards or ranges != list(self.plan()):
            raise ValueError(f"the shards are not those of {self.num_rows} rows cut by {self.shard_size}")
        return self

    @property
    def header(self) -> PairsHeader:
        """The header that the coupling was begun with."""
        return PairsHeader(**{name: getattr(self, name) for name in PairsHeader.model_fields})
