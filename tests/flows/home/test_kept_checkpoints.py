"""What machines without a common disk find in a store, results and checkpoints: whole ones, whatever stops a writer."""

import itertools
import json
from collections.abc import Callable
from pathlib import Path

import fsspec
import pytest
import torch

import storage
from flows.home.kept_checkpoints import Checkpoints, step_of
from flows.home.kept_results import KeptFolder, brought, content
from flows.home.settings import Settings
from pairflow import checkpoint
from pairflow.data_card import CARD, DataCard
from pairflow.errors import CheckpointError, StoreError
from pairflow.spec import DatasetSpec
from storage import filesystem

_numbers = itertools.count()
Machine = Callable[[str], Checkpoints]


@pytest.fixture
def store() -> str:
    """Another store than every other test's, in this process's memory."""
    return f"memory://checkpoints-{next(_numbers)}"


@pytest.fixture
def machine(store: str, tmp_path: Path) -> Machine:
    """The same training as machines see it that share a store alone."""
    return lambda name: Checkpoints(KeptFolder(tmp_path / name, f"{store}/runs/0"))


def _save(checkpoints: Checkpoints, step: int, value: float | None = None) -> Path:
    return checkpoint.save(checkpoints.here, {"model.a": torch.full((3,), value or float(step))}, {"step": step})


def _tensors(folder: Path) -> bytes:
    return (folder / checkpoint.TENSORS).read_bytes()


def test_another_machine_goes_on_from_the_last_one(machine: Machine) -> None:
    first, second = machine("a"), machine("b")
    assert second.latest() is None
    for step in (5, 10, 15):
        _save(first, step)
        first.keep()
    found = second.latest()
    assert found == (15, second.here / "step-00000015")
    assert _tensors(found[1]) == _tensors(first.here / "step-00000015")
    assert second.latest() == found
    # The library's own reader takes it, and as many are kept as on a disk.
    assert torch.equal(checkpoint.read(found[1])[0]["model.a"], torch.full((3,), 15.0))
    assert [step for step, _ in checkpoint.steps(first.here)] == [10, 15]
    with pytest.raises(CheckpointError, match="step-00000005"):
        second.bring(5)
    assert step_of(first.place(10)) == 10


