"""Priors on the coefficients: near the face model's mean, in light that is white and of usual strength."""

from __future__ import annotations

from torch import Tensor

from renderers.coefficients import Coefficients
from renderers.constants import constant

DISTANCE_DEVIATION = 0.35  # decimetres, of t_z in aligned crops: that of the synthetic data
# The mean light of the synthetic data: the harmonics of what comes on top of the ambient light, a part of it from the
# viewer's side.
USUAL_LIGHT = (0.15, 0.0, 0.22, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)


def coefficient_regularization(
    coefficients: Coefficients,
    identity: float = 1.0,
    expression: float = 0.8,
    albedo: float = 3e-3,
    distance: float = 0.0,
    tint: float = 0.0,
    light: float = 0.0,
    usual_light: float = 0.0,
    outside: float = 0.0,
) -> Tensor:
    """L_reg = w_id sum alpha^2 + w_exp sum beta^2 + w_tex sum gamma^2 (MGCNet, section 3.3) + w_z (t_z / 3.5 cm)^2.

    The last part is ours. One picture hardly tells how large a face is from how far away it stands, and without it the
    identity alone pays for that. Ours too are `light_regularization`, and w_out sum max(0, -beta, beta - 1)^2 for
    expressions that are blend weights; each is added where it has a weight.

    Args:
        coefficients: of B images.
        identity: w_id.
        expression: w_exp.
        albedo: w_tex.
        distance: w_z.
        tint: see `light_regularization`.
        light: its strength.
        usual_light: its distance from the usual light.
        outside: w_out.

    Returns:
        (B,)
    """
    away = coefficients.translation[:, 2] / DISTANCE_DEVIATION
    prior = distance * away.square() + (
        identity * coefficients.identity.square().sum(dim=-1)
        + expression * coefficients.expression.square().sum(dim=-1)
        + albedo * coefficients.albedo.square().sum(dim=-1)
    )
    if outside:
        beyond = coefficients.expression - coefficients.expression.clamp(0, 1)
        prior = prior + outside * beyond.square().sum(dim=-1)
    if tint or light or usual_light:
        prior = prior + light_regularization(coefficients, tint, light, usual_light)
    return prior


def light_regularization(coefficients: Coefficients, tint: float, strength: float, usual: float = 0.0) -> Tensor:
    """w_tint sum_cb (theta_cb - mean_c theta_cb)^2 + w_strength sum_b (mean_c theta_cb)^2, c a channel, b a harmonic.

    The weight `usual` adds w_usual sum_b (mean_c theta_cb - u_b)^2 with u the `USUAL_LIGHT`.

    A dark face in strong light looks like a fair one in weak light, and a tanned one like a pale one in warm light. A
    prior on the light decides between them. The public code of Deng et al. (2019) also asks for white light.

    Args:
        coefficients: of B images.
        tint: w_tint.
        strength: w_strength, of what comes on top of the ambient light.
        usual: w_usual. Where a picture does not tell light from albedo, it makes the mean albedo right; a prior on no
            light makes faces too fair.

    Returns:
        (B,)
    """
    light = coefficients.illumination.unflatten(-1, (3, -1))
    white = light.mean(dim=1, keepdim=True)
    prior = tint * (light - white).square().flatten(1).sum(dim=1) + strength * white.square().flatten(1).sum(dim=1)
    return prior + usual * (white - constant(USUAL_LIGHT, white)).square().flatten(1).sum(dim=1) if usual else prior
