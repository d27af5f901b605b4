"""Text that a page carries compressed: deflate in base64; the page's script inflates it (`inflate.js`)."""

from __future__ import annotations

import base64
import functools
import json
import zlib
from pathlib import Path
from typing import Any

# Apache ECharts (echarts.apache.org), version 6.1.0 as released; licence and notice lie beside it.
ECHARTS = Path(__file__).with_name("echarts") / "echarts.min.js"


def packed(content: bytes) -> str:
    """The same bytes as text that can stand in a script element."""
    return base64.b64encode(zlib.compress(content, 9)).decode("ascii")


def packed_json(content: Any) -> str:
    """A document of plain values; numbers that are not finite are refused, since JSON has none."""
    return packed(json.dumps(content, separators=(",", ":"), allow_nan=False).encode())


@functools.cache
def library() -> str:
    """The charts' library."""
    return packed(ECHARTS.read_bytes())
