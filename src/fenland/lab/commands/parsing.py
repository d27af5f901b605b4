"""From the words of a command line to the command that they name."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import sys
from typing import Annotated, Any, Union

from fenland.lab.commands import Command
from fenland.lab.errors import BadInput, meant, one_of

ABOUT = """Sharpness-aware minimization: compare optimizers on real data.

Each command has its own help with an example, as in: fenland compare --help.
Anywhere on the line, -v logs to stderr what is done, and -vv everything.
Also: fenland --version.

Exit codes: 0 done; 1 something failed (the rest is stored, and the same
command tries again); 2 wrong arguments; 130 interrupted."""


def parse(arguments: list[str]) -> Command:
    """The subcommand with its options.

    tyro explains errors in boxes; here they become one line like every other error of the program.
    """
    import tyro

    from fenland.lab.commands import COMMANDS, load

    _check_command(arguments)
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            if arguments[0] not in COMMANDS:
                return _any(arguments)
            command = tyro.cli(
                load(arguments[0]),
                prog=f"fenland {arguments[0]}",
                args=arguments[1:],
                config=(tyro.conf.FlagCreatePairsOff,),
            )
    except SystemExit as stop:
        if stop.code:
            print(f"fenland: {one_line(said.getvalue())}", file=sys.stderr)
        raise
    _check_lists(command, arguments)
    return command


def _check_lists(command: Any, arguments: list[str]) -> None:
    """Refuse the name of a list of words without any: it would be as if it were not there."""
    given = {word.lstrip("-").replace("-", "_") for word in arguments if word.startswith("--")}
    for field in dataclasses.fields(command):
        if field.default == () == getattr(command, field.name) and field.name in given:
            raise BadInput(field.name, "(nothing)", "give a value, or leave it out")


def _check_command(arguments: list[str]) -> None:
    """A misspelt command; options before the command, for which tyro would list all that look alike."""
    from fenland.lab.commands import COMMANDS

    first = arguments[0]
    if not first.startswith("-"):
        if first not in COMMANDS:
            raise BadInput("COMMAND", first, one_of(COMMANDS, first))
        return
    if first in ("-h", "--help") or first.startswith("--tyro-"):
        return
    command = next((word for word in arguments if word in COMMANDS), "COMMAND")
    near = meant(first, ("--help", "--version"))
    said = f"{first}: options come after the command, as in: fenland {command} {first}{near or '; see fenland --help'}"
    print(f"fenland: {said}", file=sys.stderr)
    raise SystemExit(2)


def _any(arguments: list[str]) -> Command:
    """The parser of all commands, for the help and for completion."""
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
    said = [" ".join(part) for part in parts if part]
    return "; ".join(map(_short, said)) or "wrong arguments; see fenland --help"


def _short(part: str) -> str:
    """A part of an error, of suggestions the names alone."""
    if not part.startswith("Perhaps you meant"):
        return part
    names = dict.fromkeys(word for word in part.split() if word.startswith("--") and word != "--help")
    return f"perhaps you meant {' or '.join(list(names)[:4])}" if names else "see --help"
