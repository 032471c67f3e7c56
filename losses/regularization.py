"""Prior on the coefficients: near the face model's mean."""

from __future__ import annotations

from torch import Tensor

from renderers.coefficients import Coefficients


def coefficient_regularization(
    coefficients: Coefficients, identity: float = 1.0, expression: float = 0.8, albedo: float = 3e-3
) -> Tensor:
    """L_reg = w_id sum alpha^2 + w_exp sum beta^2 + w_tex sum gamma^2 (MGCNet, section 3.3).

    Args:
        coefficients: of B images.
        identity: w_id.
        expression: w_exp.
        albedo: w_tex.

    Returns:
        (B,)
    """
    return (
        identity * coefficients.identity.square().sum(dim=-1)
        + expression * coefficients.expression.square().sum(dim=-1)
        + albedo * coefficients.albedo.square().sum(dim=-1)
    )
