"""From a name on the command line to a decoded data set."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from pathlib import Path

from fenland.lab.config import RunConfig
from fenland.lab.data import cache, decode, digits
from fenland.lab.data.folder import Folder, find
from fenland.lab.data.images import Images
from fenland.lab.data.selection import select
from fenland.lab.data.source import Split
from fenland.lab.data.tokens import Tokenizer, Tokens, tokens
from fenland.lab.errors import BadInput, meant, one_of

# Hub name and image shape (channels, height, width) of the sets that have a short name.
_ON_THE_HUB = {
    "mnist": ("ylecun/mnist", (1, 28, 28)),
    "cifar10": ("uoft-cs/cifar10", (3, 32, 32)),
    "cifar100": ("uoft-cs/cifar100", (3, 32, 32)),
}
BUILT_IN = ("digits", *_ON_THE_HUB)
LOCAL = "local"  # what data from a folder is called: the folder's own name says where it lies, not what it is


def identify(config: RunConfig) -> RunConfig:
    """Check that the data set exists and has the right schema, and fill in ``data_id``. Decodes nothing.

    A folder named as ``data`` goes to ``data_dir``, with ``data`` being "local". The identity of local data is a hash
    of the files' contents: a copy elsewhere is the same data, an edit is not. Data on the hub is identified by its
    name, its revision where given as ``owner/name@revision``, and the test split where one is chosen.

    Raises:
        BadInput: the data set is unknown, missing or has the wrong schema.
    """
    config = _placed(config)
    return dataclasses.replace(config, data_id=_identity(config))


def load_texts(config: RunConfig, tokenize: Tokenizer) -> Tokens:
    """The tokenised data set of a configuration, with the train set that it asks for.

    Args:
        config: the run.
        tokenize: the tokenizer of its model.

    Raises:
        BadInput: the data set is unknown, missing, broken or one of images.
    """
    config = _placed(config)
    splits = _stored(config, config.data_id or _identity(config))
    if splits[0].texts is None:
        raise splits[0].bad(f"holds images, but {config.model} reads texts; choose another model or other data")
    return select(
        tokens(config.data, *splits, tokenize),
        validate=config.validate,
        limit=config.limit,
        label_noise=config.label_noise,
        data_seed=config.data_seed,
        replace=config.replace,
    )


def load(config: RunConfig) -> Images:
    """The decoded data set of a configuration, from the cache where possible, with the train set that it asks for.

    Raises:
        BadInput: the data set is unknown, missing, broken, of an unexpected size or one of texts.
    """
    return select(
        _whole(_placed(config)),
        validate=config.validate,
        limit=config.limit,
        label_noise=config.label_noise,
        data_seed=config.data_seed,
        replace=config.replace,
    )


def folder_of(config: RunConfig) -> Folder | None:
    """The local folder of a configuration, with its splits; None where the data come from elsewhere."""
    config = _placed(config)
    if config.data_dir is None:
        return None
    if config.data == "digits":
        raise BadInput("data-dir", config.data_dir, "digits come with scikit-learn; leave it out, or name other --data")
    if config.data != LOCAL:
        hub_name(config.data)
    return find("data" if config.data == LOCAL else "data-dir", Path(config.data_dir), config.test_split or "")


def hub_name(name: str) -> str:
    """The name on the hub of a data set."""
    if name in _ON_THE_HUB:
        return _ON_THE_HUB[name][0]
    owner, _, rest = name.partition("/")
    if not owner or not rest or "/" in rest or name != name.strip():
        raise BadInput("data", name, f"{one_of(BUILT_IN)}, a hub name owner/name, or a folder{meant(name, BUILT_IN)}")
    return name


def _placed(config: RunConfig) -> RunConfig:
    """A folder given as ``data`` in its place."""
    name = config.data
    if config.data_dir is not None or name in BUILT_IN:
        return config
    shaped = name.startswith((".", "~", os.sep)) or name.endswith(os.sep)
    path = Path(name).expanduser()
    if path.is_dir() or (name and (shaped or path.is_file())):
        return dataclasses.replace(config, data=LOCAL, data_dir=str(path))
    if name == LOCAL:
        raise BadInput("data", name, "give the folder itself, as in --data DIR")
    return config


def _identity(config: RunConfig) -> str:
    folder = folder_of(config)
    if folder is not None:
        return folder.identity()
    if config.data == "digits":
        if config.test_split:
            raise BadInput("test-split", config.test_split, "digits have one test split; leave it out")
        return "scikit-learn"
    chosen = f" test={config.test_split}" if config.test_split else ""
    return f"hub:{hub_name(config.data)}{chosen}"


def _whole(config: RunConfig) -> Images:
    if config.data == "digits":
        return digits.load()
    identity = config.data_id or _identity(config)
    return cache.cached(_key(config.data, identity), config.data, lambda: _decode(config, identity))


def _key(name: str, identity: str) -> str:
    label = "".join(letter if letter.isalnum() else "-" for letter in name)
    return f"{label}-{hashlib.sha256(f'{name} {identity}'.encode()).hexdigest()[:16]}"


def _of_the_hub(config: RunConfig) -> tuple[Split, Split, list[str]]:
    from fenland.lab.data import hub

    return hub.read(config.data, hub_name(config.data), config.test_split or "")


def _stored(config: RunConfig, identity: str) -> tuple[Split, Split, list[str]]:
    """Train and test split as they are stored, and the names of the others."""
    folder = folder_of(config)
    if folder is None:
        return _of_the_hub(config)
    # The files may have changed since the sweep was planned; a cache under the old name would be wrong for ever.
    if folder.identity() != identity:
        raise BadInput(folder.argument, folder.path, "the files changed since this run was planned; start again")
    return folder.read(folder.train), folder.read(folder.test), folder.others()


def _decode(config: RunConfig, identity: str) -> Images:
    train, test, others = _stored(config, identity)
    if train.texts is not None:
        raise train.bad(
            f"holds texts, but {config.model} takes images; name a pre-trained transformer, such as --model "
            "sentence-transformers/all-MiniLM-L6-v2 or the folder of one"
        )
    images = decode.images(config.data, train, test, others)
    expected = _ON_THE_HUB.get(config.data, (None, images.shape))[1]
    if images.shape != expected:
        size, wanted = _size(images.shape), _size(expected)
        raise BadInput(train.argument, train.value, f"images are {size}, but {config.data} has {wanted}")
    return images


def _size(shape: tuple[int, int, int]) -> str:
    return f"{shape[1]}x{shape[2]} with {shape[0]} channel{'s' * (shape[0] > 1)}"