def test_one_that_is_not_whole_does_not_count(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = machine("a"), machine("b")
    _save(first, 5)
    first.keep()
    _save(first, 10)

    class Killed(BaseException):
        pass

    write = filesystem.RemoteFolder.write
    for last in (checkpoint.TENSORS, checkpoint.STATE):

        def until(self: filesystem.RemoteFolder, name: str, data: bytes, last: str = last) -> None:
            if name == last:
                raise Killed
            write(self, name, data)

        with monkeypatch.context() as patch:
            patch.setattr(filesystem.RemoteFolder, "write", until)
            with pytest.raises(Killed):
                machine("a").keep()
        found = second.latest()
        assert found is not None
        assert found[0] == 5
    # A new process of the first machine has it on its disk, and puts it there.
    again = machine("a")
    assert again.latest() == (10, first.here / "step-00000010")
    again.keep(last=True)
    assert second.latest() == (10, second.here / "step-00000010")


def test_tensors_of_another_writer_do_not_count(machine: Machine, store: str) -> None:
    first, second = machine("a"), machine("b")
    for step in (5, 10):
        _save(first, step)
    first.keep()
    other = _save(machine("c"), 10, value=1.0)
    filesystem.open_folder(f"{store}/runs/0/checkpoints/step-00000010").write(checkpoint.TENSORS, _tensors(other))
    assert second.latest() == (5, second.here / "step-00000005")
    with pytest.raises(CheckpointError, match="do not belong together"):
        second.bring(10)


def test_the_stores_counts_where_a_disk_has_another_of_the_same_step(machine: Machine, tmp_path: Path) -> None:
    first, second = machine("a"), machine("b")
    _save(first, 5)
    first.keep()
    _save(second, 5, value=1.0)
    assert _tensors(second.bring(5)) == _tensors(first.here / "step-00000005")
    elsewhere = second.bring(5, tmp_path / "elsewhere")
    assert elsewhere.parent == tmp_path / "elsewhere"
    assert _tensors(elsewhere) == _tensors(second.bring(5))


def test_what_the_tokens_mean_goes_along(machine: Machine) -> None:
    first, second = machine("a"), machine("b")
    folder = _save(first, 5)
    first.keep()
    assert DataCard.read(second.bring(5)) is None
    card = DataCard(dataset=DatasetSpec(name="digits"), digest="0", kind="images", vocab=None)
    card.write(folder)
    first.keep_card(5)
    assert (second.bring(5) / CARD).is_file()
    assert DataCard.read(second.bring(5)) == card


def test_a_store_that_is_away_holds_nothing_up(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = machine("a"), machine("b")
    _save(first, 5)

    def away(*_: object) -> None:
        raise StoreError("no answer")

    with monkeypatch.context() as patch:
        patch.setattr(filesystem.RemoteFolder, "write", away)
        first.keep()
        with pytest.raises(StoreError, match="no answer"):
            first.keep(last=True)
    assert second.latest() is None
    first.keep()  # too soon to try again
    assert second.latest() is None
    first.keep(last=True)
    assert second.latest() == (5, second.here / "step-00000005")


def test_files_of_others_stay(machine: Machine, store: str) -> None:
    first = machine("a")
    memory = fsspec.filesystem("memory")
    root = f"{store.removeprefix('memory://')}/runs/0/checkpoints"
    memory.pipe(f"{root}/step-00000001/state.json", b"not ours")
    memory.pipe(f"{root}/mine.txt", b"mine")
    for step in (5, 10, 15):
        _save(first, step)
        first.keep()
    assert memory.cat(f"{root}/step-00000001/state.json") == b"not ours"
    assert memory.cat(f"{root}/mine.txt") == b"mine"


def test_with_a_store_on_a_disk_all_stays_as_it_is(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home", store_url=str(tmp_path / "store"))
    kept = KeptFolder.at(settings.runs_dir / "0", settings)
    assert kept.place("result.json") == str(settings.runs_dir / "0" / "result.json")
    checkpoints = Checkpoints(kept)
    _save(checkpoints, 5)
    checkpoints.keep(last=True)
    assert checkpoints.latest() == (5, settings.runs_dir / "0" / "checkpoints" / "step-00000005")
    assert checkpoints.place(5) == str(settings.runs_dir / "0" / "checkpoints" / "step-00000005")
    assert not (tmp_path / "store").exists()


def test_a_result_is_found_by_every_machine(store: str, tmp_path: Path) -> None:
    def kept(name: str) -> KeptFolder:
        settings = Settings(home=tmp_path / name, store_url=store)
        return KeptFolder.at(settings.runs_dir / "0", settings)

    assert kept("b").read("spec.json", DatasetSpec) is None
    kept("a").write("spec.json", DatasetSpec(name="digits"))
    assert kept("b").read("spec.json", DatasetSpec) == DatasetSpec(name="digits")
    assert kept("b").has("spec.json")
    kept("b").fetch("spec.json", "nothing.json")
    assert [each.name for each in kept("b").here.iterdir()] == ["spec.json"]
    place = kept("a").place("spec.json")
    assert place == f"{store}/runs/0/spec.json"
    assert json.loads(content(place) or b"") == json.loads((kept("b").here / "spec.json").read_bytes())
    assert content(f"{store}/runs/0/nothing.json") is None


def test_a_file_by_its_place_lies_on_this_disk(store: str, tmp_path: Path) -> None:
    storage.open_folder(f"{store}/reports/abc").write("page.html", b"page")
    copy = brought(f"{store}/reports/abc/page.html", tmp_path)
    assert (copy, copy.read_bytes()) == (tmp_path / "page.html", b"page")
    assert brought("/reports/abc/page.html", tmp_path) == Path("/reports/abc/page.html")
    with pytest.raises(StoreError, match=f"{store}/reports/abc/other"):
        brought(f"{store}/reports/abc/other.html", tmp_path)
