"""What all that comes from the Hugging Face hub needs: does it answer, and if not, take what is here and ask nobody."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

_PATIENCE = 5  # seconds for the hub's first answer


def answers(repository: str, kind: str) -> bool:
    """Whether the hub answers, be it with an error: without a network its loader would try again for half a minute."""
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError

    try:
        huggingface_hub.HfApi().repo_info(repository, repo_type=kind, timeout=_PATIENCE)
    except HfHubHTTPError:
        return True
    except Exception:  # one of several HTTP libraries, whose errors have nothing in common
        return False
    return True


@contextlib.contextmanager
def offline() -> Iterator[None]:
    """The hub's loaders take what they have and ask nobody."""
    import datasets
    import huggingface_hub

    settings: tuple[Any, ...] = (datasets.config, huggingface_hub.constants)
    before = [module.HF_HUB_OFFLINE for module in settings]
    for module in settings:
        module.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        for module, value in zip(settings, before, strict=True):
            module.HF_HUB_OFFLINE = value
