"""Adam and AdamW against torch's, and that the compiler stays out of a training on a CPU."""

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


def test_a_training_loads_no_compiler(tmp_path):
    code = """
import sys
import numpy as np
from pairflow.presets import preset
from pairflow.training import fit
digits = preset("demo", "digits")
brief = digits.training.model_copy(update={"num_steps": 2, "coupling": "independent", "warmup_steps": 1})
rows = np.zeros((200, 64), np.uint8)
fit(digits.model, brief, rows, vocab_size=17, image_shape=(1, 8, 8), checkpoint_dir=sys.argv[1], progress=False)
print("torch._dynamo" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
