"""The documents of a prepared dataset: what it is, how its rows are cut into files, and the files themselves."""

from typing import Annotated, Self

from pydantic import Field, JsonValue, model_validator

from pairflow.spec import PairsFormat, Spec
from storage.manifest import Sha256, ShardPlan, StoredObject, TokenDtype, plan_shards, token_dtype

_Rows = Annotated[int, Field(ge=0)]


class SourceRecord(Spec):
    """A file that the rows were made of."""

    name: str = Field(description="Without its folder.")
    num_bytes: int = Field(ge=0, description="Its size.")
    sha256: Sha256 = Field(description="Of its bytes as they lay there.")


class DatasetHeader(Spec):
    """What a prepared dataset is and how it is cut; written before any of its rows.

    All but `shard_size`, `format` and the report's `source` follows from the fingerprint.
    """

    fingerprint: Sha256 = Field(description="Of the source's content, the DatasetSpec and what reads it.")
    format: PairsFormat = Field(description="zarr or parquet.")
    name: str = Field(min_length=1, description="Of the dataset, in the registry.")
    data_kind: str = Field(description="What the tokens mean: molecules, images, tokens.")
    num_rows: int = Field(ge=1, description="M, rows of training and test part together.")
    length: int = Field(ge=1, le=65_535, description="D, tokens in a row.")
    vocab_size: int = Field(ge=2, le=2**32, description="K; tokens are 0..K-1.")
    vocab: tuple[str, ...] | None = Field(None, description="The K token strings, where tokens have any.")
    image_shape: tuple[int, int, int] | None = Field(None, description="(C, H, W) of images.")
    has_labels: bool = Field(False, description="Whether rows have a class label.")
    shard_size: int = Field(ge=1, description="Rows a file; the last one may have fewer.")
    digest: Sha256 = Field(description="Of the rows: `TokenDataset.digest`.")
    splits: dict[str, _Rows] = Field(description="Rows of each part, train and test.")
    digests: dict[str, Sha256] = Field(description="Of each part that has rows: what pairs and models are known by.")
    spec: dict[str, JsonValue] = Field(description="The DatasetSpec.")
    files: tuple[SourceRecord, ...] = Field(description="The source's files as they were read.")
    reader: str = Field(description="What made rows of them, with its version.")
    report: dict[str, JsonValue] = Field(description="source, rows_read, rows_kept, dropped, examples, notes.")

    @model_validator(mode="after")
    def _fields_agree(self) -> Self:
        if sum(self.splits.values()) != self.num_rows:
            raise ValueError(f"the parts have {sum(self.splits.values())} rows, but num_rows is {self.num_rows}")
        if self.vocab is not None and len(self.vocab) != self.vocab_size:
            raise ValueError(f"vocab has {len(self.vocab)} tokens, but vocab_size is {self.vocab_size}")
        return self

    @property
    def dtype(self) -> TokenDtype:
        """Of the tokens: the smallest unsigned type that holds K-1."""
        return token_dtype(self.vocab_size)

    @property
    def num_shards(self) -> int:
        return -(-self.num_rows // self.shard_size)

    def plan(self) -> tuple[ShardPlan, ...]:
        """The files' rows, in order."""
        return plan_shards(self.num_rows, self.shard_size)

    def part_name(self, index: int) -> str:
        """A file's number with leading zeros, so that names sort as rows do."""
        return f"{index:0{max(5, len(str(self.num_shards - 1)))}d}"


class DatasetManifest(DatasetHeader):
    """A prepared dataset that is whole."""

    objects: tuple[StoredObject, ...] = Field(description="All files but the documents, rows first.")
    created_by: str = Field(description="Package and version.")

    @property
    def header(self) -> DatasetHeader:
        """What it was begun with."""
        return DatasetHeader(**{name: getattr(self, name) for name in DatasetHeader.model_fields})
