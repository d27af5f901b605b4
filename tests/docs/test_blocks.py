"""Every code block of the README and the pages runs, or is run by its example file, or says why not."""

import re
import shlex
import warnings

import blocks
import pytest
from blocks import ELSEWHERE, ROOT

import fenland

WIDE = 75  # columns
PAGES = blocks.pages()
ALL = [block for page in PAGES for block in blocks.blocks(page)]
CODE = [page for page in PAGES if any(b.language in ("python", "pycon") for b in blocks.blocks(page))]
SHELL = [(b, line) for b in ALL if b.language == "sh" for line in b.code.splitlines() if line.strip()]
TRUSTED = {
    "ray start",
    "tensorboard --logdir",
    "jupyter lab",
}  # commands of other programs, which go on until they are stopped


@pytest.mark.parametrize("page", CODE, ids=blocks.name_of)
def test_the_blocks_of_a_page_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*torch.jit")  # geoopt's
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing")  # peft's
        warnings.filterwarnings("ignore", message=".*LeafSpec")  # Lightning's
        blocks.run_page(page)


def test_a_wrong_block_fails(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("text\n\n    ```python\n    x = 2\n    ```\n\n```pycon\n>>> x + 1\n4\n```\n")
    with pytest.raises(AssertionError, match="Expected"):
        _run_alone(page)
    page.write_text("```python\nundefined\n```\n")
    with pytest.raises(NameError):
        _run_alone(page)
    page.write_text("```python\nx = 2\n```\n\n```pycon\n>>> x + 1\n3\n```\n")
    _run_alone(page)


def _run_alone(page):
    before = blocks.DOCS
    blocks.DOCS = page.parent
    try:
        blocks.run_page(page)
    finally:
        blocks.DOCS = before


def test_every_fence_has_a_language_that_is_checked():
    known = {"python", "pycon", "sh", "diff", "bibtex"}
    assert not [(b.page, b.line, b.info) for b in ALL if b.language not in known]


def test_a_diff_parses_before_and_after_it_and_the_citation_is_of_this_version():
    diffs = [b for b in ALL if b.language == "diff"]
    assert diffs
    for block in diffs:
        for dropped in "+-":
            lines = [line[1:] for line in block.code.splitlines() if line[:1] != dropped]
            compile("\n".join(lines), f"{block.page}:{block.line}", "exec")
    (cited,) = [b for b in ALL if b.language == "bibtex"]
    assert f"version = {{{fenland.__version__}}}" in cited.code


def test_no_line_of_code_is_cut_on_a_laptop():
    for block in ALL:
        long = [line for line in block.code.splitlines() if len(line) > WIDE and block.language in ("python", "pycon")]
        assert not long, f"{block.page}:{block.line}: {long[0]}"


def test_code_of_other_libraries_is_listed_with_a_reason_and_parses():
    shown = {(b.page, b.title): b for b in ALL if b.elsewhere}
    assert shown.keys() == ELSEWHERE.keys()
    assert len(ELSEWHERE) <= 4, "a block that does not run is the exception"
    assert all(blocks.parses(b) for b in shown.values())
    assert all(len(reason) > 20 for reason in ELSEWHERE.values())


def test_included_examples_are_run_by_their_own_test():
    shown = {b.example for b in ALL if b.example}
    runs = re.findall(r'^    \("(\w+)", "\w+", \[', (ROOT / "tests" / "test_examples.py").read_text(), re.M)
    assert shown, "pages show examples"
    # A study is run by the tests of studies, which hand its file to the command.
    for path in (ROOT / "tests" / "lab" / "study").glob("test_*.py"):
        text = path.read_text(encoding="utf-8")
        named = re.search(r'^EXAMPLE = .*"examples" / "(\w+)\.py"$', text, re.M)
        runs += [named[1]] if named and 'main(["study", str(EXAMPLE)' in text else []
    assert shown <= {f"examples/{name}.py" for name in runs}
    # A snippet inside a block with other lines would run half.
    assert not [(b.page, b.line) for b in ALL if "--8<--" in b.code and not b.example]


@pytest.mark.parametrize(("block", "line"), SHELL, ids=[f"{b.page}:{i}" for i, (b, _) in enumerate(SHELL)])
def test_a_shell_line_is_a_command_that_exists(block, line):
    words = shlex.split(line.split(" > ")[0], comments=True)  # without where the output goes
    program = words[0]
    if program == "fenland":
        from fenland.lab.commands.parsing import parse

        assert parse(words[1:])  # it would exit on words that it does not know
    elif program == "make":
        assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.M)
    elif program == "pip":
        text = (ROOT / "pyproject.toml").read_text()
        extras = re.findall(r"\[([\w,]+)\]", line)
        assert all(re.search(rf"^{extra} = \[", text, re.M) for group in extras for extra in group.split(","))
    elif program in ("python", "torchrun"):
        assert (ROOT / next(word for word in words if word.endswith(".py"))).exists()
    else:
        assert " ".join(words[:2]) in TRUSTED, f"{block.page}:{block.line}: {line}"


def test_code_in_running_text_names_files_that_exist():
    """`docs/x.md`, `examples/y.py`, `python docs/z.py` in the text lead somewhere."""
    for page in PAGES:
        text = blocks.FENCE.sub("", page.read_text(encoding="utf-8"))
        for name in re.findall(r"`(?:python )?((?:docs|examples|benchmarks|tests)/[\w./-]+\.\w+)", text):
            assert (ROOT / name).exists(), f"{blocks.name_of(page)}: {name}"
