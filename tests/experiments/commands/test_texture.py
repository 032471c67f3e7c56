"""The baked texture against a known one: a face is drawn with it, something is put before it, and it is baked back."""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np
import torch

from datamodules.preparation.skin import opening_mask
from experiments.commands.reconstruct.texture import PhotoView, bake_texture
from renderers.face_models.base import MorphableModel
from renderers.face_models.load import load_face_model
from renderers.face_renderer import FaceRenderer, Rendering, mean_coefficients
from renderers.uv.chart import UVChart

PHOTO, SIZE = 224, 128
OCCLUDER = torch.tensor([0.1, 0.2, 0.9]).view(3, 1, 1)


@cache
def default_model() -> MorphableModel:
    return load_face_model("default")


@cache
def chart() -> UVChart:
    return UVChart(default_model(), SIZE)


@cache
def scene(yaw: float) -> tuple[Rendering, torch.Tensor, torch.Tensor, torch.Tensor]:
    """What a fit knows (the model's mean albedo, the true light), the true colours (1, V, 3), photograph, skin.

    The true texture is the same on both sides of the face, the light is not.
    """
    coefficients = mean_coefficients(default_model(), 1)
    coefficients.angles[0, 1] = yaw
    light = coefficients.illumination.view(3, 9)
    light[:, 0], light[:, 3] = 0.2, -0.15
    rendering = FaceRenderer(default_model(), PHOTO)(coefficients)
    x, y, _ = default_model().mean_shape.unbind(-1)
    pattern = 1 + 0.2 * torch.cos(9 * x) * torch.sin(7 * y)
    colors = rendering.vertex_colors * torch.stack([pattern, pattern.square(), 0.9 / pattern], dim=-1)
    photo = torch.where(rendering.mask, rendering.draw(colors), 0.5)[0]
    skin = rendering.mask[0, 0].float()
    skin[torch.from_numpy(opening_mask(rendering.landmarks[0].double().numpy(), PHOTO, PHOTO))] = 0
    return rendering, colors, photo, skin


def bake(rendering: Rendering, photo: torch.Tensor, skin: torch.Tensor) -> np.ndarray:
    """(SIZE, SIZE, 3) in [0, 1]"""
    texture = bake_texture(default_model(), [PhotoView(rendering, photo, torch.ones(PHOTO, PHOTO), skin)], SIZE)
    return texture.astype(float) / 255


def texels(vertices: torch.Tensor) -> np.ndarray:
    """(V, C) vertex attributes -> (SIZE, SIZE, C)"""
    return chart().bake(vertices[None])[0].permute(1, 2, 0).numpy()


def skin_texels() -> np.ndarray:
    """(SIZE, SIZE) bool: bare skin, away from eyes, mouth and the chart's border."""
    bare = torch.zeros(default_model().vertex_count, 1)
    bare[default_model().regions["skin"]] = 1
    return texels(bare)[..., 0] > 0.999


def covered(photo: torch.Tensor, skin: torch.Tensor, rows: slice, columns: slice) -> tuple[torch.Tensor, torch.Tensor]:
    """The photograph and its skin with something before a part of it."""
    photo, skin = photo.clone(), skin.clone()
    photo[:, rows, columns], skin[rows, columns] = OCCLUDER, 0
    return photo, skin


def hidden_and_mirrored(rendering: Rendering, rows: slice, columns: slice) -> tuple[np.ndarray, np.ndarray]:
    """Texels that the rectangle covers, and how directly the camera sees each one's mirror image."""
    x, y = rendering.vertices_image[0, :, 0], rendering.vertices_image[0, :, 1]
    within = (x > columns.start) & (x < columns.stop) & (y > rows.start) & (y < rows.stop)
    facing = rendering.vertex_normals[0, :, 2]
    maps = chart().bake(torch.stack([(within & (facing > 0.3)).float(), facing], dim=-1)[None])
    return maps[0, 0].numpy() > 0.99, chart().mirror(maps[:, 1:])[0, 0].numpy()


