"""SAM on manifolds: retraction and transport where plain parameters have + and -."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from fenland.arguments import installing
from fenland.rules.choices import Geometry
from fenland.rules.methods.ascend import L2

_EMBEDDED = ("Euclidean", "Sphere", "SphereExact", "EuclideanStiefel", "EuclideanStiefelExact")


class _Embedded(Geometry):
    """Manifolds with the metric of the space around them; plain parameters stay flat."""

    def tangent(self, g: Tensor, w: Tensor, param: Tensor) -> Tensor:
        manifold = _manifold(param)
        return g if manifold is None else manifold.egrad2rgrad(w, g)

    def retract(self, w: Tensor, e: Tensor, param: Tensor) -> Tensor:
        manifold = _manifold(param)
        return w + e if manifold is None else manifold.retr(w, e)

    def transport(self, h: Tensor, there: Tensor, w: Tensor, param: Tensor) -> Tensor:
        manifold = _manifold(param)
        return h if manifold is None else manifold.transp(there, w, manifold.egrad2rgrad(there, h))


@dataclass(frozen=True)
class Riemannian(L2):
    r"""e = rho * r / ||r||, r = grad_R L(w); w_adv = Retr_w(e); h = Transport_{w_adv -> w}(grad_R L(w_adv)).

    Manifolds are those of `geoopt.ManifoldParameter`; plain parameters stay flat. One norm over all parameters. The
    base must update on the manifold too (`geoopt.optim.RiemannianSGD`). Source: Truong et al. 2023, arXiv 2309.17215;
    Yun and Yang 2023 (Riemannian SAM); the rule is quoted from memory.

    Only manifolds with the metric of the space around them (Sphere, Stiefel(canonical=False)): elsewhere the base would
    turn d into a Riemannian gradient a second time.
    """

    geometry: ClassVar[Geometry] = _Embedded()

    def __post_init__(self) -> None:
        if importlib.util.find_spec("geoopt") is None:
            raise ImportError(f"Riemannian() needs geoopt: {installing('riemannian')}")


def _manifold(param: Tensor) -> Any:
    manifold = getattr(param, "manifold", None)
    if manifold is not None and type(manifold).__name__ not in _EMBEDDED:
        raise ValueError(
            f"a parameter of shape {tuple(param.shape)} lives on {manifold}: Riemannian() knows manifolds with the "
            "metric of the space around them, such as geoopt.Sphere() and geoopt.Stiefel(canonical=False)"
        )
    return manifold
