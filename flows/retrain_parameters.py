"""The parameters of the flow `retrain`, and of the job that looks at its data."""

from typing import Any

from pydantic import ConfigDict, Field

from flows.parameters import FlowParameters, Reference, Refinements, Sharded, StudyParameters, TrainedFromPreset
from flows.recipes.methods import MethodName
from pairflow.presets import preset
from pairflow.spec import CouplingSpec

_FIRST = ("dataset", "name", "method", "preset", "steps", "margin", "confidence", "trials", "num_samples")


def _first_things_first(schema: dict[str, Any]) -> None:
    """What people set stands at the top of the form; what is inherited would."""
    fields = schema["properties"]
    schema["properties"] = {name: fields[name] for name in (*_FIRST, *fields)}


class RetrainParameters(Sharded, Refinements, TrainedFromPreset):
    """Train anew if data or settings have changed, and let the better of candidate and champion serve."""

    model_config = ConfigDict(json_schema_extra=_first_things_first)

    name: str | None = Field(
        None,
        pattern=r"^[a-z0-9][a-z0-9-]{0,63}$",
        description="The registered model is pairflow-NAME (small letters, digits, dashes); default the dataset's "
        "name. Data of your own in several places need a name each.",
    )
    method: MethodName = Field("pairflow", description="How the model is made; +dcd also distils it, for few steps.")
    steps: int = Field(
        4, ge=1, le=1024, description="Sampling steps that you can afford (1 to 1,024): the models are compared there."
    )
    trials: int = Field(
        5, ge=2, le=100, description="Trials of candidate and champion, with the same seeds (2 to 100)."
    )
    num_samples: int | None = Field(None, ge=2, description="Samples a trial (2 or more); default by preset.")
    margin: float = Field(
        0.01,
        ge=0,
        le=10,
        description="By which fraction of the champion's score the candidate must be better (0 to 10), beyond chance.",
    )
    confidence: float = Field(
        0.95,
        ge=0.5,
        lt=1,
        description="How sure that must be (0.5 to below 1): one minus the chance to promote one that is not better.",
    )

    extend: bool = Field(
        False,
        description="Couple new rows only, and take the champion's pairs over for the others: quicker, but an "
        "approximation, as the posterior of every row is over all data.",
    )

    @property
    def registered_as(self) -> str:
        """NAME in pairflow-NAME."""
        return self.name or self.dataset.name

    @property
    def study(self) -> StudyParameters:
        """The same as the comparison that trains and evaluates it.

        Raises:
            SpecError: the preset has no settings for this dataset.
        """
        shared = {name: getattr(self, name) for name in StudyParameters.model_fields if hasattr(self, name)}
        evaluation = preset(self.preset, self.dataset.name).evaluation
        update: dict[str, Any] = {"steps": (self.steps,), "num_trials": self.trials}
        if self.num_samples is not None:
            update["num_samples"] = self.num_samples
        return StudyParameters(**shared, methods=(self.method,), evaluation=evaluation.model_copy(update=update))


class SurveyParameters(FlowParameters):
    """What there is to retrain on, and whether the champion can be measured there."""

    coupling: CouplingSpec | None = Field(None, description="How sources are coupled; None if the method needs none.")
    champion: Reference | None = Field(None, description="The model in use, if there is one.")
    extend: str | None = Field(None, description="URL of the champion's pairs, if they are to be extended.")
