"""The pictures of the lab's pages, of real runs: python docs/screens.py [FOLDER].

Trains, measures, writes the pages into out/screens (what is stored there is not repeated: minutes the first time,
seconds later) and has a headless Chromium look at them, once for light and once for dark pages. The README's moving
picture is the explorer, one frame a step.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

from fenland.lab.cli import main as fenland

HERE = Path(__file__).parent
RUNS = HERE.parent / "out" / "screens"
LIMIT = 200_000  # bytes
SHARP = 1.6  # pixels of the picture for one of the page
SCHEMES = {"light": "1", "dark": "0"}  # Blink's numbers
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
QUIET = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking",
    "--no-first-run", "--hide-scrollbars", "--virtual-time-budget=8000", "--host-resolver-rules=MAP * 127.0.0.1:1",
)  # fmt: skip


@dataclass(frozen=True)
class Screen:
    """One page, and how much of it is shown.

    Attributes:
        page: below the folder of runs.
        width: of the window, in the page's pixels.
        height: the same.
        view: what stands after the # of the address.
    """

    page: str
    width: int
    height: int
    view: str = ""


COMMANDS = (
    "compare --data digits --optimizers sgd sam ssam --seeds 5 --out {out}/demo",
    "study quartic saddle-escape quadratic --preset quick --out {out}/studies",
    "explore --out {out}/explorer.html --studies {out}/studies",
)
SCREENS = {
    "report": Screen("demo/report.html", 920, 790),
    "studies": Screen("studies/index.html", 960, 775),
    "explorer": Screen(
        "explorer.html", 1000, 1110, "landscape=saddle&method=USAM&rho=0.6&lr=0.08&momentum=0&start=A&step=3&beside=SGD"
    ),
}


# The moving picture: the same saddle, step by step; the last frame stays for a while.
MOVING = "explorer.gif"
STEPS = range(0, 25)
FRAME_MS, LAST_MS = 350, 2500
MOVING_LIMIT = 1_000_000  # bytes


def names() -> list[str]:
    """The files that `main` writes."""
    return [*(f"{name}-{scheme}.png" for name in SCREENS for scheme in SCHEMES), MOVING]


def make_pages() -> None:
    """The runs and their pages, by the very commands that people type."""
    for command in COMMANDS:
        code = fenland(command.format(out=RUNS).split())
        if code:
            raise SystemExit(f"fenland {command} ended with {code}")


def look(screen: Screen, scheme: str, sharp: float = SHARP) -> Image.Image:
    """The page as the browser shows it."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        raise SystemExit(f"no browser on PATH; install one of {', '.join(BROWSERS)}")
    address = (RUNS / screen.page).as_uri() + (f"#{screen.view}" if screen.view else "")
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "screen.png"
        command = [browser, *QUIET, f"--user-data-dir={scratch}/profile", f"--screenshot={file}"]
        command += [f"--window-size={screen.width},{screen.height}", f"--force-device-scale-factor={sharp}"]
        command += [f"--blink-settings=preferredColorScheme={SCHEMES[scheme]}", address]
        subprocess.run(command, check=True, capture_output=True, timeout=120)
        return Image.open(io.BytesIO(file.read_bytes())).convert("RGB")


def draw(name: str, scheme: str, folder: Path) -> Path:
    """Write one picture, in 256 colours that keep the hues of thin lines."""
    path = folder / f"{name}-{scheme}.png"
    picture = look(SCREENS[name], scheme).quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    picture.save(path, optimize=True)
    if path.stat().st_size >= LIMIT:
        raise SystemExit(f"{path} has {path.stat().st_size} bytes, more than {LIMIT}; show less of the page")
    return path


def animate(folder: Path) -> Path:
    """Write the moving picture: every step of the explorer's view, on a light page."""
    path, whole = folder / MOVING, SCREENS["explorer"]
    frames = []
    for step in STEPS:
        view = whole.view.replace("step=3", f"step={step}")
        frames.append(look(replace(whole, height=760, view=view), "light", sharp=0.8))
    palette = frames[-1].quantize(128, Image.Quantize.MAXCOVERAGE)
    drawn = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    times = [FRAME_MS] * (len(drawn) - 1) + [LAST_MS]
    drawn[0].save(path, save_all=True, append_images=drawn[1:], duration=times, loop=0, optimize=True)
    if path.stat().st_size >= MOVING_LIMIT:
        raise SystemExit(f"{path} has {path.stat().st_size} bytes, more than {MOVING_LIMIT}; show fewer steps")
    return path


def main() -> None:
    """Write all pictures."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "images" / "lab"
    folder.mkdir(parents=True, exist_ok=True)
    make_pages()
    for name in SCREENS:
        for scheme in SCHEMES:
            print(draw(name, scheme, folder))
    print(animate(folder))


if __name__ == "__main__":
    main()
