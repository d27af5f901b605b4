"""Small models and losses for the landscape's tests; run as a script it is the process that gets killed."""

import sys
import time

import torch
from torch import nn

from fenland.diagnostics.landscape import random_slice


class Bowl(nn.Module):
    """Two parameters w (2, 3) and b (3,), and a quadratic loss of them; batches are targets."""

    def __init__(self):
        super().__init__()
        draws = torch.Generator().manual_seed(1)
        self.w = nn.Parameter(torch.randn(2, 3, generator=draws, dtype=torch.float64))
        self.b = nn.Parameter(torch.randn(3, generator=draws, dtype=torch.float64))

    def forward(self, target):
        return ((self.w - target.mean()) ** 2).sum() * 2 + (self.b**2).sum() / 2


def bowl_loss(model, batch):
    return model(batch)


def net(bn=False, conv=False, seed=0):
    torch.manual_seed(seed)
    if conv:
        head = [nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 3)]
        return nn.Sequential(nn.Unflatten(1, (1, 8, 8)), *head)
    middle = [nn.BatchNorm1d(16)] if bn else []
    return nn.Sequential(nn.Linear(64, 16), *middle, nn.Tanh(), nn.Dropout(0.5), nn.Linear(16, 3))


def loss_fn(model, batch):
    x, y = batch
    return nn.functional.cross_entropy(model(x), y)


def batches(count=3, size=10):
    draws = torch.Generator().manual_seed(2)
    return [
        (torch.randn(size + k, 64, generator=draws) + 0.5, torch.randint(3, (size + k,), generator=draws))
        for k in range(count)
    ]


def slow_loss(model, batch):
    time.sleep(0.02)
    return loss_fn(model, batch)


def kept_slice(file, loss):
    return random_slice(net(bn=True), loss, batches(), points=7, extent=0.5, chunk=4, file=file, save_every=0.0)


if __name__ == "__main__":
    torch.set_num_threads(1)
    kept_slice(sys.argv[1], slow_loss)
