"""The report: its first sentence is honest, its files are whole, its page repeats bit for bit."""

import json
import re
import shlex
import shutil
from dataclasses import replace
from html.parser import HTMLParser

import pandas as pd
import pytest
from synthetic_store import write_run, write_store

from fenland.lab import cli
from fenland.lab.report import decide, write_report
from fenland.lab.report.page import render
from fenland.lab.report.setup import command, configuration
from fenland.lab.store.files import Damaged
from fenland.lab.store.records import read_records
from fenland.lab.store.runs import Store
from fenland.lab.store.seal import seal


def set_accuracies(out, accuracies):
    """Overwrite the stored test accuracies: {optimizer: [one a seed]}."""
    for path in out.glob("runs/*/result.json"):
        config = json.loads(path.with_name("config.json").read_text())
        result = json.loads(path.read_text())
        result["test_accuracy"] = accuracies[config["optimizer"]][config["seed"]]
        path.write_text(json.dumps(result))
        seal(path.parent)


def outcome_of(tmp_path, accuracies, **named):
    seeds = len(next(iter(accuracies.values())))
    write_store(tmp_path, optimizers=tuple(accuracies), seeds=seeds, **named)
    set_accuracies(tmp_path, accuracies)
    return decide(read_records(tmp_path))


def test_a_clear_winner(tmp_path):
    found = outcome_of(tmp_path, {"sgd": [0.90, 0.91, 0.92], "sam": [0.92, 0.931, 0.94]})
    assert found.decided
    assert found.headline == (
        "SAM beats SGD: 93.03 % test accuracy, 2.03 points more (95 % interval +1.89 to +2.18 over 3 shared seeds), "
        "which excludes zero."
    )


def test_a_better_mean_is_not_a_win(tmp_path):
    found = outcome_of(tmp_path, {"sgd": [0.90, 0.91, 0.92], "sam": [0.90, 0.93, 0.91]})
    assert not found.decided
    assert found.headline.startswith("No clear winner: SAM reaches 91.33 % test accuracy, 0.33 points above SGD")
    assert found.headline.endswith("which includes zero.")


def test_the_baseline_may_win(tmp_path):
    found = outcome_of(tmp_path, {"sgd": [0.95, 0.96, 0.97], "sam": [0.92, 0.931, 0.94], "ssam": [0.90, 0.91, 0.92]})
    assert found.headline.startswith("SGD stays ahead of SAM: 96.00 % test accuracy, 2.97 points more")


def test_equal_seeds_prove_nothing(tmp_path):
    found = outcome_of(tmp_path, {"sgd": [0.5, 0.5], "sam": [0.75, 0.75]})
    assert not found.decided
    assert "has no width" in found.headline


def test_a_tie(tmp_path):
    found = outcome_of(tmp_path, {"sgd": [0.5, 0.75], "sam": [0.75, 0.5]})
    assert found.headline.startswith("No winner:")


def test_one_seed_names_no_winner(tmp_path):
    found = outcome_of(tmp_path, {"sgd": [0.5], "sam": [0.75]})
    assert found.headline == (
        "No winner can be named: SAM reaches 75.00 % test accuracy against SGD's 50.00 %, and 1 shared seed gives no "
        "interval."
    )


def test_one_optimizer_has_nothing_to_beat(tmp_path):
    assert "no other optimizer" in outcome_of(tmp_path, {"sgd": [0.5, 0.6]}).headline


def test_when_all_diverged_there_is_nothing_to_compare(tmp_path):
    diverged = [(name, seed) for name in ("sgd", "sam") for seed in (0, 1)]
    found = outcome_of(tmp_path, {"sgd": [0.1, 0.1], "sam": [0.1, 0.1]}, diverged=diverged)
    assert found.headline.startswith("Every run diverged")
    assert "2 of 2 runs of SAM diverged; its means leave them out." in found.beside
    assert write_report(tmp_path).is_file()


def test_the_runner_up_is_named_with_its_own_interval(tmp_path):
    found = outcome_of(tmp_path, {"sgd": [0.90, 0.91, 0.92], "sam": [0.92, 0.931, 0.94], "ssam": [0.93, 0.93, 0.94]})
    assert found.headline.startswith("SSAM beats SGD")
    assert found.beside[0].startswith("The runner-up is SAM with 93.03 %: SSAM is 0.30 points above it (95 %")
    assert found.beside[0].endswith("which includes zero.")


