"""Every measurement of a model by one call style, and what to compare of its result."""

import nets
import torch

import fenland
from fenland.diagnostics import curvature, landscape

DATA = nets.images()


def model():
    torch.manual_seed(0)
    made = nets.Conv()
    made(DATA[0][0]).sum().backward()  # gradients and running statistics that are not the initial ones
    made.norm.eval()  # a mixed mode
    return made


MEASURE = {
    "sharpness": lambda m, f, b, **o: fenland.sharpness(m, f, b, **o),
    "find_rho": lambda m, f, b, **o: fenland.find_rho(m, f, b, points=3, **o),
    "diagnose": lambda m, f, b, **o: fenland.diagnose(m, f, b, **o),
    "landscape": lambda m, f, b, **o: landscape.random_slice(m, f, b, dims=1, points=3, engine="loop"),
}
CALLS = {
    "extremes": lambda m, f, b, **o: curvature.extreme_eigenvalues(m, f, b, **o),
    "difference": lambda m, f, b, **o: curvature.extreme_eigenvalues(m, f, b, hvp="difference", tol=0.1, **o),
    "trace": lambda m, f, b, **o: curvature.trace(m, f, b, draws=2, **o),
    "density": lambda m, f, b, **o: curvature.density(m, f, b, draws=1, steps=3, **o),
    "layers": lambda m, f, b, **o: curvature.per_layer(m, f, b, tol=0.1, **o),
}
EVERY = {**CALLS, **MEASURE}


def text(found):
    """A result without what a clock has put into it."""
    return (
        str({k: str(x) for k, x in vars(found).items() if k != "seconds"}) if hasattr(found, "__dict__") else str(found)
    )
