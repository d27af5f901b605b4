"""The ball of the largest spectral norm over the weight matrices. Ours: no established paper was found."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fenland.algebra import Lazy, Scalar
from fenland.rules.choices import Ball
from fenland.rules.context import Context
from fenland.rules.parameters import ParameterNames

_MATRIX = 2  # dimensions from which on a tensor is a matrix (output, all the rest)


@dataclass(frozen=True)
class Spectral(Ball):
    r"""e_l = rho * U_l V_l^T for each matrix A_l = U_l S_l V_l^T of a: the polar factor of the gradient.

    The maximiser of <a, e> over max_l ||e_l||_op <= rho, so <a, e> = rho * sum_l ||A_l||_nuclear. A tensor of more
    dimensions is the matrix (first, all the rest); one with fewer is a single row, e_l = rho * a_l / ||a_l||_2.
    Singular values of zero get none of rho. Ours; rho is the spectral norm of each layer's own perturbation.

    Cost: one SVD a matrix (on an accelerator it waits for the device). Refuses sharded parameters.
    """

    def check(self, params: ParameterNames) -> None:
        params.require_whole(f"ball = {self}")
        params.require_real(f"ball = {self}")

    def steepest(self, a: Lazy, s: Context) -> Lazy:
        x = a.form()
        return x.like([_polar(t, a.V.batch_dims) for t in x.tensors])

    def norm(self, e: Lazy, a: Lazy, s: Context) -> Scalar:
        lead = e.V.batch_dims
        return torch.stack([torch.linalg.matrix_norm(_matrix(x, lead), 2) for x in e.tensors]).amax(0)


def _matrix(x: Tensor, lead: int) -> Tensor:
    batch, inside = x.shape[:lead], x.shape[lead:]
    return x.reshape(*batch, inside[0] if len(inside) >= _MATRIX else 1, -1)


def _polar(x: Tensor, lead: int) -> Tensor:
    if not x.numel():
        return x.clone()
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    # An SVD of NaN raises; the step is skipped by its norm, so what is climbed along then does not matter.
    u, s, v = torch.linalg.svd(_matrix(torch.nan_to_num(x.to(wide), 0.0, 0.0, 0.0), lead), full_matrices=False)
    least = s.amax(-1, keepdim=True) * max(u.shape[-2], v.shape[-1]) * torch.finfo(wide).eps
    polar: Tensor = (u * (s > least).to(wide).unsqueeze(-2)) @ v
    return polar.reshape(x.shape).to(x.dtype)
