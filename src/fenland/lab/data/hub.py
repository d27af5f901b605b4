"""A data set on the Hugging Face hub."""

from __future__ import annotations

from fenland.lab.data import decode as decoding
from fenland.lab.data.images import Images
from fenland.lab.errors import BadInput


def decode(name: str, repository: str) -> Images:
    """Download (or take from the hub's own cache) and decode ``owner/name`` or ``owner/name@revision``."""
    import datasets

    path, _, revision = repository.partition("@")
    with decoding.quiet(progress=True):
        try:
            loaded = datasets.load_dataset(path, revision=revision or None)
        # OSError: the network, a missing repository, a full disk. ValueError: a set with several configurations.
        except (datasets.exceptions.DatasetsError, OSError, ValueError) as error:
            detail = decoding.first_line(error)
            cure = f"not loaded from the hub ({detail}); check name and network, or give a copy with --data-dir DIR"
            raise BadInput("data", name, cure) from None
        train = loaded.get("train")
        # By name, not by truth: an empty split is there, and has its own error.
        test = next((loaded[split] for split in ("test", "validation", "valid") if split in loaded), None)
        if train is None or test is None:
            raise BadInput("data", name, f"needs a train and a test split; it has {', '.join(loaded)}")
        return decoding.images(name, train, test, "data", name)
