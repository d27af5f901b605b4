"""From a name on the command line to a decoded data set."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

from fenland.lab.config import RunConfig
from fenland.lab.data import cache, digits
from fenland.lab.data.images import Images
from fenland.lab.data.selection import select
from fenland.lab.errors import BadInput

# Hub name and image shape (channels, height, width) of the sets that have a short name.
_ON_THE_HUB = {
    "mnist": ("ylecun/mnist", (1, 28, 28)),
    "cifar10": ("uoft-cs/cifar10", (3, 32, 32)),
    "cifar100": ("uoft-cs/cifar100", (3, 32, 32)),
}
BUILT_IN = ("digits", *_ON_THE_HUB)


def identify(config: RunConfig) -> RunConfig:
    """Check that the data set exists and has the right schema, and fill in ``data_id``. Decodes nothing.

    The identity of local data is a hash of the files' contents: a copy elsewhere is the same data, an edit is not.
    Data on the hub is identified by its name and, where given as ``owner/name@revision``, its revision.

    Raises:
        BadInput: the data set is unknown, missing or has the wrong schema.
    """
    return dataclasses.replace(config, data_id=_identity(config.data, config.data_dir))


def load(config: RunConfig) -> Images:
    """The decoded data set of a configuration, from the cache where possible, with the train set that it asks for.

    Raises:
        BadInput: the data set is unknown, missing, broken or of an unexpected size.
    """
    return select(
        _whole(config),
        limit=config.limit,
        label_noise=config.label_noise,
        data_seed=config.data_seed,
        replace=config.replace,
    )


def _whole(config: RunConfig) -> Images:
    if config.data == "digits":
        return digits.load()
    identity = config.data_id or _identity(config.data, config.data_dir)
    return cache.cached(_key(config.data, identity), config.data, lambda: _decode(config, identity))


def _identity(name: str, folder: str | None) -> str:
    if folder is not None:
        from fenland.lab.data import parquet

        if name == "digits":
            raise BadInput("data-dir", folder, "digits come with scikit-learn; leave it out, or name other --data")
        if name != "local":
            _hub_name(name)
        return parquet.identity(Path(folder))
    if name == "digits":
        return "scikit-learn"
    if name == "local":
        raise BadInput("data", name, "needs --data-dir DIR with train and test parquet files")
    return f"hub:{_hub_name(name)}"


def _hub_name(name: str) -> str:
    if name in _ON_THE_HUB:
        return _ON_THE_HUB[name][0]
    owner, _, rest = name.partition("/")
    if not owner or not rest or "/" in rest or name != name.strip():
        allowed = ", ".join(BUILT_IN)
        raise BadInput("data", name, f"choose one of {allowed}, a hub name owner/name, or local with --data-dir DIR")
    return name


def _key(name: str, identity: str) -> str:
    label = "".join(letter if letter.isalnum() else "-" for letter in name)
    return f"{label}-{hashlib.sha256(f'{name} {identity}'.encode()).hexdigest()[:16]}"


def _decode(config: RunConfig, identity: str) -> Images:
    from fenland.lab.data import hub, parquet

    if config.data_dir is None:
        images = hub.decode(config.data, _hub_name(config.data))
        argument, value = "data", config.data
    else:
        folder = Path(config.data_dir)
        # The files may have changed since the sweep was planned; a cache under the old name would be wrong for ever.
        if parquet.identity(folder) != identity:
            raise BadInput("data-dir", folder, "the files changed since this run was planned; start again")
        images = parquet.decode(config.data, folder)
        argument, value = "data-dir", config.data_dir
    expected = _ON_THE_HUB.get(config.data, (None, images.shape))[1]
    if images.shape != expected:
        raise BadInput(argument, value, f"images are {_size(images.shape)}, but {config.data} has {_size(expected)}")
    return images


def _size(shape: tuple[int, int, int]) -> str:
    return f"{shape[1]}x{shape[2]} with {shape[0]} channel{'s' * (shape[0] > 1)}"
