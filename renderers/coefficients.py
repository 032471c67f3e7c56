"""The vector that a backbone regresses, and the named coefficients it splits into."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor

ILLUMINATION_SIZE = 27


@dataclass
class Coefficients:
    """What one face in one image is made of. B is the number of images.

    Attributes:
        identity: (B, I) in standard deviations of the face model.
        expression: (B, E) in the face model's own unit (standard deviations, or blend weights).
        albedo: (B, A) in standard deviations.
        angles: (B, 3) Euler angles about x (pitch), y (yaw), z (roll), radians.
        illumination: (B, 27) spherical-harmonics weights, channel after channel (9 red, 9 green, 9 blue).
        translation: (B, 3) in decimetres.
        extra: what a paper adds, by name, each (B, n).
    """

    identity: Tensor
    expression: Tensor
    albedo: Tensor
    angles: Tensor
    illumination: Tensor
    translation: Tensor
    extra: dict[str, Tensor] = field(default_factory=dict)

    def named(self) -> dict[str, Tensor]:
        """Every coefficient by name, the paper's own ones last."""
        own = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "extra"}
        return {**own, **self.extra}

    @classmethod
    def from_named(cls, named: Mapping[str, Tensor]) -> Coefficients:
        """The inverse of `named`. A name that is not a field belongs to a paper and goes into `extra`."""
        own = {f.name for f in fields(cls)} & set(named)
        known: dict[str, Any] = {name: named[name] for name in own}
        return cls(**known, extra={name: value for name, value in named.items() if name not in own})

    def index(self, rows: Tensor | slice) -> Coefficients:
        """The coefficients of some of the images: `rows` indexes the first dimension."""
        return Coefficients.from_named({name: value[rows] for name, value in self.named().items()})

    def finite(self) -> bool:
        """Whether every value is a number."""
        return all(bool(value.isfinite().all()) for value in self.named().values())

    def to(self, device: torch.device | str) -> Coefficients:
        """The same values on a device."""
        return Coefficients.from_named({name: value.to(device) for name, value in self.named().items()})

    def detach(self) -> Coefficients:
        """The same values, cut from the graph."""
        return Coefficients.from_named({name: value.detach() for name, value in self.named().items()})


class CoefficientLayout:
    """Named slices of the regressed vector.

    The order is identity, expression, albedo, angles, illumination, translation, then what a paper adds; with BFM
    2009's 80, 64, 80 the length is 257 and the order is that of public Deep3D-style checkpoints.
    """

    def __init__(self, identity: int, expression: int, albedo: int, extra: Mapping[str, int] | None = None) -> None:
        self.sizes: dict[str, int] = {
            "identity": identity,
            "expression": expression,
            "albedo": albedo,
            "angles": 3,
            "illumination": ILLUMINATION_SIZE,
            "translation": 3,
            **(extra or {}),
        }
        self.length = sum(self.sizes.values())

    def split(self, vector: Tensor) -> Coefficients:
        """(B, length) -> Coefficients; views, not copies.

        Raises:
            ValueError: the last dimension is not this layout's length.

        >>> layout = CoefficientLayout(identity=80, expression=64, albedo=80)
        >>> layout.length, tuple(layout.split(torch.zeros(2, 257)).illumination.shape)
        (257, (2, 27))
        """
        if vector.shape[-1] != self.length:
            raise ValueError(f"the vector has {vector.shape[-1]} coefficients, this layout has {self.length}")
        parts = vector.split(list(self.sizes.values()), dim=-1)
        return Coefficients.from_named(dict(zip(self.sizes, parts, strict=True)))

    def join(self, coefficients: Coefficients) -> Tensor:
        """Coefficients -> (B, length), the inverse of `split`."""
        named = coefficients.named()
        return torch.cat([named[name] for name in self.sizes], dim=-1)
