"""The page as a file: packed numbers, gallery, links, size, and the command that writes it."""

import base64
import json
import re
import zlib

import numpy
import pytest
from explored import SMALL

from fenland.lab.cli import main
from fenland.lab.explore import contours
from fenland.lab.explore import page as pages
from fenland.lab.explore.landscapes import LANDSCAPES
from fenland.lab.explore.measure import METHODS, radii_of, trajectories
from fenland.lab.explore.pack import BEYOND, FULL, encode, planes, quantise


def test_packed_points_come_back_to_half_a_step():
    random = numpy.random.default_rng(0)
    path, ascent = random.uniform(-9, 9, (2, 3, 7, 2)), random.uniform(-3, 3, (2, 3, 7, 2))
    path[0, 0, 4] = numpy.inf
    middle, half = (1.0, -0.5), (6.0, 8.0)
    q, a = quantise(path, middle, half), quantise(ascent, middle, half)
    raw = zlib.decompress(base64.b64decode(encode([planes(q, a)])))
    low, high = numpy.frombuffer(raw, numpy.uint8).reshape(2, -1).astype(int)
    found = numpy.cumsum((low | high << 8).reshape(6, 4, 7), axis=-1).astype(numpy.int16)
    numpy.testing.assert_array_equal(found[:, :2].transpose(0, 2, 1).reshape(path.shape), q)
    summits = (found[:, 2:] + found[:, :2]).astype(numpy.int16).transpose(0, 2, 1).reshape(path.shape)
    inside = (numpy.abs(path - middle) <= half).all(-1)
    assert not inside.all()
    assert (q[~inside] == BEYOND).all()
    step = numpy.array(half) / FULL
    assert (numpy.abs(q[inside] * step + middle - path[inside]) <= step / 2 + 1e-12).all()
    assert (numpy.abs(summits * step + middle - ascent) <= step / 2 + 1e-12).all()


def test_all_landscapes_fit_into_the_page():
    size = 0
    for each in LANDSCAPES:
        parts = []
        for method in METHODS:
            points = trajectories(each, method, radii_of(each, method))
            parts.append(planes(*(None if x is None else quantise(x.numpy(), *each.spread) for x in points)))
        size += len(encode(parts)) + sum(map(len, contours.paths(each)))
    assert 1_000_000 < size < 3_500_000, "the gallery needs room too"


def test_level_regions_lie_in_one_another():
    for each in SMALL:
        found = contours.paths(each)
        assert len(found) == 10
        assert all(path.startswith("M") for path in found[:-1])
        corners = [numpy.array(re.findall(r"\d+", path), int).reshape(-1, 2) for path in found if path]
        assert all(numpy.ptp(each, axis=0).max() <= contours.WIDTH for each in corners)
        area = [numpy.prod(numpy.ptp(each, axis=0)) for each in corners]
        assert sorted(area, reverse=True) == area


def test_the_page_is_one_file_with_its_data(page):
    text = page.read_text()
    assert len(text.encode()) < pages.LARGEST
    assert not re.search(r'(?:src|href)="(?:https?:)?//', text)
    data = json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)[1])
    assert [each["name"] for each in data["landscapes"]] == ["saddle", "quadratic"]
    assert data["starts"] >= 500
    for each in data["landscapes"]:
        for name, cells in each["methods"].items():
            radii = 1 if name == "SGD" else len(each["radii"])
            assert len(cells["success"]) == len(cells["predicted"]) == len(cells["limit"]) == radii
            assert all(0 <= x <= 1 for row in cells["success"] for cell in row for x in cell)


def test_the_gallery_links_what_is_there(page, studies):
    text = page.read_text()
    links = [link for link in re.findall(r'href="([^"]+)"', text) if not link.startswith("data:")]
    assert "studies/toy/report.html" in links
    for link in links:
        target, _, place = link.partition("#")
        content = (page.parent / target).read_text()
        assert not place or f'id="{place}"' in content, link
    assert (
        "Claims of papers: 0 of 1 hold, 1 cannot be decided at this scale. Claims of our own: 1 of 2 holds, 1 does not."
        in text
    )
    figure = re.search(r'<div class="paper">(<svg .*?</svg>)</div>', text, re.S)[1]
    assert ">Rolls &amp; means</title>" in figure
    assert ">Rolls by number.</desc>" in figure
    assert "var(--series-0" in figure, "the colours of the page, whichever scheme it is in"
    ids = re.findall(r'id="([^"]+)"', figure)
    assert ids
    assert all(each.startswith("entry-1-") for each in ids)
    assert set(re.findall(r'(?:url\(#|href="#)([\w-]+)', figure)) <= set(ids)
    assert "No roll is above the last side" in text
    assert "<twice>" not in text


def test_a_page_that_grows_too_large_leaves_figures_out(page, studies, monkeypatch, tmp_path):
    monkeypatch.setattr(pages, "LARGEST", len(page.read_bytes()) - 1000)
    small = pages.write_explorer(tmp_path / "small.html", studies, landscapes=SMALL)
    assert 'class="paper"' in page.read_text()
    assert 'class="paper"' not in small.read_text()
    assert "The mean is in the middle" in small.read_text()


def test_without_studies_it_says_how_to_get_them_and_the_same_bytes_come_again(measured, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(pages.write_explorer, "__defaults__", (None, lambda *words: None, SMALL))
    assert main(["explore", "--out", str(tmp_path / "new")]) == 0
    said = capsys.readouterr()
    path = tmp_path / "new/explorer.html"
    assert said.out.strip() == str(path)
    assert "0%" in said.err
    assert "fenland study all --preset quick" in path.read_text()
    assert main(["explore", "--out", str(tmp_path / "again.html")]) == 0
    assert (tmp_path / "again.html").read_bytes() == path.read_bytes()
    assert sorted(each.name for each in tmp_path.rglob("*")) == ["again.html", "explorer.html", "new"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--out", "page.txt"], "--out=page.txt: a page's name ends in .html"),
        (["--out", ""], "--out=: give a file"),
        (["--out", "{file}/x.html"], "{file} is a file; give another folder"),
        (["--studies", "{tmp}/none", "--out", "{tmp}"], "--studies={tmp}/none: no such directory"),
        (["--studies", "{tmp}", "--out", "{tmp}"], "--studies={tmp}: holds no finished study"),
    ],
)
def test_wrong_words_are_answered_before_anything_is_measured(tmp_path, capsys, words, said):
    (tmp_path / "taken").write_text("")
    names = {"file": tmp_path / "taken", "tmp": tmp_path}
    assert main(["explore", *(word.format(**names) for word in words)]) == 2
    assert said.format(**names) in capsys.readouterr().err
    assert [each.name for each in tmp_path.iterdir()] == ["taken"]


def test_a_folder_that_cannot_be_written_to_is_said_before_anything_is_measured(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("os.access", lambda path, mode: False)
    assert main(["explore", "--out", str(tmp_path)]) == 2
    assert f"{tmp_path} cannot be written to; give another folder" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
