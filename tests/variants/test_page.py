"""The generated page, the command, and what the rows say of themselves."""

import inspect
import json
from pathlib import Path

import pytest
import torch
from test_contract import ROWS, make

import fenland

ROOT = Path(__file__).parents[2]
DEFAULTS = {"L2", "Gradient", "AtAscentPoint", "Always"}


def test_the_page_is_up_to_date():
    """Stale? fenland variants --markdown > docs/variants.md."""
    pytest.importorskip("tyro")
    from fenland.lab.variants import page

    assert (ROOT / "docs" / "variants.md").read_text() == page()


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


@pytest.mark.parametrize("row", ROWS, ids=lambda r: r.name)
def test_the_row_says_what_the_function_does(row):
    choices = make(row, "mlp").opt.choices
    named = [type(c).__name__ for c in (choices.ball, choices.source, choices.combine, choices.when)]
    assert set(row.choices) == set(named) - DEFAULTS
    assert row.per_sample == choices.source.per_sample
    assert row.kept == len(rules.method.keeps) + choices.combine.keeps
    assert row.in_step == choices.combine.keeps_g
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
