"""`pairflow presets`: the named settings, and all that one of them says about a dataset."""

import json as json_module
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from flows.command import options as opt
from flows.parameters import StudyParameters
from flows.recipes.changes import settable
from pairflow.errors import SpecError
from pairflow.presets import PRESETS, preset
from pairflow.spec import DatasetName, PresetName, in_full

_WHAT = {
    "demo": "minutes on two cores: small networks, few steps",
    "laptop": "hours on a few cores: trained until a comparison shows",
    "paper": "the authors' settings: GPUs and days",
    "few-step": "as long as demo: the loss, sources and end that need the fewest network calls",
}


def add_to(app: typer.Typer) -> None:
    """Adds the command to the command line."""
    app.command()(presets)


def presets(
    name: Annotated[PresetName | None, typer.Option("--preset", help="Show all settings of this one.")] = None,
    dataset: Annotated[DatasetName | None, typer.Option(help="For this dataset.")] = None,
    json: opt.Json = False,
) -> None:
    """List the presets, or all settings of one for a dataset, by the names that `--set` knows."""
    if (name is None) != (dataset is None):
        given, other = ("--preset", "--dataset") if dataset is None else ("--dataset", "--preset")
        raise SpecError(
            f"{given} alone does not say which settings; add {other}, or leave both out to see what there is"
        )
    if name is not None and dataset is not None:
        _show_settings(name, dataset, as_json=json)
    elif json:
        print(json_module.dumps({each: list(by_dataset) for each, by_dataset in PRESETS.items()}))
    else:
        table = Table("preset", "what", "datasets")
        for each, by_dataset in PRESETS.items():
            table.add_row(each, _WHAT.get(each, ""), ", ".join(by_dataset))
        Console().print(table)
        print("pairflow presets --preset demo --dataset nci   shows every setting")


def _show_settings(name: PresetName, dataset: DatasetName, *, as_json: bool) -> None:
    document = in_full(preset(name, dataset))
    if as_json:
        print(json_module.dumps({"preset": name, "dataset": dataset, "settings": document}))
        return
    changeable = settable(StudyParameters)
    table = Table("setting", "value", title=f"{name} for {dataset}", title_justify="left")
    fixed = []
    for setting, value in _flat(document):
        if setting in changeable:
            table.add_row(setting, _text(value))
        else:
            fixed.append(setting)
    Console(highlight=False).print(table)
    print("Change one with --set, such as --set training.num_steps=50.")
    if fixed:
        print("The method decides about " + ", ".join(fixed) + ".")


def _flat(document: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in document.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _text(value: Any) -> str:
    """As `--set` takes it."""
    return value if isinstance(value, str) else json_module.dumps(value)
