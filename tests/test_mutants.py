"""The oracles accept the twins and fenland, and reject every mutant."""

import pytest

from harness import VARIANTS, stepper
from mutants import WRONG_SAM, WRONG_SSAM, WRONG_USAM
from oracles import sam_oracle, ssam_oracle, ssam_unnormalized_oracle, usam_oracle
from twins import sam, ssam, usam

pytestmark = pytest.mark.both_tiers


def _twin(function, **options):
    def step(w, grad, rho, lr):
        return [x - lr * d for x, d in zip(w, function(w, grad, rho, **options).d, strict=True)]

    return step


ORACLES = {
    "SAM": (sam_oracle, _twin(sam)),
    "USAM": (usam_oracle, _twin(usam)),
    "SSAM": (ssam_oracle, _twin(ssam)),
    "SSAM-U": (ssam_unnormalized_oracle, _twin(ssam, normalize=False)),
}
MUTANTS = [
    (family, name, mutant)
    for family, table in {
        "SAM": WRONG_SAM,
        "USAM": WRONG_USAM,
        "SSAM": WRONG_SSAM,
        "SSAM-U": {k: v for k, v in WRONG_SSAM.items() if k != "unnormalised ascent"},
    }.items()
    for name, mutant in table.items()
]


@pytest.mark.parametrize("family", ORACLES)
def test_the_twin_passes_its_oracle(family):
    oracle, twin = ORACLES[family]
    assert oracle(twin)


@pytest.mark.parametrize("family", ORACLES)
def test_fenland_passes_the_oracle(family):
    (variant,) = [v for v in VARIANTS if v.name == family]
    assert ORACLES[family][0](stepper(variant))


@pytest.mark.parametrize(("family", "name", "mutant"), MUTANTS, ids=[f"{f}: {n}" for f, n, _ in MUTANTS])
def test_every_mutant_is_rejected(family, name, mutant):
    assert not ORACLES[family][0](mutant)


def test_a_variant_fails_the_oracles_of_the_others():
    """The families differ by more than rounding, so an oracle that accepts everything would show here."""
    for family, (oracle, _) in ORACLES.items():
        for other, (_, twin) in ORACLES.items():
            assert oracle(twin) == (family == other), (family, other)
