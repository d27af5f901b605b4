"""What a look at the autograd graph tells before it is used."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from torch import Tensor


def nodes(roots: Iterable[Any]) -> Iterator[Any]:
    """All functions that lead to the roots, each once."""
    seen: set[Any] = set()
    waiting = list(roots)
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        yield node
        waiting += [following for following, _ in node.next_functions]


def refuse_hidden_parameters(loss: Tensor) -> None:
    """Raise where a reentrant checkpoint hides parameters: `torch.autograd.grad` would silently leave them out."""
    if any(node.name() == "CheckpointFunctionBackward" for node in nodes([loss.grad_fn])):
        raise RuntimeError(
            "the model uses torch.utils.checkpoint with use_reentrant=True, which hides the gradients of what is "
            "inside from torch.autograd.grad; pass use_reentrant=False"
        )


def reaches(loss: Tensor, params: Iterable[Tensor]) -> bool:
    """Whether a derivative of the loss leads to one of the parameters."""
    wanted = {id(p) for p in params}
    return bool(wanted) and any(id(getattr(node, "variable", None)) in wanted for node in nodes([loss.grad_fn]))


def once_differentiable(grads: Iterable[Tensor | None]) -> bool:
    """Whether a function marked so cuts the graph of gradients: its second derivative would count as zero."""
    return any(node.name() == "torch::autograd::Error" for node in nodes(g.grad_fn for g in grads if g is not None))
