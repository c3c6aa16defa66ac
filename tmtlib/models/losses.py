"""Auxiliary losses of the original TMT (orthogonality, MMD) and of MISA (orthogonality, CMD)."""

import torch
from jaxtyping import Float
from torch import Tensor


def orthogonality(u: Float[Tensor, "B d"], v: Float[Tensor, "B d"]) -> Float[Tensor, ""]:
    """The difference loss of MISA: mean of squared entries of U^T V (d x d).

    U and V are centred over the batch and each row is divided by its norm, through which no gradient flows.
    """
    u, v = (x - x.mean(0) for x in (u, v))
    u, v = (x / (x.norm(dim=1, keepdim=True).detach() + 1e-6) for x in (u, v))
    return (u.T @ v).square().mean()


def mmd(x: Float[Tensor, "B d"], y: Float[Tensor, "B d"]) -> Float[Tensor, ""]:
    """Biased squared maximum mean discrepancy, in [0, 10], with five Gaussian kernels exp(-|.|^2 / bw_k), summed.

    bw_k = bw_0 2^k / 4 for k = 0..4, bw_0 the mean squared distance over pairs of the joint sample, without gradient.
    """
    joint = torch.cat([x, y])
    n = len(joint)
    square = joint.square().sum(-1)
    distance = (square[:, None] + square[None] - 2 * joint @ joint.T).clamp_min(0)  # |a|^2 + |b|^2 - 2 a b
    bandwidth = (distance.detach().sum() / (n * n - n)).clamp_min(1e-12)
    kernel = sum(torch.exp(-distance / (bandwidth * 2.0**k / 4)) for k in range(5))
    b = len(x)
    return kernel[:b, :b].mean() + kernel[b:, b:].mean() - 2 * kernel[:b, b:].mean()


def cmd(x: Float[Tensor, "B d"], y: Float[Tensor, "B d"], moments: int = 5) -> Float[Tensor, ""]:
    """Central moment discrepancy (MISA): |E x - E y| + sum over k = 2..`moments` of |E (x - E x)^k - E (y - E y)^k|."""
    distance = (x.mean(0) - y.mean(0)).norm()
    x, y = x - x.mean(0), y - y.mean(0)
    return distance + sum((x.pow(k).mean(0) - y.pow(k).mean(0)).norm() for k in range(2, moments + 1))
