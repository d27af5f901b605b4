"""Two stores or two runs on one page: the differences are those of equal seeds, and what differs is named."""

import re

import pytest
from synthetic_store import write_run, write_store

from fenland.lab import cli
from fenland.lab.errors import BadInput
from fenland.lab.report.beside import read_source, write_beside
from fenland.lab.store.records import read_records


def row_of(page, name):
    """The texts of a table's row."""
    text = page.read_text()
    rows = re.findall(r"<tr[^>]*>(.*?)</tr>", text, re.S)
    cells = next(row for row in rows if re.search(rf"<th[^>]*>{re.escape(name)}</th>", row))
    return [" ".join(re.sub(r"<[^>]+>", " ", cell).split()) for cell in re.findall(r"<td[^>]*>(.*?)</td>", cells, re.S)]


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    write_store(folder / "monday", ("sgd", "sam", "ssam"))
    for seed in range(4):
        for name in ("sgd", "sam"):
            write_run(folder / "tuesday", name, seed, spread=0.004)
    return folder


def test_two_stores(stores, capsys):
    page = stores / "deep" / "page.html"
    assert cli.main(["report", str(stores / "monday"), str(stores / "tuesday"), "--to", str(page)]) == 0
    assert capsys.readouterr().out == f"{page}\n"
    one, other = (read_records(stores / name).results for name in ("monday", "tuesday"))
    means = [100 * each[(each["label"] == "sam") & (each["seed"] < 3)]["test_accuracy"].mean() for each in (one, other)]
    cells = row_of(page, "SAM")
    assert cells[0].startswith(f"{means[1] - means[0]:+.2f} ".replace("-", "−"))
    assert " to " in cells[0]
    assert cells[-1] == "3", "the seeds that both have"
    text = page.read_text()
    assert row_of(page, "Seeds") == ["0, 1, 2", "0, 1, 2, 3"]
    assert "SSAM [monday]" in text
    assert "SSAM [tuesday]" not in text
    order = [text.index(f'data-sort="{each}"') for each in ("SGD [monday]", "SGD [tuesday]", "SAM [monday]")]
    assert order == sorted(order)
    assert "figures/" not in text
    assert sorted(each.name for each in (stores / "monday").iterdir()) == ["compare.json", "runs"]


def test_two_runs_of_one_seed(stores):
    runs = stores / "monday" / "runs"
    page = write_beside(runs / "sgd0000", runs / "sam0000", stores / "runs.html", "fenland report")
    records = read_records(stores / "monday").results.set_index("run")["test_accuracy"]
    cells = row_of(page, "SAM minus SGD")
    assert cells[0] == f"{100 * (records['sam0000'] - records['sgd0000']):+.2f}".replace("-", "−")
    assert cells[-1] == "1"
    assert row_of(page, "Radius rho") == ["–", "0.05"]


def test_the_same_store_twice_differs_in_nothing(stores):
    page = write_beside(stores / "monday", stores / "monday", stores / "same.html", "fenland report")
    assert "Nothing that is stored" in page.read_text()
    assert row_of(page, "SAM")[0].startswith("+0.00")


def test_what_is_no_store_is_named(stores, tmp_path, capsys):
    with pytest.raises(BadInput, match="holds no stored run"):
        read_source(tmp_path)
    assert cli.main(["report", str(stores / "monday"), str(tmp_path / "none")]) == 2
    assert "no such directory" in capsys.readouterr().err
    assert cli.main(["report", "a", "b", "c"]) == 2
    assert "Unrecognized options: c" in capsys.readouterr().err
    assert cli.main(["report", str(stores / "monday"), "--to", "x.html"]) == 2
    assert "--to=x.html: is for the page of two folders" in capsys.readouterr().err
    assert cli.main(["report", str(stores / "monday"), str(stores / "tuesday"), "--to", "x"]) == 2
    assert "a page's name ends in .html" in capsys.readouterr().err
