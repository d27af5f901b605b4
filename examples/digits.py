"""What the examples share: scikit-learn's 1797 handwritten digits, a small network, and its accuracy."""

import argparse

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn


def arguments(epochs: int) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=epochs)
    parser.add_argument(
        "--quick",
        action="store_true",
        help="a few seconds: enough to see that it learns",
    )
    args = parser.parse_args()
    args.epochs = max(1, epochs // 5) if args.quick else args.epochs
    torch.manual_seed(0)
    return args


def load(image: bool = False) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Training images, their labels, test images, their labels; (N, 64), or (N, 1, 8, 8) as images."""
    raw = load_digits()
    x, y = (
        torch.tensor(raw.data, dtype=torch.float32) / 16,
        torch.tensor(raw.target),
    )
    x = x.view(-1, 1, 8, 8) if image else x
    order = torch.randperm(
        len(x), generator=torch.Generator().manual_seed(0)
    )
    train, test = order[:1440], order[1440:]
    return x[train], y[train], x[test], y[test]


def network() -> nn.Module:
    """BatchNorm and dropout: fenland keeps both right, given `model=`."""
    return nn.Sequential(
        nn.Linear(64, 128),
        nn.BatchNorm1d(128),
        nn.ReLU(),
        nn.Dropout(0.2),
        nn.Linear(128, 10),
    )


def shuffled(
    x: Tensor, y: Tensor, size: int = 48
) -> list[tuple[Tensor, Tensor]]:
    """One epoch of batches."""
    order = torch.randperm(len(x))
    return [(x[rows], y[rows]) for rows in order.split(size)]


@torch.no_grad()
def accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float:
    model.eval()
    right = (model(x).argmax(1) == y).float().mean()
    model.train()
    return float(right)
