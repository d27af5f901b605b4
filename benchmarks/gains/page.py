"""The tables of docs/evidence.md and evidence-runs.md, made from the records; a cell without its seeds is open."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from fenland.lab.store.statistics import Interval
from fenland.markdown import table
from fenland.words import listed
from gains import plan
from gains.outlook import outlook
from gains.records import Row, Rows
from gains.summary import MEASURES, Measure, cost, difference, diverged, mean, tests
from gains.tasks import TASKS, Task

OPEN = "open"
NONE = "–"
CHANCE = 1.1  # times the accuracy of a guess; below it, on its training examples, a run has learnt nothing
FITTED = 99.0  # percent of the training examples; above it the base learns noise more than signal
BETTER, WORSE, EQUAL = "is better", "is worse", "shows no difference"
NOTHING = "No comparison has its seeds yet: nothing can be said, for or against."
ALT_GAINS = (
    "Three panels: the method minus its base in test accuracy, test loss and calibration error, with 95 % intervals, "
    "one row a task and method, at the same epochs and at the same seconds; the numbers are in the table."
)
ALT_RADII = "Validation loss of SAM and SSAM over the radius rho, one panel a task; the runs' page has the numbers."


@dataclass(frozen=True)
class Compared:
    """One task as the tables need it."""

    title: str  # for people
    base: str  # whom the methods are compared with
    methods: Mapping[str, str]  # from a method to the base that costs as much; empty where there is none
    rows: list[Row] = field(default_factory=list)  # of the task
    needed: int = plan.EARLY  # seeds from which on a difference is shown
    classes: int = 10  # that there are to tell apart


def compared(rows: Rows, tasks: Mapping[str, Task] = TASKS) -> list[Compared]:
    """Every task of the plan, in its order."""
    found = []
    for key, task in tasks.items():
        methods = {name: each.same_seconds for name, each in task.methods.items() if each.role == "method"}
        needed = min(plan.EARLY, task.seeds)
        found.append(Compared(task.title, task.base, methods, rows.of(key), needed, task.classes))
    return found


def gains(tasks: list[Compared]) -> str:
    """Task by method: accuracy at the same epochs and at the same seconds, loss, calibration, corruptions, cost."""
    heads = (
        "accuracy, same epochs>",
        "accuracy, same seconds>",
        "test loss>",
        "calibration error>",
        "accuracy, corrupted images>",
    )
    found = []
    for task in tasks:
        for name, matched in task.methods.items():
            cells = [shown(task, name, task.base, "accuracy"), shown(task, name, matched, "accuracy")]
            cells += [shown(task, name, task.base, kind) for kind in ("loss", "ece", "corrupted")]
            price = cost(task.rows, name, task.base)
            if cells[0] != OPEN and price is not None:
                found.append((task.title, name, *cells, f"{price:.2f}"))
    return table(("task", "method", *heads, "cost>"), found, NOTHING)


def shown(task: Compared, name: str, other: str, kind: str) -> str:
    """A difference with its interval, bold where that excludes zero; whether it is open, or is not measured here."""
    measure, own = MEASURES[kind], tests(task.rows, name)
    if not other or (own and all(measure.of(row) is None for row in own.values())):
        return NONE
    found = difference(task.rows, name, other, measure)
    return OPEN if found.n < task.needed else written(found, measure, signed=True)


def written(found: Interval, measure: Measure, signed: bool = False) -> str:
    """``mean (low to high)`` with the measure's decimals."""
    if not found.n:
        return NONE
    sign = "+" if signed else ""
    text = f"{found.mean:{sign}.{measure.places}f}"
    if found.n > 1:
        text += f" ({found.low:{sign}.{measure.places}f} to {found.high:{sign}.{measure.places}f})"
    return f"**{text}**" if signed and found.excludes_zero else text


def verdicts(tasks: list[Compared]) -> str:
    """Whether each method gains, and whether its base has learnt the training examples by heart; a line a task."""
    lines = []
    for task in tasks:
        learnt = mean(task.rows, task.base, TRAINED)
        for name, matched in task.methods.items():
            others = {"the same epochs": task.base, "the same seconds": matched}
            said = [_verdict(task, name, other, at) for at, other in others.items() if other]
            if said[0]:
                fits = "has fitted its training examples" if learnt.mean >= FITTED else "has not fitted them all"
                share = f"{task.base} {fits} ({learnt.mean:.1f} % right)"
                line = f"- **{name}**, {task.title}: {'; '.join(filter(None, said))}. {share}."
                lines.append(line + _at_chance(task, name))
    return "\n".join([*(lines or [NOTHING]), ""])


def _at_chance(task: Compared, name: str) -> str:
    """How many runs of a method have learnt nothing: they count, and their calibration error is small for no merit."""
    seeds = tests(task.rows, name)
    shares = [TRAINED.of(row) for row in seeds.values()]
    lost = sum(share is not None and share < CHANCE * 100 / task.classes for share in shares)
    if not lost:
        return ""
    of = f"{lost} of the {len(seeds)} runs of {name} {'has' if lost == 1 else 'have'}"
    return f" {of} learnt nothing; an answer at chance is well calibrated, so the calibration error says little here."


