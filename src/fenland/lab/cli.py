"""The command ``fenland``."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from typing import TYPE_CHECKING, Annotated, Any, Union

if TYPE_CHECKING:
    from fenland.lab.commands import Command

ABOUT = """Sharpness-aware minimization: compare optimizers on real data.

Each command has its own help with an example, as in: fenland compare --help.
Anywhere on the line, -v logs to stderr what is done, and -vv everything.
Also: fenland --version.

Exit codes: 0 done; 1 something failed (the rest is stored, and the same
command tries again); 2 wrong arguments; 130 interrupted."""
_VERBOSE = {"-v": 1, "--verbose": 1, "-vv": 2}


def main(argv: list[str] | None = None) -> int:
    """Parse and run a command; the exit code.

    Args:
        argv: the command line without the program's name; None for the process's own.
    """
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
        from fenland.arguments import installing

        print(f"fenland: needs the package {error.name}; install it with: {installing('lab')}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("fenland: interrupted", file=sys.stderr)
        return 130


def _together(arguments: list[str]) -> int:
    """Under torchrun the first process does the command's work; the others take part in its runs."""
    from fenland.lab.training.processes import started_by_torchrun, together

    return together(lambda: _run(arguments)) if started_by_torchrun() > 1 else _run(arguments)


def _run(arguments: list[str]) -> int:
    from fenland.lab.errors import BadInput

    try:
        code = parse(arguments or ["--help"]).run(arguments)
        sys.stdout.flush()
        return code
    except BadInput as error:
        # Options in small letters; what stands without a name on the command line is shown as in DIR.
        dashes = "" if error.argument.isupper() else "--"
        print(f"fenland: {dashes}{error}", file=sys.stderr)
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


def parse(arguments: list[str]) -> Command:
    """The subcommand with its options.

    tyro explains errors in boxes; here they become one line like every other error of the program.

    Raises:
        SystemExit: with code 0 after help, with code 2 after an error.
    """
    import tyro

    from fenland.lab.commands import COMMANDS, load

    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            if arguments[0] in COMMANDS:
                return tyro.cli(
                    load(arguments[0]),
                    prog=f"fenland {arguments[0]}",
                    args=arguments[1:],
                    config=(tyro.conf.FlagCreatePairsOff,),
                )
            return _any(arguments)
    except SystemExit as stop:
        if stop.code:
            print(f"fenland: {one_line(said.getvalue())}", file=sys.stderr)
        raise


def _any(arguments: list[str]) -> Command:
    """The parser of all commands, for the help, for words that are none, and for completion."""
    import tyro

    from fenland.lab.commands import COMMANDS, load

    kinds = {name: load(name) for name in COMMANDS}
    subcommands = tuple(
        Annotated[kind, tyro.conf.subcommand(name, description=(kind.__doc__ or "").partition("\n")[0])]
        for name, kind in kinds.items()
    )
    any_command: Any = Union[subcommands]  # noqa: UP007  (built at run time)
    command: Command = tyro.cli(
        any_command, prog="fenland", description=ABOUT, args=arguments, config=(tyro.conf.FlagCreatePairsOff,)
    )
    return command


def completion(shell: str) -> str:
    """The completion script for a shell."""
    script = io.StringIO()
    with contextlib.redirect_stdout(script), contextlib.suppress(SystemExit):
        _any(["--tyro-print-completion", shell])
    return script.getvalue()


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
