"""The engine's own presets run the whole matrix of the contract, the rest of the family a thinned one.

FENLAND_FULL_CONTRACT=1 runs all of it for every preset.
"""

import os

import pytest

WHOLE = {"SAM", "USAM", "SSAM", "SSAM-U", "SSAM(cap)"}
THIN = {
    "perturb": {"auto"},
    "base": {"sgd_momentum", "adamw"},
    "case": {"conv_bn_dropout", "buffers", "tied", "second_pass_only"},
    "good_steps": {0},
    "scheduler": {"step"},
    "name": {"OneCycleLR", "all"},
    "alias": {"the tensor itself"},
    "layout": {"column major"},
    "value": {float("inf")},
}


def _thin(item: pytest.Item) -> bool:
    """Whether this check is left out for presets that only recombine what the whole matrix has covered."""
    params = getattr(getattr(item, "callspec", None), "params", {})
    variant = params.get("variant")
    if variant is None or getattr(variant, "name", None) in WHOLE:
        return False
    return any(isinstance(v, str | int | float) and k in THIN and v not in THIN[k] for k, v in params.items())


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not os.environ.get("FENLAND_FULL_CONTRACT"):
        out = [item for item in items if _thin(item)]
        if out:
            config.hook.pytest_deselected(items=out)
            items[:] = [item for item in items if not _thin(item)]
