"""`pairflow retrain`: one retraining from the command line, as the schedule starts it."""

from typing import Annotated

import typer

from flows.command import options as opt
from flows.command.running import run_flow
from flows.parameters import with_overrides
from flows.recipes import methods as known
from flows.retrain_parameters import RetrainParameters
from pairflow.spec import DatasetSpec, parse


def add_to(app: typer.Typer) -> None:
    """Adds the command to the command line."""
    app.command()(opt.takes_dataset(retrain))


def retrain(
    dataset: DatasetSpec,
    method: Annotated[
        str, typer.Option(help="mdlm, udlm or pairflow, the last two also with +dcd or +redi.")
    ] = "pairflow",
    steps: Annotated[
        int, typer.Option(min=1, max=1024, help="Sampling steps that you can afford: models are compared there.")
    ] = 4,
    trials: Annotated[int, typer.Option(min=2, max=100, help="Trials of both models, with the same seeds.")] = 5,
    num_samples: Annotated[int | None, typer.Option(min=2, help="Samples a trial; default by preset.")] = None,
    margin: Annotated[
        float, typer.Option(min=0, max=10, help="By which fraction of the champion's score it must be better.")
    ] = 0.01,
    confidence: Annotated[float, typer.Option(help="How sure that must be, 0.5 to below 1.")] = 0.95,
    name: Annotated[
        str | None, typer.Option(help="The registered model is pairflow-NAME; default the dataset's name.")
    ] = None,
    extend: Annotated[
        bool,
        typer.Option("--extend", help="Couple new rows only, the champion's pairs serve for the others. Approximate."),
    ] = False,
    preset: opt.Preset = "demo",
    set: opt.Set = None,
    engine: opt.Engine = "auto",
    store: opt.Store = None,
    format: opt.Format = "zarr",
    shard_size: opt.ShardSize = None,
    workers: opt.Workers = None,
    json: opt.Json = False,
) -> None:
    """Train anew if data or settings have changed; what is better than the champion beyond chance takes its place."""
    fields = {
        "dataset": dataset,
        "name": name,
        "method": known.find(method).name,
        "extend": extend,
        "preset": preset,
        "steps": steps,
        "trials": trials,
        "num_samples": num_samples,
        "margin": margin,
        "confidence": confidence,
        "engine": engine,
        "store": opt.store_url(store),
        "format": format,
        "shard_size": shard_size,
        "num_workers": workers,
    }
    result = run_flow("retrain", with_overrides(parse(RetrainParameters, fields), opt.assignments(set)))
    if json:
        print(result.model_dump_json())
        return
    print(f"skipped: {result.sentence}" if result.outcome == "skipped" else result.sentence)
    if result.evaluation is not None:
        print(f"comparison figure: {result.evaluation.figure}")
    if result.champion is not None:
        print(f"models:/{result.name}@champion is version {result.champion}")
