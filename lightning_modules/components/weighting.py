"""The weights of a paper's loss terms, and the sum that every loss is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor

W = TypeVar("W", bound="Weights")


@dataclass(frozen=True)
class Weights:
    """Base of the papers' weights: a dataclass with one field for each term.

    A term of weight 0 is not computed. Fields that start with `prior_` weigh parts of the regularization term.
    """

    def terms(self) -> dict[str, float]:
        """The factor of every term in the loss, by the term's name."""
        return {name: value for name, value in asdict(self).items() if not name.startswith("prior_")}

    def priors(self) -> dict[str, float]:
        """The factors of `coefficient_regularization`, by the names of its arguments."""
        return {name.removeprefix("prior_"): value for name, value in asdict(self).items() if name.startswith("prior_")}

    def at(self: W, step: int, starts: Mapping[str, int]) -> W:
        """The weights in force at a training step: 0 for every term that starts later.

        Args:
            step: of the training.
            starts: the first steps of terms, by the name of their field; a term without one counts from step 0.

        >>> from lightning_modules.mgcnet.weights import MGCNetWeights
        >>> [MGCNetWeights().at(step, {"identity": 2000}).identity for step in (1999, 2000)]
        [0.0, 0.2]
        """
        later = {name: 0.0 for name, start in starts.items() if step < start}
        return replace(self, **later) if later else self


def weighted_sum(terms: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
    """The terms that are there, each a scalar, times their weights.

    Raises:
        KeyError: a term has no weight.
    """
    return torch.stack([weights[name] * value for name, value in terms.items()]).sum()