def test_a_higher_mean_of_other_seeds_is_not_said_to_include_zero(tmp_path):
    found = outcome_of(
        tmp_path, {"sgd": [0.90, 0.91, 0.92, 0.1], "sam": [0.89, 0.901, 0.91, 0.991]}, diverged=[("sgd", 3)]
    )
    assert not found.decided
    assert found.headline.startswith("No clear winner: SAM reaches 92.30 % test accuracy, 0.97 points below SGD")
    assert "which excludes zero, while the mean over all of its own seeds is the higher one." in found.headline


def test_a_runner_up_without_a_shared_seed_has_no_difference(tmp_path):
    lost = [("sam", 2), ("sam", 3), ("ssam", 0), ("ssam", 1)]
    accuracies = {"sgd": [0.90, 0.91, 0.90, 0.91], "sam": [0.94, 0.95, 0.1, 0.1], "ssam": [0.1, 0.1, 0.93, 0.94]}
    found = outcome_of(tmp_path, accuracies, diverged=lost)
    assert found.beside[0] == "The runner-up is SSAM with 93.50 %, and they share no finished seed."


def test_what_was_measured_beside_is_told_in_numbers(tmp_path):
    text = " ".join(decide(read_records(write_store(tmp_path, diverged=[("sam", 0)]))).beside)
    said = (
        "training loss",
        "gap from training to test loss is smaller",
        "Sharpness, the rise",
        "Gamma: ",
        "2 times the",
    )
    for part in said:
        assert part in text
    assert "1 of 3 runs of SAM diverged" in text


def test_the_cost_names_the_accuracy_at_the_rivals_budget(tmp_path):
    records = read_records(write_store(tmp_path, optimizers=("sgd", "sam")))
    half = records.metrics.query("optimizer == 'sam' and epoch == 6")["test_accuracy"].mean()
    assert (
        decide(records)
        .beside[-1]
        .endswith(
            "After the 240 evaluations of SGD, in the middle of its own schedule, SAM had a test accuracy of "
            f"{100 * half:.2f} %."
        )
    )


@pytest.mark.parametrize(("losses", "said"), [
    ((0.20, 0.22, 0.21), "SAM fits the training data less closely than SGD (training loss 0.21 against 0.11). "),
    ((0.05, 0.12, 0.19), "SAM and SGD fit the training data without a certain difference (training loss 0.12 against "),
])  # fmt: skip
def test_a_closer_fit_is_told_only_where_it_is_certain(tmp_path, losses, said):
    records = read_records(write_store(tmp_path, optimizers=("sgd", "sam")))
    results = records.results.sort_values(["label", "seed"]).assign(test_accuracy=[0.9] * 3 + [0.8] * 3)
    results["train_loss"] = [*losses, 0.10, 0.11, 0.12]
    text = " ".join(decide(replace(records, results=results)).beside)
    assert said in text


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """A store with its report; not to be changed."""
    return write_report(write_store(tmp_path_factory.mktemp("invented"))).parent


def test_the_report_leaves_its_files_and_nothing_half_written(out):
    assert sorted(each.name for each in out.iterdir()) == [
        "compare.json", "figures", "metrics.parquet", "report.html", "results.parquet", "runs",
    ]  # fmt: skip
    assert {each.suffix for each in (out / "figures").iterdir()} == {".png", ".pdf"}
    results, metrics = (pd.read_parquet(out / f"{name}.parquet") for name in ("results", "metrics"))
    assert (len(results), len(metrics)) == (9, 9 * 12)
    assert {"run", "optimizer", "seed", "test_accuracy", "rho"} <= set(results)


def test_the_same_records_give_the_same_page(out):
    first = (out / "report.html").read_bytes()
    assert write_report(out) == out / "report.html"
    assert (out / "report.html").read_bytes() == first


def test_a_failure_leaves_the_old_page(out, tmp_path):
    broken = shutil.copytree(out, tmp_path / "out")
    (broken / "compare.json").write_text("{")
    with pytest.raises(Damaged, match=r"compare\.json: is damaged"):
        write_report(broken)
    assert (broken / "report.html").read_bytes() == (out / "report.html").read_bytes()


class Balanced(HTMLParser):
    """Collects links and counts open tags."""

    VOID = frozenset({"meta", "link", "br", "img", "hr", "input"})

    def __init__(self):
        super().__init__()
        self.open, self.links, self.wrong = [], [], []

    def handle_starttag(self, tag, attrs):
        if tag not in self.VOID:
            self.open.append(tag)
        self.links += [value for name, value in attrs if name in ("href", "src", "xlink:href") and value]

    def handle_startendtag(self, tag, attrs):
        self.links += [value for name, value in attrs if name in ("href", "src", "xlink:href") and value]

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)


