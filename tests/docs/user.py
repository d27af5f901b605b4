"""What a user writes on the first day; it runs and type-checks beside the installed package and torch alone."""

import torch

import fenland
from fenland import theory

model = torch.nn.Linear(4, 1)
x, y = torch.randn(8, 4), torch.randn(8, 1)
opt = fenland.SSAM(torch.optim.SGD(model.parameters(), lr=0.1), rho=0.05, model=model, max_norm=1.0)


def closure() -> torch.Tensor:
    opt.zero_grad()
    loss = torch.nn.functional.mse_loss(model(x), y)
    loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    return loss


before = [p.detach().clone() for p in model.parameters()]
loss: torch.Tensor = opt.step(closure)
assert not all(torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))
sharpness = opt.last.sharpness
assert sharpness is not None
assert float(sharpness) > 0
limit: float = theory.stable_lr(4.0, rho=0.05, method="USAM")
own = fenland.SharpnessAware(
    torch.optim.AdamW(model.parameters()), ball=fenland.Adaptive(), method=fenland.Renormalize()
)
own.load_state_dict(own.state_dict())
print("works", fenland.__version__)
