"""What a run says of itself: the command that makes it again, code and machine, texts, speed."""

import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from flows.cluster.protocol import JobContext, Speed
from flows.command import app, options
from flows.lineage import page_text, provenance
from flows.parameters import (
    DistillParameters,
    EvaluateParameters,
    FlowParameters,
    PairParameters,
    PipelineParameters,
    RetrainParameters,
    StudyParameters,
    TrainParameters,
)
from flows.recipes.changes import resolve, with_assignments
from flows.stages.command_line import command_line
from pairflow.presets import Preset
from pairflow.spec import CouplingSpec, DatasetSpec, RediSpec, SamplingSpec, Spec

_NCI = DatasetSpec(name="nci", max_rows=50, holdout=0.25)


def _changed(parameters: Any, **more: Any) -> Any:
    """With settings of the preset changed, of which one is a list."""
    return with_assignments(parameters, {"training.num_steps": 7, "model.channel_mults": [1, 2], **more})


class TestCommandLine:
    @pytest.mark.parametrize(
        ("flow", "parameters"),
        [
            ("pair", PairParameters(dataset=_NCI)),
            ("pair", PairParameters(dataset=_NCI, coupling=CouplingSpec(epsilon=0, temperature=0.5))),
            (
                "pair",
                PairParameters(
                    dataset=DatasetSpec(name="digits"),
                    coupling=CouplingSpec(kind="independent", num_steps=3, seed=4, sources_per_target=2),
                    format="parquet",
                    shard_size=9,
                    num_workers=1,
                    engine="cpu",
                    store="/some where/it's",
                ),
            ),
            ("pair", PairParameters(dataset=_NCI, redi=RediSpec(num_pairs=5, seed=2), base_model="m-" + "0" * 32)),
            ("pair", PairParameters(dataset=_NCI, extend="/store/pairs/x.zarr")),
            ("train", _changed(TrainParameters(dataset=DatasetSpec(name="digits"), method="mdlm", preset="laptop"))),
            ("train", TrainParameters(dataset=_NCI, pairs="/store/pairs/x.zarr")),
            ("distill", _changed(DistillParameters(dataset=_NCI, method="pairflow+redi", base_model="abcdef"))),
            ("evaluate", EvaluateParameters(dataset=_NCI, methods=("mdlm",), training_seeds=(0, 3))),
            ("pipeline", _changed(PipelineParameters(dataset=_NCI, shard_size=3))),
            ("study", _changed(StudyParameters(dataset=_NCI, training_seeds=(1, 2)), **{"distillation.num_steps": 3})),
            ("retrain", _changed(RetrainParameters(dataset=_NCI, name="mine", margin=0.5, trials=3, extend=True))),
            ("retrain", RetrainParameters(dataset=_NCI, method="udlm+dcd")),
        ],
    )
    def test_asks_for_the_same_again(
        self, flow: str, parameters: FlowParameters, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked: list[tuple[str, Spec]] = []

        def run_flow(name: str, given: Spec, **_: bool) -> Any:
            asked.append((name, given))
            raise KeyboardInterrupt

        monkeypatch.setattr(options, "run_flow", run_flow)
        line = command_line(flow, parameters)
        assert line is not None
        program, *words = shlex.split(line)
        assert program == "pairflow"
        CliRunner().invoke(app.app, words)
        ((name, given),) = asked
        assert name == flow
        assert _meaning(given) == _meaning(parameters)

    def test_says_nothing_rather_than_something_else(self) -> None:
        sampling = SamplingSpec(sampler="ancestral")
        redi = PairParameters(dataset=_NCI, redi=RediSpec(sampling=sampling), base_model="abcdef")
        assert command_line("pair", redi) is None


def _meaning(parameters: Any) -> Any:
    """Parameters with what a preset or a default says in full."""
    if isinstance(parameters, PairParameters):
        return parameters.model_copy(update={"coupling": None if parameters.redi else parameters.wanted})
    names = [name for name in Preset.model_fields if name in type(parameters).model_fields]
    return parameters.model_copy(update=dict.fromkeys(names)), resolve(parameters)


class TestCodeVersion:
    @pytest.fixture
    def repository(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """Somebody's repository, with a file of this name that was not committed."""
        monkeypatch.setattr(provenance, "__file__", str(tmp_path / "provenance.py"))
        (tmp_path / "provenance.py").write_text("1\n")
        (tmp_path / "other.py").write_text("1\n")
        self._git(tmp_path, "init", "-q")
        self._commit(tmp_path, "other.py")
        return tmp_path

    def _git(self, folder: Path, *arguments: str) -> str:
        options = ["-c", "user.name=n", "-c", "user.email=e@x", "-c", "commit.gpgsign=false"]
        done = subprocess.run(["git", "-C", folder, *options, *arguments], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    def _commit(self, folder: Path, name: str) -> str:
        self._git(folder, "add", name)
        self._git(folder, "commit", "-q", "-m", "x")
        return self._git(folder, "rev-parse", "HEAD")

    def test_repository_of_somebody_else(self, repository: Path) -> None:
        assert set(provenance.code_version.__wrapped__()) == {"pairflow.version"}

    def test_commit_and_changes(self, repository: Path) -> None:
        commit = self._commit(repository, "provenance.py")
        clean = provenance.code_version.__wrapped__()
        assert (clean["mlflow.source.git.commit"], clean["pairflow.git_dirty"]) == (commit, "false")
        (repository / "other.py").write_text("2\n")
        assert provenance.code_version.__wrapped__()["pairflow.git_dirty"] == "true"

    def test_no_git(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", "")
        assert set(provenance.code_version.__wrapped__()) == {"pairflow.version"}

    def test_machine(self) -> None:
        found = provenance.hardware()
        assert int(found["cores"]) >= 1
        assert float(found["memory_gib"]) > 0
        assert found["cpu"]

    def test_gpus_as_their_driver_names_them(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """By a stand-in for nvidia-smi, as this machine may have no GPU."""
        program = tmp_path / "nvidia-smi"
        program.write_text("#!/bin/sh\necho NVIDIA H100 80GB HBM3\necho NVIDIA H100 80GB HBM3\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
        names = "NVIDIA H100 80GB HBM3, NVIDIA H100 80GB HBM3"
        assert provenance.hardware.__wrapped__()["gpus"] == names
        program.write_text("#!/bin/sh\nexit 9\n")  # as without a driver
        assert "gpus" not in provenance.hardware.__wrapped__()


class TestPages:
    def test_what_a_run_is_about_comes_first(self) -> None:
        context = JobContext(
            submission_id="train-1",
            flow_run_id="f",
            flow_run_url="http://p/1",
            ray_job_url="http://r/#/jobs/train-1",
            parent_mlflow_run_id="p" * 32,
            parent_mlflow_experiment_id="7",
            command="pairflow train --dataset nci",
        )
        text = page_text.describe(page_text.origin(context) | {"Data": "nci", "Empty": ""}, "first")
        assert text == (
            "first\n\n- **Data:** nci\n"
            f"- **Part of:** [the comparison](#/experiments/7/runs/{'p' * 32}?workflowType=machine_learning)\n"
            "- **Prefect:** [flow run](http://p/1)\n- **Ray:** [job train-1](http://r/#/jobs/train-1), "
            "`pairflow token` prints what its page asks for\n\n"
            "The command that makes it again:\n\n```\npairflow train --dataset nci\n```\n"
        )

    def test_every_coupling_of_a_comparison_is_named(self) -> None:
        used = [
            provenance.Input(name="nci", digest=each * 64, role="", source={"url": f"/{each}"}, profile={})
            for each in "ab"
        ]
        assert page_text.used(used, None) == {"Pairs": f"`{'a' * 12}`, at `/a`; `{'b' * 12}`, at `/b`"}

    def test_long_command_can_still_be_pasted(self) -> None:
        command = "pairflow train --dataset nci --pairs '/a b/--c' " + " ".join(
            f"--set g.f{n}='{n}  x'" for n in range(9)
        )
        text = page_text.describe({"Command": command})
        (shown,) = [part for part in text.split("```") if "pairflow" in part]
        assert shlex.split(shown.replace("\\\n", " ")) == shlex.split(command)
        assert max(map(len, shown.splitlines())) < 60

    @pytest.mark.parametrize(("text", "shown"), [("a", "`a`"), ("a`b", "`` a`b ``"), ("``", "``` `` ```")])
    def test_odd_text_stays_text(self, text: str, shown: str) -> None:
        assert page_text.code_span(text) == shown

    def test_cost(self) -> None:
        assert page_text.cost(5, 20) == "pairing 5.0 s, training 20.0 s: a ratio of 0.25"
        assert page_text.cost(0, 20) == "training 20.0 s"
        assert page_text.table([{"a|b": 1, "c": "x|y"}]) == "| a|b | c |\n| --- | --- |\n| 1 | x\\|y |"


def test_speed_of_late() -> None:
    speed = Speed(every_s=0)
    assert speed.after(10) is not None
    assert speed.after(20) is not None
    assert speed.done == 30
    slow = Speed(every_s=3600)
    assert slow.after(1) is not None  # the first is shown at once
    assert slow.after(1) is None
