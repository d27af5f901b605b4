"""Trajectories of the authors' public code (data/golden.npz, numbers only): 30 steps of SGD with momentum and decay."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import fenland
from twins import SGDTwin, mlp_loss, sam, ssam, usam

GOLDEN = np.load(Path(__file__).parent / "data" / "golden.npz")
NAMES = ("0.weight", "0.bias", "2.weight", "2.bias")
STEPS = (1, 2, 5, 30)

# case -> (fenland's preset, the twin or None, rho, options)
CASES = {
    "sam_rho0.05": ("SAM", sam, 0.05, {}),
    "sam_rho0.5": ("SAM", sam, 0.5, {}),
    "sam_samsung_rho0.05": ("SAM", sam, 0.05, {}),
    "usam_rho0.5": ("USAM", usam, 0.5, {}),
    "ssam_rho0.1": ("SSAM", ssam, 0.1, {}),
    "ssam_unnormalized_rho0.5": ("SSAM", ssam, 0.5, {"normalize": False}),
    "asam_davda_rho0.5": ("ASAM", None, 0.5, {"eta": 0.0}),
    "asam_samsung_rho0.5_eta0.01": ("ASAM", None, 0.5, {"eta": 0.01, "include_bias": False}),
    "ssam_adaptive_rho0.5": ("SSAM", None, 0.5, {"ball": fenland.Adaptive(eta=0.0), "gamma_norm": "metric"}),
}
STRATEGIES = ("swap", "inplace", "auto")


def _close(got: np.ndarray, case: str, step: int) -> None:
    want = GOLDEN[f"{case}/step{step}"]
    np.testing.assert_allclose(np.linalg.norm(got - want), 0, atol=1e-10 * np.linalg.norm(want), err_msg=f"step {step}")


def _model() -> torch.nn.Module:
    model = torch.nn.Sequential(torch.nn.Linear(10, 16), torch.nn.Tanh(), torch.nn.Linear(16, 3)).double()
    model.load_state_dict({name: torch.from_numpy(GOLDEN[f"init/{name}"]) for name in NAMES})
    return model


@pytest.mark.parametrize("form", ["closure", "two_call"])
@pytest.mark.parametrize("perturb", STRATEGIES)
@pytest.mark.parametrize("case", CASES)
def test_fenland_follows_the_authors_code(case, perturb, form):
    preset, _, rho, options = CASES[case]
    model, x, y = _model(), torch.from_numpy(GOLDEN["X"]), torch.from_numpy(GOLDEN["y"])
    base = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    opt = getattr(fenland, preset)(base, rho=rho, model=model, perturb=perturb, **options)

    def closure():
        opt.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        return loss

    for step in range(1, 31):
        if form == "closure":
            opt.step(closure)
        else:
            closure()
            opt.ascend()
            closure()
            opt.descend()
        if step in STEPS:
            _close(torch.nn.utils.parameters_to_vector(model.parameters()).detach().numpy(), case, step)


@pytest.mark.parametrize("case", [c for c, row in CASES.items() if row[1] is not None])
def test_the_twin_follows_the_authors_code(case):
    _, twin, rho, options = CASES[case]
    w = [GOLDEN[f"init/{name}"].copy() for name in NAMES]
    _, grad = mlp_loss(GOLDEN["X"], GOLDEN["y"])
    base = SGDTwin(lr=0.1, momentum=0.9, weight_decay=5e-4)
    for step in range(1, 31):
        w = base.step(w, twin(w, grad, rho, **options).d)
        if step in STEPS:
            _close(np.concatenate([x.reshape(-1) for x in w]), case, step)


def test_the_copy_is_the_shared_original():
    shared = Path(__file__).parents[2] / "shared" / "golden" / "trajectories.npz"
    if not shared.exists():
        pytest.skip("../shared is not here; tests/data/golden.npz is a copy of its numbers")
    original = np.load(shared)
    assert set(original.files) == set(GOLDEN.files)
    for key in original.files:
        np.testing.assert_array_equal(original[key], GOLDEN[key])
