"""ChemNet's features of molecules, for the Fréchet ChemNet Distance (Preuer et al., J. Chem. Inf. Model. 58, 2018).

The network and its weights are those of the package `fcd` (`pip install 'pairflow[fcd]'`), which holds them: nothing is
downloaded. Without it the distance is not measured.
"""

import importlib.resources
from collections.abc import Sequence

import numpy as np
import torch

from pairflow.metrics.extras import CHEMNET

_WEIGHTS = "ChemNet_v0.13_pretrained.pt"
_BATCH_SIZE = 128


class ChemNet:
    """The pretrained network.

    Args:
        device: where it runs.
    """

    def __init__(self, device: torch.device) -> None:
        import fcd

        self._device = device
        # It goes through torch.load, which since torch 2.6 reads tensors and no other objects.
        with importlib.resources.as_file(importlib.resources.files(CHEMNET) / _WEIGHTS) as path:
            self._network = fcd.load_ref_model(str(path)).to(device)

    @torch.no_grad()
    def features(self, smiles: Sequence[str]) -> np.ndarray:
        """Features [N, 512], float64, of canonical SMILES; several milliseconds a molecule on one core."""
        from fcd.utils import SmilesDataset

        rows = SmilesDataset(list(smiles))
        parts = []
        for first in range(0, len(rows), _BATCH_SIZE):
            chosen = range(first, min(first + _BATCH_SIZE, len(rows)))
            one_hot = torch.from_numpy(np.stack([rows[row] for row in chosen])).float()
            parts.append(self._network(one_hot.transpose(1, 2).to(self._device)).cpu().numpy())
        return np.concatenate(parts).astype(np.float64)
