"""The commands that train, distil, sample and compare models."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from flows.command import options as opt
from flows.command.running import run_flow
from flows.home.settings import Settings, absolute_url
from flows.parameters import (
    DistillParameters,
    EvaluateParameters,
    PipelineParameters,
    StudyParameters,
    TrainParameters,
    with_overrides,
)
from flows.recipes import methods as known
from flows.recipes.methods import METHODS, BaseName, RefinedName
from flows.results import TrainResult
from pairflow.spec import DatasetSpec, SamplingSpec, parse

_ALL = ",".join(METHODS)


def add_to(app: typer.Typer) -> None:
    """Adds the commands to the command line."""
    for command in (train, distill, evaluate, pipeline, study):
        app.command()(opt.takes_dataset(command))
    app.command()(sample)


def train(
    dataset: DatasetSpec,
    method: Annotated[
        BaseName, typer.Option(help="pairflow: on stored pairs. udlm: fresh uniform sources. mdlm: masks.")
    ] = "pairflow",
    preset: opt.Preset = "demo",
    set: opt.Set = None,
    pairs: opt.Pairs = None,
    engine: opt.Engine = "auto",
    store: opt.Store = None,
    json: opt.Json = False,
) -> None:
    """Train a denoiser; prints the folder of its checkpoint."""
    parameters = TrainParameters(
        dataset=dataset,
        method=method,
        preset=preset,
        pairs=None if pairs is None else absolute_url(pairs),
        engine=engine,
        store=opt.store_url(store),
    )
    _show(run_flow("train", with_overrides(parameters, opt.assignments(set))), dataset, as_json=json)


def distill(
    dataset: DatasetSpec,
    method: Annotated[
        RefinedName, typer.Option(help="+dcd: consistency distillation. +redi: training on the model's own pairs.")
    ],
    model: Annotated[
        str | None,
        typer.Option(metavar="REF", help=f"Model to start from. {opt.REFERENCE} Default the base of these settings."),
    ] = None,
    preset: opt.Preset = "demo",
    set: opt.Set = None,
    pairs: opt.Pairs = None,
    engine: opt.Engine = "auto",
    store: opt.Store = None,
    json: opt.Json = False,
) -> None:
    """Distil a trained model into one of few steps; prints the folder of its checkpoint."""
    parameters = DistillParameters(
        dataset=dataset,
        method=method,
        base_model=None if model is None else opt.reference(model),
        preset=preset,
        pairs=None if pairs is None else absolute_url(pairs),
        engine=engine,
        store=opt.store_url(store),
    )
    _show(run_flow("distill", with_overrides(parameters, opt.assignments(set))), dataset, as_json=json)


def evaluate(
    dataset: DatasetSpec,
    methods: Annotated[
        str | None,
        typer.Option(
            metavar=opt.METHODS_METAVAR, help=f"{opt.METHODS_HELP} Default udlm,pairflow; beside --model none."
        ),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(metavar="REF", help=f"One more model to evaluate; may be repeated. {opt.REFERENCE}"),
    ] = None,
    training_seeds: opt.TrainingSeeds = None,
    preset: opt.Preset = "demo",
    set: opt.Set = None,
    pairs: opt.Pairs = None,
    engine: opt.Engine = "auto",
    store: opt.Store = None,
    json: opt.Json = False,
) -> None:
    """Compare trained models by the number of sampling steps; prints a table and where the pictures lie."""
    if methods is None:
        methods = "" if model else "udlm,pairflow"
    parameters = EvaluateParameters(
        dataset=dataset,
        preset=preset,
        methods=known.parse(methods) if methods else (),
        models=tuple(map(opt.reference, model or ())),
        training_seeds=opt.seeds(training_seeds),
        pairs=None if pairs is None else absolute_url(pairs),
        engine=engine,
        store=opt.store_url(store),
    )
    result = run_flow("evaluate", with_overrides(parameters, opt.assignments(set)))
    if json:
        print(result.model_dump_json())
    else:
        from flows.pages import terminal

        terminal.scores(result)


def pipeline(
    dataset: DatasetSpec,
    preset: opt.Preset = "demo",
    set: opt.Set = None,
    engine: opt.Engine = "auto",
    store: opt.Store = None,
    format: opt.Format = "zarr",
    shard_size: opt.ShardSize = None,
    workers: opt.Workers = None,
    json: opt.Json = False,
) -> None:
    """Run it all: pair, train with and without pairs, evaluate both, report."""
    parameters = PipelineParameters(
        dataset=dataset,
        preset=preset,
        engine=engine,
        store=opt.store_url(store),
        format=format,
        shard_size=shard_size,
        num_workers=workers,
    )
    _compare("pipeline", with_overrides(parameters, opt.assignments(set)), as_json=json)


def study(
    dataset: DatasetSpec,
    methods: opt.Methods = _ALL,
    training_seeds: opt.TrainingSeeds = None,
    preset: opt.Preset = "demo",
    set: opt.Set = None,
    engine: opt.Engine = "auto",
    store: opt.Store = None,
    format: opt.Format = "zarr",
    shard_size: opt.ShardSize = None,
    workers: opt.Workers = None,
    json: opt.Json = False,
) -> None:
    """Run the paper's comparison: every method trained, refined and evaluated; one table, one figure."""
    parameters = StudyParameters(
        dataset=dataset,
        methods=known.parse(methods),
        training_seeds=opt.seeds(training_seeds),
        preset=preset,
        engine=engine,
        store=opt.store_url(store),
        format=format,
        shard_size=shard_size,
        num_workers=workers,
    )
    _compare("study", with_overrides(parameters, opt.assignments(set)), as_json=json)


