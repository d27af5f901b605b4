"""Who computes a run: an operating-system lock a run, so that sweeps that share a store share its work too.

The lock is gone with the process that held it, however that ended, so a claim is never stale. On one machine this
always holds. On a network file system it holds where that passes locks on to its server (NFS 4, Lustre mounted with
``flock``, CephFS do). Where locks are not supported at all, sweeps still store each run once, since the first to
rename its folder wins, but two at once may both compute it; a warning says so.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

_LOG = logging.getLogger(__name__)
_UNSUPPORTED = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP}


class Claim:
    """The right to compute one run, until it is released or the process ends.

    Args:
        folder: where the run keeps what it needs to go on after a kill.
        lock: held; None where the file system knows no locks.
    """

    def __init__(self, folder: Path, lock: BaseFileLock | None) -> None:
        self.folder = folder
        self._lock = lock

    @property
    def checkpoint(self) -> Path:
        """The file from which a run that was cut off goes on."""
        return self.folder / "checkpoint.pt"

    def release(self, done: bool) -> None:
        """Give it up; when the run is done, with all that was kept for going on."""
        if done:
            shutil.rmtree(self.folder, ignore_errors=True)
        if self._lock is not None:
            self._lock.release()


def claim(folder: Path) -> Claim | None:
    """Claim the run whose live folder this is; None when another process or thread has it."""
    lock = _lock(folder / "lock")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except (Timeout, FileNotFoundError):
        # Somebody has it; or its last owner has just finished it and removed the folder.
        return None
    except FileExistsError:
        # Removed between the two looks that mkdir takes; a file in its place stays, and is an error.
        if folder.exists() and not folder.is_dir():
            raise
        return None
    except (NotImplementedError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in _UNSUPPORTED:
            raise
        _LOG.warning("%s knows no file locks: another sweep at the same time may repeat runs", folder.parent)
        return Claim(folder, None)
    return Claim(folder, lock)


def held(folder: Path) -> bool:
    """Whether somebody else computes the run at this moment."""
    if not (folder / "lock").exists():
        return False
    try:
        mine = claim(folder)
    except OSError:
        return False
    if mine is not None:
        mine.release(done=False)
    return mine is None


def _lock(path: Path) -> BaseFileLock:
    try:
        # A soft lock would outlive its process.
        return FileLock(os.fspath(path), thread_local=False, fallback_to_soft=False)
    except TypeError:  # a version of filelock that has no soft locks to fall back to
        return FileLock(os.fspath(path), thread_local=False)