def test_what_is_seen_mirrored_and_unseen() -> None:
    """A face turned by 14 degrees, a cheek covered: exact where it is seen, nearly so from the other side."""
    rendering, colors, photo, skin = scene(0.25)
    truth, plain = texels(colors[0]), skin_texels()
    facing = texels(rendering.vertex_normals[0])[..., 2]
    left, top = rendering.landmarks[0, [4, 41]].min(dim=0).values.int().tolist()
    rows, columns = slice(top + 8, top + 40), slice(left, int(rendering.landmarks[0, 31, 0]) - 6)
    hidden, mirror = hidden_and_mirrored(rendering, rows, columns)
    texture = bake(rendering, *covered(photo, skin, rows, columns))
    error = np.abs(texture - truth).mean(axis=2)
    near = cv2.dilate(hidden.astype(np.uint8), np.ones((9, 9))) > 0
    seen = plain & (facing > 0.75) & ~near
    mirrored = plain & hidden & (mirror > 0.7)
    unseen = plain & (facing < 0)
    assert seen.sum() > 1500 and mirrored.sum() > 100 and unseen.sum() > 100
    assert error[seen].mean() < 0.01
    assert error[mirrored].mean() < 0.01
    assert error[unseen].mean() < 0.11  # what is painted there, nobody can know
    # Nothing of the occluder's blue is left.
    assert (texture[..., 2] > texture[..., 0] + 0.1).sum() < 5


def test_a_gray_photograph_gives_a_gray_texture() -> None:
    rendering, _, photo, skin = scene(0.4)
    texture = bake(rendering, photo.mean(dim=0, keepdim=True).expand(3, -1, -1), skin)
    assert (texture == texture[..., :1]).all() and texture.std() > 0.02


def test_no_teeth_on_lips() -> None:
    """The photograph's mouth is a little wider open than the fitted one: what shows there does not become lips."""
    rendering, _, photo, skin = scene(0.0)
    points = rendering.landmarks[0].double().numpy()
    outer = points[48:60].mean(axis=0) + 0.8 * (points[48:60] - points[48:60].mean(axis=0))
    open_mouth = cv2.fillConvexPoly(np.zeros((PHOTO, PHOTO), np.uint8), outer.round().astype(np.int32), 1) > 0
    photo, skin = photo.clone(), skin.clone()
    photo[:, open_mouth], skin[open_mouth] = OCCLUDER[..., 0], 0
    texture = bake(rendering, photo, skin)
    lips = torch.zeros(default_model().vertex_count, 1)
    lips[default_model().regions["lips"]] = 1
    lips = texels(lips)[..., 0] > 0.99
    assert lips.sum() > 50
    assert (texture[lips][:, 0] > texture[lips][:, 2]).mean() > 0.97


def test_sunglasses_leave_the_models_eyes() -> None:
    rendering, _, photo, skin = scene(0.0)
    points = rendering.landmarks[0]
    rows = slice(int(points[17:27, 1].min()), int(points[36:48, 1].max()) + 12)
    columns = slice(int(points[17, 0]), int(points[26, 0]))
    texture = bake(rendering, *covered(photo, skin, rows, columns))
    assert (texture[..., 2] > texture[..., 0] + 0.1).sum() < 5


def test_bright_strands_of_hair_are_no_skin() -> None:
    """A small piece that looks like skin, apart from the face, is left out."""
    rendering, _, photo, skin = scene(0.0)
    top = int(rendering.vertices_image[0, :, 1].min())
    brows = int(rendering.landmarks[0, 17:27, 1].min())
    hair = slice(top, brows - 8)
    photo, skin = covered(photo, skin, hair, slice(0, PHOTO))
    skin[top + 8 : top + 16, 100:120] = 0.9
    texture = bake(rendering, photo, skin)
    assert (texture[..., 2] > texture[..., 0] + 0.1).sum() < 5


def test_two_photographs_show_more_than_one() -> None:
    """A pattern that differs between the sides, seen from either side and from both.

    The ratio of two channels is compared, which the grey lights leave as it is.
    """
    x, y, _ = default_model().mean_shape.unbind(-1)
    pattern = 1 + 0.3 * torch.sin(9 * x) * torch.sin(7 * y)
    views = []
    for yaw in (-0.7, 0.7):
        rendering, _, _, skin = scene(yaw)
        colors = rendering.vertex_colors * torch.stack([pattern, pattern, 0.9 / pattern], dim=-1)
        photo = torch.where(rendering.mask, rendering.draw(colors), 0.5)[0]
        views.append(PhotoView(rendering, photo, torch.ones(PHOTO, PHOTO), skin))
    albedo = views[0].rendering.vertex_albedo[0]
    true = texels((albedo[:, :1] / albedo[:, 2:] * pattern[:, None].square() / 0.9).log())[..., 0]
    errors = []
    for chosen in (views[:1], views[1:], views):
        texture = bake_texture(default_model(), chosen, SIZE).astype(float).clip(1) / 255
        errors.append(np.abs(np.log(texture[..., 0] / texture[..., 2]) - true)[skin_texels()].mean())
    assert errors[2] < 0.5 * min(errors[:2])
