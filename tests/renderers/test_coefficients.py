"""The regressed vector and its named parts."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from renderers.coefficients import CoefficientLayout

SIZES = st.integers(1, 12)
EXTRA = st.dictionaries(st.sampled_from(["light_position", "shininess", "focal"]), st.integers(1, 4))


@settings(deadline=None)
@given(SIZES, SIZES, SIZES, EXTRA, st.integers(0, 4), st.integers(0, 2**31))
def test_join_undoes_split(
    identity: int, expression: int, albedo: int, extra: dict[str, int], batch: int, seed: int
) -> None:
    layout = CoefficientLayout(identity, expression, albedo, extra)
    assert layout.length == identity + expression + albedo + 33 + sum(extra.values())
    vector = torch.randn(batch, layout.length, generator=torch.Generator().manual_seed(seed))
    coefficients = layout.split(vector)
    assert {name: value.shape[1] for name, value in coefficients.named().items()} == layout.sizes
    assert set(coefficients.extra) == set(extra)
    assert torch.equal(layout.join(coefficients), vector)


def test_bfm_2009_has_the_order_of_public_checkpoints() -> None:
    layout = CoefficientLayout(80, 64, 80)
    position = layout.split(torch.arange(layout.length).float()[None])
    assert layout.length == 257
    starts = {name: int(value[0, 0]) for name, value in position.named().items()}
    assert starts == {
        "identity": 0, "expression": 80, "albedo": 144, "angles": 224, "illumination": 227, "translation": 254,
    }  # fmt: skip


def test_split_shares_memory_and_gradients() -> None:
    layout = CoefficientLayout(2, 2, 2)
    vector = torch.zeros(1, layout.length, requires_grad=True)
    coefficients = layout.split(vector)
    assert coefficients.identity.untyped_storage().data_ptr() == vector.untyped_storage().data_ptr()
    coefficients.translation.sum().backward()
    assert vector.grad is not None
    assert vector.grad[0].tolist() == [0.0] * (layout.length - 3) + [1.0] * 3


def test_a_vector_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match=r"256 coefficients, this layout has 257"):
        CoefficientLayout(80, 64, 80).split(torch.zeros(1, 256))


def test_index_and_detach_reach_every_part() -> None:
    layout = CoefficientLayout(2, 3, 4, {"shininess": 1})
    vector = torch.randn(5, layout.length, requires_grad=True)
    coefficients = layout.split(vector)
    rows = torch.tensor([4, 0, 4])
    assert torch.equal(layout.join(coefficients.index(rows)), vector[rows])
    assert torch.equal(layout.join(coefficients.index(slice(1, 3))), vector[1:3])
    cut = coefficients.detach()
    assert not any(value.requires_grad for value in cut.named().values())
    assert torch.equal(layout.join(cut), vector)
