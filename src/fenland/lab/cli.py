"""The command ``fenland``."""

from __future__ import annotations

import os
import sys

_VERBOSE = {"-v": 1, "--verbose": 1, "-vv": 2}


def main(argv: list[str] | None = None) -> int:
    """Parse and run a command; the exit code."""
    from fenland.lab.commands import streams

    streams.forgive()
    given = sys.argv[1:] if argv is None else list(argv)
    arguments = [word for word in given if word not in _VERBOSE]
    if arguments in (["--version"], ["-V"]):
        from fenland import __version__

        print(f"fenland {__version__}")
        return 0
    from fenland.lab import logs

    try:
        with logs.shown(sum(_VERBOSE.get(word, 0) for word in given)):
            return _together(arguments) if "TORCHELASTIC_RUN_ID" in os.environ else _run(arguments)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] == "fenland":
            raise
        from fenland.lab.commands import missing

        print(f"fenland: {missing.said(error.name or 'a package')}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("fenland: interrupted", file=sys.stderr)
        return 130


def _together(arguments: list[str]) -> int:
    """Under torchrun the first process does the command's work; the others take part in its runs."""
    from fenland.lab.training.processes import started_by_torchrun, together

    return together(lambda: _run(arguments)) if started_by_torchrun() > 1 else _run(arguments)


def _run(arguments: list[str]) -> int:
    from fenland.lab.commands.parsing import parse
    from fenland.lab.errors import BadInput

    try:
        code = parse(arguments or ["--help"]).run(arguments)
        sys.stdout.flush()
        return code
    except BadInput as error:
        # Options in small letters; what stands without a name on the command line is shown as in DIR.
        name = error.argument if error.argument.isupper() else "--" + error.argument.replace("_", "-")
        print(f"fenland: {name}{str(error).removeprefix(error.argument)}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # The reader has seen enough (fenland runs OUT | head); Python would complain once more at its exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        print(f"fenland: {error}", file=sys.stderr)
        return 1
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 2


if __name__ == "__main__":
    sys.exit(main())