def test_the_page_is_well_formed_and_links_only_to_its_own_files(out):
    page = Balanced()
    page.feed((out / "report.html").read_text())
    assert (page.open, page.wrong) == ([], [])
    outward = [link for link in page.links if not link.startswith(("#", "data:,", "figures/"))]
    assert outward == []
    assert all((out / link).is_file() for link in page.links if link.startswith("figures/"))


def test_text_from_outside_cannot_become_markup(tmp_path):
    write_run(tmp_path, "sgd", 0, data="<script>alert(1)</script>", model="a&b")
    write_run(tmp_path, "sgd", 1, data="<script>alert(1)</script>", model="a&b")
    (tmp_path / "compare.json").write_text(json.dumps({"command": "fenland '<b>'", "notes": ["<i>note</i>"]}))
    page = render(read_records(tmp_path), [])
    assert page.count("<script>") == 1  # the page's own
    assert "&lt;i&gt;note" in page
    assert "<b>'" not in page


def test_few_seeds_and_missing_runs_are_said_at_the_top(tmp_path):
    write_store(tmp_path, seeds=2)
    names = [folder.name for folder in (tmp_path / "runs").iterdir()]
    (tmp_path / "compare.json").write_text(
        json.dumps({"optimizers": ["sgd", "sam", "ssam"], "runs": [*names, "later"]})
    )
    page = render(read_records(tmp_path), [])
    assert "Only 2 seeds" in page
    assert "6 of 7 runs are stored" in page


def test_the_command_is_the_one_given_or_put_together(tmp_path):
    records = read_records(write_store(tmp_path))
    assert command(records) == ("fenland compare --data invented --optimizers sgd sam ssam --seeds 3", True)
    (tmp_path / "compare.json").unlink()
    text, given = command(read_records(tmp_path))
    assert not given
    assert text.startswith("fenland compare --optimizers sgd sam ssam --data invented --model mlp --lr 0.1")


def test_the_command_that_is_put_together_asks_for_the_same_runs(tmp_path):
    words = (
        "compare --data digits --model mlp --optimizers sgd asam --options asam:eta=0.02 --rho asam=0.3 --seeds 3..3 "
    )
    words += "--epochs 1 --limit 128 --batch-size 32 --warmup 0.5 --label-noise 0.1 --data-seed 2"
    asked = words.split()
    assert cli.main([*asked, "--out", str(tmp_path)]) == 0
    stored = Store(tmp_path).names()
    (tmp_path / "compare.json").unlink()
    text, given = command(read_records(tmp_path))
    assert not given
    again = shlex.split(text)[1:]
    assert "--threads" not in again
    assert cli.main([*again, "--out", str(tmp_path / "again")]) == 0
    assert Store(tmp_path / "again").names() == stored


def test_the_configuration_says_who_had_which_value(out):
    pairs = dict(configuration(read_records(out)))
    assert pairs["Radius rho"] == "0.05 (SAM, SSAM)"
    assert pairs["Training examples"] == "all"
    assert pairs["Seeds"] == "0, 1, 2"
    assert pairs["Epochs"] == "12"
    assert "Status" not in pairs


def test_no_result_is_shown_as_a_setting(out):
    records = read_records(out)
    more = records.results.assign(test_ece=0.1, process_seconds=2.0, a_result_to_come=3.0, result_epochs=12)
    assert configuration(replace(records, results=more)) == configuration(records)


def test_equal_costs_are_told_as_such(tmp_path):
    records = read_records(write_store(tmp_path, optimizers=("sam", "ssam")))
    assert " took as many gradient evaluations as " in decide(records).beside[-1]


def test_a_store_without_its_optional_columns_still_has_a_report(tmp_path):
    write_store(tmp_path, seeds=2, command=False)
    for path in tmp_path.glob("runs/*/metrics.parquet"):
        pd.read_parquet(path)[["epoch", "test_accuracy"]].to_parquet(path)
    for path in tmp_path.glob("runs/*/result.json"):
        path.write_text(json.dumps({"status": "finished", "test_accuracy": 0.5}))
    for path in tmp_path.glob("runs/*/environment.json"):
        path.write_text("{}")
        seal(path.parent)
    page = write_report(tmp_path).read_text()
    assert "no environment was stored" in page
    assert not re.search(r"\bnan\b", page)


def test_a_run_with_several_values_in_one_column_is_stored_as_text(tmp_path):
    write_run(tmp_path, "sam", 0, rho="auto")
    write_run(tmp_path, "sgd", 0, rho=[0.1, 0.2])
    write_report(tmp_path)
    assert pd.read_parquet(tmp_path / "results.parquet")["rho"].tolist() == ["[0.1, 0.2]", '"auto"']
