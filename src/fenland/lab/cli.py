"""The command ``fenland``."""

from __future__ import annotations

import contextlib
import io
import sys
from typing import TYPE_CHECKING, Annotated, Any, Union

if TYPE_CHECKING:
    from fenland.lab.commands import Command


def main(argv: list[str] | None = None) -> int:
    """Parse and run a command; the exit code.

    Args:
        argv: the command line without the program's name; None for the process's own.
    """
    arguments = sys.argv[1:] if argv is None else list(argv)
    if arguments in (["--version"], ["-V"]):
        from fenland import __version__

        print(f"fenland {__version__}")
        return 0
    try:
        return _run(arguments)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] == "fenland":
            raise
        print(f"fenland: needs the package {error.name}; install it with: pip install 'fenland[lab]'", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("fenland: interrupted", file=sys.stderr)
        return 130


def _run(arguments: list[str]) -> int:
    from fenland.lab.errors import BadInput

    try:
        return parse(arguments or ["--help"]).run(arguments)
    except BadInput as error:
        print(f"fenland: --{error}" if error.argument != "DIR" else f"fenland: {error}", file=sys.stderr)
        return 2
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 2


def parse(arguments: list[str]) -> Command:
    """The subcommand with its options.

    tyro explains errors in boxes; here they become one line like every other error of the program.

    Raises:
        SystemExit: with code 0 after help, with code 2 after an error.
    """
    import tyro

    from fenland.lab.commands import COMMANDS

    subcommands = tuple(Annotated[kind, tyro.conf.subcommand(name)] for name, kind in COMMANDS.items())
    any_command: Any = Union[subcommands]  # noqa: UP007  (built at run time)
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            command: Command = tyro.cli(
                any_command,
                prog="fenland",
                description="Sharpness-aware minimization: compare optimizers on real data. Also: fenland --version.",
                args=arguments,
                config=(tyro.conf.FlagCreatePairsOff,),
            )
            return command
    except SystemExit as stop:
        if stop.code:
            print(f"fenland: {one_line(said.getvalue())}", file=sys.stderr)
        raise


def one_line(boxed: str) -> str:
    """The words of an error box, without its title, its frame and its pointer to the help."""
    parts: list[list[str]] = [[]]
    for line in boxed.splitlines()[1:]:
        text = line.strip("│╰╯─ ")
        if text.startswith("For full helptext"):
            break
        # A rule starts a new part; where the terminal knows no box characters, tyro draws it with hyphens.
        if text.strip("-"):
            parts[-1].append(text)
        else:
            parts.append([])
    return "; ".join(" ".join(part) for part in parts if part) or "wrong arguments; see fenland --help"


if __name__ == "__main__":
    sys.exit(main())
