"""The benchmark: equal work for all, what moved between two records, the command."""

import gc
import importlib.util
import json
from importlib import metadata
from pathlib import Path

import pytest
import torch

pytest.importorskip("tyro")

import fenland
from fenland.lab.bench import SETS, Plan, changes, measure, timing
from fenland.lab.bench.contenders import BASES, Gradients, build, passes_of, plain, primitives, variants
from fenland.lab.bench.shapes import count
from fenland.lab.bench.timing import groups_of, report
from fenland.lab.cli import main
from fenland.lab.errors import BadInput

ROOT = Path(__file__).parents[3]
SHAPES = [(40, 120), (120,), (10, 120), (10,), *[(3,)] * 8]
REST = ("SAM (copy)", "SAM (no RNG replay)", "bare move", "textbook SAM", "pip SAM")


def weights_after(name: str, steps: int = 3) -> list[torch.Tensor]:
    torch.manual_seed(0)
    params = [torch.nn.Parameter(torch.randn(s)) for s in SHAPES]
    give = Gradients(params)
    contender = build(name, params, "sgd-fused")
    if contender is None:
        pytest.skip("pytorch-optimizer is not installed")
    for _ in range(steps):
        contender.step(give)
    return [p.detach().clone() for p in params]


@pytest.mark.parametrize("name", REST)
def test_all_that_is_called_sam_makes_the_same_steps(name, monkeypatch):
    """Else their times would not compare: three steps with the same gradients end at the same weights."""
    monkeypatch.setitem(BASES, "sgd-fused", (torch.optim.SGD, {"lr": 10.0, "momentum": 0.9, "fused": True}))
    for a, b in zip(weights_after("SAM"), weights_after(name), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6)  # the steps themselves are about 1e-2; pip subtracts e
    start = weights_after("SAM", steps=0)
    assert any(not torch.equal(a, b) for a, b in zip(start, weights_after(name), strict=True))


def test_a_variant_of_sam_is_what_its_name_says():
    params = [torch.nn.Parameter(torch.randn(3))]
    copying, bare = (build(name, params, "sgd").step.__self__ for name in REST[:2])
    assert (copying.rules.perturb, copying.replay_rng) == ("inplace", True)
    assert (bare.rules.perturb, bare.replay_rng) == ("auto", False)


def test_contenders_may_move_the_weights():
    """Nothing in the benchmark holds an alias of them, which would make every step copy."""
    params = [torch.nn.Parameter(torch.randn(s)) for s in SHAPES]
    give = Gradients(params)
    held = [*primitives(params), plain(params, "sgd-fused")]
    sam, seen = build("SAM", params, "sgd-fused"), []

    def watched():
        seen.append([p.data_ptr() for p in params])
        return give()

    for _ in range(2):
        sam.step(watched)
    assert held
    assert all(a != b for a, b in zip(*seen[2:], strict=True))


@pytest.mark.parametrize("base", BASES)
def test_a_table_has_a_row_for_everybody(base):
    plan = Plan((), (), ("SAM", "SSAM", "GSAM", "LookSAM", "textbook SAM", "bare move"), rounds=3)
    rows = measure(SHAPES, base, plan)
    assert {"floor", "base", *plan.names} <= set(rows)
    for name in plan.names:
        assert rows[name]["extra_ms"] == pytest.approx(rows[name]["ms"] - rows["base"]["ms"])
        assert rows[name]["floors"] == pytest.approx(rows[name]["extra_ms"] / rows["floor"]["ms"])
        assert 0 < rows["floor"]["ms"] <= rows[name]["own_ms"] or name == "ASAM"


def test_every_variant_runs():
    rows = measure(SHAPES, "sgd-fused", Plan((), (), rounds=3))
    missing = {n for n in variants(count(SHAPES)) if n not in rows and not n.startswith("pip")}
    assert not missing


def test_floors_of_their_own():
    """Two norms and one pass; <g, h> and one pass more where g is kept; a scaling where the base takes no factor."""
    params = [torch.nn.Parameter(torch.randn(3))]
    base = torch.optim.SGD(params, lr=0.1)
    import fenland

    assert passes_of(fenland.SAM(base), fused=False) == {"norm": 2, "axpy": 1}
    assert passes_of(fenland.SSAM(base), fused=True) == {"norm": 2, "axpy": 1}
    assert passes_of(fenland.SSAM(base), fused=False) == {"norm": 2, "axpy": 1, "scale": 1}
    assert passes_of(fenland.GSAM(base), fused=True) == {"norm": 2, "axpy": 2, "dot": 1}
    assert passes_of(fenland.ASAM(base), fused=True) == {"norm": 1, "axpy": 1, "dot": 1}


def test_parameter_sets_are_those_of_the_networks():
    assert {name: (len(make()), count(make())) for name, make in SETS.items()} == {
        "resnet20": (59, 269_722),
        "vit_s": (152, 22_050_664),
        "wrn28_10": (80, 36_479_194),
        "gpt2": (148, 124_439_808),
    }


