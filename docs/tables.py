"""The tables of numbers on the pages, made from committed measurements: python docs/tables.py [--check].

Each stands between `<!-- table NAME -->` and `<!-- end -->`; with --check nothing is written, and a stale page is an
error (exit code 1).
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))  # where `gains` is

from fenland.lab.recipes import RECIPES
from fenland.markdown import table
from fenland.words import capital
from gains import page
from gains.records import Rows

HERE = Path(__file__).parent
RESULTS = HERE.parent / "benchmarks" / "results"
EVIDENCE = HERE / "records" / "evidence"
PLACE = re.compile(r"(<!-- table ([\w-]+) -->\n).*?(<!-- end -->)", re.S)


def newest(holds: str) -> tuple[str, dict[str, Any]]:
    """Name and content of the newest record that has this key; of one day's, the last by name."""
    found = [(path.name, json.loads(path.read_text(encoding="utf-8"))) for path in sorted(RESULTS.glob("*.json"))]
    return [(name, record) for name, record in found if holds in record][-1]


def steps() -> str:
    """Time of a step beyond the base's own, in floors."""
    name, record = newest("sets")
    lines = [f"From `benchmarks/results/{name}`: {_machine(record['machine'])}.", ""]
    for size, bases in record["sets"].items():
        timed = [(who, row) for rows in bases.values() for who, row in rows.items()]
        names = list(dict.fromkeys(who for who, row in timed if row.get("floors") is not None and who != "base"))
        floors = ("*one floor*", *(f"{rows['floor']['ms']:.2f} ms" for rows in bases.values()))
        cells = [(who, *(_floors(rows.get(who)) for rows in bases.values())) for who in names]
        lines += [f"**{size}**", "", table(("method", *(f"{base}>" for base in bases)), [*cells, floors])]
    return "\n".join(lines)


def _floors(row: dict[str, Any] | None) -> str:
    if not row or row.get("floors") is None:
        return "–"
    floors, own = f"{row['floors']:.2f}", f"{row['own']:.2f}"
    return floors if own == floors else f"{floors} ({own})"


def _machine(machine: dict[str, Any]) -> str:
    threads = "1 thread" if machine["threads"] == 1 else f"{machine['threads']} threads"
    return f"{machine['cpu']}, {threads}, torch {machine['torch']}"


def headline() -> str:
    """What fenland is, with the number of methods and the price of a step."""
    from fenland.presets import PRESETS

    published = [name for name, row in PRESETS.items() if "-" not in name and not row.source.startswith("ours")]
    _, record = newest("ms_a_step")
    options, figures = record["options"], record["figures"]
    it = figures["SAM step / SGD step, bare"]
    ratio = it.get("cpu", it["wall"])["median"]
    threads = "one CPU thread" if record["environment"]["threads"] == 1 else "a CPU"
    return (
        f"**fenland turns any first-order `torch.optim` optimizer into one of {len(published)} published "
        f"sharpness-aware methods, such\nas SAM and Stable SAM. A step then takes {ratio:.2f} times as long as before, "
        f"of which the two gradients alone account for 2**\n(SAM over SGD, {options['model']}, "
        f"batch {options['batch']}, {threads}).\n"
    )


def evidence() -> str:
    """What the second gradient bought: the evidence's comparisons, their picture, and the accuracies of small tasks."""
    tasks = page.compared(Rows(EVIDENCE))
    picture = pictured("gains", page.ALT_GAINS)().replace("](images/", "](docs/images/")
    return (
        f"{page.counted(tasks)}\nA cell is the method minus its base with its 95 % interval, bold where the interval "
        "excludes zero.\nAccuracies and calibration errors are in percentage points; a loss or a calibration error "
        f"that falls is a gain\n([how it was measured](docs/evidence.md)).\n\n{page.gains(tasks)}\n{picture}\n"
        "Small tasks, with one learning rate for all methods: test accuracy in percent, with 95 % intervals where five "
        f"seeds were run ([more of them](docs/when-not.md)).\n\n{smaller()}"
    )


def smaller() -> str:
    """Test accuracy of the plain base for the same epochs and at the same price, of SAM and of SSAM, task by task."""
    found = []
    kept = json.loads((HERE / "measured" / "when-not.json").read_text(encoding="utf-8"))
    for case, rho in (("30 % of the labels wrong", 0.2), ("clean labels", 0.05)):
        rows = {row["name"]: row["test_accuracy"] for row in kept["cases"][case]}
        names = ("SGD, equal epochs", "SGD, equal gradients", f"SAM, rho {rho}", f"SSAM, rho {rho}")
        cells = [_accuracy(rows[name]) for name in names]
        found.append((f"handwritten digits, {case}", *cells, kept["seeds"]))
    _, record = newest("target")
    config = record["config"]
    cells = [f"{100 * record['table'][who]['accuracy']:.2f}" for who in ("SGD", "SAM", "SSAM")]
    seeds = max(map(len, record["runs"].values()))
    task = f"{config['data']}, {config['limit']} images, {config['model']}"
    heads = ("task", "SGD, same epochs>", "SGD, same cost as SAM>", "SAM>", "SSAM>", "seeds>")
    return table(heads, [*found, (task, "–", *cells, seeds)])


def _accuracy(row: dict[str, float]) -> str:
    return f"{100 * row['mean']:.2f} ± {100 * (row['high'] - row['mean']):.2f}"


