"""The weighted sum of a paper's terms."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

from lightning_modules.components.weighting import Weights, weighted_sum


def test_the_sum_and_its_gradient_are_those_of_the_terms_that_are_there() -> None:
    values = {name: torch.tensor(value, requires_grad=True) for name, value in (("depth", 2.0), ("pixel", -3.0))}
    total = weighted_sum(values, {"depth": 0.5, "pixel": 4.0, "absent": 100.0})
    total.backward()
    assert total.item() == 0.5 * 2 - 4 * 3
    assert [value.grad.item() for value in values.values()] == [0.5, 4.0]  # type: ignore[union-attr]


def test_a_term_without_a_weight_is_an_error() -> None:
    with pytest.raises(KeyError, match="pixel"):
        weighted_sum({"pixel": torch.tensor(1.0)}, {"depth": 1.0})


@dataclass(frozen=True)
class TwoWeights(Weights):
    render: float = 2.0
    identity: float = 3.0
    prior_albedo: float = 5.0


def test_a_term_that_starts_later_weighs_nothing_until_then() -> None:
    weights = TwoWeights()
    before, after = (weights.at(step, {"identity": 7}) for step in (6, 7))
    assert before.terms() == {"render": 2.0, "identity": 0.0} and before.prior_albedo == 5.0
    assert after is weights
