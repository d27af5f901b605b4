"""docs/variants.md, made from the table of methods."""

from __future__ import annotations

import inspect

from fenland.presets import PRESETS, Preset

_HEAD = """# The family

Made from the table of presets by `fenland variants --markdown > docs/variants.md`; do not edit.

w weights, g gradient at w, e perturbation, h gradient at w + e, d what the base optimizer gets; |.| is one L2 norm over
all parameters that move. *Gradients*: gradient evaluations a step. *Kept*: parameter-sized buffers between steps,
beyond the base's; *in step*: more of them during pass 2, beyond w + e, which lives where g was. *Syncs*: host
synchronisations a step on an accelerator with a fused base.
`fenland.NAME(base, rho, ..., **options)` wraps any first-order `torch.optim` optimizer; `options` are those of
`SharpnessAware`. The choices also compose by hand: `SharpnessAware(base, ball=..., source=..., combine=..., when=...)`.

"""

_NAMES = """
## Which method a name means

| name | here | elsewhere also |
|---|---|---|
| SSAM | Stable SAM (`SSAM`) | Sparse SAM (`SparseSAM`) |
| SAM in the SSAM paper | `USAM` | |
| MSAM | Momentum-SAM (`MSAM`) | multi-step (`NStepSAM`), micro-batch (`step([closure, ...])`) |
| RSAM | `RiemannianSAM` | R-SAM = Random SAM of Liu et al. 2022 (not here), `RST` |
| F-SAM | `FriendlySAM` | Fisher (`FisherSAM`), Functional (not here) |
| XSAM | `XSAM`, Chen and Zhou 2026 | X-SAM, arXiv 2601.10251 (not here) |
| n-SAM | `NStepSAM`: n ascent steps | full-data ascent in papers on SDEs |
"""


def page() -> str:
    """The whole page."""
    lines = ["| method | equation | gradients | kept | in step | syncs | source |", "|---|---|---|---|---|---|---|"]
    lines += [
        f"| [{r.name}](#{r.name.lower()}) | {_cell(r.equation)} | {r.evaluations} | {r.kept} | {r.in_step} "
        f"| {r.syncs} | {r.source} |"
        for r in PRESETS.values()
    ]
    return _HEAD + "\n".join(lines) + "\n" + _NAMES + "".join(_section(r) for r in PRESETS.values())


def _section(row: Preset) -> str:
    parameters = list(inspect.signature(row.build).parameters.values())[1:-1]
    arguments = ", ".join(str(p).split(":")[0] + _default(p) for p in parameters)
    facts = [
        ("Equation", f"`{row.equation}`"),
        ("Choices", ", ".join(f"`{name}`" for name in row.choices) or "SAM's"),
        ("Source", row.source),
        ("Arguments", f"`{arguments}`"),
        ("Defaults", row.defaults),
        ("Needs", ", ".join(row.needs)),
        ("Closure", "one loss a sample, shape (B,), without backward" if row.per_sample else ""),
        ("Mind", row.traps),
    ]
    return f"\n## {row.name}\n\n{row.title}\n\n" + "".join(f"- {k}: {v}\n" for k, v in facts if v)


def _default(parameter: inspect.Parameter) -> str:
    return "" if parameter.default is inspect.Parameter.empty else f"={_short(parameter.default)}"


def _short(value: object) -> str:
    return "NORM_LAYERS" if isinstance(value, tuple) else repr(value)


def _cell(text: str) -> str:
    return "`" + text.replace("|", "\\|") + "`"
