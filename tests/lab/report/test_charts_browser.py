"""The charts of a report in a real browser, with real keys and a real pointer."""

import json

import pytest
from browser import CHROMIUM
from chrome import Chrome
from synthetic_store import write_run, write_store

from fenland.lab.report.page import render
from fenland.lab.store.records import read_records
from fenland.lab.store.statistics import bands, paired, summary

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH")

LINES = "[...echarts.getInstanceByDom($('curves')).getOption().series].map(s => s.id)"


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    return read_records(write_store(tmp_path_factory.mktemp("invented"), diverged=[("sam", 1)]))


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """SAM at six settings of rho and lr, two seeds each, one setting missing."""
    out = tmp_path_factory.mktemp("swept")
    for rho in (0.01, 0.1):
        for lr in (0.05, 0.1, 0.2):
            for seed in (0, 1):
                if (rho, lr) != (0.1, 0.2):
                    write_run(out, "sam", seed, spread=rho * lr, rho=rho, lr=lr)
    write_run(out, "sgd", 0, lr=0.1)
    return read_records(out)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    chrome = Chrome(tmp_path_factory.mktemp("profile"))
    yield chrome
    assert chrome.errors == []
    chrome.close()


def opened(browser, records, **how):
    page = records.out / "page.html"
    if not page.exists():
        page.write_text(render(records, []))
    browser.open(page, **how)
    browser.wait("!$('closer').hidden && !!document.querySelector('#curves svg')")
    return browser


def said(browser, chart):
    return browser.run(f"$('{chart}-said').textContent")


def state(browser):
    found = browser.run("({...$('curves').dataset})")
    return {name: found[name] for name in ("from", "to", "scale")}


def choose(browser, name, option):
    """Of a select box, which headless Chromium shows outside of the page."""
    index = browser.run(f"[...$('{name}').options].findIndex(o => o.text === {option!r})")
    assert index >= 0
    browser.run(f"$('{name}').value = {index}; $('{name}').dispatchEvent(new Event('change'))")


def test_keys_walk_along_the_curve_and_tell_its_numbers(browser, records):
    chrome = opened(browser, records)
    chrome.run("$('curves').focus()")
    chrome.press("ArrowRight", times=3)
    row = bands(records.metrics[records.metrics["label"] == "sgd"], "test_accuracy").iloc[2]
    mean, low, high = (f"{100 * row[name]:#.4g}" for name in ("mean", "low", "high"))
    assert said(chrome, "curves").startswith(f"epoch 3: SGD {mean} ({low} to {high}); SAM ")
    assert chrome.run("document.querySelector('#curves .tip').textContent").count("to") == 3
    chrome.press("End")
    assert said(chrome, "curves").startswith("epoch 12: ")


@pytest.mark.parametrize(("key", "epoch"), [("End", 12), ("Home", 1), ("ArrowLeft", 12), ("ArrowRight", 1)])
def test_the_first_key_goes_where_it_says(browser, records, key, epoch):
    chrome = opened(browser, records)
    chrome.run("$('curves').focus()")
    chrome.press(key)
    assert said(chrome, "curves").startswith(f"epoch {epoch}: ")


def test_a_small_loss_is_not_rounded_to_a_thousandth(browser, records):
    chrome = opened(browser, records)
    shown = chrome.run("[0.000671, 1.5e-9, -1320, 0, 97, null].map(x => number(x))")
    assert shown == ["0.000671", "1.500e−9", "−1,320", "0", "97", "–"]
    assert chrome.run("[0.000671, 97, 98.1].map(measured)") == ["0.0006710", "97.00", "98.10"]


def test_a_pointer_shows_the_same_numbers(browser, records):
    chrome = opened(browser, records)
    chrome.mouse("Moved", *chrome.point("#curves", 0.999, 0.4))
    chrome.mouse("Moved", *chrome.point("#curves", 0.97, 0.4))
    chrome.wait("!!document.querySelector('#curves .tip')")
    assert chrome.run("document.querySelector('#curves b').textContent") == "epoch 12"


def test_keys_buttons_and_pointer_zoom(browser, records):
    chrome = opened(browser, records)
    whole = state(chrome)
    assert (whole["from"], whole["to"]) == ("1", "12")
    chrome.run("$('curves').focus()")
    chrome.press("+")
    keyed = state(chrome)
    assert 1 < float(keyed["from"]) < float(keyed["to"]) < 12
    chrome.press("0")
    assert state(chrome) == whole
    chrome.click("#curves-in")
    assert state(chrome) == keyed
    assert said(chrome, "curves").startswith("from 3.75 to")
    chrome.click("#curves-whole")
    before = chrome.run("[$('curves').dataset.low, $('curves').dataset.high].map(Number)")
    chrome.drag("#curves", (0.6, 0.3), (0.9, 0.5))
    dragged = state(chrome)
    assert 6 < float(dragged["from"]) < float(dragged["to"]) < 12
    after = chrome.run("[$('curves').dataset.low, $('curves').dataset.high].map(Number)")
    assert after[1] - after[0] < before[1] - before[0], "the vertical axis fits what is left"


