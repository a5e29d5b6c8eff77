"""The options of the command line: each is described once and shared by the commands that have it."""

import functools
import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from flows.home.settings import absolute_url
from pairflow.errors import SpecError
from pairflow.spec import DatasetName, DatasetSpec, PresetName, parse

_DATA = "Data"
_WHERE = "Where and how"

Preset = Annotated[PresetName, typer.Option(help="demo: minutes. laptop: longer. paper: the authors' settings.")]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="GROUP.FIELD=VALUE",
        help="Change one setting of the preset, such as training.num_steps=50; may be repeated.",
    ),
]
Pairs = Annotated[
    str | None, typer.Option(help="URL of the pairs of the paired model; default this coupling's in the store.")
]
Engine = Annotated[
    Literal["auto", "cpu", "cuda", "dense"], typer.Option(help="Coupling engine; dense is the slow oracle.")
]
Format = Annotated[Literal["zarr", "parquet"], typer.Option(help="File format of the pairs.", rich_help_panel=_WHERE)]
ShardSize = Annotated[
    int | None,
    typer.Option(
        min=1, help="Rows a shard; never changes the pairs; default about two seconds' work.", rich_help_panel=_WHERE
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(min=1, help="Shards coupled at once; default what the CPUs allow.", rich_help_panel=_WHERE),
]
Store = Annotated[
    str | None,
    typer.Option(help="Folder or fsspec URL of the pairs; default PAIRFLOW_STORE.", rich_help_panel=_WHERE),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.", rich_help_panel=_WHERE)]


REFERENCE = (
    "A checkpoint's folder, a training's fingerprint (or its first digits), an MLflow model id m-…, or a registered "
    "model: pairflow-qm9@champion, pairflow-qm9/3."
)
METHODS_METAVAR = "NAME,NAME,…"
METHODS_HELP = "Methods to compare: mdlm, udlm or pairflow, the last two also with +dcd or +redi."
Methods = Annotated[str, typer.Option(metavar=METHODS_METAVAR, help=METHODS_HELP)]
TrainingSeeds = Annotated[
    str | None,
    typer.Option(
        metavar="SEED,SEED,…", help="Seeds of training, such as 0,1,2; scores are mean and deviation over them."
    ),
]


def seeds(text: str | None) -> tuple[int, ...] | None:
    """`"0,1,2"` as numbers.

    Raises:
        SpecError: something else.
    """
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise SpecError(f"--training-seeds {text}: expected whole numbers from 0, separated by commas, such as 0,1,2")
    return tuple(map(int, parts))


def store_url(store: str | None) -> str | None:
    """The store that was named, absolute."""
    return None if store is None else absolute_url(store)


def reference(model: str) -> str:
    """A reference to a model that a job can resolve, which runs in another working directory."""
    folder = Path(model).expanduser()
    return str(folder.absolute()) if folder.is_dir() else model


def takes_dataset(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command that wants `dataset: DatasetSpec` the options that make one."""

    @functools.wraps(command)
    def with_options(**given: Any) -> None:
        fields = {name: given.pop(name) for name in _DATASET_OPTIONS}
        command(dataset=_dataset_spec(name=fields.pop("dataset"), **fields), **given)

    shown = []
    for name, (annotation, default) in _DATASET_OPTIONS.items():
        shown.append(inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation))
    for parameter in inspect.signature(command).parameters.values():
        if parameter.name != "dataset":
            shown.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))
    with_options.__signature__ = inspect.Signature(shown)  # type: ignore[attr-defined]
    with_options.__annotations__ = {each.name: each.annotation for each in shown}
    return with_options


def _option(kind: Any, text: str, **more: Any) -> Any:
    return Annotated[kind, typer.Option(help=text, rich_help_panel=_DATA, **more)]


# Name -> (annotation, default); the names are the fields of DatasetSpec, but for `dataset`, its `name`.
_DATASET_OPTIONS: dict[str, tuple[Any, Any]] = {
    "dataset": (_option(DatasetName, "Which dataset; `pairflow datasets` lists them."), ...),
    "path": (
        _option(
            str | None,
            "For 'tokens': your .npy, .npz, .parquet or .zarr of integers [M, D]; 'smiles': .smi; or a folder.",
        ),
        None,
    ),
    "vocab_size": (_option(int | None, "For 'tokens': K, the number of tokens.", min=2), None),
    "vocab_path": (_option(str | None, "For 'tokens': a JSON list of K strings, in place of K."), None),
    "max_rows": (_option(int | None, "Keep a seeded random subset of this size.", min=1), None),
    "max_length": (_option(int | None, "Molecules: longest token row D that is kept.", min=1), None),
    "holdout": (_option(float | None, "Fraction of rows held out, above 0 and below 1."), None),
    "split_seed": (_option(int, "Seed of the split and of the subset.", min=0), 0),
}


def _dataset_spec(**fields: Any) -> DatasetSpec:
    """The dataset that the options name; a path is made absolute, since jobs run elsewhere.

    Your own array is read here once: what is wrong with it is said before any server starts.

    Raises:
        SpecError: options that do not fit together.
        DatasetError: a file that is not there, or holds no token rows.
    """
    for name in ("path", "vocab_path"):
        if fields.get(name) is not None:
            fields[name] = absolute_url(fields[name])
    spec = parse(DatasetSpec, fields)
    if spec.name == "tokens":
        from pairflow import datasets

        datasets.load(spec, progress=False).part("train")
    return spec


def assignments(texts: list[str] | None) -> dict[str, Any]:
    """`["training.num_steps=50"]` as `{"training.num_steps": 50}`; values are JSON, or else plain text.

    Raises:
        SpecError: a text without a name or an equals sign.
    """
    parsed: dict[str, Any] = {}
    for text in texts or []:
        name, separator, value = text.partition("=")
        if not separator or not name:
            raise SpecError(f"--set {text}: expected GROUP.FIELD=VALUE, such as training.num_steps=50")
        try:
            parsed[name.strip()] = json.loads(value)
        except ValueError:
            parsed[name.strip()] = value
    return parsed