def counted(tasks: list[Compared]) -> str:
    """One sentence over all comparisons with a base that trained for the same seconds; empty where there is none."""
    pairs = [(task, name, matched) for task in tasks for name, matched in task.methods.items() if matched]
    said, most = [], 0
    for kind in ("accuracy", "loss", "ece"):
        words = [word for task, name, other in pairs if (word := _word(task, name, other, MEASURES[kind]))]
        told = [f"{word} in {words.count(word)}" for word in (BETTER, WORSE, EQUAL) if word in words]
        said.append(f"{MEASURES[kind].title} {listed(told)}")
        most = max(most, len(words))
    start = f"Of {most} comparisons with a base that trained for the same seconds, the method's "
    return f"{start}{'; '.join(said)}." if most else ""


def _word(task: Compared, name: str, other: str, measure: Measure) -> str:
    """``BETTER``, ``WORSE`` or ``EQUAL``; empty where seeds are missing."""
    it = difference(task.rows, name, other, measure)
    if it.n < max(task.needed, 2):
        return ""
    return EQUAL if not it.excludes_zero else BETTER if (it.mean > 0) == measure.more_is_better else WORSE


def _verdict(task: Compared, name: str, other: str, at: str) -> str:
    """What is better, what is worse and what shows no difference; empty where seeds are missing."""
    found: dict[str, list[str]] = {}
    for measure in MEASURES.values():
        if word := _word(task, name, other, measure):
            found.setdefault(word, []).append(measure.title)
    told = [f"{word} in {listed(found[word])}" for word in (BETTER, WORSE, EQUAL) if word in found]
    return f"at {at} it {listed(told, ', and ')}" if told else ""


def means(tasks: list[Compared]) -> str:
    """Every method's own numbers, with the share of the training examples that it answers right."""
    heads = (
        "task", "method", "seeds>", "accuracy, %>", "test loss>", "calibration error, %>",
        "accuracy, corrupted images, %>", "accuracy, training examples, %>", "seconds>",
    )  # fmt: skip
    found = []
    for task in tasks:
        for name in dict.fromkeys([task.base, *task.methods, *task.methods.values()]):
            seeds, lost = tests(task.rows, name), diverged(task.rows, name)
            if seeds or lost:
                cells = [written(mean(task.rows, name, each), each) for each in (*MEASURES.values(), TRAINED, SPENT)]
                found.append((task.title, name, f"{len(seeds)}{f', {lost} diverged' if lost else ''}", *cells))
    return table(heads, found, "No run on a test set is done yet.")


def _trained(row: Row) -> float | None:
    found = row.get("train_accuracy")
    return None if found is None else 100 * float(found)


TRAINED = Measure("accuracy on the training examples", _trained, 2, True)
SPENT = Measure("seconds", lambda row: row["process_seconds"], 0, False)


def curves(rows: Rows, tasks: Mapping[str, Task] = TASKS) -> str:
    """Validation accuracy and loss over the radius, at the chosen learning rate; half the length of a run."""
    found = []
    for key, task in tasks.items():
        for name in (name for name in plan.CURVES if name in task.methods):
            units = [each for each in plan.curve(key, task, name, rows) if each.known]
            pairs = [(each.run, rows.find(key, each.settings)) for each in units]
            cells = [f"{run.rho:g}: {_validated(row)}" for run, row in pairs]
            if any(row is not None for _, row in pairs):
                found.append((task.title, name, f"{units[0].run.lr:g}", "; ".join(cells)))
    return table(("task", "method", "learning rate>", "rho: accuracy in %, loss"), found, "No curve is begun yet.")


def _validated(row: Row | None) -> str:
    if row is None:
        return OPEN
    both = f"{100 * plan.accuracy_of(row):.2f}, {plan.loss_of(row):.3f}"
    return both if row["status"] == "finished" else "diverged"


def tries(rows: Rows, tasks: Mapping[str, Task] = TASKS) -> str:
    """What each method chose from: validation accuracy and loss of each point; the chosen one is bold."""
    found = []
    for key, task in tasks.items():
        for name, method in task.methods.items():
            best = plan.chosen(key, task, name, rows)
            cells = []
            for point in method.points:
                row = rows.find(key, plan.unit(key, task, name, plan.CHOOSING, point).settings)
                at = f"{point[0]:g}" if point[1] is None else f"{point[0]:g}, {point[1]:g}"
                cells.append(f"**{at}: {_validated(row)}**" if point == best else f"{at}: {_validated(row)}")
            if any(not cell.endswith(OPEN) for cell in cells):
                found.append((task.title, name, "; ".join(cells)))
    heads = ("task", "method", "learning rate, rho: accuracy in %, loss")
    return table(heads, found, "No run of the choosing is done yet.")


def state(rows: Rows, tasks: Mapping[str, Task] = TASKS) -> str:
    """What is done and what is open, with about the hours that it takes."""
    found = [(tasks[x.task].title, x.done, x.left, f"{x.hours:.1f}") for x in outlook(tasks, rows)]
    return table(("task", "runs done>", "runs open>", "hours of one core, about>"), found)
