"""What pages say of accuracies and losses stands in tables that are made from records, and nowhere else.

That the tables are those of the records is checked in test_generated.py.
"""

import json
import re

import pytest
from blocks import DOCS, ROOT

MADE = re.compile(r"<!-- table [\w-]+ -->\n.*?<!-- end -->", re.S)
# A mean with its interval, a share with decimals: what a run came to.
RESULT = re.compile(r"\d+(?:\.\d+)? ± \d+(?:\.\d+)?|\b\d+\.\d+ %")
OF_NUMBERS = ("evidence.md", "evidence-runs.md", "when-not.md")
PAGES = {"README.md": ROOT / "README.md", **{name: DOCS / name for name in OF_NUMBERS}}


@pytest.mark.parametrize("page", PAGES)
def test_results_stand_in_generated_tables_only(page):
    text = PAGES[page].read_text(encoding="utf-8")
    assert MADE.search(text), "it has tables"
    assert RESULT.findall(MADE.sub("", text)) == []


def test_every_number_of_the_readmes_digits_is_in_its_record():
    text = PAGES["README.md"].read_text(encoding="utf-8")
    cases = json.loads((DOCS / "measured" / "when-not.json").read_text(encoding="utf-8"))["cases"]
    kept = {f"{100 * row['test_accuracy']['mean']:.2f}" for rows in cases.values() for row in rows}
    rows = [line for line in text.splitlines() if line.startswith("| handwritten digits")]
    assert rows
    assert {number for row in rows for number in re.findall(r"(\d+\.\d+) ±", row)} <= kept


def test_the_log_says_which_of_its_numbers_have_no_record():
    log = (ROOT / "LOG.md").read_text(encoding="utf-8")
    entry = next(part for part in log.split("\n- ") if part.startswith("**Digits do not separate"))
    assert "no record" in entry
    assert "when-not.json" in entry


def test_the_evidence_page_names_no_number_of_seconds_or_parameters_that_is_not_so():
    from fenland.lab.models import build_model

    text = PAGES["evidence.md"].read_text(encoding="utf-8")
    count = sum(weight.numel() for weight in build_model("convnet", (3, 32, 32), 10).parameters())
    assert f"{count:,} parameters" in text
