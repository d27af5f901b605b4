"""Whether anybody hooks into all modules; torch's own question, `_has_any_global_hook`, is younger than torch 2.6."""

from torch.nn.modules import module

_KINDS = [
    each
    for name, each in vars(module).items()
    if name.startswith("_global_") and "hooks" in name and isinstance(each, dict)
]
assert len(_KINDS) >= 4, "forward and backward, before and after"


def any_global_hook() -> bool:
    """Whether a hook is on every module there is."""
    return any(_KINDS)