def sample(
    model: Annotated[str, typer.Option(metavar="REF", help=opt.REFERENCE)],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="File: .smi or .txt (SMILES lines), .png (a grid), .npy (tokens).")
    ],
    num_samples: Annotated[int, typer.Option("--num-samples", "-n", min=1, help="Samples to draw.")] = 16,
    steps: Annotated[int, typer.Option(min=1, max=1024, help="Sampling steps.")] = 4,
    seed: Annotated[int, typer.Option(min=0, help="Sample i depends on the seed and i alone.")] = 0,
    sampler: Annotated[Literal["ancestral", "euler", "psi"], typer.Option(help="Step rule.")] = "ancestral",
    final_step: Annotated[
        Literal["ancestral", "greedy"], typer.Option(help="greedy: one more network call, and its argmax.")
    ] = "greedy",
    top_p: Annotated[float, typer.Option(help="Nucleus, above 0; 1 draws from all tokens.")] = 1.0,
    corrections: Annotated[
        float | None, typer.Option(help="For psi: how often a token is drawn anew on the way, on average.")
    ] = None,
    json: opt.Json = False,
) -> None:
    """Draw samples from a trained model into a file; needs no server."""
    from flows.command import sample as drawing

    chosen = {"sampler": sampler, "final_step": final_step, "top_p": top_p, "corrections": corrections}
    done = drawing.sample_to_file(
        model, out, parse(SamplingSpec, chosen), num_samples=num_samples, num_steps=steps, seed=seed
    )
    if json:
        print(done.model_dump_json())
    else:
        print(f"{done.num_samples:,} samples at {done.network_calls:.3g} network calls each, of {done.checkpoint}")
        print(done.out)


def _show(result: TrainResult, dataset: DatasetSpec, *, as_json: bool) -> None:
    if as_json:
        print(result.model_dump_json())
        return
    state = "was trained already" if result.skipped else f"trained in {result.seconds:,.0f} s"
    print(f"{METHODS[result.method].label} model of {dataset.name} {state}; loss {result.loss:.3f} nats a token")
    print(result.checkpoint)


def _compare(flow: str, parameters: PipelineParameters | StudyParameters, *, as_json: bool) -> None:
    result = run_flow(flow, parameters)
    if as_json:
        print(result.model_dump_json())
        return
    from flows.pages import terminal

    terminal.report(result, Settings.read())
