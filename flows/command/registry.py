"""`pairflow register` and `rollback`: which model is in use, decided by hand."""

import json as json_module
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Literal, get_args

import typer

from flows.command import options as opt
from flows.home import references
from flows.home.environment import prepare_environment
from flows.home.settings import Settings
from pairflow.errors import CheckpointError
from pairflow.spec import DatasetName

if TYPE_CHECKING:
    from flows.lineage.registry import Registry


_BY_HAND = "Registered by hand with `pairflow register`."


def add_to(app: typer.Typer) -> None:
    """Adds the commands to the command line."""
    app.command()(register)
    app.command()(rollback)


def register(
    model: Annotated[str, typer.Argument(metavar="REF", help=references.as_help(references.MODEL))],
    alias: Annotated[
        Literal["champion", "challenger"] | None,
        typer.Option("--as", help="champion: in use from now on; the one of before is then 'previous'."),
    ] = None,
    reason: Annotated[str, typer.Option(help="Text of the version's page, in markdown.")] = _BY_HAND,
    json: opt.Json = False,
) -> None:
    """Make a trained model a version of `pairflow-<dataset>`, after it was loaded back and sampled once."""
    from flows.lineage import models
    from flows.lineage import tags as tag
    from pairflow.data_card import DataCard
    from pairflow.datasets.remote import source_name

    settings = Settings.read()
    prepare_environment(settings)
    found = models.resolve(model, settings)
    card = DataCard.read(found.checkpoint)
    if found.mlflow_model_id is None or card is None:
        lacks = "an id in MLflow" if card is not None else "a data.json, which says what its tokens mean"
        raise CheckpointError(
            f"{found.place} has not {lacks}, so it cannot be registered; name a model that `pairflow train` or "
            "`distill` has logged and finished"
        )
    registry = _registry(settings)
    given = reason != _BY_HAND
    reason = registry.with_scores(reason, found.mlflow_model_id)
    # So that a retraining on data in another place is refused, as after one of its own.
    made_of = {} if card.dataset.path is None else {tag.SOURCE: source_name(card.dataset.path)}
    version = registry.register(card.dataset.name, found.mlflow_model_id, description=reason, tags=made_of)
    if alias == "champion":
        registry.promote(version, reason)
    elif alias == "challenger":
        registry.challenge(version, reason)
    elif given:  # it may have been a version before
        registry.describe(version, reason)
    version = registry.at(version.name, str(version.number))
    if json:
        print(json_module.dumps(asdict(version)))
    else:
        aliases = f", {' and '.join(version.aliases)}" if version.aliases else ""
        print(f"{version.name} version {version.number}{aliases}: model {version.model_id}")


def rollback(
    name: Annotated[str, typer.Argument(help="A dataset, such as qm9, or a registered model, such as pairflow-qm9.")],
    reason: Annotated[str, typer.Option(help="Is noted on the pages of both versions.")] = "by `pairflow rollback`",
    json: opt.Json = False,
) -> None:
    """Put the champion of before back in use; what was the champion is then 'previous'."""
    from flows.lineage.versions import name_of

    settings = Settings.read()
    prepare_environment(settings)
    registry = _registry(settings)
    champion, previous = registry.rollback(name_of(name) if name in get_args(DatasetName) else name, reason)
    if json:
        print(json_module.dumps({"champion": asdict(champion), "previous": asdict(previous)}))
    else:
        print(
            f"{champion.name}: version {champion.number} is the champion again, in place of version {previous.number}"
        )


def _registry(settings: Settings) -> "Registry":
    from flows.lineage.registry import Registry
    from flows.lineage.tracking import Lineage

    return Registry(Lineage(settings))
