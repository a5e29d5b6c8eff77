"""What is wrong with a request, as far as it can be known at once: said before any server starts, in the same words.

By the request itself, the names of files and what stands at their beginning, and the store. It computes nothing,
downloads nothing and asks no server.
"""

from typing import Any

from flows.cluster.protocol import check_store
from flows.home import references
from flows.home.places import absolute_url
from flows.home.references import Folder, Other, Pretrained
from flows.home.settings import Settings
from flows.lineage import models
from flows.parameters import FlowParameters
from flows.recipes.changes import resolve


def check(parameters: FlowParameters) -> None:
    """Raises what the flow of these parameters would end with.

    Raises:
        SpecError: the preset has no settings for the dataset, or a setting does not fit another.
        DatasetError: your own data is not there, is no such data, or has no such column.
        StoreError: the store cannot be written, or pairs that are named are not there.
        CheckpointError: a model that is named by its folder is not there.
    """
    import storage
    from pairflow import datasets

    of_preset: Any = parameters
    if "preset" in type(parameters).model_fields:
        resolve(of_preset)
    settings = Settings.read()
    datasets.check(parameters.dataset, data_dir=settings.data_dir)
    for name in ("pairs", "extend"):
        if isinstance(url := getattr(parameters, name, None), str):
            storage.open_pairs(url)
    named = (getattr(parameters, "base_model", None), *getattr(parameters, "models", ()))
    for reference in named:
        parsed = None if reference is None else references.parse(reference)
        # A cluster elsewhere may see a folder that is not here; what MLflow has is asked of it by the job.
        if isinstance(parsed, Folder | Pretrained) or (isinstance(parsed, Other) and settings.ray_address is None):
            models.resolve(str(reference), settings)
    check_store(settings.store if parameters.store is None else absolute_url(parameters.store))
