"""A retraining as a contest for the place of champion: what it is about, and when there is nothing to contest."""

from dataclasses import dataclass
from functools import cached_property

from flows.lineage import tags as tag
from flows.lineage.registry import CHALLENGER, CHAMPION, PREVIOUS, Registry, Version
from flows.parameters import RetrainParameters
from flows.recipes.methods import DEFAULT_PAIRS, METHODS, coupling_of, pair_groups
from flows.results import PairResult, Survey
from pairflow import metrics
from pairflow.errors import SpecError
from pairflow.presets import Preset
from pairflow.spec import OWN_DATA, fingerprint

# Tags of a registered version, by which the next retraining knows it again.
DATA, RECIPE, SOURCE, JUDGED = tag.DATASET_DIGEST, tag.RECIPE, tag.SOURCE, tag.JUDGED
ROWS, PAIRS, EXTENDS = tag.TRAINING_ROWS, tag.PAIRS_URL, tag.EXTENDS


@dataclass(frozen=True)
class Contest:
    """What one retraining is about.

    Attributes:
        parameters: of the flow.
        preset: their recipe.
        name: of the registered model.
        survey: of the data.
        champion: the version in use, if there is one.
        challenger: where none is in use, the one that was not good enough for it.
    """

    parameters: RetrainParameters
    preset: Preset
    name: str
    survey: Survey
    champion: Version | None
    challenger: Version | None = None

    @property
    def rival(self) -> Version | None:
        """Whom the candidate is compared with: the champion, or in its absence the challenger."""
        return self.champion or self.challenger

    @property
    def role(self) -> str:
        """The rival's alias; the champion's where there is no rival."""
        return CHALLENGER if self.champion is None and self.challenger is not None else CHAMPION

    @cached_property
    def recipe(self) -> str:
        """Fingerprint of all that decides about a model but the data."""
        method, preset = METHODS[self.parameters.method], self.preset
        parts = {"method": method.name, "model": fingerprint(preset.model)}
        if self.survey.engine is not None:
            group = next(iter(pair_groups((method.name,), preset)), DEFAULT_PAIRS)
            parts |= {"coupling": fingerprint(coupling_of(preset, group)), "engine": self.survey.engine}
        if method.refinement is not None:
            parts |= {name: fingerprint(spec) for name, spec in method.refinement.specs(preset).items()}
        return fingerprint(method.training(preset), **parts)

    @cached_property
    def fingerprint(self) -> str:
        """Of the decision: the candidate, the champion, and the rule."""
        rule = self.parameters
        return fingerprint(
            self.preset.evaluation,
            data=self.survey.dataset_digest,
            recipe=self.recipe,
            champion="" if self.champion is None else str(self.champion.number),
            metrics=metrics.VERSION,  # by another headline it may be judged otherwise
            rule=f"{rule.margin!r}, {rule.confidence!r}",
        )

    def tags_of(self, pairs: PairResult | None) -> dict[str, str]:
        """For the candidate's version, made of these pairs."""
        survey = self.survey
        made_of = {} if pairs is None else {PAIRS: pairs.url, EXTENDS: pairs.extends or ""}
        return {
            **made_of,
            DATA: survey.dataset_digest,
            RECIPE: self.recipe,
            SOURCE: survey.source,
            JUDGED: self.fingerprint,
            ROWS: str(survey.num_rows),
            tag.METHOD: self.parameters.method,
        }

    @property
    def comparable(self) -> bool:
        """Whether there is a rival, and it can be measured on this data."""
        return self.rival is not None and self.survey.misfit is None

    @property
    def reason(self) -> str:
        """Why a model is wanted."""
        rival = self.rival
        if rival is None:
            return "there is no champion yet"
        what = f"those of version {rival.number}, the {self.role}"
        parts = (("data", DATA), ("settings", RECIPE))
        changed = [part for part, name in parts if rival.tags.get(name) != self._made_of[name]]
        if changed:
            why = f"{' and '.join(changed)} differ from {what}"
        elif not self._made(rival):
            why = f"the pairs of version {rival.number}, the {self.role}, extend others, and exact ones are wanted"
        else:
            why = f"data and settings are {what}, which was judged otherwise"
        return why if self.champion is not None else f"there is no champion yet, and {why}"

    def nothing_to_do(self, registry: Registry) -> str | None:
        """Why no model is wanted: there is one of this data and these settings, and it was judged; else None."""
        data = f"the data ({self.survey.dataset_digest[:12]}, {self.survey.num_rows:,} training rows) and the settings"
        champion = self.champion
        if champion is None:
            waits = self.challenger
            if waits is None or not self._made(waits) or waits.tags.get(JUDGED) != self.fingerprint:
                return None
            return (
                f"version {waits.number} stays challenger, and nothing is champion of {self.name}: {data} are those "
                "it was made with, and nothing has changed since; train it longer, or allow more steps"
            )
        if self._made(champion):
            return f"{data} are those of version {champion.number}, the champion of {self.name}"
        previous = registry.find(self.name, PREVIOUS)
        if previous is not None and self._made(previous):
            return (
                f"{data} are those of version {previous.number} of {self.name}, which version {champion.number} has "
                f"replaced as champion; `pairflow rollback {self.name}` brings it back"
            )
        challenger = registry.find(self.name, CHALLENGER)
        if challenger is not None and self._made(challenger) and challenger.tags.get(JUDGED) == self.fingerprint:
            return (
                f"{data} are those of version {challenger.number} of {self.name}, which is a challenger to version "
                f"{champion.number}, the champion, and nothing has changed since"
            )
        return None

    def check_source(self) -> None:
        """Data of your own in another place is another model's, unless its name says otherwise.

        Raises:
            SpecError: the rival was made of another file or folder, and no name was given.
        """
        if self.rival is None or self.parameters.name is not None or self.parameters.dataset.name not in OWN_DATA:
            return
        before = self.rival.tags.get(SOURCE, self.survey.source)
        if before != self.survey.source:
            raise SpecError(
                f"the {self.role} of {self.name} was made of {before}, and this is {self.survey.source}: give this "
                f"data a name of its own (--name NAME), or --name {self.parameters.registered_as} to go on with that "
                "model"
            )

    @property
    def _made_of(self) -> dict[str, str]:
        return {DATA: self.survey.dataset_digest, RECIPE: self.recipe}

    def _made(self, version: Version) -> bool:
        """Whether a version was made of this data with these settings, and of pairs as exact as is asked for."""
        exact_enough = self.parameters.extend or not version.tags.get(EXTENDS)
        return exact_enough and self._made_of.items() <= dict(version.tags).items()
