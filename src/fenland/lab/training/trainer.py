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
    """Train a run from scratch, or continue it from its checkpoint.

    The same configuration gives the same numbers on the same machine.

    With several devices the run is spread over processes: those of ``torchrun`` where it started this one, else new
    ones. They start by importing the program anew, so a script of yours needs ``if __name__ == "__main__":``.

    Args:
        config: the configuration of the run.
        on_epoch: a function that is called with each epoch's record; a run that continues calls it for the earlier
            epochs, too.
        checkpoint: a file, written every 30 seconds and at the end of epochs, from which a killed run continues to the
            same weights and records, times excepted. A file of another configuration, or one that cannot be read, is
            ignored with a warning. Remove it yourself when the result is safe; None writes none.

    Raises:
        BadInput: the data, the model, an option or the batch size does not fit.
    """
    if processes.are_needed(config):
        return processes.spread(config, on_epoch, checkpoint)
    return train_here(config, on_epoch, checkpoint)
