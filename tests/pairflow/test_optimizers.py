"""Adam and AdamW against torch's, and that the compiler stays out of training and sampling on a CPU."""

import subprocess
import sys

import pytest
import torch

from pairflow import optimizers


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("name", ["Adam", "AdamW"])
def test_as_torch_s_bit_for_bit(name, fused):
    def trained(kind):
        torch.manual_seed(0)
        weights = [torch.randn(5, 3, requires_grad=True), torch.randn(7, requires_grad=True)]
        optimizer = kind(weights, lr=0.1, betas=(0.8, 0.9), weight_decay=0.2, fused=fused)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 4)
        for step in range(6):
            optimizer.zero_grad(set_to_none=True)
            assert all(each.grad is None for each in weights)
            torch.stack([(each.sin() * (step + 1)).sum() for each in weights]).sum().backward()
            optimizer.step()
            schedule.step()
        return [each.detach() for each in weights], optimizer

    weights, optimizer = trained(getattr(optimizers, name))
    expected, theirs = trained(getattr(torch.optim, name))
    assert all(torch.equal(one, other) for one, other in zip(weights, expected, strict=True))
    assert optimizer.defaults == theirs.defaults
    assert str(optimizer.state_dict()) == str(theirs.state_dict())
    assert isinstance(optimizer, getattr(torch.optim, name))


def test_training_and_sampling_load_no_compiler(tmp_path):
    code = """
import sys
import numpy as np
from pairflow.checkpoint import load_model
from pairflow.presets import preset
from pairflow.sampling import sample
from pairflow.training import fit
for name, vocab_size, shape in (("digits", 17, (1, 8, 8)), ("nci", 41, None)):
    recipe = preset("demo", name)
    brief = recipe.training.model_copy(update={"num_steps": 2, "coupling": "independent", "warmup_steps": 1})
    data = {"vocab_size": vocab_size, "image_shape": shape}
    made = fit(recipe.model, brief, np.zeros((128, 64), np.uint8), **data, checkpoint_dir=sys.argv[1] + name)
    loaded = load_model(made.checkpoint)
    sample(loaded.model, loaded.process, num_samples=2, num_steps=2, length=64, progress=False)
print("torch._dynamo" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code, f"{tmp_path}/"], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
