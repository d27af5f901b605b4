"""One file that survives being killed, and the figure."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from landscape_cases import batches, kept_slice, loss_fn, net

from fenland.diagnostics.landscape import Landscape, random_slice, trajectory


def same(a, b):
    assert torch.equal(a.losses, b.losses)
    assert all(torch.equal(x, y) for x, y in zip(a.axes, b.axes, strict=True))
    assert (a.center, a.kind, a.labels, a.bn, a.engine, a.examples) == (
        b.center, b.kind, b.labels, b.bn, b.engine, b.examples,
    )  # fmt: skip


def test_killed_and_begun_again_gives_the_same_file(tmp_path):
    whole = kept_slice(tmp_path / "whole.pt", loss_fn)
    file, part = tmp_path / "killed.pt", tmp_path / "killed.pt.part"
    script = Path(__file__).with_name("landscape_cases.py")
    with subprocess.Popen(
        [sys.executable, str(script), str(file)], env={**os.environ, "OMP_NUM_THREADS": "1"}
    ) as child:
        until = time.monotonic() + 60
        while not part.exists() and time.monotonic() < until and child.poll() is None:
            time.sleep(0.01)
        child.send_signal(signal.SIGKILL)
    assert part.exists()
    assert not file.exists()
    done = len(torch.load(part, weights_only=True)["losses"])
    assert 0 < done < 49
    counted = []

    def counting(model, batch):
        counted.append(1)
        return loss_fn(model, batch)

    same(kept_slice(file, counting), whole)
    assert file.read_bytes() == (tmp_path / "whole.pt").read_bytes()
    assert sorted(os.listdir(tmp_path)) == ["killed.pt", "whole.pt"]
    # a finished file is read: L at the centre is measured alone, to see that it is the same one
    counted.clear()
    same(kept_slice(file, counting), whole)
    assert len(counted) <= 3 * len(batches())


def test_an_exception_keeps_what_was_found(tmp_path):
    file, calls = tmp_path / "a.pt", []

    def progress(done, total):
        calls.append((done, total))
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        random_slice(net(), loss_fn, batches(), points=3, chunk=2, file=file, progress=progress)
    assert len(torch.load(f"{file}.part", weights_only=True)["losses"]) == 4
    seen = random_slice(net(), loss_fn, batches(), points=3, chunk=2, file=file)
    same(Landscape.load(file), seen)
    assert calls == [(2, 9), (4, 9)]


def test_another_landscape_is_not_overwritten(tmp_path):
    file = tmp_path / "a.pt"
    random_slice(net(), loss_fn, batches(), dims=1, points=3, file=file)
    for other in (
        lambda: random_slice(net(), loss_fn, batches(), dims=1, points=5, file=file),
        lambda: random_slice(net(seed=1), loss_fn, batches(), dims=1, points=3, file=file),
        lambda: random_slice(net(), loss_fn, batches()[:2], dims=1, points=3, file=file),
        lambda: random_slice(net(), loss_fn, batches(), dims=1, points=3, seed=1, file=file),
    ):
        with pytest.raises(ValueError, match="holds another landscape"):
            other()


def test_files_that_are_none_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file"):
        Landscape.load(tmp_path / "none.pt")
    (tmp_path / "text.pt").write_text("hello")
    with pytest.raises(ValueError, match="not a file of a landscape"):
        Landscape.load(tmp_path / "text.pt")
    torch.save({"weights": torch.ones(2)}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match="not a file of a landscape"):
        Landscape.load(tmp_path / "other.pt")


def hole(model, batch):
    """A loss that is not finite where the first bias is large, under vmap too."""
    loss = loss_fn(model, batch)
    return torch.where(model[0].weight[0, 0] > 0.02, torch.full_like(loss, float("inf")), loss)


def test_losses_that_are_not_finite_are_kept_and_drawn_as_gaps(tmp_path):
    pytest.importorskip("matplotlib")
    line = random_slice(net(), hole, batches(), dims=1, points=9)
    bad = ~torch.isfinite(line.losses)
    assert 0 < bad.sum() < 9
    axes = line.plot(tmp_path / "line.png")
    drawn = torch.tensor(axes.lines[0].get_ydata())
    assert torch.equal(torch.isnan(drawn), bad)
    torch.testing.assert_close(drawn[~bad], line.losses[~bad])
    assert f"{int(bad.sum())} of 9 losses not finite" in axes.get_title(loc="left")
    assert axes.get_xlim()[0] <= -1.0 < 1.0 <= axes.get_xlim()[1]
    random_slice(net(), hole, batches(), points=5).plot(tmp_path / "plane.pdf")
    assert (tmp_path / "line.png").read_bytes()[:4] == b"\x89PNG"
    assert sorted(os.listdir(tmp_path)) == ["line.png", "plane.pdf"]


def test_the_figure_of_a_trajectory_draws_its_path_into_given_axes(tmp_path):
    figure = pytest.importorskip("matplotlib.figure").Figure()
    states = [net(seed=k).state_dict() for k in range(4)]
    seen = trajectory(net(), loss_fn, batches(), states, points=5, file=tmp_path / "t.pt")
    again = Landscape.load(tmp_path / "t.pt")
    axes = again.plot(axes=figure.add_subplot(), title="a run")
    path = next(line for line in axes.lines if len(line.get_xdata()) == 4)
    assert torch.tensor(path.get_xydata()).tolist() == seen.path.tolist()
    assert "% of variance" in axes.get_xlabel()
    assert axes.get_title(loc="left") == "a run"


def test_without_matplotlib_the_cure_is_named(monkeypatch):
    seen = random_slice(net(), loss_fn, batches(), dims=1, points=3)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"fenland\[lab\]"):
        seen.plot()
