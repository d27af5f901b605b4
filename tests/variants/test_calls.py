"""Calls as people bring them from other libraries: the error names the argument, its value and the cure."""

import pytest
import torch
from torch.optim import SGD

import fenland
from fenland.presets.calls import ELSEWHERE


@pytest.fixture
def params():
    return [torch.nn.Parameter(torch.ones(2))]


@pytest.mark.parametrize("name", sorted(set(fenland.PRESETS) & set(fenland.__all__)))
def test_a_class_of_the_base_is_told_to_be_an_instance(params, name):
    with pytest.raises(TypeError, match=rf"fenland\.{name}\(torch\.optim\.SGD\(params, lr=\.\.\.\), rho=\.\.\.\)"):
        getattr(fenland, name)(params, SGD, rho=0.05, lr=0.1)


CURES = {
    "adaptive": (fenland.SAM, True, "fenland.ASAM(base, rho, eta=0.0)"),
    "lr": (fenland.SSAM, 0.1, "it belongs to the base: torch.optim.SGD(model.parameters(), lr=...)"),
    "lmbda": (fenland.FriendlySAM, 0.9, "FriendlySAM calls it decay"),
    "decouple": (fenland.WSAM, False, "WSAM calls it decoupled"),
    "alfa": (fenland.GSAM, 0.4, "did you mean alpha?"),
    "modle": (fenland.SAM, None, "did you mean model?"),
    "zzz": (fenland.GSAM, 1, "it takes base, rho, alpha, minimize_fp, "),
}


@pytest.mark.parametrize("name", CURES)
def test_an_unknown_argument_is_named_with_its_value_and_the_cure(params, name):
    build, value, cure = CURES[name]
    with pytest.raises(TypeError) as caught:
        build(SGD(params, lr=0.1), **{name: value})
    assert str(caught.value).startswith(f"{name} = {value!r}: {build.__name__} has no such argument; ")
    assert cure in str(caught.value)


def test_what_the_cures_name_exists(params):
    base = SGD(params, lr=0.1, momentum=0.9)
    assert fenland.ASAM(base, 0.5, eta=0.0)
    assert fenland.GCSAM(base)
    assert fenland.FriendlySAM(base, decay=0.5)
    assert fenland.WSAM(base, decoupled=False)
    taken = {"rho_scheduler": fenland.TiedToLearningRate, "interval": fenland.EveryK}
    assert taken.keys() <= ELSEWHERE.keys()


def test_no_argument_of_another_library_is_one_of_ours():
    import inspect

    for name, row in fenland.PRESETS.items():
        shadowed = ELSEWHERE.keys() & inspect.signature(row.build).parameters.keys()
        assert not shadowed, name


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_momentum_that_is_not_there_is_said(params, momentum, recwarn):
    fenland.MSAM(SGD(params, lr=0.1, momentum=momentum))
    said = [str(each.message) for each in recwarn]
    assert len(said) == (momentum == 0)
    assert all("give the base a momentum" in each for each in said)