def curvature() -> str:
    """Seconds of the Hessian's largest eigenvalue and trace, at equal error."""
    name, record = newest("cases")
    found = [
        (case["case"], row["quantity"], f"PyHessian, {row.get('PyHessian', '')}", f"{row['times as fast']:.2f}")
        for case in record["cases"]
        for row in case["ratios"]
    ]
    heads = ("case", "quantity", "beside", "times as fast at no larger error>")
    return f"From `benchmarks/results/{name}`: one thread, torch {record['torch']}.\n\n{table(heads, found)}"


def when_not() -> str:
    """Accuracy and loss at equal gradients."""
    record = json.loads((HERE / "measured" / "when-not.json").read_text(encoding="utf-8"))
    lines: list[str] = []
    for case, rows in record["cases"].items():
        found = []
        for row in rows:
            loss = row["test_loss"]
            lost = f"{loss['mean']:.3f} ± {loss['high'] - loss['mean']:.3f}"
            found.append((row["name"], row["gradients"], _accuracy(row["test_accuracy"]), lost))
        heads = ("", "gradients>", "test accuracy, %>", "test loss>")
        lines += [f"**{capital(case)}**", "", table(heads, found)]
    return "\n".join(lines)


def cheaper() -> str:
    """Accuracy, and the price of the first fall of the test loss to a target, for equal seconds of training."""
    name, record = newest("target")
    config = record["config"]
    seeds = max(map(len, record["runs"].values()))
    images = f"{config['limit'] or 'all'} images of {config['data']}"
    head = (
        f"From `benchmarks/results/{name}`: {config['model']} on {images}, {seeds} seeds, "
        f"{_machine(record['machine'])}."
    )
    found = []
    for who, row in record["table"].items():
        reached = row["seconds_to_target"] is not None
        to = (
            (f"{row['seconds_to_target']:.1f}", f"{row['evaluations_to_target']:.0f}")
            if reached
            else ("not reached", "–")
        )
        last = [100 * run["rows"][-1]["test_accuracy"] for run in record["runs"][who]]
        shown = f"{100 * row['accuracy']:.2f} ({min(last):.2f} to {max(last):.2f})"
        found.append((who, f"{row['epochs']:.0f}", shown, f"{row['seconds']:.1f}", f"{row['evaluations']:.0f}", *to))
    heads = ("epochs>", "test accuracy, %>", "seconds>", "gradients>", "seconds to the loss>", "gradients to the loss>")
    return f"{head}\n\n{table(('method', *heads), found)}"


def whole() -> str:
    """A whole step of SAM over one of SGD, and the lab's trainer over a bare loop."""
    name, record = newest("ms_a_step")
    options = record["options"]
    head = (
        f"From `benchmarks/results/{name}`: {options['model']}, batch {options['batch']}, {options['rounds']} rounds, "
        f"{_machine(record['environment'])}."
    )
    found = []
    for title, figure in record["figures"].items():
        it = figure.get("cpu", figure["wall"])
        found.append((title, f"{it['median']:.3f}", f"{it['low']:.3f} to {it['high']:.3f}", figure["target"]))
    return f"{head}\n\n{table(('', 'measured>', 'quartiles>', 'goal>'), found)}"


def pictured(name: str, alt: str) -> Callable[[], str]:
    """A picture of the evidence, where `python docs/evidence.py` has drawn it."""

    def shown() -> str:
        there = (HERE / "images" / "evidence" / f"{name}-light.svg").exists()
        return f"![{alt}](images/evidence/{name}-light.svg)\n" if there else ""

    return shown


def recipes() -> str:
    """What each recipe sets, and what was measured with it."""
    rows = [(f"`{x.name}`", x.use, x.method, f"{x.lr:g}", f"{x.rho:g}", x.gain) for x in RECIPES.values()]
    return table(("Recipe", "For", "Method", "lr>", "rho>", "Gain over the base"), rows)


def pasted(name: str) -> Callable[[], str]:
    """The code of a recipe as a block that runs."""
    return lambda: f"```python\n{RECIPES[name].pasted}```\n"


TABLES: dict[str, Callable[[], str]] = {
    "headline": headline,
    "evidence": evidence,
    "steps": steps,
    "whole": whole,
    "cheaper": cheaper,
    "curvature": curvature,
    "when-not": when_not,
    "recipes": recipes,
    "recipe-transformer": pasted("transformer"),
    "recipe-lora": pasted("lora"),
    "evidence-gains": lambda: page.gains(page.compared(Rows(EVIDENCE))),
    "evidence-verdicts": lambda: page.verdicts(page.compared(Rows(EVIDENCE))),
    "evidence-means": lambda: page.means(page.compared(Rows(EVIDENCE))),
    "evidence-tries": lambda: page.tries(Rows(EVIDENCE)),
    "evidence-curves": lambda: page.curves(Rows(EVIDENCE)),
    "evidence-state": lambda: page.state(Rows(EVIDENCE)),
    "evidence-picture": pictured("gains", page.ALT_GAINS),
    "evidence-radii": pictured("radii", page.ALT_RADII),
}


def filled(text: str) -> str:
    """The page with its tables as they are now."""
    return PLACE.sub(lambda found: f"{found[1]}{TABLES[found[2]]()}{found[3]}", text)


def main(check: bool) -> int:
    """Write the pages that changed, or name them."""
    stale = []
    for path in (HERE.parent / "README.md", *sorted(HERE.rglob("*.md"))):
        text = path.read_text(encoding="utf-8")
        now = filled(text)
        if now != text:
            stale.append(path.name)
            if not check:
                path.write_text(now, encoding="utf-8")
    if check and stale:
        print(f"stale: {', '.join(stale)}; run: python docs/tables.py", file=sys.stderr)
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv[1:]))
