"""Figures: one look for each optimizer, SVG fit to live inside a page, files that repeat bit for bit."""

import re
import subprocess
import sys
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
from synthetic_store import write_run, write_store

from fenland.lab.figures import draw_all, inline_svg, save_files
from fenland.lab.figures.style import DARK, DASHES, LIGHT, PAPER, Canvas
from fenland.lab.store.records import read_records
from fenland.lab.store.seal import seal

pytestmark = pytest.mark.usefixtures("whole_pictures")
ALL = {
    "final_accuracy", "difference", "test_accuracy", "test_loss", "train_loss", "loss_gap", "gamma", "sharpness",
    "cost_evaluations", "cost_seconds",
}  # fmt: skip


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    return read_records(write_store(tmp_path_factory.mktemp("invented"), diverged=[("sam", 1)]))


@pytest.fixture(scope="module")
def pictures(records):
    return {drawn.name: inline_svg(drawn, records.labels) for drawn in draw_all(records)}


def contrast(one, other):
    """WCAG 2's contrast ratio of two colours."""
    parts = [np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255 for color in (one, other)]
    linear = [np.where(p <= 0.04045, p / 12.92, ((p + 0.055) / 1.055) ** 2.4) for p in parts]
    bright = sorted(float(p @ [0.2126, 0.7152, 0.0722]) for p in linear)
    return (bright[1] + 0.05) / (bright[0] + 0.05)


@pytest.mark.parametrize(("colors", "page"), [(LIGHT, "#ffffff"), (DARK, "#1a2024")])
def test_every_line_stands_out_from_its_page(colors, page):
    assert min(contrast(color, page) for color in colors) >= 3  # WCAG 1.4.11 for graphics


def test_no_two_of_the_first_seven_look_alike():
    canvas = Canvas(PAPER, [str(index) for index in range(14)])
    looks = [tuple(map(str, canvas.look(label).values())) for label in canvas.labels]
    assert len(set(looks)) == len(looks)
    assert len({color for color, _ in looks[:7]}) == 7
    assert len({dash for _, dash in looks[: len(DASHES)]}) == len(DASHES)


def test_every_measured_quantity_has_its_figure(pictures):
    assert set(pictures) == ALL


def test_without_an_ascent_there_is_no_gamma_and_without_a_rival_no_difference(tmp_path):
    records = read_records(write_store(tmp_path, optimizers=("sgd",)))
    assert {drawn.name for drawn in draw_all(records)} == ALL - {"gamma", "sharpness", "difference"}


def test_ids_are_unique_and_every_reference_resolves(pictures):
    page = "".join(pictures.values())
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'(?:url\(#|href="#)([^)"]+)', page)) <= set(ids)
    for name, text in pictures.items():
        assert all(each.startswith(f"{name}-") for each in re.findall(r'\bid="([^"]+)"', text))


def test_the_svg_takes_the_pages_colours_and_brings_no_style_of_its_own(pictures):
    for text in pictures.values():
        root = ElementTree.fromstring(text)
        assert root.get("viewBox")
        assert not root.findall(".//{*}style")
        assert not root.findall(".//{*}metadata")
        assert not root.findall(".//{*}image")
        assert "#0a0" not in text  # a stand-in that no variable replaced
        colors = set(re.findall(r"(?:fill|stroke): ([^;\"]+)", text)) - {"none"}
        assert colors
        assert all(color.startswith("var(--") for color in colors)


def test_the_svg_says_what_it_shows(pictures):
    for name, text in pictures.items():
        root = ElementTree.fromstring(text)
        assert root.get("role") == "img"
        words = {child.get("id"): child.text for child in root}
        assert [bool(words[each]) for each in root.get("aria-labelledby").split()] == [True, True]
        assert "SAM" in words[f"{name}-desc"]


def test_legend_and_titles_name_the_optimizers_as_text(pictures):
    texts = [element.text for element in ElementTree.fromstring(pictures["test_accuracy"]).findall(".//{*}text")]
    assert {"SGD", "SAM", "SSAM", "epoch"} <= set(texts)


