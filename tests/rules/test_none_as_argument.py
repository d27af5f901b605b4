"""None for a field of a rule is refused by the field's name, or its annotation allows it and a step runs with it."""

import dataclasses
import inspect

import pytest
import torch
from torch import nn

import fenland
import fenland.rules
from fenland.presets import PRESETS
from fenland.rules import Ball, Combine, Method, Source, When

KINDS = {Ball: "ball", Source: "source", Combine: "combine", Method: "method", When: "when"}
NEEDED = {
    "AdaptiveToNorm": {"total": 10},
    "Both": {"first": fenland.Always(), "second": fenland.Always()},
    "Cosine": {"start": 0.1, "stop": 0.0, "steps": 5},
    "FullNorm": {"full_norm": lambda: 1.0},
    "TiedToLearningRate": {"rho_min": 0.01, "rho_max": 0.1, "lr_max": 0.1},
    "WarmUp": {"after": 0.1, "steps": 5},
}
PRESETS_NEED = {"AESAM": {"total_steps": 10}, "DNSAM": {"full_norm": lambda: 1.0}}
RULES = {
    name: rule
    for name, rule in vars(fenland.rules).items()
    if dataclasses.is_dataclass(rule) and not inspect.isabstract(rule)
    if issubclass(rule, tuple(KINDS)) or rule.__module__ == "fenland.rules.radius"
}
FIELDS = [(name, field.name) for name, rule in sorted(RULES.items()) for field in dataclasses.fields(rule)]
ARGUMENTS = [
    (name, argument)
    for name, row in sorted(PRESETS.items())
    for argument, p in inspect.signature(row.build).parameters.items()
    if argument not in ("base", "options")
]


def takes_a_step(per_sample, build):
    """Build over a small model with `build(base, model=)`, and step twice."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.Linear(6, 3))
    x, y = torch.randn(8, 4), torch.randint(3, (8,))
    opt = build(torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), model=model)

    def closure():
        opt.zero_grad()
        losses = nn.functional.cross_entropy(model(x), y, reduction="none")
        if per_sample:
            return losses
        losses.mean().backward()
        return losses.mean()

    for _ in range(2):
        opt.step(closure)
    assert all(p.isfinite().all() for p in model.parameters())


def test_every_kind_of_rule_is_here():
    assert {kind for rule in RULES.values() for kind in KINDS if issubclass(rule, kind)} == set(KINDS)
    assert {"TiedToLearningRate", "Cosine", "WarmUp", "SphericalSearch", "Both"} <= set(RULES)


@pytest.mark.parametrize(("rule", "field"), FIELDS)
def test_none_is_refused_by_name_or_allowed_and_used(rule, field):
    made, options = RULES[rule], {**NEEDED.get(rule, {}), field: None}
    annotation = next(str(f.type) for f in dataclasses.fields(made) if f.name == field)
    if "None" not in annotation:
        with pytest.raises((TypeError, ValueError), match=f"^{field} = None"):
            made(**options)
        return
    kind = next(name for kind, name in KINDS.items() if issubclass(made, kind))
    built = made(**options)
    takes_a_step(
        getattr(built, "per_sample", False),
        lambda base, model: fenland.SharpnessAware(base, model=model, **{kind: built}),
    )


@pytest.mark.parametrize(("preset", "argument"), ARGUMENTS)
def test_a_preset_refuses_none_or_steps_with_it(preset, argument):
    row = PRESETS[preset]

    def build(base, model):
        return row.build(base, **{**PRESETS_NEED.get(preset, {}), "model": model, argument: None})

    try:
        takes_a_step(row.per_sample, build)
    except (TypeError, ValueError) as error:
        told = str(error)
    else:
        return
    assert " = None" in told
