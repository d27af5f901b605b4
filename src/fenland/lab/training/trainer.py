"""Train one configuration to the end, on Lightning Fabric."""

from __future__ import annotations

from pathlib import Path

from fenland.lab.config import RunConfig
from fenland.lab.training import processes
from fenland.lab.training.here import train_here
from fenland.lab.training.loop import OnEpoch
from fenland.lab.training.result import RunResult, diverged

__all__ = ["OnEpoch", "RunResult", "diverged", "train"]


def train(config: RunConfig, on_epoch: OnEpoch | None = None, *, checkpoint: Path | None = None) -> RunResult:
    """Train from scratch or go on; the same configuration on the same machine gives the same numbers.

    With several devices the run is spread over processes: those of ``torchrun`` where it started this one, else new
    ones. They start by importing the program anew, so a script of yours needs ``if __name__ == "__main__":``.

    Args:
        config: the run.
        on_epoch: called with each epoch's record. A run that goes on calls it for the epochs before too.
        checkpoint: a file that is written whole every 30 seconds and at the end of epochs, and from which a killed run
            goes on, to the very same weights and records (but for the times). One of another configuration, or one
            that cannot be read, is left out with a warning. It is yours to remove when the result is safe.

    Raises:
        BadInput: the data, the model, an option or the batch size does not fit.
    """
    if processes.are_needed(config):
        return processes.spread(config, on_epoch, checkpoint)
    return train_here(config, on_epoch, checkpoint)
