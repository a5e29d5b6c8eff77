"""Run as a program: prints, as JSON, what the installed releases know, so that no test imports them with their effects.

`variables`: environment variables of Prefect, MLflow and PairFlow; `options`: those of the commands that are deployed.
"""

import json

from mlflow import environment_variables
from mlflow.cli import cli as mlflow
from prefect.cli._app import _app as prefect
from prefect.settings.legacy import _get_valid_setting_names
from prefect.settings.models.root import Settings as PrefectSettings
from ray.scripts.scripts import cli as ray

from flows.home.settings import Settings


def _ours() -> set[str]:
    names = set()
    for name, field in Settings.model_fields.items():
        choices = getattr(field.validation_alias, "choices", [f"PAIRFLOW_{name.upper()}"])
        names |= {str(each) for each in choices if str(each).isupper()}
    return names


variables = _ours() | _get_valid_setting_names(PrefectSettings)
variables |= {name for name in dir(environment_variables) if name.startswith("MLFLOW_")}
variables.add("MLFLOW_DISABLE_TELEMETRY")  # read by another module of MLflow's
options = {}
for program, group in (("mlflow", mlflow), ("ray", ray)):
    for name in ("server",) if program == "mlflow" else ("start", "health-check"):
        options[f"{program} {name}"] = [each for item in group.commands[name].params for each in item.opts]
for command in ("server", "worker"):
    arguments = prefect[command]["start"].assemble_argument_collection()
    options[f"prefect {command} start"] = [name for argument in arguments for name in argument.names]
print(json.dumps({"variables": sorted(variables), "options": options}))
