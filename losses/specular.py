"""The specular paper's photometric, landmark and uniform terms."""

from __future__ import annotations

import torch
from torch import Tensor

from losses.photometric import color_distance, saturate_skin
from renderers.camera import REFERENCE_SIZE


def specular_photometric_loss(
    diffuse: Tensor,
    both: Tensor,
    image: Tensor,
    mask: Tensor,
    face: Tensor,
    skin_probability: Tensor,
    eta: float,
) -> Tensor:
    """L_photo: compares the diffuse render with sure skin, and the whole render with the face (equations (8) and (9)).

    sum_M C_skin ||I - I_d|| / sum_M C_skin + eta sum_M ||I - I_ds|| / |M|. C_skin is the saturated skin probability. M
    is the overlap of the rendered face and the photograph's face. Highlights have a low skin probability, so the first
    term leaves them to the specular render. For I_ds the paper prints I_d + I_s; but only linear light adds up, and the
    renders are display values, behind the gamma of (2). A term without any pixel is 0. The gradient reaches the
    colours, not M.

    Args:
        diffuse: (B, 3, H, W) render without highlights, display values in [0, 1] before clamping.
        both: (B, 3, H, W) render with them, likewise.
        image: (B, 3, H, W) photograph, in [0, 1].
        mask: (B, 1, H, W) I_project, bool or 0/1.
        face: (B, 1, H, W) I_face, the face's segmentation, bool or weights in [0, 1].
        skin_probability: (B, 1, H, W) p in [0, 1].
        eta: weight of the second term.

    Returns:
        (B,) in [0, (1 + eta) sqrt(3)] for colours in [0, 1].
    """
    overlap = mask.to(image.dtype) * face.to(image.dtype)
    first = _weighted_mean(color_distance(image, diffuse), overlap * saturate_skin(skin_probability))
    return first + eta * _weighted_mean(color_distance(image, both), overlap)


def specular_landmark_loss(predicted: Tensor, target: Tensor, weights: Tensor, image_size: int) -> Tensor:
    """L_lmk = 1/|K| sum_i mu_i ||k_i - k_i^p||: Euclidean distances, not their squares (equation (10)).

    Distances are expressed in pixels of a 224 px image, so that the term's weight holds for every image size.

    Args:
        predicted: (B, 68, 2) pixels.
        target: (B, 68, 2) pixels.
        weights: (68,) mu, see `losses.landmark.mouth_and_brow_weights`.
        image_size: pixels along the image's side.

    Returns:
        (B,) pixels at 224 px.
    """
    distance = torch.linalg.vector_norm(REFERENCE_SIZE / image_size * (predicted - target), dim=-1)
    return (weights * distance).mean(dim=-1)


def uniform_loss(diffuse_colors: Tensor, illumination: Tensor) -> Tensor:
    """L_uniform: variance of the lit diffuse colours, and of each light weight over the channels (equation (13)).

    1/|T| sum_i (t_i - t_mean)^2 + sum_b sum_c (lambda_bc - lambda_mean_b)^2. The first part is also averaged over the
    channels. The paper prints no squares; without them both sums would always be 0.

    Args:
        diffuse_colors: (B, V, 3) T of equation (2), the vertices' lit diffuse colours as display values.
        illumination: (B, 27) nine weights a channel, channel after channel.

    Returns:
        (B,)
    """
    colors = diffuse_colors.var(dim=1, correction=0).mean(dim=-1)
    channels = illumination.unflatten(-1, (3, 9))
    return colors + (channels - channels.mean(dim=1, keepdim=True)).square().sum(dim=(1, 2))


def _weighted_mean(values: Tensor, weights: Tensor) -> Tensor:
    """(B, 1, H, W) twice -> (B,): 0 where no pixel has weight."""
    total = weights.flatten(1).sum(dim=1)
    safe = torch.where(total > 0, total, 1.0)
    return (weights * values).flatten(1).sum(dim=1) / safe
