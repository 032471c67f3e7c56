"""The fit's Adam against PyTorch's."""

from __future__ import annotations

import pytest
import torch

from experiments.fitting.adam import Adam


@pytest.mark.parametrize("total", [5, 40, 80])
def test_it_goes_where_pytorchs_adam_goes(total: int) -> None:
    generator = torch.Generator().manual_seed(total)
    target, scale = torch.randn(7, generator=generator).double(), torch.rand(7, generator=generator).double() * 50
    ours, theirs = torch.zeros(7).double(), torch.zeros(7).double().requires_grad_()
    optimizer = torch.optim.Adam([theirs], lr=1.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=1.0, total_steps=total + 1, pct_start=0.2, cycle_momentum=False, final_div_factor=1e12
    )
    own = Adam(ours, total)
    for _ in range(total):
        assert own.rate() == pytest.approx(schedule.get_last_lr()[0], abs=1e-9)
        own.step(2 * scale * (ours - target))
        optimizer.zero_grad()
        (scale * (theirs - target).square()).sum().backward()
        optimizer.step()
        schedule.step()
    torch.testing.assert_close(ours, theirs.detach(), atol=1e-7, rtol=1e-6)