def test_the_same_records_give_the_same_bytes(records, pictures, tmp_path):
    drawn = draw_all(records)[-1]
    assert inline_svg(drawn, records.labels) == pictures[drawn.name]
    first = [path.read_bytes() for path in save_files(drawn, records.labels, tmp_path / "a")]
    assert first == [path.read_bytes() for path in save_files(drawn, records.labels, tmp_path / "b")]
    assert [content[:4] for content in first] == [b"\x89PNG", b"%PDF"]


def test_files_are_written_whole(records, tmp_path):
    paths = save_files(draw_all(records)[0], records.labels, tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted(paths)


def test_settings_of_matplotlib_are_left_as_they_were(records):
    before = dict(matplotlib.rcParams)
    inline_svg(draw_all(records)[0], records.labels)
    assert dict(matplotlib.rcParams) == before


def test_pyplot_is_never_imported():
    code = "import sys, fenland.lab.figures; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def text_boxes(figure):
    """Where the visible texts of a drawn figure are, in pixels."""
    figure.draw_without_rendering()
    renderer = figure.canvas.get_renderer()
    axes = figure.axes[0]
    texts = [*axes.texts, axes._left_title, axes.xaxis.label]
    for axis in (axes.xaxis, axes.yaxis):
        low, high = sorted(axis.get_view_interval())
        texts += [tick.label1 for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
    legend = axes.get_legend()
    texts += legend.get_texts() if legend else []
    shown = [text for text in texts if text.get_visible() and text.get_text()]
    return {f"{text.get_text()}@{index}": text.get_window_extent(renderer) for index, text in enumerate(shown)}


@pytest.mark.parametrize(
    ("optimizers", "epochs"), [(("sgd",), 1), (("sgd", "sam"), 2), (("sgd", "sam", "usam", "ssam"), 12)]
)
def test_no_text_is_clipped_or_overlaps_another(tmp_path, optimizers, epochs):
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    records = read_records(write_store(tmp_path, optimizers=optimizers, epochs=epochs))
    for drawn in draw_all(records):
        figure = drawn.draw(Canvas(PAPER, records.labels, titled=True))
        FigureCanvasAgg(figure)
        boxes = text_boxes(figure)
        assert not figure.axes[0].yaxis.get_offset_text().get_text()
        for name, box in boxes.items():
            assert box.x0 >= 0, (drawn.name, name)
            assert box.y0 >= 0, (drawn.name, name)
            assert box.x1 <= figure.bbox.width, (drawn.name, name)
            assert box.y1 <= figure.bbox.height, (drawn.name, name)
            assert not [other for other, each in boxes.items() if other != name and each.overlaps(box)], drawn.name


def test_long_names_make_the_legend_taller_not_wider(tmp_path):
    for rho in (0.01, 0.05, 0.1):
        write_run(tmp_path, "sam", 0, rho=rho)
    records = read_records(tmp_path)
    drawn = next(each for each in draw_all(records) if each.name == "test_loss")
    assert drawn.draw(Canvas(PAPER, records.labels)).axes[0].get_legend()._ncols == 2


@pytest.mark.parametrize("diverged", [[("sam", 0)], [("sam", 0), ("sam", 1)]])
def test_diverged_runs_are_drawn_but_not_averaged(tmp_path, diverged):
    records = read_records(write_store(tmp_path, optimizers=("sgd", "sam"), seeds=2, diverged=diverged))
    drawn = next(each for each in draw_all(records) if each.name == "test_loss")
    assert "diverged" in drawn.caption
    axes = drawn.draw(Canvas(PAPER, records.labels)).axes[0]
    assert sum(line.get_marker() == "x" for line in axes.lines) == len(diverged)
    assert ("SAM" in drawn.description) is (len(diverged) == 1)


def test_a_column_that_was_not_recorded_costs_only_its_own_figures(tmp_path):
    import pandas as pd

    write_store(tmp_path)
    for path in tmp_path.glob("runs/*/metrics.parquet"):
        pd.read_parquet(path).drop(columns=["gamma", "train_eval_loss", "seconds"]).to_parquet(path)
        seal(path.parent)
    assert {drawn.name for drawn in draw_all(read_records(tmp_path))} == ALL - {"gamma", "cost_seconds"}