def test_the_legend_hides_shows_and_isolates(browser, records):
    chrome = opened(browser, records)
    chrome.click("#curves-legend button:nth-child(1)")
    assert "mean0" not in chrome.run(LINES)
    assert chrome.run("document.querySelector('#curves-legend button').ariaPressed") == "false"
    chrome.run("document.querySelector('#curves-legend button').focus()")
    chrome.press(" ")
    assert "mean0" in chrome.run(LINES)
    chrome.click("#curves-legend button:nth-child(2)", shift=True)
    assert [name for name in chrome.run(LINES) if name.startswith("mean")] == ["mean1"]
    chrome.click("#curves-all")
    assert len([name for name in chrome.run(LINES) if name.startswith("mean")]) == 3


def test_single_seeds_and_the_run_that_broke_off(browser, records):
    chrome = opened(browser, records)
    broken = [name for name in chrome.run(LINES) if name.startswith("run")]
    assert len(broken) == 1
    chrome.click("#curves-seeds")
    assert len([name for name in chrome.run(LINES) if name.startswith("run")]) == 9
    chrome.run("$('curves').focus()")
    chrome.press("ArrowRight")
    seeds = chrome.run("document.querySelector('#curves small').textContent")
    first = records.metrics.query("label == 'sgd' and epoch == 1")["test_accuracy"]
    assert seeds == "seeds " + ", ".join(f"{100 * value:.4g}" for value in first)


def test_the_axis_is_logarithmic_where_asked_and_possible(browser, records):
    chrome = opened(browser, records)
    assert state(chrome)["scale"] == "linear"
    chrome.click("#curves-log")
    assert state(chrome)["scale"] == "log"
    choose(chrome, "curves-quantity", "Gamma = ‖g‖ / ‖h‖")
    assert state(chrome)["scale"] == "linear"
    choose(chrome, "curves-along", "gradient evaluations")
    assert state(chrome)["to"] == "480"  # 12 epochs of 20 steps of two gradients


def test_heads_sort_the_table(browser, records):
    chrome = opened(browser, records)
    names = "[...document.querySelectorAll('.results tbody th')].map(e => e.textContent.trim())"
    assert chrome.run(names) == ["SGD", "SAM", "SSAM"]
    table = summary(records).set_index("optimizer")["test_loss"].sort_values()
    wanted = [name.upper() for name in table.index]
    head = ".results thead th:nth-child(4)"
    chrome.click(f"{head} button")
    assert chrome.run(names) == wanted
    chrome.run(f"document.querySelector('{head} button').focus()")
    chrome.press("Enter")
    assert chrome.run(names) == wanted[::-1]
    assert chrome.run(f"document.querySelector('{head}').ariaSort") == "descending"
    gain = ".results thead th:nth-child(3) button"
    for _ in range(2):
        chrome.click(gain)
        assert chrome.run(names)[-1] == "SGD", "what has no value comes last, whichever way"


def test_the_map_of_a_sweep(browser, sweep):
    chrome = opened(browser, sweep)
    assert chrome.run("$('heat').dataset.cells") == "5"
    best = summary(sweep).sort_values("test_accuracy").iloc[-1]
    chrome.run("$('heat').focus()")
    chrome.press("ArrowRight")
    assert f"Test accuracy, % {100 * best['test_accuracy']:.2f}" in said(chrome, "heat")
    assert "2 seeds" in said(chrome, "heat")
    before = said(chrome, "heat")
    chrome.press("ArrowLeft")
    assert said(chrome, "heat") != before
    assert chrome.run("getComputedStyle($('heat').querySelector('div')).visibility") == "visible"


def test_the_lines_through_all_settings(browser, sweep):
    chrome = opened(browser, sweep, dark=True)
    ranked = summary(sweep).sort_values("test_accuracy", ascending=False)
    chrome.run("$('parallel').focus()")
    chrome.press("ArrowDown")
    assert said(chrome, "parallel").startswith("1 of 6. ")
    best = ranked.iloc[0]
    for words in (f"Test accuracy, % {100 * best['test_accuracy']:.2f}", f"Training time, s {best['seconds']:.1f}"):
        assert words in said(chrome, "parallel")
    chrome.press("End")
    assert said(chrome, "parallel").startswith("6 of 6. ")
    # The axis of the test accuracy is the fourth of seven: drag along its upper half.
    axes = chrome.run(
        "JSON.stringify(echarts.getInstanceByDom($('parallel')).getModel().getComponent('parallel').coordinateSystem.getRect())"
    )
    rect, box = json.loads(axes), chrome.run("[$('parallel').clientWidth, $('parallel').clientHeight]")
    x = (rect["x"] + rect["width"] * 3 / 6) / box[0]
    chrome.drag("#parallel", (x, (rect["y"] + 2) / box[1]), (x, (rect["y"] + rect["height"] / 2) / box[1]))
    assert "settings are chosen; the best of them is" in chrome.run("$('parallel-best').textContent")


def test_a_comparison_without_a_sweep_has_no_map(browser, records):
    chrome = opened(browser, records)
    assert chrome.run("$('settings').hidden")
    assert paired(records.results, "sam", "sgd").n == 2
