"""The code blocks of the README and of the pages: found, told apart, and run page by page.

`python` blocks run one after the other in one namespace. `pycon` blocks must print what they show. A block that only
includes a file of examples/ is run by tests/test_examples.py. A block marked `.elsewhere` shows another library's code:
it must parse, and ELSEWHERE names each with the reason why it does not run.
"""

import ast
import doctest
import gc
import re
import sys
import textwrap
import warnings
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
FENCE = re.compile(r"^(?P<pad> *)```(?P<info>[^\n`]*)\n(?P<code>.*?)^(?P=pad)```\s*$", re.S | re.M)
SNIPPET = re.compile(r'--8<-- "(examples/[\w.]+)"')

# (page, title) -> why it does not run here. tests/docs/test_blocks.py bounds the list.
ELSEWHERE = {
    ("migrating.md", "davda54/sam"): "its sam.py is copied by hand from GitHub; there is no package",
    ("migrating.md", "Composer"): "mosaicml is not among the tools",
    ("migrating.md", "optax"): "JAX is not among the tools",
    (
        "other-tools.md",
        "Optuna",
    ): "optuna is not among the tools; the objective above it runs, with a trial of one point",
}


@dataclass(frozen=True)
class Block:
    """A fenced block: where it begins, its language and what stands after it in the fence, and its code."""

    page: str
    line: int
    info: str
    code: str

    @property
    def language(self) -> str:
        return re.sub(r"^[{ .]*", "", self.info).split(" ")[0].rstrip("}")

    @property
    def elsewhere(self) -> bool:
        return ".elsewhere" in self.info

    @property
    def title(self) -> str:
        found = re.search(r'title="([^"]*)"', self.info)
        return found[1] if found else ""

    @property
    def example(self) -> str:
        found = SNIPPET.fullmatch(self.code.strip())
        return found[1] if found else ""


def pages() -> list[Path]:
    """The README and every page of the site, those of decisions left out: they are records."""
    return [ROOT / "README.md", *sorted(p for p in DOCS.rglob("*.md") if "decisions" not in p.parts)]


def name_of(page: Path) -> str:
    return page.name if page.parent == ROOT else page.relative_to(DOCS).as_posix()


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return [
        Block(name_of(page), text[: m.start()].count("\n") + 1, m["info"].strip(), textwrap.dedent(m["code"]))
        for m in FENCE.finditer(text)
    ]


def run_page(page: Path) -> None:
    """Run the blocks of one page, in order; the first failure is raised with its place."""
    scope: dict[str, object] = {"__name__": "page"}
    for block in blocks(page):
        if not (block.elsewhere or block.example):
            _run(block, scope)
        gc.collect()  # optimizers that a block left behind go here, not in the middle of a later forward


def _run(block: Block, scope: dict[str, object]) -> None:
    where = f"{block.page}:{block.line}"
    if block.language == "python":
        exec(compile("\n" * block.line + block.code, where, "exec"), scope)
    elif block.language == "pycon":
        _check_session(block, where, scope)


def _check_session(block: Block, where: str, scope: dict[str, object]) -> None:
    session = doctest.DocTestParser().get_doctest(block.code, scope, where, block.page, block.line)
    said: list[str] = []
    failed = doctest.DocTestRunner(verbose=False).run(session, out=said.append, clear_globs=False).failed
    scope.update(session.globs)
    if failed:
        raise AssertionError(f"{where}: " + "".join(said))


def parses(block: Block) -> bool:
    return bool(ast.parse(block.code))


if __name__ == "__main__":  # one page in a process of its own: python tests/docs/blocks.py PAGE
    warnings.simplefilter("error")
    warnings.filterwarnings("ignore", message=".*torch.jit.*")  # geoopt's
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
    run_page(Path(sys.argv[1]))
