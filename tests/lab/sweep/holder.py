"""What a process of its own runs to hold a claim: it imports the store and no more, so that it is there at once."""

import time
from multiprocessing.synchronize import Event
from pathlib import Path

from fenland.lab.store.runs import Store


def hold(root: Path, ready: Event) -> None:
    mine = Store(root).claim("a")
    assert mine is not None
    ready.set()
    time.sleep(60)
