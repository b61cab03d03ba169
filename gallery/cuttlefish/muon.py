"""Muon, the optimizer (K. Jordan, 2024), also for the weights of convolutions, which PyTorch's own does not take."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

MOMENTUM = 0.95
DECAY = 0.05
_ITERATIONS = 5
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)


class Muon(torch.optim.Optimizer):
    """Every change of a matrix turns and stretches all directions alike. For weights of two dimensions and more."""

    def __init__(self, weights: Iterable[nn.Parameter]) -> None:
        super().__init__(weights, {"lr": 0.0})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._change(weight, group["lr"])

    def _change(self, weight: nn.Parameter, rate: float) -> None:
        gradient = weight.grad
        assert gradient is not None
        momentum = self.state[weight].setdefault("momentum", torch.zeros_like(weight))
        momentum.lerp_(gradient, 1 - MOMENTUM)
        change = orthogonal(gradient.lerp(momentum, MOMENTUM).flatten(1))
        # As large as AdamW's changes are, so that both can have the same rate.
        size = 0.2 * max(change.shape) ** 0.5
        weight.mul_(1 - rate * DECAY)
        weight.add_(change.view(weight.shape).to(weight.dtype), alpha=-rate * size)


def orthogonal(matrix: Tensor) -> Tensor:
    """The nearest matrix whose singular values are all about one (Newton-Schulz)."""
    a, b, c = _COEFFICIENTS
    x: Tensor = matrix.bfloat16()
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    x = x / (x.norm() + 1e-7)
    for _ in range(_ITERATIONS):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    return x.T if tall else x
