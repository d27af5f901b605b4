"""Equations as docstrings write them (``e = rho g/|g|``), in TeX.

The docstrings are read in terminals, so their equations are plain text. The documentation typesets them: this module is
the one reading of that notation. Names of Greek letters and functions are known; every other word of two letters or
more is text; a letter is a variable. ``a/b`` is a fraction where a and b are single terms, and stays a slash in
exponents.
"""

from __future__ import annotations

import re

_GREEK = ("alpha", "beta", "gamma", "delta", "eta", "theta", "lambda", "mu", "xi", "rho", "sigma", "tau")
_FUNCTIONS = ("min", "max", "exp", "log")
_NAMED = (
    "argmax", "sign", "mean", "slerp", "Retr", "Transport", "std", "lr", "decay", "start", "stop", "source", "ball",
    "combine",
)  # fmt: skip
_SIGNS = {
    "< ": r"\lt ", "<=": r"\le ", ">=": r"\ge ", "<-": r"\leftarrow ", "-=": r"\leftarrow w -",
    "..": r"\ldots ", "*": r"\,", "~": r"\sim ",
    "{": r"\{", "}": r"\}", "'": r"^{\prime}",
}  # fmt: skip
_TOKEN = re.compile(
    r"\s*(?P<word>[a-z]{2,}\.[a-z]{2,}|[A-Za-z]+'s|[A-Za-z]{2,}\d?(?:[-'][A-Za-z]+)*|[A-Za-z](?:-[a-z]{2,})?)"
    r"|\s*(?P<number>\d+(?:\.\d+)?|\.\d+)"
    r"|\s*(?P<sign><=|>=|<-|-=|\.\.|<\ |[^\sA-Za-z\d])"
)
_STOPS = (",", ";", ":")
_RELATIONS = ("=", "+", "-", r"\sim ", r"\lt ", r"\le ", r"\ge ", r"\leftarrow ")
_CLOSERS = {"(": ")", "[": "]", "<": ">", "|": "|", "{": "}"}
_DELIMITERS = {
    "(": ("(", ")"), "[": ("[", "]"), "<": (r"\langle ", r"\rangle "), "|": (r"\lvert ", r"\rvert "),
}  # fmt: skip


def tex(equation: str) -> str:
    r"""The equation in TeX, without dollar signs.

    >>> print(tex("e = rho g/|g|"))
    e = \rho \frac{g}{\lvert g\rvert}
    """
    return _joined(_parts(equation))


def markdown(equation: str) -> str:
    r"""The equation as a sentence of Markdown: mathematics between dollars, words as words, so that it wraps.

    >>> print(markdown("e = rho g on norm layers; d = h"))
    $e = \rho g$ on norm layers; $d = h$
    """
    said: list[str] = []
    formula: list[str] = []
    for part in [*_parts(equation), ""]:
        if part and not part.startswith(r"\text{") and part not in _STOPS:
            formula.append(part)
            continue
        if formula:
            said.append(f"${_joined(formula).strip()}$")
            formula = []
        if part in _STOPS and said:
            said[-1] += part
        elif part:
            said.append(part[len(r"\text{") : -1])
    return " ".join(said)


def _parts(equation: str) -> list[str]:
    tokens = [(str(m.lastgroup), m[m.lastgroup or 0]) for m in _TOKEN.finditer(equation)]
    reader = _Reader(tokens)
    parts = reader.parts(frozenset())
    if reader.place != len(tokens):
        raise ValueError(f"equation {equation!r}: {tokens[reader.place][1]!r} closes what was not opened")
    return parts


class _Reader:
    """Reads tokens from left to right."""

    def __init__(self, tokens: list[tuple[str, str]]) -> None:
        self.tokens, self.place, self.depth = tokens, 0, 0

    def peek(self) -> str:
        return self.tokens[self.place][1] if self.place < len(self.tokens) else ""

    def take(self) -> tuple[str, str]:
        self.place += 1
        return self.tokens[self.place - 1]

    def sequence(self, until: frozenset[str]) -> str:
        return _joined(self.parts(until))

    def parts(self, until: frozenset[str]) -> list[str]:
        parts: list[str] = []
        while self.peek() and self.peek() not in until and self.peek() not in (")", "]", ">"):
            if self.peek() == "/" and parts and not self.depth and _is_term(parts[-1]):
                self.take()
                parts.append(rf"\frac{{{_bare(parts.pop())}}}{{{_bare(self.term())}}}")
            else:
                parts.append(self.term())
        return parts

    def term(self) -> str:
        written = self.atom()
        while self.peek() in ("_", "^"):
            mark = self.take()[1]
            self.depth += 1
            written += f"{mark}{{{_bare(self.script())}}}"
            self.depth -= 1
        return written

    def script(self) -> str:
        if self.peek() == "{":
            self.take()
            inner = self.sequence(frozenset("}"))
            self.take()
            return inner
        sign = self.take()[1] if self.peek() == "-" else ""
        return sign + self.atom()

    def atom(self) -> str:
        kind, text = self.take()
        if kind == "word":
            return self.word(text)
        if kind == "number" or text not in _DELIMITERS:
            return _SIGNS.get(text, text)
        left, right = _DELIMITERS[text]
        inner = self.sequence(frozenset(_CLOSERS[text]))
        if not self.peek():
            raise ValueError(f"equation: {text!r} is not closed")
        self.take()
        return f"{left}{inner}{right}"

    def word(self, text: str) -> str:
        if text == "sqrt" and self.peek() == "(":
            return rf"\sqrt{{{_bare(self.atom())}}}"
        if text == "grad":
            return r"\nabla "
        if text == "sum":
            return r"\sum "
        if text in _GREEK or text in _FUNCTIONS:
            return rf"\{text} "
        if text in _NAMED:
            return rf"\operatorname{{{text}}}"
        letters, digit = text.rstrip("0123456789"), text[len(text.rstrip("0123456789")) :]
        if letters in _GREEK or (len(letters) == 1 and digit):
            return self.word(letters).strip() + f"_{{{digit}}}"
        if text == "Mg":  # two letters, a product
            return "M g"
        return text if len(text) == 1 else rf"\text{{{text}}}"


def _is_term(part: str) -> bool:
    return part[-1].isalnum() or part.endswith(("}", ")", "]", r"\rvert ", r"\rangle ")) or part.startswith("\\")


def _bare(part: str) -> str:
    """Without parentheses that a fraction bar, a root or a script makes needless."""
    inner = part[1:-1]
    whole = part.startswith("(") and part.endswith(")") and "(" not in inner and ")" not in inner
    return (inner if whole else part).strip()


def _joined(parts: list[str]) -> str:
    written = ""
    for part in parts:
        text = part.startswith(r"\text{")
        after_text = written.endswith("}") and re.search(r"\\text\{[^}]*\}$", written)
        if text and after_text:
            written = written[:-1] + " " + part[len(r"\text{") :]
        elif written and (text or after_text) and part not in _STOPS:
            written += part if written.endswith((r"\ ", r"\quad ")) else r"\ " + part
        elif part in _RELATIONS:
            written += f" {part.strip()} "
        elif part in _STOPS:
            written += part + (r"\quad " if part == ";" else r"\ ")
        else:
            written += part if not written or written.endswith((" ", "(")) else f" {part}"
    return written
