"""Which tests share a worker of pytest-xdist: those of a file, and those of a folder whose resources are dear.

What a file or a folder builds once (gloo processes, the documentation site, tables of a study) is then built by one
worker, not by each. Test ids stay as they are, which the marks of `--dist loadgroup` would change.
"""

from __future__ import annotations

from typing import Any

import pytest

# Session fixtures and processes that a whole folder uses, or several files of two.
TOGETHER = (
    ("tests/distributed/",),
    ("tests/docs/",),
    ("tests/lab/explore/", "tests/lab/report/test_report_browser.py"),  # the report of an invented store
)


def share(nodeid: str) -> str:
    """The name of the tests that run in one worker."""
    file = nodeid.partition("::")[0]
    return next((names[0] for names in TOGETHER if file.startswith(names)), file)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    from xdist.scheduler import LoadScopeScheduling

    class ByShare(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return share(nodeid)

    return ByShare(config, log)
