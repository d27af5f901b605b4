"""`Highest` in a method of a user's own: the answer is the key of the candidate whose point has the largest loss."""

from dataclasses import dataclass

import pytest
import torch
from torch import nn

import fenland


@dataclass(frozen=True)
class Farthest(fenland.Method):
    """d = k * g, k being the candidate whose w + k * g is the highest."""

    candidates: tuple[float, ...] = (0.5,)
    searches = True

    def step(self, s):
        g = yield fenland.Grad()
        k = yield fenland.Highest({k: g * k for k in self.candidates})
        yield fenland.Update(g * k)


@pytest.mark.parametrize(
    ("candidates", "highest"), [((0.5, -1.0, 0.25), 0.5), ((1.0, 0.5), 1.0), ((-3.0, 0.5), -3.0), ((-1.0, -0.5), -0.5)]
)
def test_the_highest_of_the_candidates_is_told(candidates, highest):
    start = torch.tensor([3.0, 4.0], dtype=torch.float64)
    w, seen = nn.Parameter(start.clone()), []
    opt = fenland.SharpnessAware(torch.optim.SGD([w], lr=0.1), method=Farthest(candidates))

    def closure():
        seen.append(w.detach().clone())
        opt.zero_grad()
        loss = 0.5 * w.square().sum()  # its gradient is w itself, so that w + k * g = (1 + k) * w
        loss.backward()
        return loss

    opt.step(closure)
    torch.testing.assert_close(torch.stack(seen), torch.stack([start, *((1 + k) * start for k in candidates)]))
    torch.testing.assert_close(w.detach(), start - 0.1 * highest * start)
