"""Versions of registered models, as MLflow's registry has them."""

import contextlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion, RegisteredModel
from mlflow.exceptions import MlflowException

from flows.lineage import tags as tag
from flows.lineage.errors import LineageError
from flows.lineage.search import all_versions
from flows.lineage.waiting import or_none, without_password

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_MODEL_ID = re.compile(r"m-[0-9a-f]{32}")
_NUMBER = re.compile(r"[0-9]{1,9}")
_SHOWN = 20  # names or numbers in a message


@dataclass(frozen=True)
class Version:
    """A version of a registered model, as it was when it was asked for.

    Attributes:
        name: of the registered model, such as "pairflow-qm9".
        number: of the version, from 1.
        model_id: of the logged model m-… that it is; "" where it is none.
        run_id: of the run that logged it; "" where MLflow does not know.
        aliases: that stand for it.
        tags: by name.
        description: the text of its page, in markdown.
    """

    name: str
    number: int
    model_id: str
    run_id: str
    aliases: tuple[str, ...]
    tags: Mapping[str, str]
    description: str

    @classmethod
    def of(cls, found: ModelVersion) -> "Version":
        """A version that MLflow's client returned."""
        return cls(
            name=found.name,
            number=int(found.version),
            model_id=model_id_of(found),
            run_id=found.run_id or "",
            aliases=tuple(sorted(found.aliases)),
            tags=dict(found.tags),
            description=found.description or "",
        )


def model_id_of(version: ModelVersion) -> str:
    """The logged model m-… that a version is, or "": a registry in SQL keeps it in the address of its files alone."""
    ids = _MODEL_ID.findall(version.source or "")
    return str(version.model_id or (ids[-1] if ids else ""))


def name_of(dataset: str) -> str:
    """The registered model of a dataset.

    Raises:
        LineageError: a name with other characters than letters, digits, '.', '_' and '-'.
    """
    return checked(f"pairflow-{dataset}")


def checked(name: str) -> str:
    """A registered model's name, if it can be one.

    Raises:
        LineageError: it cannot.
    """
    if not _NAME.fullmatch(name):
        raise LineageError(
            f"'{name}' is no name of a registered model: expected up to 128 letters, digits, '.', '_' and '-', such as "
            "pairflow-qm9"
        )
    return name


class Versions:
    """The registered models that an MLflow has; reads, and changes nothing."""

    def __init__(self, client: MlflowClient) -> None:
        self._client = client
        self._where = without_password(str(client.tracking_uri))

    def at(self, name: str, alias_or_number: str) -> Version:
        """The version that an alias or a number stands for.

        Raises:
            LineageError: there is no such model, alias or version; the message names those that there are.
        """
        with self.asking():
            model = self.model(name)
            if model is None:
                known = sorted(each.name for each in self._client.search_registered_models(max_results=_SHOWN))
                raise LineageError(
                    f"MLflow at {self._where} has no registered model '{name}'; it has "
                    f"{', '.join(known) or 'none'}. `pairflow register` makes one"
                )
            number = alias_or_number
            if not _NUMBER.fullmatch(number):
                if number not in model.aliases:
                    raise LineageError(f"{name} has no alias '{number}'; it has {self._shown(model)}")
                number = str(model.aliases[number])
            found = self.version(name, int(number))
            if found is None:
                raise LineageError(f"{name} has no version {number}; it has {self._shown(model)}")
            return found

    def find(self, name: str, alias: str) -> Version | None:
        """The version that an alias stands for, or None where there is none.

        Raises:
            LineageError: MLflow does not answer.
        """
        with self.asking():
            model = self.model(name)
            number = None if model is None else model.aliases.get(alias)
            return None if number is None else self.version(name, int(number))

    def of_model(self, name: str, model_id: str) -> Version | None:
        """The first version that is this logged model, or None."""
        with self.asking():
            found = (Version.of(each) for each in all_versions(self._client, checked(name)))
            same = sorted(each.number for each in found if each.model_id == model_id)
            return self.version(name, same[0]) if same else None

    def model(self, name: str) -> RegisteredModel | None:
        """The registered model of that name, or None.

        Raises:
            LineageError: somebody gave it another name: a second one would begin anew, without champion and scores.
        """
        found = or_none(lambda: self._client.get_registered_model(checked(name)))
        if found is None:
            begun_so = f"tags.`{tag.REGISTERED_AS}` = '{name}'"
            for renamed in self._client.search_registered_models(begun_so, max_results=1):
                raise LineageError(
                    f"the registered model {name} is called {renamed.name!r} in MLflow at {self._where} now; rename it "
                    f"back on its page there, or take its tag {tag.REGISTERED_AS} away to begin {name} anew"
                )
        return found

    def version(self, name: str, number: int) -> Version | None:
        """The version of that number, or None."""
        return or_none(lambda: Version.of(self._client.get_model_version(name, str(number))))

    @contextlib.contextmanager
    def asking(self) -> Iterator[None]:
        """MLflow's errors as one of ours."""
        try:
            yield
        except MlflowException as error:
            raise LineageError(
                f"MLflow at {self._where} did not do what the registry needs: {without_password(str(error))}; see "
                "its log, correct MLFLOW_TRACKING_URI, and run this again"
            ) from error

    def _shown(self, model: RegisteredModel) -> str:
        """The aliases and versions of a model, for messages."""
        aliases = ", ".join(f"{alias} (version {number})" for alias, number in sorted(model.aliases.items()))
        numbers = sorted(int(each.version) for each in all_versions(self._client, model.name))
        return f"{aliases or 'no alias'}; versions {', '.join(map(str, numbers[-_SHOWN:])) or 'none'}"
