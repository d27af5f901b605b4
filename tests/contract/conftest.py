"""SAM and SSAM run the whole matrix of the contract in the fast tier, the rest of the family a thinned one.

The other presets of the engine (USAM, SSAM-U, the capped SSAM) declare what these two do (tests/kinds.py). The slow
tier runs what was thinned out.
"""

import pytest

WHOLE = {"SAM", "SSAM"}
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
    """Whether this check waits for the slow tier: its preset only recombines what the whole matrix has covered."""
    params = getattr(getattr(item, "callspec", None), "params", {})
    variant = params.get("variant")
    if variant is None or getattr(variant, "name", None) in WHOLE:
        return False
    return any(isinstance(v, str | int | float) and k in THIN and v not in THIN[k] for k, v in params.items())


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if _thin(item):
            item.add_marker(pytest.mark.slow)
