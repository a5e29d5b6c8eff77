"""The commands that train, distil, sample, compare, retrain and export models."""

import json as json_module
import re
from pathlib import Path
from typing import Annotated, Any

import typer

from flows.command import options as opt
from flows.home import references
from flows.home.settings import Settings
from flows.parameters import (
    DistillParameters,
    EvaluateParameters,
    PipelineParameters,
    RetrainParameters,
    StudyParameters,
    TrainParameters,
)
from flows.recipes.methods import METHODS
from flows.results import ComparisonResult, EvaluateResult, RetrainResult, TrainResult
from pairflow.errors import SpecError
from pairflow.spec import SamplingSpec, parse


def add_to(app: typer.Typer) -> None:
    """Adds the commands to the command line."""
    opt.flow_command(app, TrainParameters)(train)
    opt.flow_command(app, DistillParameters, required=("method",))(distill)
    opt.flow_command(app, EvaluateParameters, adjust=_models_alone)(evaluate)
    opt.flow_command(app, PipelineParameters)(pipeline)
    opt.flow_command(app, StudyParameters)(study)
    opt.flow_command(app, RetrainParameters)(retrain)
    app.command()(opt.takes(SamplingSpec, left_open=("sampler", "final_step"))(sample))
    app.command()(export_model)


def train(result: TrainResult, parameters: TrainParameters | DistillParameters) -> None:
    """Train a denoiser; prints the folder of its checkpoint."""
    state = "was trained already" if result.skipped else f"trained in {result.seconds:,.0f} s"
    model = f"{METHODS[result.method].label} model of {parameters.dataset.name}"
    print(f"{model} {state}; loss {result.loss:.3f} nats a token")
    print(result.checkpoint)


def distill(result: TrainResult, parameters: DistillParameters) -> None:
    """Distil a trained model into one of few steps; prints the folder of its checkpoint."""
    train(result, parameters)


def evaluate(result: EvaluateResult, parameters: EvaluateParameters) -> None:
    """Compare trained models by the number of sampling steps; prints a table and where the pictures lie."""
    from flows.pages import terminal

    terminal.scores(result)


def _models_alone(given: dict[str, Any]) -> None:
    """Beside models that are named, no methods are compared but those that are named too."""
    if given.get("model") and "methods" not in given:
        given["methods"] = ""


def pipeline(result: ComparisonResult, parameters: PipelineParameters | StudyParameters) -> None:
    """Run it all: pair, train with and without pairs, evaluate both, report."""
    from flows.pages import terminal

    terminal.report(result, Settings.read())


def study(result: ComparisonResult, parameters: StudyParameters) -> None:
    """Run the paper's comparison: every method trained, refined and evaluated; one table, one figure."""
    pipeline(result, parameters)


def retrain(result: RetrainResult, parameters: RetrainParameters) -> None:
    """Train anew if data or settings changed; what beats the champion beyond chance takes its place."""
    print(f"skipped: {result.sentence}" if result.outcome == "skipped" else result.sentence)
    if result.evaluation is not None:
        print(f"comparison figure: {result.evaluation.figure}")
    if result.champion is not None:
        print(f"models:/{result.name}@champion is version {result.champion}")


def sample(
    model: Annotated[str, typer.Option(metavar="REF", help=references.as_help(references.MODEL))],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="File: .smi or .txt (SMILES lines), .png (a grid), .npy (tokens).")
    ],
    num_samples: Annotated[int, typer.Option("--num-samples", "-n", min=1, help="Samples to draw.")] = 16,
    steps: Annotated[
        int, typer.Option(min=0, max=1024, help="Sampling steps; 0: a greedy end alone, one network call.")
    ] = 4,
    seed: Annotated[int, typer.Option(min=0, help="Sample i depends on the seed and i alone.")] = 0,
    json: opt.Json = False,
    **sampling: Any,
) -> None:
    """Draw samples from a trained model into a file; needs no server."""
    from flows.command import sample as drawing

    chosen = {name: value for name, value in sampling.items() if value is not None}
    parse(SamplingSpec, chosen)
    if not steps and (end := chosen.get("final_step", "greedy")) != "greedy":
        raise SpecError(f"--steps 0 is a greedy end alone, got --final-step {end}; use greedy, or 1 step or more")
    done = drawing.sample_to_file(model, out, chosen, num_samples=num_samples, num_steps=steps, seed=seed)
    if json:
        print(done.model_dump_json())
    else:
        print(f"{done.num_samples:,} samples at {done.network_calls:.3g} network calls each, of {done.checkpoint}")
        print(done.out)


def export_model(
    model: Annotated[str, typer.Argument(metavar="REF", help=references.as_help(references.MODEL))],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to make, or an empty one.")],
    license_name: Annotated[
        str | None, typer.Option("--license", help="Of the weights, as model hubs name it, such as cc-by-4.0.")
    ] = None,
    json: opt.Json = False,
) -> None:
    """Write a model to a folder that a model hub takes as it is: weights, settings, and a page with its scores."""
    from flows.command.export_model import export_to_folder

    if license_name is not None and not re.fullmatch(r"[a-z0-9][a-z0-9.-]{0,60}", license_name):
        raise SpecError(f"--license {license_name!r}: expected a hub's name of it, such as apache-2.0 or cc-by-4.0")
    made = export_to_folder(model, folder, license_name=license_name)
    print(json_module.dumps({"folder": str(made)}) if json else made)
