"""A page in headless Chromium: served by a local server that every other host name leads to as well."""

import html
import json
import re
import shutil
import subprocess
import threading
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--hide-scrollbars",
    "--disable-features=NetworkTimeServiceQuerying", "--virtual-time-budget=8000", "--enable-logging=stderr",
)  # fmt: skip

# One frame a width, because a headless window is never narrower than 500 pixels. The page itself is not touched.
FRAMES = """<!doctype html><html lang="en"><link rel="icon" href="data:,">
<style>:root { color-scheme: light dark }</style><body><pre id="measured"></pre><script>
const widths = %s, found = {};
const measure =
%s;
for (const width of widths) {
  const frame = document.createElement("iframe");
  frame.style.cssText = `width:${width}px;height:900px;border:0;color-scheme:light dark`;
  frame.onload = () => {
    found[width] = measure(frame.contentWindow, frame.contentDocument);
    if (Object.keys(found).length === widths.length)
      document.getElementById("measured").textContent = JSON.stringify(found);
  };
  frame.src = "%s";
  document.body.append(frame);
}
</script></body></html>"""


@dataclass(frozen=True)
class Visit:
    """What a visit showed: measurements by width, the browser's console, and what was asked of the server."""

    measured: dict[int, dict]
    console: list[str]
    requests: list[str]


class _Recorder(SimpleHTTPRequestHandler):
    def __init__(self, *arguments, requests, **named):
        self.requests = requests
        super().__init__(*arguments, **named)

    def do_GET(self):
        if self.headers["Referer"]:  # what the browser asks for itself comes from no page
            self.requests.append(f"http://{self.headers['Host']}{self.path}")
        super().do_GET()

    def log_message(self, *arguments):
        pass


def visit(page: Path, measure: str, widths=(390, 1280), dark=False, scratch: Path | None = None) -> Visit:
    """Open a page at some widths and run ``measure``, a JavaScript function of its window and document."""
    scratch = scratch or page.parent
    requests: list[str] = []
    frames = page.with_name("frames.html")
    frames.write_text(FRAMES % (json.dumps(widths), measure, page.name))
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Recorder, requests=requests, directory=str(page.parent)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        address = f"127.0.0.1:{server.server_address[1]}"
        scheme = ["--blink-settings=preferredColorScheme=0"] if dark else []
        command = [CHROMIUM, *FLAGS, *scheme, f"--user-data-dir={scratch / 'profile'}"]
        command += [f"--host-resolver-rules=MAP * {address}", "--dump-dom", f"http://{address}/frames.html"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        frames.unlink()
    text = re.search(r'<pre id="measured">(.*?)</pre>', done.stdout, re.S)
    measured = json.loads(html.unescape(text[1])) if text and text[1] else {}
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    own = (f"http://{address}/{frames.name}", f"http://{address}/{page.name}")
    return Visit({int(width): each for width, each in measured.items()}, console, [r for r in requests if r not in own])