def test_large_sets_are_measured_in_groups_that_fit_or_not_at_all(monkeypatch):
    monkeypatch.setattr(timing, "free_memory", lambda: 20 * 2**30)
    size = count(SETS["gpt2"]())
    assert groups_of(["a"] * 30, size, "adamw") > groups_of(["a"] * 30, size, "sgd") > 1
    assert groups_of(["a"] * 30, 1000, "sgd") == 1
    monkeypatch.setattr(timing, "free_memory", lambda: 2 * 2**30)
    with pytest.raises(BadInput, match="GiB"):
        groups_of(["a"], size, "sgd")


def record(**floors: float) -> dict:
    """A record of one set and base; spread 0.05 ms at a floor of 0.5 ms: 0.1 floors."""
    rows = {name: {"ms": 1.0, "spread_ms": 0.05, "extra_ms": x / 2, "floors": x} for name, x in floors.items()}
    return {"sets": {"resnet20": {"sgd": {"floor": {"ms": 0.5, "spread_ms": 0.01}, **rows}}}}


def test_what_moved_by_more_than_the_spread():
    old = record(SAM=2.0, SSAM=2.0, GSAM=2.0, gone=1.0)
    new = record(SAM=2.5, SSAM=2.3, GSAM=1.0, new=9.0)
    found = changes(old, new)
    assert [change.where[2] for change in found] == ["SAM", "GSAM"]  # 0.3 is within 2 x (0.1 + 0.1)
    assert found[0].share == pytest.approx(0.25)
    assert "2.00 -> 2.50" in str(found[0])
    assert not changes(old, old)


def test_a_small_share_is_no_change_however_small_the_spread():
    old, new = record(SAM=100.0), record(SAM=102.0)
    assert not changes(old, new)
    assert changes(old, record(SAM=106.0))


def test_the_comparison_as_a_command(tmp_path, capsys):
    spec = importlib.util.spec_from_file_location("compare_records", ROOT / "benchmarks" / "compare.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    paths = [tmp_path / name for name in ("old.json", "new.json")]
    for path, floors in zip(paths, (2.0, 3.0), strict=True):
        path.write_text(json.dumps(record(SAM=floors)))
    old, new = map(str, paths)
    assert script.main([old, new]) == 1
    assert "dearer   resnet20 sgd SAM" in capsys.readouterr().out
    assert script.main([new, old]) == 0
    assert "cheaper" in capsys.readouterr().out
    assert script.main([old, old]) == 0
    assert "nothing moved" in capsys.readouterr().out
    assert script.main([old, str(tmp_path / "none.json")]) == 2
    assert "fenland bench --out" in capsys.readouterr().err


@pytest.mark.usefixtures("whole_pictures")
def test_the_command_writes_a_record_and_pictures(tmp_path, capsys):
    out = tmp_path / "record.json"
    names = ["SAM", "textbook SAM"]
    given = ["bench", "--sets", "resnet20", "--bases", "sgd-fused", "--names", *names, "--rounds", "3"]
    assert main([*given, "--out", str(out)]) == 0
    said = capsys.readouterr()
    assert all(name in said.out for name in ("resnet20, base sgd-fused", "floors", *names))
    found = json.loads(out.read_text())
    assert set(names) < set(found["sets"]["resnet20"]["sgd-fused"])
    assert found["machine"]["torch"] == metadata.version("torch")
    kinds = sorted(path.suffix for path in (tmp_path / "record").iterdir())
    assert kinds == [".pdf", ".png", ".svg"]
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["--sets", "alexnet"], "resnet20"),
        (["--names", "SAMM"], "SAM"),
        (["--quick", "--rounds", "2"], "at least 3"),
        (["--memory", "--rounds", "9"], "--rounds=9: means nothing with --memory; leave one of them out"),
        (["--memory", "--names", "SAM"], "--names=SAM: means nothing with --memory; leave one of them out"),
        (["--memory", "--out", "a.json"], "--out=a.json: means nothing with --memory; leave one of them out"),
        (["--markdown"], "--markdown=on: is the page of --memory; give that too"),
        (["--memory", "--markdown", "--json"], "--markdown=on: means nothing with --json"),
        (["--threads", "0"], "--threads=0: give a whole number >= 1"),
        (["--out", "record"], "--out=record: give a file name that ends with .json"),
        (["--out", "/dev/null/a.json"], "--out=/dev/null: /dev/null is a file; choose another directory"),
        (["--sets"], "--sets=(nothing): give a value, or leave it out"),
    ],
)
def test_bad_input_is_one_line(given, says, capsys):
    assert main(["bench", *given]) == 2
    assert says in capsys.readouterr().err


def test_the_record_grows_part_by_part_and_leaves_no_optimizer_behind():
    gc.collect()
    before = sum(type(each) is fenland.SharpnessAware for each in gc.get_objects())
    seen = []
    plan = Plan(("resnet20",), ("sgd", "sgd-fused"), ("SAM",), rounds=3)
    record = report(plan, keep=lambda so_far: seen.append(list(so_far["sets"]["resnet20"])))
    assert seen == [["sgd"], ["sgd", "sgd-fused"]]
    assert record["sets"]["resnet20"]["sgd-fused"]["SAM"]["ms"] > 0
    assert sum(type(each) is fenland.SharpnessAware for each in gc.get_objects()) == before
