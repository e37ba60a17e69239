# mypy: disallow-subclassing-any=False, disallow-untyped-decorators=False
"""Muon: steps of momentum whose matrices are brought near to orthogonal ones; Adam for what is no matrix."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic that brings singular values near to 1 within five rounds
_ROUNDS = 5
_RMS = 0.2  # of a step, as Adam's usually is, so that one learning rate serves both


class Muon(torch.optim.Optimizer):
    """Let every direction of a weight matrix learn at the same rate, however small its gradient is.

    A convolution's weights count as a matrix of outputs by all that goes into one. Vectors, such as biases, are left
    to Adam, at the same rate.

    Parameters
    ----------
    parameters
        Of a network.
    lr
        Learning rate; what serves Adam serves here.
    momentum
        Of matrices, with Nesterov's look ahead.
    betas, eps
        Of Adam, for the rest.
    weight_decay
        Share that all parameters shrink by, times `lr`, as in AdamW.

    References
    ----------
    :cite:`jordan2024muon`; the size of the step is that of :cite:`liu2025muon`.
    """

    def __init__(
        self,
        parameters: Iterable[Tensor],
        lr: float,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.99),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(
            parameters, {"lr": lr, "momentum": momentum, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        )

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # noqa: ARG002 -- torch's schedulers pass one
        """Take one step along the gradients that the parameters hold."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    direction = self._matrix(parameter, group) if parameter.ndim > 1 else self._vector(parameter, group)
                    parameter.mul_(1 - group["lr"] * group["weight_decay"]).add_(direction, alpha=-group["lr"])

    def _matrix(self, parameter: Tensor, group: dict[str, Any]) -> Tensor:
        state, gradient, momentum = self.state[parameter], parameter.grad, group["momentum"]
        assert gradient is not None
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
        kept = state["momentum"].lerp_(gradient, 1 - momentum)
        flat = gradient.lerp(kept, momentum).flatten(1)
        return (_RMS * max(flat.shape) ** 0.5 * orthogonal(flat)).reshape(parameter.shape)

    def _vector(self, parameter: Tensor, group: dict[str, Any]) -> Tensor:
        state, gradient = self.state[parameter], parameter.grad
        assert gradient is not None
        if not state:
            state["step"], state["mean"], state["square"] = 0, torch.zeros_like(parameter), torch.zeros_like(parameter)
        state["step"] += 1
        first, second = group["betas"]
        mean = state["mean"].lerp_(gradient, 1 - first) / (1 - first ** state["step"])
        square = state["square"].lerp_(gradient.square(), 1 - second) / (1 - second ** state["step"])
        return mean / (square.sqrt() + group["eps"])


def orthogonal(matrix: Tensor) -> Tensor:
    """Return a matrix of the same singular vectors whose singular values all lie near 1, within 0.65 and 1.25.

    By Newton-Schulz, which needs products alone. Values below a hundredth of the largest stay smaller.
    """
    a, b, c = _COEFFICIENTS
    wide = matrix.T if len(matrix) > matrix.shape[1] else matrix
    wide = wide / wide.norm().clamp(min=1e-12)
    for _ in range(_ROUNDS):
        gram = wide @ wide.T
        wide = a * wide + (b * gram + c * gram @ gram) @ wide
    return wide.T if len(matrix) > matrix.shape[1] else wide
