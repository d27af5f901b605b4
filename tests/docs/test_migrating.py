"""What docs/migrating.md says of pytorch_optimizer: by its table the same trajectory, and where not, why.

That library takes norms in float32 also of float64 parameters, hence the tolerance.
"""

import pytest
import torch
from torch.nn.functional import cross_entropy

import fenland

theirs = pytest.importorskip("pytorch_optimizer")

SGD = {"lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4}
RHO, STEPS, LR_MAX = 0.2, 20, 0.1
TIED = fenland.TiedToLearningRate(rho_min=0.05, rho_max=0.3, lr_max=LR_MAX)


def _model(kind="mlp"):
    torch.manual_seed(1)
    if kind == "one tensor":
        return torch.nn.Linear(10, 3, bias=False).double()
    between = {"batch norm": (torch.nn.BatchNorm1d(16),), "dropout": (torch.nn.Dropout(0.3),)}.get(kind, ())
    layers = (torch.nn.Linear(10, 16), *between, torch.nn.Tanh(), torch.nn.Linear(16, 3))
    return torch.nn.Sequential(*layers).double()


def _base(model):
    return torch.optim.SGD(model.parameters(), **SGD)


def _cosine(optimizer):
    return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)


def _batches():
    x = torch.randn(64, 10, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = torch.randint(3, (64,), generator=torch.Generator().manual_seed(1))
    return list(zip(x.split(16), y.split(16), strict=True))


def _run(model, optimizer, step, after=lambda: None, steps=STEPS):
    """Weights after each step."""
    torch.manual_seed(2)
    seen, batches = [], _batches()
    for t in range(steps):
        x, y = batches[t % len(batches)]

        def closure(x=x, y=y):
            optimizer.zero_grad()
            loss = cross_entropy(model(x), y)
            loss.backward()
            return loss

        step(closure, x, y)
        after()
        seen.append(torch.cat([p.detach().reshape(-1) for p in model.parameters()]))
    return seen


def _there(name, kind="mlp", steps=STEPS, **options):
    """Theirs, called as its documentation says: WSAM's step runs the closure twice, the others' once."""
    model = _model(kind)
    first = (model, model.parameters()) if name == "WSAM" else (model.parameters(),)
    optimizer = getattr(theirs, name)(*first, torch.optim.SGD, **SGD, **options)

    def step(closure, x, y):
        if name != "WSAM":
            closure()
        optimizer.step(closure)

    return _run(model, optimizer, step, steps=steps)


def _there_gsam(alpha):
    model = _model()
    base = _base(model)
    scheduler = _cosine(base)
    radius = theirs.lr_scheduler.ProportionScheduler(
        scheduler, max_lr=LR_MAX, max_value=TIED.rho_max, min_value=TIED.rho_min
    )
    optimizer = theirs.GSAM(model.parameters(), base, model, rho_scheduler=radius, alpha=alpha)

    def step(closure, x, y):
        optimizer.set_closure(cross_entropy, x, y)
        optimizer.step()

    def after():
        scheduler.step()
        optimizer.update_rho_t()

    return _run(model, optimizer, step, after)


def _here(make, kind="mlp", scheduled=False, steps=STEPS):
    model = _model(kind)
    optimizer = make(_base(model))
    after = _cosine(optimizer).step if scheduled else lambda: None
    return _run(model, optimizer, lambda closure, x, y: optimizer.step(closure), after, steps)


def _far(one, two):
    """The largest relative distance of the weights over all steps."""
    return max(float((a - b).norm() / b.norm()) for a, b in zip(one, two, strict=True))


SAME = {
    "SAM": ({}, lambda b: fenland.SAM(b, RHO)),
    "SAM adaptive": ({"adaptive": True}, lambda b: fenland.ASAM(b, RHO, eta=0.0)),
    "WSAM": ({"gamma": 0.8, "decouple": True}, lambda b: fenland.WSAM(b, RHO, gamma=0.8, decoupled=True)),
    "WSAM coupled": ({"gamma": 0.8, "decouple": False}, lambda b: fenland.WSAM(b, RHO, gamma=0.8, decoupled=False)),
    "FriendlySAM": ({"sigma": 0.8, "lmbda": 0.6}, lambda b: fenland.FriendlySAM(b, RHO, sigma=0.8, decay=0.6)),
}


@pytest.mark.parametrize("name", SAME)
def test_the_mapping_gives_the_same_trajectory(name):
    options, make = SAME[name]
    there, here = _there(name.split()[0], rho=RHO, **options), _here(make)
    assert _far(here, there) < 1e-7
    assert name == "SAM" or _far(here, _there("SAM", rho=RHO)) > 1e-4, "it is not SAM"


def test_dropout_parts_them_and_batch_norm_parts_the_running_statistics_alone():
    def far(kind):
        ours, other = _model(kind), _model(kind)
        here = fenland.SAM(_base(ours), RHO, model=ours)
        there = theirs.SAM(other.parameters(), torch.optim.SGD, rho=RHO, **SGD)
        one = _run(ours, here, lambda closure, x, y: here.step(closure))
        two = _run(other, there, lambda closure, x, y: (closure(), there.step(closure)))
        return _far(one, two), list(ours.buffers()), list(other.buffers())

    distance, here, there = far("batch norm")
    assert distance < 1e-7
    assert (int(here[2]), int(there[2])) == (STEPS, 2 * STEPS), "forward passes that BatchNorm has counted"
    assert not torch.allclose(here[0], there[0])
    assert far("dropout")[0] > 1e-3


def test_gsam_with_a_radius_tied_to_the_learning_rate():
    there, here = _there_gsam(0.4), _here(lambda b: fenland.GSAM(b, rho=TIED, alpha=0.4), scheduled=True)
    assert _far(here, there) < 1e-7
    constant = _here(lambda b: fenland.GSAM(b, rho=0.3, alpha=0.4), scheduled=True)
    assert _far(constant, there) > 1e-4


def test_looksam_there_takes_norms_and_projection_tensor_by_tensor():
    options = {"rho": 0.1, "k": 5, "alpha": 0.7}
    for kind, same in (("one tensor", True), ("mlp", False)):
        far = _far(_here(lambda b: fenland.LookSAM(b, **options), kind), _there("LookSAM", kind, **options))
        assert (far < 1e-6) if same else (far > 1e-3), kind


def test_use_gc_there_divides_by_the_norm_before_centralising():
    plain = _far(_here(lambda b: fenland.GCSAM(b, RHO), steps=1), _there("SAM", rho=RHO, use_gc=True, steps=1))
    model = _model()
    x, y = _batches()[0]
    g = torch.autograd.grad(cross_entropy(model(x), y), list(model.parameters()))
    a = [z - z.mean(1, keepdim=True) if z.dim() > 1 else z for z in g]
    share = float(torch.cat([z.reshape(-1) for z in a]).norm() / torch.cat([z.reshape(-1) for z in g]).norm())
    mapped = _here(lambda b: fenland.GCSAM(b, RHO * share), steps=1)
    assert _far(mapped, _there("SAM", rho=RHO, use_gc=True, steps=1)) < 1e-7 < 1e-5 < plain


@pytest.mark.parametrize("base", [torch.optim.SGD, torch.optim.AdamW])
@pytest.mark.parametrize("name", ["SAM", "WSAM", "LookSAM", "FriendlySAM"])
def test_the_base_goes_on_from_a_checkpoint_of_theirs(name, base):
    model = _model()
    first = (model, model.parameters()) if name == "WSAM" else (model.parameters(),)
    there = getattr(theirs, name)(*first, base, rho=0.123, lr=0.01)

    def step(closure, x, y):
        if name != "WSAM":
            closure()
        there.step(closure)

    _run(model, there, step, steps=3)
    saved = there.state_dict()
    here = fenland.SAM(base(model.parameters(), lr=0.01), rho=0.05)
    here.load_state_dict(saved if name == "SAM" else saved["base_optimizer"])
    assert here.param_groups[0]["rho"] == 0.123
    for p in model.parameters():
        kept = there.base_optimizer.state[p]
        assert here.state[p].keys() >= kept.keys()
        assert all(torch.equal(here.state[p][key], x) for key, x in kept.items() if isinstance(x, torch.Tensor))
    _run(model, here, lambda closure, x, y: here.step(closure), steps=2)
