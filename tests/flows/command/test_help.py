"""Every help page, against a snapshot, and every request as words and back."""

import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from flows.command import options
from flows.parameters import (
    DistillParameters,
    EvaluateParameters,
    FlowParameters,
    PairParameters,
    PipelineParameters,
    PrepareParameters,
    RetrainParameters,
    StudyParameters,
    TrainParameters,
)
from flows.recipes.changes import Changes, resolve, spec_of, with_assignments
from flows.stages.command_line import command_line
from pairflow.errors import SpecError
from pairflow.presets import Preset
from pairflow.spec import Spec, TrainingSpec

from ...typed_words import commands, typed

_SNAPSHOT = Path(__file__).with_name("help.txt")
_FLOWS: dict[str, type[FlowParameters]] = {
    "prepare": PrepareParameters,
    "pair": PairParameters,
    "train": TrainParameters,
    "distill": DistillParameters,
    "evaluate": EvaluateParameters,
    "pipeline": PipelineParameters,
    "study": StudyParameters,
    "retrain": RetrainParameters,
}


def _pages() -> str:
    """All of them, in one process: at 100 columns, without colours."""
    code = (
        "import sys\nfrom typer.testing import CliRunner\nfrom flows.command.app import app\n"
        "for words in [[], *([name] for name in sys.argv[1:])]:\n"
        "    print(CliRunner().invoke(app, [*words, '--help']).stdout)"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PAIRFLOW_", "FORCE_"))}
    environment |= {"COLUMNS": "100", "TERMINAL_WIDTH": "100", "NO_COLOR": "1", "TERM": "dumb"}
    names = sorted(commands())
    done = subprocess.run(
        [sys.executable, "-c", code, *names], env=environment, capture_output=True, text=True, check=True, timeout=120
    )
    return "\n".join(line.rstrip() for line in done.stdout.splitlines()) + "\n"


def test_as_they_were() -> None:
    """Write it anew with `python -m tests.flows.command.test_help` if the change is meant."""
    assert _pages() == _SNAPSHOT.read_text(encoding="utf-8")


_TEXT = st.text("abcdefghij", min_size=1, max_size=6)
_INSTEAD: dict[str, st.SearchStrategy[Any]] = {
    # What is looked up where it lies, or has a meaning of its own, is something that nobody has to look up.
    "name": st.sampled_from(["digits", "nci", "qm9"]),
    "store": _TEXT.map(lambda text: f"/store of/{text}"),
    "pairs": _TEXT.map(lambda text: f"/store/pairs/{text}.zarr"),
    "extend": _TEXT.map(lambda text: f"/store/pairs/{text}.zarr"),
    "base_model": st.sampled_from(["m-" + "0" * 32, "pairflow-x@champion"]),
    "models": st.lists(st.sampled_from(["m-" + "0" * 32, "pairflow-x/3"]), max_size=2, unique=True).map(tuple),
    "path": st.none(),
    "vocab_size": st.none(),
    "vocab_path": st.none(),
    "window": st.none(),
    "unit": st.none(),
    "expected_fingerprint": st.none(),
    "sampling": st.none(),
    # Fields that have to fit each other get values that do.
    "accumulate": st.sampled_from([1]),
    "batch_size": st.integers(1, 10**6),
    "corrections": st.none(),
    "sampler": st.sampled_from(["ancestral", "euler"]),
    "gamma_noisiest": st.floats(-1, 20),
    "gamma_cleanest": st.floats(-20, -2),
    "hidden_size": st.sampled_from([16, 64, 96]),
    "num_heads": st.sampled_from([1, 2, 4]),
    "channel_mults": st.lists(st.integers(1, 4), min_size=1, max_size=3),
    "attention_resolutions": st.lists(st.integers(1, 32), max_size=2),
    "steps": st.integers(1, 1024),
    "training_seeds": st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=3),
    "kind": st.sampled_from(["closed_form", "independent"]),
    "block_size": st.none(),
}


def _number(field: Any, kind: type) -> st.SearchStrategy[Any]:
    """Any number within a field's bounds."""
    low, high = (-1e6, 1e6) if kind is float else (-(10**6), 10**6)
    open_ends = {}
    for each in field.metadata:
        low = getattr(each, "ge", getattr(each, "gt", low))
        high = min(high, getattr(each, "le", getattr(each, "lt", high)))
        open_ends |= {"exclude_min": True} if hasattr(each, "gt") else {}
        open_ends |= {"exclude_max": True} if hasattr(each, "lt") and high == each.lt else {}
    return st.floats(low, high, **open_ends) if kind is float else st.integers(int(low), int(high))


