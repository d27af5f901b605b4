import io
import math
from types import SimpleNamespace

import pandas as pd
from rich.console import Console

from fenland.lab.commands import tables
from fenland.lab.config import RunConfig


def row(optimizer: str, **other: object) -> dict[str, object]:
    values: dict[str, object] = {"optimizer": optimizer, "n": 3, "diverged": 0, "baseline": "sgd", "seconds": 61.0}
    for name, mean in (("test_accuracy", 0.9712), ("test_loss", 0.1), ("loss_gap", 0.02)):
        values |= {name: mean, f"{name}_low": mean - 0.01, f"{name}_high": mean + 0.01}
    return {**values, "relative_time": 1.0, "gradient_evaluations": 117_000, **other}


def printed(*rows: dict[str, object]) -> str:
    text = io.StringIO()
    Console(file=text, width=80).print(tables.comparison(pd.DataFrame(rows)))
    return text.getvalue()


def test_fits_into_eighty_columns() -> None:
    said = printed(row("sgd"), row("ssam", relative_time=12.34))
    assert "…" not in said
    (ssam,) = [line.split() for line in said.splitlines() if "SSAM" in line]
    assert " ".join(ssam) == "SSAM 97.12 ± 1.00 0.100 ± 0.010 0.020 ± 0.010 1 min 01 s 12.34x 117,000"


def test_says_what_a_mean_leaves_out() -> None:
    gone = {name: math.nan for name in row("x") if isinstance(row("x")[name], float)}
    said = printed(row("sgd", n=5), row("sam", n=3, diverged=1), row("ssam", **gone, n=0, diverged=5))
    assert "Mean of 5 seeds" in said
    assert "1 diverged" in said
    assert "1 missing" in said
    assert "5 diverged" in said


def test_one_seed_has_no_interval() -> None:
    said = printed(row("sgd", n=1, test_accuracy_low=math.nan, test_loss_low=math.nan, loss_gap_low=math.nan))
    assert "Mean of 1 seed ±" in said
    assert said.count("±") == 1


def test_runs_say_once_what_all_have_in_common_and_fit_into_eighty_columns(tmp_path) -> None:
    def run(name: str, optimizer: str, rho: float | None, seed: int) -> SimpleNamespace:
        config = RunConfig(data="digits", model="mlp", optimizer=optimizer, rho=rho, seed=seed)
        result = {"status": "finished", "test_accuracy": 0.8944, "test_loss": 0.3345, "seconds": 61.0}
        return SimpleNamespace(folder=tmp_path / name, config=config, result=result)

    stored = [run("5d0603954275", "sam", 0.05, 0), run("bdd816421d2f", "sgd", None, 1)]
    text = io.StringIO()
    Console(file=text, width=80).print(tables.runs(stored))
    said = " ".join(text.getvalue().split())
    assert said.startswith("all: data digits, model mlp, lr 0.1, epochs ")
    assert "…" not in said
    assert "5d0603954275 sam 0.05 0 89.44 0.3345 1 min 01 s" in said
    assert "bdd816421d2f sgd - 1 89.44 0.3345 1 min 01 s" in said
    stored[1].config = RunConfig(data="digits", model="lenet", optimizer="sgd", seed=1)
    text = io.StringIO()
    Console(file=text, width=100).print(tables.runs(stored))
    assert "5d0603954275 mlp sam" in " ".join(text.getvalue().split())
    assert tables.runs([]).row_count == 0
