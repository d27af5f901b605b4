"""The public API: complete, documented, and as DESIGN section 2 names it."""

import inspect
import re
from pathlib import Path

import pytest

import fenland
from fenland.presets import PRESETS

NAMES = sorted(fenland.__all__)
NOT_LOADED_YET = ("find_rho", "diagnose", "sharpness")  # lazy names: they may need an extra
OBJECTS = [n for n in NAMES if n not in NOT_LOADED_YET]


def test_the_list_is_sorted_out():
    assert len(NAMES) == len(set(fenland.__all__))
    assert {"SharpnessAware", "SAM", "USAM", "SSAM"} <= set(NAMES)
    assert not [n for n in NAMES if n.startswith("_") and n != "__version__"]


@pytest.mark.parametrize("name", OBJECTS)
def test_every_public_name_exists_and_has_a_docstring(name):
    thing = getattr(fenland, name)
    if isinstance(thing, str):
        return
    text = inspect.getdoc(thing) or ""
    assert len(text) > 20, f"{name} has no docstring"
    inherited = [inspect.getdoc(b) for b in getattr(thing, "__mro__", [])[1:]]
    assert text not in inherited, f"{name} shows its parent's docstring"


@pytest.mark.parametrize("name", ["step", "ascend", "descend", "restore", "ascent", "first_step", "second_step"])
def test_every_public_method_has_a_docstring_of_its_own(name):
    method = getattr(fenland.SharpnessAware, name)
    text = inspect.getdoc(method) or ""
    assert len(text) > 20
    assert text != inspect.getdoc(getattr(__import__("torch").optim.Optimizer, name, None))


def test_everything_public_is_listed():
    """A class or function of fenland that can be reached without an underscore is in __all__."""
    found = {
        n
        for n, thing in vars(fenland).items()
        if not n.startswith("_")
        and not inspect.ismodule(thing)
        and getattr(thing, "__module__", "").startswith("fenland")
    }
    assert found <= set(NAMES), found - set(NAMES)


def test_dir_shows_the_public_names():
    assert set(NAMES) <= set(dir(fenland))


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no_such_thing"):
        fenland.no_such_thing  # noqa: B018


def test_the_signature_is_the_design_s():
    parameters = inspect.signature(fenland.SharpnessAware.__init__).parameters
    assert list(parameters)[1:3] == ["base", "rho"]
    assert parameters["rho"].default == 0.05
    keywords = {n: p.default for n, p in parameters.items() if p.kind is p.KEYWORD_ONLY}
    for name, default in {
        "model": None,
        "replay_rng": True,
        "max_norm": None,
        "nonfinite": "skip",
        "sync": "global",
        "perturb": "auto",
        "record_every": None,
    }.items():
        assert keywords[name] == default
    assert {"ball", "source", "combine", "when", "method"} <= set(keywords)


@pytest.mark.parametrize("preset", PRESETS.values(), ids=lambda p: p.name)
def test_every_preset_is_public_under_its_name(preset):
    paper = re.compile(r"\d{4}\.\d{4,5}|ours")  # an arXiv id, or the word that it is ours
    assert preset.equation
    assert paper.search(preset.source)
    own = preset.name.split("-")[0]  # "SSAM-U" is SSAM with an option
    assert own in NAMES
    assert paper.search(inspect.getdoc(getattr(fenland, own)))
    assert isinstance(preset.closure_calls, int)
    assert preset.closure_calls >= 1


def test_the_version_is_the_package_s():
    from importlib.metadata import version

    assert fenland.__version__ == version("fenland")


def test_the_package_is_typed():
    assert (Path(fenland.__file__).parent / "py.typed").exists()