def _values(spec_type: type[Spec], *, without: tuple[str, ...] = ()) -> st.SearchStrategy[dict[str, Any]]:
    """Some of the fields of a model, each with any value of its type and bounds."""
    chosen = {}
    for name, field in spec_type.model_fields.items():
        inner = spec_of(field.annotation)
        kinds = [each for each in get_args(field.annotation) or [field.annotation] if each is not type(None)]
        if name in without:
            continue
        if name == "steps" and spec_type is not RetrainParameters:
            chosen[name] = st.lists(_INSTEAD[name], min_size=1, max_size=3)
        elif name == "extend" and spec_type is RetrainParameters:
            chosen[name] = st.booleans()
        elif name in _INSTEAD and not (name == "name" and spec_type is RetrainParameters):
            chosen[name] = _INSTEAD[name]
        elif inner is not None:
            chosen[name] = _values(inner)
        elif name == "name":
            chosen[name] = _TEXT
        elif "methods" in name or name == "method":
            names = field.metadata[0].names if field.metadata and hasattr(field.metadata[0], "names") else ()
            names = names or ("udlm", "mdlm", "pairflow+dcd")
            one = st.sampled_from(list(names))
            chosen[name] = st.lists(one, min_size=1, max_size=3) if name == "methods" else one
        else:
            kind = kinds[0] if len(kinds) == 1 else field.annotation
            chosen[name] = _number(field, kind) if kind in (int, float) else st.from_type(kind)
    return st.fixed_dictionaries({}, optional=chosen)


class TestThereAndBack:
    """The command that a run's page says asks for the same again, whatever was asked for."""

    @pytest.mark.parametrize("flow", list(_FLOWS))
    @settings(max_examples=60, deadline=None)
    @given(data=st.data())
    def test_any_request(self, flow: str, data: st.DataObject) -> None:
        parameters_type = _FLOWS[flow]
        drawn = data.draw(_values(parameters_type), label="fields")
        try:
            asked = parameters_type.model_validate(drawn)
            meant = _meaning(asked)
        except (ValueError, SpecError):
            assume(False)
        line = command_line(flow, asked)
        assert line is not None
        got: list[FlowParameters] = []

        def run_flow(name: str, parameters: FlowParameters, **_: Any) -> Any:
            got.append(parameters)
            raise KeyboardInterrupt

        program, *words = shlex.split(line)
        assert program == "pairflow"
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(options, "run_flow", run_flow)
            said = typed(words)
        assert len(got) == 1, (line, said.output, said.exception)
        assert _meaning(got[0]) == meant, line

    def test_a_field_s_default_that_is_not_the_preset_s(self) -> None:
        """`elbo` is left out of a spec's JSON, for fingerprints of before; that is no request for nothing."""
        for training in ({"objective": "elbo"}, TrainingSpec()):
            asked = StudyParameters.model_validate({"preset": "few-step", "training": training})
            assert resolve(asked).training.objective == "elbo"
            assert 'training.objective="elbo"' in str(command_line("study", asked))

    def test_a_setting_within_a_setting(self) -> None:
        asked = with_assignments(StudyParameters(), {"redi.sampling.top_p": 0.5})
        assert "--set redi.sampling.top_p=0.5" in str(command_line("study", asked))


def _meaning(parameters: Any) -> Any:
    """Parameters with what a preset or a default says in full."""
    if isinstance(parameters, PairParameters):
        return parameters.model_copy(update={"coupling": None if parameters.redi else parameters.wanted})
    if isinstance(parameters, PrepareParameters):
        return parameters
    names = [name for name in Preset.model_fields if name in type(parameters).model_fields]
    assert all(issubclass(spec_of(type(parameters).model_fields[name].annotation) or Spec, Changes) for name in names)
    update: dict[str, Any] = dict.fromkeys(names)
    if hasattr(parameters, "methods"):
        update["methods"] = tuple(dict.fromkeys(sorted(parameters.methods)))
    return parameters.model_copy(update=update), resolve(parameters)


if __name__ == "__main__":
    _SNAPSHOT.write_text(_pages(), encoding="utf-8")
