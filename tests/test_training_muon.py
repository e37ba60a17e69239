"""The optimizer whose steps are orthogonal."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from nightisp.training.muon import Muon, orthogonal


def seeded(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def matrix(singular: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    left, _ = torch.linalg.qr(torch.randn(rows, len(singular), generator=seeded(1)))
    right, _ = torch.linalg.qr(torch.randn(columns, len(singular), generator=seeded(2)))
    return left @ torch.diag(singular) @ right.T


@pytest.mark.parametrize(("rows", "columns"), [(16, 40), (40, 16), (8, 8), (1, 9), (9, 1)])
def test_singular_values_come_near_to_one_and_vectors_stay(rows: int, columns: int) -> None:
    singular = torch.logspace(0, -2, min(rows, columns))
    found = orthogonal(matrix(singular, rows, columns))
    assert found.shape == (rows, columns)
    values = torch.linalg.svdvals(found)
    assert 0.6 < float(values.min()) <= float(values.max()) < 1.3
    exact = matrix(torch.ones_like(singular), rows, columns)
    assert float((found - exact).norm() / exact.norm()) < 0.35


def test_no_gradient_is_no_direction() -> None:
    assert not orthogonal(torch.zeros(3, 4)).any()


def test_a_step_is_as_large_as_a_step_of_adam_whatever_the_gradient() -> None:
    for scale in (1e-6, 1, 1e6):
        parameter = torch.nn.Parameter(torch.zeros(32, 8, 3, 3))
        parameter.grad = scale * torch.randn(parameter.shape, generator=seeded())
        Muon([parameter], lr=1.0).step()
        assert float(parameter.detach().square().mean().sqrt()) == pytest.approx(0.2, rel=0.2)


def test_vectors_are_left_to_adam() -> None:
    ours, theirs = (torch.nn.Parameter(torch.ones(5)) for _ in range(2))
    optimizers: list[Any] = [
        Muon([ours], lr=0.01, weight_decay=0.1),
        torch.optim.AdamW([theirs], 0.01, (0.9, 0.99), weight_decay=0.1),
    ]
    for seed in range(5):
        for parameter, optimizer in zip((ours, theirs), optimizers, strict=True):
            parameter.grad = torch.randn(5, generator=seeded(seed))
            optimizer.step()
    torch.testing.assert_close(ours.detach(), theirs.detach())


def test_directions_of_small_gradient_are_learned_as_fast() -> None:
    """Least squares whose inputs differ tenfold in size: gradient descent takes a hundred times as long."""
    inputs = torch.randn(64, 8, generator=seeded()) * torch.logspace(0, -1, 8)
    truth = torch.randn(3, 8, generator=seeded(2))
    parameter = torch.nn.Parameter(torch.zeros(3, 8))
    optimizer = Muon([parameter], lr=0.1)
    for step in range(300):
        optimizer.param_groups[0]["lr"] = 0.1 * (1 - step / 300)
        optimizer.zero_grad()
        (inputs @ (parameter - truth).T).square().mean().backward()
        optimizer.step()
    assert float((parameter.detach() - truth).abs().max()) < 0.05
