"""Stored pairs and a loop of your own: PyTorch and `PairReader`, no Prefect, no Ray, no MLflow.

    python examples/train_from_pairs.py store/pairs/….parquet

The network here is a small transformer-free one, so that the file stands alone; take `pairflow.models.build`, or yours:
int64 [B, D] and times [B] in, logits [B, D, K] out.
"""

import sys

import torch
from torch import nn

import storage
from pairflow.datasets import Vocabulary
from pairflow.processes import build
from pairflow.sampling import sample
from pairflow.spec import SamplingSpec


class Denoiser(nn.Module):
    """Embeds tokens and time, mixes positions by an MLP over them, and says what each token of x_1 may be."""

    def __init__(self, vocab_size: int, length: int, width: int = 64) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocab_size, width)
        self.place = nn.Parameter(torch.randn(length, width) / width**0.5)
        self.time = nn.Sequential(nn.Linear(1, width), nn.SiLU(), nn.Linear(width, width))
        self.across = nn.Sequential(nn.Linear(length, 2 * length), nn.SiLU(), nn.Linear(2 * length, length))
        self.within = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.SiLU(), nn.Linear(4 * width, width)
        )
        self.out = nn.Linear(width, vocab_size)

    def forward(self, x_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        h = self.tokens(x_t) + self.place + self.time(t.float()[:, None])[:, None]
        h = h + self.across(h.transpose(1, 2)).transpose(1, 2)
        return self.out(h + self.within(h))


def main(url: str, num_steps: int = 2000, batch_size: int = 128) -> list[float]:
    pairs = storage.open_pairs(url)  # only ever whole ones
    header = pairs.manifest
    torch.manual_seed(0)
    process = build("uniform", header.vocab_size, "all")  # "all": the loss below is cross-entropy
    network = Denoiser(header.vocab_size, header.length)
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3)

    # One order of the rows for any number of ranks; `state_dict` goes on in the middle of an epoch.
    reader = storage.PairReader(pairs, batch_size=min(batch_size, len(pairs)), seed=0, drop_last=True)
    losses: list[float] = []
    while len(losses) < num_steps:
        for batch in reader:
            source, target = (torch.from_numpy(each).long() for each in (batch.source, batch.target))
            t = torch.rand(len(target))
            x_t = torch.where(torch.rand(target.shape) < t[:, None], target, source)  # Eq. (1.1) with kappa(t) = t
            loss = process.cross_entropy(network(x_t, t), x_t, target, t).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            if len(losses) % 100 == 0:
                print(f"step {len(losses)}: {sum(losses[-100:]) / 100:.3f} nats a token")
            if len(losses) == num_steps:
                break

    # Few steps, an argmax end: as many network calls as steps.
    how = SamplingSpec(sampler="euler", final_step="argmax")
    drawn = sample(network, process, how, num_samples=8, num_steps=4, length=header.length, progress=False)
    if header.vocab is not None:
        print("\n".join(Vocabulary(header.vocab).decode(drawn.tokens)))
    return losses


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: train_from_pairs.py URL_OF_PAIRS")
    main(sys.argv[1])
