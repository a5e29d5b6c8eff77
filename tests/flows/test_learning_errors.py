"""What the jobs that learn refuse, in their own words; the command hands the words on, as one of them shows."""

from pathlib import Path

import numpy as np
import pytest

import storage
from flows.cluster.protocol import JobContext
from flows.jobs import distill, evaluate, pair, train
from flows.parameters import DistillParameters, EvaluateParameters, PairParameters, TrainParameters
from flows.requests import DistillRequest, EvaluateRequest, PairRequest, TrainRequest
from pairflow.errors import CheckpointError, PairFlowError, SpecError, StoreError
from pairflow.spec import DatasetSpec, DistillationSpec, RediSpec
from storage import PairsHeader

from .conftest import Cli
from .model_files import trained

_CONTEXT = JobContext(submission_id=None, flow_run_id="1")
_DIGITS = DatasetSpec(name="digits", max_rows=40)


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model of the independent coupling, K = 2."""
    return str(trained(_DIGITS, tmp_path_factory.mktemp("digits"))[0])


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory, tokens_file: Path) -> str:
    """A model of another data set, K = 5, D = 8."""
    spec = DatasetSpec(name="tokens", path=str(tokens_file), vocab_size=5)
    return str(trained(spec, tmp_path_factory.mktemp("tokens"))[0])


@pytest.fixture(autouse=True)
def _own_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PAIRFLOW_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("PAIRFLOW_STORE", raising=False)


def _pairs(folder: Path, **fields: object) -> str:
    """Whole pairs of other data: one row of zeros."""
    header = PairsHeader(
        **{
            "fingerprint": "0" * 64,
            "format": "zarr",
            "num_rows": 1,
            "length": 64,
            "vocab_size": 2,
            "shard_size": 1,
            "spec": {"kind": "closed_form"},
            "dataset": {"name": "other", "digest": "1" * 64},
            "engine": "cpu/1",
            **fields,
        }
    )
    url = str(folder / "pairs.zarr")
    storage.begin_pairs(url, header)
    row = np.zeros((1, header.length), header.dtype)
    storage.write_shard(url, header, 0, row, row, np.zeros(1, np.int64))
    storage.commit_pairs(url, header, {}, progress=False)
    return url


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"vocab_size": 5}, "their vocab_size is 5, that of digits/train is 2"),
        ({"length": 8}, "their length is 8, that of digits/train is 64"),
        ({}, "their dataset digest is 1111"),
    ],
)
def test_pairs_of_another_vocabulary_length_or_data(tmp_path: Path, fields: dict[str, object], says: str) -> None:
    with pytest.raises(SpecError, match=says):
        train.run(TrainRequest.of(TrainParameters(dataset=_DIGITS, pairs=_pairs(tmp_path, **fields))), _CONTEXT)


def test_pairs_that_a_model_made_are_not_pairflows(tmp_path: Path) -> None:
    digest = pair.inputs.load(_DIGITS, pair.Settings.read()).train.digest
    url = _pairs(tmp_path, spec={"kind": "redi"}, dataset={"name": "digits", "digest": digest})
    with pytest.raises(SpecError, match="made by a model"):
        train.run(TrainRequest.of(TrainParameters(dataset=_DIGITS, pairs=url)), _CONTEXT)


@pytest.mark.parametrize("method", ["udlm", "mdlm"])
def test_methods_that_use_no_pairs_and_are_given_some(method: str) -> None:
    with pytest.raises(ValueError, match=f"pairs: '{method}' is trained without any; leave them out"):
        TrainParameters.model_validate({"method": method, "pairs": "abcdef"})


def test_methods_that_need_pairs_and_have_none(digits: str) -> None:
    with pytest.raises(StoreError, match="make them with `pairflow pair`"):
        train.run(TrainRequest.of(TrainParameters(dataset=_DIGITS)), _CONTEXT)
    redi = RediSpec(num_pairs=7, num_steps=3)
    with pytest.raises(StoreError, match=f"--coupling redi --model {digits} --num-pairs 7 --num-steps 3 --seed 0"):
        distill.run(
            DistillRequest.of(DistillParameters(dataset=_DIGITS, method="udlm+redi", base_model=digits, redi=redi)),
            _CONTEXT,
        )
    paired = DistillationSpec(states="paired")
    with pytest.raises(StoreError, match="make them with `pairflow pair`"):
        distill.run(
            DistillRequest.of(
                DistillParameters(dataset=_DIGITS, method="udlm+dcd", base_model=digits, distillation=paired)
            ),
            _CONTEXT,
        )


def test_models_that_are_not_there_or_of_another_kind(digits: str) -> None:
    for base_model, says, error in (
        (None, "make it with `pairflow train --dataset digits --method udlm`", CheckpointError),
        ("/nosuch", "there is no such folder", CheckpointError),
    ):
        with pytest.raises(error, match=says):
            distill.run(
                DistillRequest.of(DistillParameters(dataset=_DIGITS, method="udlm+dcd", base_model=base_model)),
                _CONTEXT,
            )
    with pytest.raises(SpecError, match="starts from a model with paired sources"):
        distill.run(
            DistillRequest.of(DistillParameters(dataset=_DIGITS, method="pairflow+dcd", base_model=digits)), _CONTEXT
        )
    with pytest.raises(CheckpointError, match="no finished UDLM model"):
        evaluate.run(EvaluateRequest.of(EvaluateParameters(dataset=_DIGITS, methods=("udlm+dcd",))), _CONTEXT)


@pytest.mark.parametrize("method", ["udlm+dcd", "udlm+redi"])
def test_a_teacher_of_another_vocabulary(other: str, method: str) -> None:
    with pytest.raises(PairFlowError, match="has vocab_size 5, the data has 2"):
        distill.run(DistillRequest.of(DistillParameters(dataset=_DIGITS, method=method, base_model=other)), _CONTEXT)
    with pytest.raises(PairFlowError, match="has vocab_size 5, the data has 2"):
        pair.run(PairRequest.of(PairParameters(dataset=_DIGITS, redi=RediSpec(), base_model=other)), _CONTEXT)


def test_the_command_says_it_without_a_traceback(cli: Cli, other: str) -> None:
    done = cli("distill", "--dataset", "digits", "--max-rows", 40, "--method", "udlm+dcd", "--model", other)
    assert done.code == 1
    assert "has vocab_size 5, the data has 2" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert not done.stdout
