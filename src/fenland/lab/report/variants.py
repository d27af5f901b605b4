"""docs/methods.md, made from the table of methods."""

from __future__ import annotations

from fenland.lab.report.equations import markdown
from fenland.markdown import table
from fenland.presets import PRESETS, Preset

# Module of fenland.presets -> its page in docs/methods, and what the methods there have in common.
FAMILIES = {
    "balls": (
        "Which norm bounds the perturbation",
        "they change the shape of the ball around w, or which weights move",
    ),
    "combines": ("What the base optimizer gets", "they mix the two gradients in other ways"),
    "schedules": ("On which steps the ascent runs", "they save gradients by leaving some ascents out"),
    "sources": ("Which vector is climbed along", "they take another direction than the gradient of the batch"),
}

_HEAD = """# Methods

Each method below is one function, `fenland.NAME(base, rho, ...)`, which wraps any first-order `torch.optim` optimizer.
New to this? Take `SSAM` or `SAM` and read [How to choose](choosing-a-method.md) first.

**How to read the tables.** $w$ are the weights and $g$ is their gradient; $e$ is the perturbation and $h$ the gradient
at $w + e$; the base optimizer then makes its step at $w$ with $d$. $\\lvert\\cdot\\rvert$ is one L2 norm over all
parameters that move. *Gradients* counts gradient evaluations a step: 1 is the price of the base optimizer alone. *Kept*
counts parameter-sized buffers that stay between steps, in addition to those of the base. *In step* counts further ones
that live only during the second pass. *Syncs* counts how often a step makes the host wait for an accelerator, with a
fused base.

"""

_NAMES = """## One name, several methods

Papers reuse names. This is what each name means here.

| name | in fenland | elsewhere it may also mean |
|---|---|---|
| SSAM | Stable SAM (`SSAM`) | Sparse SAM (`SparseSAM`) |
| SAM in the SSAM paper | `USAM` | |
| MSAM | Momentum-SAM (`MSAM`) | multi-step SAM (`NStepSAM`), micro-batch SAM (`step([closure, ...])`) |
| RSAM | `RiemannianSAM` | Random SAM of Liu et al. 2022 (not available), `RST` |
| F-SAM | `FriendlySAM` | Fisher SAM (`FisherSAM`), Functional SAM (not available) |
| XSAM | `XSAM`, Chen and Zhou 2026 | X-SAM, arXiv 2601.10251 (not available) |
| n-SAM | `NStepSAM`: n ascent steps | SAM with the full-data gradient, in papers on SDEs |

The command `fenland variants --markdown > docs/methods.md` makes these tables from the table of methods; do not
edit them by hand.
"""


def page() -> str:
    """The whole page."""
    return _HEAD + "".join(_family(name) for name in FAMILIES) + _NAMES


def family(row: Preset) -> str:
    """The name of the page that has this method; those that renormalise change what the base gets."""
    return "combines" if "Renormalize" in row.choices else row.build.__module__.rpartition(".")[2]


def _family(name: str) -> str:
    title, common = FAMILIES[name]
    rows = [row for row in PRESETS.values() if family(row) == name]
    facts = table(
        ("method", "equation", "gradients", "kept", "in step", "syncs", "source"),
        [
            (_link(row), markdown(row.equation), row.evaluations, row.kept, row.in_step, row.syncs, row.source)
            for row in rows
        ],
    )
    said = f"These methods differ from SAM in that {common}. Each has an [example](methods/{name}.md)."
    return f"## {title}\n\n{said}\n\n{facts}\n"


def _link(row: Preset) -> str:
    return f"[{row.name}](methods/{family(row)}.md#fenland.{row.name.removesuffix('-U')})"
