"""Someone who has nothing but what a model's requirements name: loads models, asks them for samples, prints them.

`python -I model_user.py requirements.txt`, with {uri: [request, …]} on standard input, prints {uri: [answer, …]}; a
request that is refused is answered by the error's type and text. Other packages cannot be imported.
"""

import json
import re
import sys
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement


def _key(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _installed(requirements: Iterable[Requirement]) -> set[str]:
    """The distributions that pip would have installed for these requirements."""
    found: set[tuple[str, str]] = set()
    waiting = [(requirement.name, extra) for requirement in requirements for extra in ("", *requirement.extras)]
    while waiting:
        name, extra = waiting.pop()
        if (_key(name), extra) in found:
            continue
        found.add((_key(name), extra))
        try:
            needs = [Requirement(text) for text in metadata.requires(name) or []]
        except metadata.PackageNotFoundError:
            continue
        wanted = [need for need in needs if need.marker is None or need.marker.evaluate({"extra": extra})]
        waiting += [(need.name, more) for need in wanted for more in ("", *need.extras)]
    return {name for name, _ in found}


class _OnlyThese:
    """An importer that finds what another one does, but for the modules of other distributions than some."""

    def __init__(self, importer: Any, owners: Mapping[str, list[str]], distributions: set[str]) -> None:
        self._importer = importer
        self._owners = owners
        self._distributions = distributions

    def __getattr__(self, name: str) -> Any:
        return getattr(self._importer, name)  # importlib.metadata asks them too

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        top = name.partition(".")[0]
        owners = {_key(owner) for owner in self._owners.get(top, [])}
        if owners and not owners & self._distributions and top != "pairflow":  # pairflow comes with the model
            return None
        return self._importer.find_spec(name, path, target)


def _answer(model: Any, request: dict[str, Any]) -> Any:
    try:
        samples = model.predict(request)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return {"smiles": list(samples["smiles"])} if hasattr(samples, "columns") else samples.tolist()


def _main(requirements: Path) -> None:
    lines = [Requirement(line) for line in requirements.read_text().splitlines()]
    owners, installed = metadata.packages_distributions(), _installed(lines)
    sys.meta_path[:] = [_OnlyThese(importer, owners, installed) for importer in sys.meta_path]
    import mlflow.pyfunc

    answers = {}
    for uri, requests in json.load(sys.stdin).items():
        model = mlflow.pyfunc.load_model(uri)
        answers[uri] = [_answer(model, request) for request in requests]
    code = sys.modules["pairflow"].__file__
    unnamed = sorted({"flows", "storage", "prefect", "ray", "zarr", "rdkit", "numba"} & set(sys.modules))
    print(json.dumps({"answers": answers, "library": code, "unnamed": unnamed}))


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
