"""Trajectories and sheets of pictures: every kind of data, masks included, and what is marked."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flows.jobs.scoring import Trajectory
from flows.pages.figures import pictures, sheet, trajectories
from pairflow.datasets.base import DatasetReport, TokenDataset
from pairflow.datasets.vocabulary import Vocabulary


def dataset(kind: str, **options: object) -> TokenDataset:
    settings = {"vocab": None, "image_shape": None, "labels": None, "vocab_size": 4} | options
    tokens = np.zeros((2, 6), np.uint8)
    return TokenDataset(
        name="made-up", tokens=tokens, kind=kind, splits={}, report=DatasetReport("here", 2, 2), **settings
    )


def test_long_trajectories_keep_their_ends_and_survive_a_file(tmp_path: Path) -> None:
    states = [np.full((2, 6), step, np.int32) for step in range(34)]
    long = Trajectory.of(32, states)
    assert long.tokens.shape == (10, 2, 6)
    assert (long.steps[0], long.steps[-1]) == (0, 33)
    assert (long.tokens[:, 0, 0] == long.steps).all()
    long.save(tmp_path / "trajectory.npz")
    again = Trajectory.load(tmp_path / "trajectory.npz")
    assert again.num_steps == 32
    np.testing.assert_array_equal(again.tokens, long.tokens)
    short = Trajectory.of(1, states[:2])
    np.testing.assert_array_equal(short.steps, [0, 1])


@pytest.mark.parametrize(
    "data",
    [
        dataset("tokens"),
        dataset("images", image_shape=(1, 2, 3)),
        dataset("images", image_shape=(3, 1, 2)),
        dataset("molecules", vocab=Vocabulary(("<bos>", "<eos>", "<pad>", "C"))),
    ],
    ids=["tokens", "grey images", "colour images", "molecules"],
)
def test_trajectories_of_any_data_are_drawn_masks_included(data: TokenDataset, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    states = [np.full((5, 6), 4), rng.integers(5, size=(5, 6)), rng.integers(4, size=(5, 6))]  # K = 4 is a mask
    trajectories.draw(data, Trajectory.of(2, states), "a model", tmp_path / "picture.png")
    with Image.open(tmp_path / "picture.png") as picture:
        assert min(picture.size) > 200


@pytest.mark.parametrize("num_changed", [0, 3])
def test_changed_tokens_of_a_string_are_marked(num_changed: int, tmp_path: Path) -> None:
    data = dataset("molecules", vocab=Vocabulary(("<bos>", "<eos>", "<pad>", "C")))
    first = np.array([[0, 3, 3, 3, 1, 2]])
    second = first.copy()
    second[0, :num_changed] = 2
    trajectories.draw(data, Trajectory.of(1, [first, second]), "a model", tmp_path / "picture.png")
    marked = (np.asarray(Image.open(tmp_path / "picture.png")) == trajectories._CHANGED).all(axis=-1)
    assert marked.any() == (num_changed > 0)
    one = marked.sum() / max(num_changed, 1)
    assert one < 300  # pixels of a marked character, less its ink


def test_a_sheet_enlarges_each_pixel_to_a_square(tmp_path: Path) -> None:
    board = pictures.image(np.array([0, 1, 1, 0]), (1, 2, 2), 2)
    sheet.write([("a label", [board, board]), ("a longer\nlabel", [board])], "title", tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as picture:
        pixels = np.asarray(picture)
    black = (pixels == 0).all(axis=-1)
    # No grey between black and white: each cell has two squares of half its side.
    assert black.sum() == 3 * 2 * (sheet.CELL // 2) ** 2
