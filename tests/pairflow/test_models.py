"""Networks: shapes, sizes, a uniform start, the use of every input, the average of weights, and bad sizes."""

import pytest
import torch

from pairflow import models
from pairflow.errors import SpecError
from pairflow.models.ema import Ema
from pairflow.models.shapes import shapes_alone
from pairflow.presets import preset
from pairflow.spec import ModelSpec

DIT = ModelSpec(hidden_size=16, num_layers=2, num_heads=2, cond_size=8)
UNET = ModelSpec(architecture="unet", hidden_size=8, channel_mults=(1, 2), num_res_blocks=1, cond_size=8)


def awaken(model: torch.nn.Module) -> torch.nn.Module:
    """Gives the layers that start at zero random weights, so that all inputs matter."""
    generator = torch.Generator().manual_seed(0)
    for weight in model.parameters():
        if not weight.any():
            weight.data.normal_(std=0.2, generator=generator)
    return model.eval()


@pytest.mark.parametrize(
    ("spec", "vocab_size", "image_shape", "length"),
    [
        (DIT, 43, None, 32),
        (DIT, 2, (1, 8, 8), 64),
        (UNET, 2, (1, 8, 8), 64),
        (UNET, 256, (3, 8, 8), 192),
        (UNET, 2, (1, 28, 28), 784),
        (UNET.model_copy(update={"channel_mults": (1, 2, 2)}), 5, (2, 7, 9), 126),
        (UNET.model_copy(update={"attention_resolutions": (16,)}), 256, (3, 32, 32), 3072),
        (UNET.model_copy(update={"channel_mults": (1,), "hidden_size": 11}), 3, (1, 1, 5), 5),
    ],
)
def test_logits_have_their_shape_and_start_uniform(spec, vocab_size, image_shape, length):
    torch.manual_seed(0)
    model = models.build(spec, vocab_size=vocab_size, length=length, image_shape=image_shape)
    x_t, t = torch.randint(vocab_size, (2, length)), torch.tensor([0.1, 0.9])
    logits = model(x_t, t)
    assert logits.shape == (2, length, vocab_size)
    assert not logits.any()
    awaken(model)
    assert (model(x_t, t) != model(x_t, t.flip(0))).any()
    torch.testing.assert_close(model(x_t, t)[1], model(x_t[1:], t[1:])[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("spec", "image_shape"), [(DIT, None), (UNET, (1, 4, 4))])
def test_logits_of_a_position_depend_on_all_others_and_on_where_it_is(spec, image_shape):
    torch.manual_seed(0)
    model = awaken(models.build(spec, vocab_size=3, length=16, image_shape=image_shape))
    x_t, t = torch.randint(3, (1, 16)), torch.tensor([0.5])
    for position in range(16):
        changed = x_t.clone()
        changed[0, position] = (changed[0, position] + 1) % 3
        assert (model(changed, t) != model(x_t, t)).any(dim=-1).float().mean() > 0.9
    assert len(model(torch.ones_like(x_t), t)[0].unique(dim=0)) > 1


def test_rotary_positions_alone_are_relative():
    """Equal tokens look alike everywhere, and a swap of two others does not: order is seen, the place is not."""
    torch.manual_seed(0)
    spec = DIT.model_copy(update={"absolute_positions": False})
    model = awaken(models.build(spec, vocab_size=3, length=8))
    t = torch.tensor([0.5])
    alike = model(torch.ones(1, 8, dtype=torch.int64), t)[0]
    torch.testing.assert_close(alike, alike[:1].expand_as(alike))
    first, swapped = torch.tensor([[0, 1, 2, 2, 2, 2, 2, 2]]), torch.tensor([[1, 0, 2, 2, 2, 2, 2, 2]])
    assert (model(first, t)[0, 7] - model(swapped, t)[0, 7]).abs().max() > 1e-4


def test_unet_logits_land_on_their_own_pixel_and_channel():
    """With one level and a residual stream, a changed token moves its own channel's features at its own pixel most."""
    spec = ModelSpec(architecture="unet", hidden_size=16, channel_mults=(1,), num_res_blocks=1, cond_size=8)
    torch.manual_seed(0)
    model = awaken(models.build(spec, vocab_size=4, length=2 * 9 * 9, image_shape=(2, 9, 9)))
    x_t, t = torch.zeros(1, 162, dtype=torch.int64), torch.tensor([0.5])
    changed = x_t.clone()
    changed[0, 81 + 4 * 9 + 4] = 3
    moved = (model(changed, t) - model(x_t, t)).abs().sum(-1).view(2, 9, 9).sum(0)
    assert divmod(int(moved.argmax()), 9) == pytest.approx((4, 4), abs=1)


@pytest.mark.parametrize(
    ("name", "dataset", "vocab_size", "image_shape", "length", "count"),
    [
        ("demo", "digits", 2, (1, 8, 8), 64, 259_882),
        ("demo", "patches", 256, (3, 8, 8), 192, 312_576),
        ("demo", "nci", 40, None, 48, 631_272),
        ("laptop", "qm9", 43, None, 32, 1_266_475),
        ("laptop", "digits", 2, (1, 8, 8), 64, 1_451_722),
        ("paper", "qm9", 43, None, 32, 92_411_179),
        ("paper", "mnist-binary", 2, (1, 28, 28), 784, 27_476_874),
        ("paper", "cifar-10", 256, (3, 32, 32), 3072, 38_571_520),
    ],
)
def test_parameter_counts_of_the_presets(name, dataset, vocab_size, image_shape, length, count):
    with torch.device("meta"):
        model = models.build(preset(name, dataset).model, vocab_size=vocab_size, length=length, image_shape=image_shape)
    assert models.count_parameters(model) == count


@pytest.mark.parametrize(
    ("dataset", "vocab_size", "num_states", "image_shape", "length"),
    [
        ("digits", 17, 18, (1, 8, 8), 64),
        ("digits", 300, 300, (2, 7, 5), 70),
        ("nci", 41, 42, None, 48),
        ("cifar-10", 256, 256, (3, 32, 32), 3072),
    ],
)
def test_shapes_alone_are_those_of_the_network(dataset, vocab_size, num_states, image_shape, length):
    spec = preset("demo", dataset).model
    sizes = {"vocab_size": vocab_size, "num_states": num_states, "length": length, "image_shape": image_shape}
    with shapes_alone():
        without = models.build(spec, **sizes)
    network = models.build(spec, **sizes)
    own, theirs = ({**each.state_dict(), **dict(each.named_buffers())} for each in (network, without))
    assert {name: (each.shape, each.dtype) for name, each in own.items()} == {
        name: (each.shape, each.dtype) for name, each in theirs.items()
    }
    assert all(each.is_meta for each in theirs.values())


def test_dit_parameters_add_up():
    """Counted by hand: width 16, conditioning 8, 2 blocks, K = 5."""
    time = (128 * 8 + 8) + (8 * 8 + 8)
    block = (8 + 1) * 6 * 16 + 16 * 48 + 16 * 16 + (16 * 64 + 64) + (64 * 16 + 16)
    ends = 5 * 16 + (8 + 1) * 2 * 16 + (16 + 1) * 5
    relative = DIT.model_copy(update={"absolute_positions": False})
    assert models.count_parameters(models.build(relative, vocab_size=5, length=7)) == time + 2 * block + ends
    assert models.count_parameters(models.build(DIT, vocab_size=5, length=7)) == time + 2 * block + ends + 7 * 16


def test_dropout_acts_in_training_only():
    for spec, shape in ((DIT, None), (UNET, (1, 4, 4))):
        torch.manual_seed(0)
        spec = spec.model_copy(update={"dropout": 0.5})
        model = awaken(models.build(spec, vocab_size=3, length=16, image_shape=shape))
        x_t, t = torch.randint(3, (2, 16)), torch.tensor([0.2, 0.8])
        assert torch.equal(model(x_t, t), model(x_t, t))
        model.train()
        assert not torch.equal(model(x_t, t), model(x_t, t))


def test_ema_is_the_recursion_with_a_warmed_up_decay():
    model = torch.nn.Linear(2, 1)
    ema = Ema(model, decay=0.5)
    expected = model.weight.detach().clone()
    for step, decay in enumerate([0.1, 2 / 11, 3 / 12, 4 / 13, 5 / 14, 6 / 15, 7 / 16, 8 / 17, 0.5, 0.5]):
        model.weight.data += 1.0
        ema.update(step)
        expected = decay * expected + (1 - decay) * model.weight.detach()
    torch.testing.assert_close(ema.model.weight, expected)
    assert not any(weight.requires_grad for weight in ema.model.parameters())
    assert not ema.model.training


@pytest.mark.parametrize(
    ("spec", "sizes", "message"),
    [
        (UNET, {"vocab_size": 2, "length": 64}, "'unet' needs data with an image shape"),
        (UNET, {"vocab_size": 2, "length": 63, "image_shape": (1, 8, 8)}, "product of D = 63"),
        (DIT, {"vocab_size": 1, "length": 4}, "got vocab_size 1"),
        (DIT, {"vocab_size": 4, "length": 0}, "length 0"),
        (
            UNET.model_copy(update={"attention_resolutions": (5,)}),
            {"vocab_size": 2, "length": 64, "image_shape": (1, 8, 8)},
            r"got 5, but this network's image heights are \[8, 4\]",
        ),
        (
            UNET.model_copy(update={"attention_resolutions": (4,), "num_heads": 3}),
            {"vocab_size": 2, "length": 64, "image_shape": (1, 8, 8)},
            "got 3, which does not divide the 16 channels at height 4",
        ),
    ],
)
def test_sizes_that_do_not_fit_are_named(spec, sizes, message):
    with pytest.raises(SpecError, match=message):
        models.build(spec, **sizes)
