"""A headless Chromium that takes real keys and pictures, over the pipe of its own debugging protocol."""

import base64
import fcntl
import itertools
import json
import os
import select
import subprocess
import time
from pathlib import Path

from browser import CHROMIUM

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--remote-debugging-pipe",
    "--host-resolver-rules=MAP * 127.0.0.1:1",
)  # fmt: skip
KEYS = {
    "Tab": 9, "Enter": 13, " ": 32, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40, "End": 35,
    "Home": 36, "Escape": 27, "+": 187, "-": 189, "0": 48,
}  # fmt: skip


def _pipe(inherited):
    """Both ends of a pipe; the one that the browser gets has a number above 9, out of the way of 3 and 4."""
    ends = list(os.pipe())
    moved = fcntl.fcntl(ends[inherited], fcntl.F_DUPFD, 10)
    os.close(ends[inherited])
    ends[inherited] = moved
    return ends


class Chrome:
    """One page in one window; errors and requests are collected from the start.

    Args:
        profile: an empty folder.
    """

    def __init__(self, profile: Path) -> None:
        read, theirs = _pipe(1)
        others, write = _pipe(0)
        # The browser reads at 3 and writes at 4.
        line = f'exec "$0" "$@" 3<&{others} 4>&{theirs}'
        command = ["bash", "-c", line, CHROMIUM, *FLAGS, f"--user-data-dir={profile}", "about:blank"]
        self.process = subprocess.Popen(
            command, pass_fds=(others, theirs), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        os.close(theirs)
        os.close(others)
        self._read, self._write = read, write
        self._rest = b""
        self._ids = itertools.count(1)
        self._session = None
        self.errors: list[str] = []
        self.requests: list[str] = []
        target = next(t for t in self.call("Target.getTargets")["targetInfos"] if t["type"] == "page")
        self._session = self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params):
        """One command of the protocol, and its answer."""
        number = next(self._ids)
        message = {"id": number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            found = self._next()
            if found.get("id") == number:
                assert "error" not in found, (method, found["error"])
                return found["result"]

    def _next(self, seconds=60.0):
        end = time.monotonic() + seconds
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._read], [], [], max(0.0, end - time.monotonic()))
            assert ready, "Chromium does not answer"
            part = os.read(self._read, 1 << 20)
            assert part, "Chromium has gone"
            self._rest += part
        text, self._rest = self._rest.split(b"\0", 1)
        found = json.loads(text)
        params = found.get("params", {})
        if found.get("method") == "Runtime.exceptionThrown":
            self.errors.append(params["exceptionDetails"].get("exception", {}).get("description", "exception"))
        elif found.get("method") == "Log.entryAdded":
            self.errors.append(params["entry"]["text"])
        elif found.get("method") == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            self.errors.append(str(params["args"]))
        elif found.get("method") == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        return found

    def open(self, page: Path, width=1280, height=900, dark=False, still=False, fragment="") -> None:
        """Show a file at a width, in a colour scheme, with or without motion."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 500
        )
        features = [("prefers-color-scheme", "dark" if dark else "light")]
        features += [("prefers-reduced-motion", "reduce" if still else "no-preference")]
        named = [{"name": name, "value": value} for name, value in features]
        self.call("Emulation.setEmulatedMedia", features=named)
        self.call("Page.navigate", url="about:blank")
        self.requests.clear()
        self.errors.clear()
        self.call("Page.navigate", url=page.as_uri() + fragment)
        self.wait('location.protocol === "file:" && document.readyState === "complete"')

    def run(self, code: str):
        """The value of an expression, awaited."""
        found = self.call("Runtime.evaluate", expression=code, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def wait(self, code: str, seconds=20.0) -> None:
        """Until an expression is true."""
        end = time.monotonic() + seconds
        while not self.run(code):
            assert time.monotonic() < end, code
            time.sleep(0.02)

    def press(self, key: str, times=1) -> None:
        """Press a key as a person would."""
        for _ in range(times):
            same = {"key": key, "code": "Space" if key == " " else key, "windowsVirtualKeyCode": KEYS[key]}
            text = {"text": {" ": " ", "Enter": "\r"}[key]} if key in " Enter" else {}
            self.call("Input.dispatchKeyEvent", type="keyDown", **same, **text)
            self.call("Input.dispatchKeyEvent", type="keyUp", **same)

    def point(self, selector: str, x=0.5, y=0.5) -> tuple[float, float]:
        """Scroll an element into view; a place on it, in shares of its width and height."""
        box = f"document.querySelector({selector!r}).getBoundingClientRect()"
        self.run(f"document.querySelector({selector!r}).scrollIntoView({{block: 'center'}})")
        left, top, width, height = self.run(f"(b => [b.left, b.top, b.width, b.height])({box})")
        return left + x * width, top + y * height

    def mouse(self, kind: str, x: float, y: float, **more) -> None:
        """One event of the pointer: Moved, Pressed or Released."""
        self.call("Input.dispatchMouseEvent", type=f"mouse{kind}", x=x, y=y, **more)

    def click(self, selector: str, shift=False) -> None:
        """Click the middle of an element as a person would."""
        x, y = self.point(selector)
        for kind in ("Moved", "Pressed", "Released"):
            button = {} if kind == "Moved" else {"button": "left", "clickCount": 1}
            self.mouse(kind, x, y, modifiers=8 if shift else 0, **button)

    def drag(self, selector: str, begin: tuple[float, float], end: tuple[float, float]) -> None:
        """Press on one place of an element and let go on another."""
        (x0, y0), (x1, y1) = self.point(selector, *begin), self.point(selector, *end)
        self.mouse("Moved", x0, y0)
        self.mouse("Pressed", x0, y0, button="left", buttons=1, clickCount=1)
        for share in (0.3, 0.6, 1.0):
            self.mouse("Moved", x0 + share * (x1 - x0), y0 + share * (y1 - y0), button="left", buttons=1)
        self.mouse("Released", x1, y1, button="left", clickCount=1)

    def picture(self, path: Path, whole=True) -> Path:
        """A screenshot of the page as PNG."""
        found = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(found["data"]))
        return path

    def close(self) -> None:
        """End the browser."""
        self._session = None
        try:
            self.call("Browser.close")
            self.process.wait(10)
        except (AssertionError, OSError, subprocess.TimeoutExpired):
            self.process.kill()
            self.process.wait()
        os.close(self._read)
        os.close(self._write)
