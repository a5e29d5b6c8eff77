"""The registry: which version of `pairflow-<dataset>` is in use, which was before, and which asks to be next.

An alias stands for one version, so there is never more than one champion, and every write below leaves one where there
was one. MLflow has no transactions: of two promotions at the same time the later one's champion stays, and `previous`
is a champion of before, or that champion itself.
"""

import json
from collections.abc import Mapping

from mlflow.entities import LoggedModel
from mlflow.exceptions import MlflowException

from flows.lineage import score_table, trial
from flows.lineage import tags as tag
from flows.lineage.errors import LineageError
from flows.lineage.tracking import Lineage
from flows.lineage.versions import Version, Versions, name_of

CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous"
_NOTE = "> "  # how a line about a rollback begins, above the text of the promotion


class Registry(Versions):
    """The registered models of the MLflow that `lineage` is connected to."""

    def __init__(self, lineage: Lineage) -> None:
        super().__init__(lineage.client)

    def register(self, dataset: str, model_id: str, *, description: str, tags: Mapping[str, str]) -> Version:
        """A logged model as a version of its dataset's registered model; one that is there already is found.

        A new one is loaded back first, as anyone would, and sampled once.

        Args:
            dataset: name of the dataset.
            model_id: of the logged model, m-….
            description: the text of the version's page, in markdown.
            tags: of the version; of one that is there, those that it has not.

        Raises:
            LineageError: MLflow does not hold it, or it cannot be loaded or sampled.
        """
        name = name_of(dataset)
        with self.asking():
            logged = self._client.get_logged_model(model_id)
            if (there := self.of_model(name, model_id)) is not None:
                self.tag(there, {key: value for key, value in tags.items() if key not in there.tags})
                return self.at(name, str(there.number))
            trial.sample_once(model_id, self._client.tracking_uri)
            if (model := self.model(name)) is None:
                self._make(name, dataset)
            elif tag.REGISTERED_AS not in model.tags:  # made by an earlier release
                self._client.set_registered_model_tag(name, tag.REGISTERED_AS, name)
            made = self._client.create_model_version(
                name,
                logged.artifact_location,  # and not models:/…, which a store resolves by the process's own tracking URI
                run_id=logged.source_run_id,
                tags=dict(tags),
                description=description,
                model_id=model_id,
                await_creation_for=0,  # it is there at once, and MLflow would say that it waits
            )
            self._link(model_id, name, int(made.version))
            self.tag(self.at(name, str(made.version)), self._scores(logged))
            return self.at(name, str(made.version))

    def with_scores(self, reason: str, model_id: str) -> str:
        """A reason with the scores that are known of a model by now, for the page of its version.

        Raises:
            LineageError: MLflow does not hold it.
        """
        with self.asking():
            logged = self._client.get_logged_model(model_id)
        known = score_table.in_words(logged.tags.get(tag.HEADLINE, ""), _metrics(logged))
        return f"{reason}\n\n{known}\n" if known else reason

    def _scores(self, logged: LoggedModel) -> dict[str, str]:
        return score_table.version_tags(logged.tags.get(tag.HEADLINE, ""), _metrics(logged))

    def tag(self, version: Version, tags: Mapping[str, str]) -> None:
        """Sets tags of a version.

        Raises:
            LineageError: the version is gone, or MLflow does not answer.
        """
        with self.asking():
            for name, value in tags.items():
                self._client.set_model_version_tag(version.name, str(version.number), name, value)

    def describe(self, version: Version, text: str) -> None:
        """Sets the text of a version's page, in markdown.

        Raises:
            LineageError: the version is gone, or MLflow does not answer.
        """
        with self.asking():
            self._client.update_model_version(version.name, str(version.number), description=text)

    def promote(self, version: Version, reason: str) -> Version | None:
        """Makes a version the champion, and the champion of before `previous`; a repeated call ends the same.

        Args:
            version: of any registered model.
            reason: with the figures; in markdown, the text of the version's page from now on. The list of versions
                shows its first words as they are, so they had better be plain.

        Returns:
            The champion of before, if there was one.

        Raises:
            LineageError: the version is gone, or MLflow does not answer.
        """
        name, number = version.name, str(version.number)
        with self.asking():
            self._finish_rollback(name)
            before = self.find(name, CHAMPION)
            # The reason first: a champion always has one. Then `previous`, so that whatever happens between two
            # lines, the champion of before has an alias, and a second call finds the rest to be done.
            self._client.update_model_version(name, number, description=reason)
            if before is None or before.number == version.number:
                before = self.find(name, PREVIOUS)
            else:
                self._set_alias(name, PREVIOUS, str(before.number))
            self._set_alias(name, CHAMPION, number)
            challenger = self.find(name, CHALLENGER)
            if challenger is not None and challenger.number == version.number:
                self._client.delete_registered_model_alias(name, CHALLENGER)
            return before

    def check_never_served(self, name: str) -> None:
        """Refuses to take a model for new of which a version served before: somebody took its alias away.

        Raises:
            LineageError: it is so, or MLflow does not answer.
        """
        if (previous := self.find(name, PREVIOUS)) is not None and self.find(name, CHAMPION) is None:
            raise LineageError(
                f"somebody took the alias '{CHAMPION}' of {name} away, which has '{PREVIOUS}' (version "
                f"{previous.number}) still: say which one serves with `pairflow register {name}/N --as {CHAMPION}`, or "
                f"take '{PREVIOUS}' away too on its page, to begin anew"
            )

    def challenge(self, version: Version, reason: str) -> None:
        """Makes a version the challenger; `reason` becomes the text of its page.

        Raises:
            LineageError: it is the champion, or gone, or MLflow does not answer.
        """
        name, number = version.name, version.number
        with self.asking():
            champion = self.find(name, CHAMPION)
            if champion is not None and champion.number == number:
                raise LineageError(f"{name} version {number} is the champion; it cannot challenge itself")
            self._client.update_model_version(name, str(number), description=reason)
            self._set_alias(name, CHALLENGER, str(number))

    def rollback(self, name: str, reason: str) -> tuple[Version, Version]:
        """Exchanges `champion` and `previous`; called again after it was killed, it finishes what was begun.

        Args:
            name: of the registered model.
            reason: is noted on the pages of both versions, above what stands there.

        Returns:
            The champion now, and the one of before.

        Raises:
            LineageError: there is no champion or no version before it, or MLflow does not answer.
        """
        with self.asking():
            if (done := self._finish_rollback(name)) is not None:
                return done
            champion, previous = self.at(name, CHAMPION), self.find(name, PREVIOUS)
            if previous is None or previous.number == champion.number:
                raise LineageError(
                    f"{name} has no version before its champion, version {champion.number}, to go back to: no alias "
                    f"'{PREVIOUS}' on another version; MLflow's page of the model can set one"
                )
            self._note(champion, f"Rolled back to version {previous.number}: {reason}")
            self._note(previous, f"Champion again, after version {champion.number}: {reason}")
            versions = json.dumps({"from": champion.number, "to": previous.number})
            self._client.set_registered_model_tag(name, tag.ROLLBACK, versions)
            if (done := self._finish_rollback(name)) is None:
                raise LineageError(f"{name}: a version was deleted while the champion was rolled back; try again")
            return done

    def _finish_rollback(self, name: str) -> tuple[Version, Version] | None:
        """Ends the rollback that is under way; None where there is none, or one of its versions is gone."""
        model = self.model(name)
        if model is None or tag.ROLLBACK not in model.tags:
            return None
        versions = json.loads(model.tags[tag.ROLLBACK])
        new, old = (self.version(name, int(versions[end])) for end in ("to", "from"))
        there = new is not None and old is not None
        if there:
            self._set_alias(name, CHAMPION, str(versions["to"]))
            self._set_alias(name, PREVIOUS, str(versions["from"]))
        self._client.delete_registered_model_tag(name, tag.ROLLBACK)
        return (self.at(name, str(versions["to"])), self.at(name, str(versions["from"]))) if there else None

    def _set_alias(self, name: str, alias: str, number: str) -> None:
        """Gives a version an alias. Of two who give the same one for the first time, MLflow's database refuses one."""
        try:
            self._client.set_registered_model_alias(name, alias, number)
        except MlflowException as error:
            if error.error_code != "BAD_REQUEST":  # MLflow's for a constraint of its database, too
                raise
            self._client.set_registered_model_alias(name, alias, number)  # there is one by now, which is moved

    def _note(self, version: Version, note: str) -> None:
        """Puts a line above the text of a version's page, in place of an earlier one."""
        lines = version.description.split("\n")
        while lines and (lines[0].startswith(_NOTE) or not lines[0].strip()):
            del lines[0]
        text = "\n".join([f"{_NOTE}{' '.join(note.split())}", "", *lines])
        self._client.update_model_version(version.name, str(version.number), description=text)

    def _link(self, model_id: str, name: str, number: int) -> None:
        """Has MLflow's page of the logged model name the version; its server does that by itself, its client not."""
        linked = json.loads(self._client.get_logged_model(model_id).tags.get(tag.MODEL_VERSIONS, "[]"))
        if not any(each["name"] == name and int(each["version"]) == number for each in linked):
            linked.append({"name": name, "version": number})
            self._client.set_logged_model_tags(model_id, {tag.MODEL_VERSIONS: json.dumps(linked)})

    def _make(self, name: str, dataset: str) -> None:
        tags = {tag.DATASET: dataset, tag.REGISTERED_AS: name}
        text = f"Few-step generative models of {dataset}. The version in use is `models:/{name}@{CHAMPION}`."
        try:
            self._client.create_registered_model(name, tags=tags, description=text)
        except MlflowException:
            if self.model(name) is None:  # else another process was quicker
                raise


def _metrics(logged: LoggedModel) -> dict[str, float]:
    return {each.key: float(each.value) for each in logged.metrics or ()}
