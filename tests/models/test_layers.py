"""Layers: the dropout has torch's distribution and gradient."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fmnist_cv.models.layers import Dropout


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("p", [0.1, 0.25, 0.3])
def test_a_share_p_is_dropped_and_the_rest_scaled(p: float, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    n = 400_000
    out = Dropout(p)(torch.ones(n // 10, 10, dtype=dtype))
    assert out.dtype == dtype
    assert out.unique().tolist() == [0, float(torch.tensor(1 / (1 - p), dtype=dtype))]
    dropped = (out == 0).float()
    assert float(dropped.mean()) == pytest.approx(p, abs=5 * (p * (1 - p) / n) ** 0.5)
    assert float(dropped.mean(0).std()) < 0.01  # no unit is dropped more often than another


def test_the_gradient_goes_through_what_was_kept() -> None:
    torch.manual_seed(0)
    values = torch.randn(50, 20, requires_grad=True)
    out = Dropout(0.5)(values)
    out.sum().backward()
    assert values.grad is not None
    torch.testing.assert_close(values.grad, (out != 0).float() * 2)


@pytest.mark.parametrize(("p", "training"), [(0.5, False), (0.0, True), (1.0, True)])
def test_elsewhere_it_is_torch_s_own(p: float, training: bool) -> None:
    values = torch.randn(8, 5)
    torch.testing.assert_close(Dropout(p).train(training)(values), nn.Dropout(p).train(training)(values))


def test_the_seed_decides_what_is_dropped() -> None:
    def drop(seed: int) -> list[float]:
        torch.manual_seed(seed)
        return Dropout(0.5)(torch.ones(100)).tolist()

    assert drop(1) == drop(1) != drop(2)
