"""The generated page, the command, and what the rows say of themselves."""

import inspect
import json
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from test_contract import ROWS, make

import fenland
from fenland.step.step import Step

ROOT = Path(__file__).parents[2]
DEFAULTS = {"L2", "Ascend", "Gradient", "AtAscentPoint", "Always"}


def test_the_page_is_up_to_date():
    """Stale? fenland variants --markdown > docs/methods.md."""
    pytest.importorskip("tyro")
    from fenland.lab.report.variants import page

    assert (ROOT / "docs" / "methods.md").read_text() == page()


def test_every_method_is_in_one_table_of_the_page():
    pytest.importorskip("tyro")
    from fenland.lab.report.variants import page

    assert [page().count(f"\n| [{name}](") for name in fenland.PRESETS] == [1] * len(fenland.PRESETS)


def test_the_command_lists_every_method(capsys):
    pytest.importorskip("tyro")
    from fenland.lab.cli import main

    assert main(["variants", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [r["name"] for r in rows] == list(fenland.PRESETS)
    assert main(["variants"]) == 0
    table = capsys.readouterr().out
    assert all(name in table for name in fenland.PRESETS)
    assert main(["variants", "--name", "gsam"]) == 0
    assert "Zhuang" in capsys.readouterr().out
    assert main(["variants", "--name", "nosuch"]) == 2
    assert "GSAM" in capsys.readouterr().err


def choices_of(rules):
    """All rules of an optimizer, those inside a method too."""
    found = [rules.ball, rules.when, rules.method]
    for rule in found:
        parts = [getattr(rule, field.name) for field in fields(rule)] if isinstance(rule, fenland.Method) else []
        found += [x for x in parts if isinstance(x, (fenland.Method, fenland.Source, fenland.Combine))]
    return found


def keeps_g(session, monkeypatch):
    """Whether the last gradient of an ascent is asked for with g to be kept, on any of the first six steps."""
    kept, go = {}, Step.go

    def watched(step):
        keep = step.request.keep or ()
        vectors = keep if isinstance(keep, tuple) else (keep,)
        kept[step.count] = any(leaf is step.g for each in vectors for _, leaf in each.terms)
        go(step)

    monkeypatch.setattr(Step, "go", watched)
    session.run(6)
    return any(kept.values())


@pytest.mark.parametrize("row", ROWS, ids=lambda r: r.name)
def test_the_row_says_what_the_function_does(row, monkeypatch):
    session = make(row, "mlp")
    rules = session.opt.rules
    assert set(row.choices) == {type(choice).__name__ for choice in choices_of(rules)} - DEFAULTS
    assert row.per_sample == rules.method.per_sample
    assert row.kept == len(rules.method.keeps)
    assert row.closure_calls == rules.method.evaluations
    assert row.in_step == keeps_g(session, monkeypatch)
    required = [
        n
        for n, p in inspect.signature(row.build).parameters.items()
        if p.default is p.empty and p.kind is not p.VAR_KEYWORD and n != "base"
    ]
    assert set(required) <= set(row.needs)
    if not row.needs:
        params = [torch.nn.Parameter(torch.ones(2, 2))]
        assert isinstance(row.build(torch.optim.SGD(params, lr=0.1, momentum=0.9)), fenland.SharpnessAware)


def test_no_name_that_means_two_methods():
    assert not {"RSAM", "FSAM", "SparseSSAM", "MultiSAM"} & set(fenland.__all__)
