"""One person's coefficients and looks -> the triangles of a scene."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from datamodules.synthesis.hair import STYLES, bald_share
from datamodules.synthesis.head_geometry import GUMS, SCLERA, TEETH, TONGUE, Hairdo, HeadGeometry
from datamodules.synthesis.parsing import FACE_MODEL, LABEL
from datamodules.synthesis.people import Person
from datamodules.synthesis.shading import Scene, depth_behind
from datamodules.synthesis.shading_kernel import CLOTH, HAIR, PLAIN
from datamodules.synthesis.wear import HAIR_UNDER, Shell
from renderers.camera import euler_to_rotation, project
from renderers.coefficients import Coefficients

ROOT_SHADE = 0.75  # of the hair's colour at its roots
MOUTH_LIGHT = 0.28  # share of the soft light that arrives in an open mouth
TOUCHING = 0.012  # decimetres; a vertex that is no deeper than this behind the seen surface is on it
PLAIN_GLOSS = 0.066  # linear specular albedo of the face model's skin that is a gloss of 1
MATERIALS = torch.arange(6, dtype=torch.int32)


@dataclass(frozen=True)
class Piece:
    """One part of a scene in the head's frame: fields as in `Scene`, V vertices.

    Attributes:
        points: (V, 3) decimetres.
        normals: (V, 3).
        colors: (V, 3).
        details: (V, 4).
        faces: (F, 3) of its own vertices.
        materials: (F,) int32, or one for all.
        label: of `parsing`; for the head itself `Composed.labels` has one for each triangle.
    """

    points: Tensor
    normals: Tensor
    colors: Tensor
    details: Tensor
    faces: Tensor
    materials: Tensor
    label: int


@dataclass(frozen=True)
class Composed:
    """A scene and its triangles' labels.

    Attributes:
        scene: of S pictures.
        labels: (F,) of `parsing`, plus `FACE_MODEL` for triangles of the face model.
        skin: (3,) mean colour, display values.
    """

    scene: Scene
    labels: Tensor
    skin: Tensor


def compose(
    geometry: HeadGeometry, person: Person, coefficients: Coefficients, intrinsics: Tensor, texture: Tensor
) -> Composed:
    """One person in S views.

    Args:
        geometry: of the whole head.
        person: the looks.
        coefficients: of S views of the same face.
        intrinsics: (S, 3, 3).
        texture: (3, R, R) added to the skin's colours, in the face model's chart.
    """
    first = coefficients.index(slice(0, 1))
    vertices = geometry.shape(first.identity, first.expression)
    shift = geometry.shift(first.identity)
    hairdo = geometry.hairdo(person.style, person.hairdo) if person.style in STYLES else None
    normals = geometry.normals_of(vertices)[0]
    colors, details = _surface(geometry, person, first, hairdo)
    pieces = [Piece(vertices[0], normals, colors, details, geometry.faces, geometry.materials, LABEL["skin"])]
    pieces.append(_garment(geometry, person, vertices[0], normals))
    worn = geometry.hat(person.hat) if person.hat else None
    if hairdo is not None and person.hat not in ("scarf", "hood"):
        pieces.append(_hair(geometry, person, hairdo, shift, None if worn is None else worn[0]))
    if worn is not None:
        pieces.append(_hat(geometry, person, worn, vertices[0], normals, shift))
    own = torch.where(geometry.own, geometry.labels + FACE_MODEL, geometry.labels)
    labels = [own, *(torch.full((len(piece.faces),), piece.label, dtype=torch.uint8) for piece in pieces[1:])]
    offsets = np.cumsum([0, *(len(piece.points) for piece in pieces[:-1])])
    faces = [piece.faces + int(offset) for piece, offset in zip(pieces, offsets, strict=True)]
    materials = [piece.materials.expand(len(piece.faces)) for piece in pieces]
    points, normals, colors, details = (
        torch.cat([getattr(piece, name) for piece in pieces]) for name in ("points", "normals", "colors", "details")
    )
    rotation = euler_to_rotation(coefficients.angles)
    posed = points @ rotation.transpose(1, 2) + coefficients.translation[:, None]
    scene = Scene(
        posed=posed,
        points=project(posed, intrinsics),
        normals=normals @ rotation.transpose(1, 2),
        colors=colors,
        details=details,
        faces=torch.cat(faces),
        materials=torch.cat(materials),
        texture=person.freckled * texture.permute(1, 2, 0),
        cloth=person.pattern,
    )
    return Composed(scene, torch.cat(labels), pieces[0].colors[geometry.face_model.regions["cheeks"]].mean(dim=0))


def _surface(
    geometry: HeadGeometry, person: Person, face: Coefficients, hairdo: Hairdo | None
) -> tuple[Tensor, Tensor]:
    """(W, 3) colours and (W, 4) details of the head."""
    model, whole = geometry.face_model, geometry.whole
    colors = geometry.skin_colors(model.albedo(face.albedo)[0].clamp(0, 1))
    gloss = torch.ones(geometry.size)
    gloss[: model.vertex_count] = model.specular(face.albedo)[0].mean(dim=-1) / PLAIN_GLOSS
    hair = torch.from_numpy(person.hair_color).float()
    scalp = torch.from_numpy(whole.scalp)
    cover = ((scalp + 0.02) / 0.12).clamp(0, 1)
    cover[geometry.vertices_of("ear", "neck", "shoulders")] = 0
    share = torch.full_like(cover, 0.92 if person.style in STYLES else person.stubble)
    style = STYLES.get(person.style)
    if style is not None and style.receding:
        bald = bald_share(whole.mean_shape.astype(float), geometry.head, style.receding, np.zeros(geometry.size))
        share[torch.from_numpy(bald)] = person.stubble * 0.4
    cover = (cover * share)[:, None]
    colors = colors * (1 - cover) + hair * ROOT_SHADE * cover
    gloss = gloss * (1 - 0.7 * cover[:, 0])
    for parts, color, shine in (
        (("teeth_upper", "teeth_lower"), TEETH, 0.5),
        (("tongue",), TONGUE, 0.35),
        (("mouth_cavity",), None, 0.1),
        (("eye_left", "eye_right"), None, 1.0),
    ):
        chosen = geometry.vertices_of(*parts)
        gloss[chosen] = shine
        others = chosen[chosen >= model.vertex_count]
        own_color = {"mouth_cavity": GUMS, "eye_left": SCLERA}.get(parts[0], color)
        colors[others] = colors.new_tensor(own_color)
    ambient = (geometry.ambient if hairdo is None else hairdo.ambient[: geometry.size]).clone()
    inside = geometry.vertices_of("mouth_cavity", "teeth_upper", "teeth_lower", "tongue")
    ambient[inside] = ambient[inside].clamp_min(MOUTH_LIGHT)
    return colors, torch.cat([torch.stack([ambient, gloss * person.oiliness], dim=-1), geometry.uv], dim=-1)


def _garment(geometry: HeadGeometry, person: Person, vertices: Tensor, normals: Tensor) -> Piece:
    """The clothes on the shoulders."""
    shell = geometry.garment(person.garment)
    points, directions = shell.operator(vertices), shell.operator(normals)
    color = torch.from_numpy(person.cloth_color).float().expand(len(points), 3)
    details = torch.cat([torch.tensor([[0.85, 0.6]]).expand(len(points), 2), shell.uv], dim=-1)
    points = points + shell.lift[:, None] * directions
    return Piece(points, directions, color, details, shell.faces, MATERIALS[CLOTH], LABEL["cloth"])


def _hat(
    geometry: HeadGeometry,
    person: Person,
    worn: tuple[Shell, Tensor, Tensor],
    vertices: Tensor,
    normals: Tensor,
    shift: Tensor,
) -> Piece:
    """The hat, with its brim."""
    shell, near, weights = worn
    directions = shell.operator(normals)
    points = shell.operator(vertices) + shell.lift[:, None] * directions
    if len(shell.extra):
        points = torch.cat([points, geometry.moved(shell.extra, near, weights, shift)])
        directions = torch.cat([directions, directions.new_tensor([[0.0, 1.0, 0.1]]).expand(len(shell.extra), 3)])
    color = torch.from_numpy(person.hat_color).float().expand(len(points), 3)
    details = torch.cat([torch.tensor([[0.9, 0.5]]).expand(len(points), 2), shell.uv], dim=-1)
    material = MATERIALS[CLOTH if person.hat in ("scarf", "beanie") else PLAIN]
    return Piece(points, directions, color, details, shell.faces, material, LABEL["other"])


def _hair(geometry: HeadGeometry, person: Person, hairdo: Hairdo, shift: Tensor, hat: Shell | None) -> Piece:
    """The hair, without the ribbons under a hat."""
    ribbons = hairdo.ribbons
    points = geometry.moved(torch.from_numpy(ribbons.points).float(), hairdo.near, hairdo.weights, shift)
    along, number = (torch.from_numpy(part).float() for part in (ribbons.along, ribbons.number))
    # Every ribbon has its own shade, and its roots are darker than its tips.
    shade = (ROOT_SHADE + (1.12 - ROOT_SHADE) * along) * (0.86 + 0.28 * ((number * 7.3) % 1.0))
    colors = torch.from_numpy(person.hair_color).float() * shade[:, None]
    ambient = hairdo.ambient[geometry.size :]
    across = torch.from_numpy(ribbons.across).float()
    faces = torch.from_numpy(ribbons.faces)
    if hat is not None:
        above = torch.from_numpy(hat.level(ribbons.points) > -HAIR_UNDER)
        faces = faces[~above[faces].any(dim=1)]
    details = torch.stack([ambient, number, across, along], dim=-1)
    normals = torch.from_numpy(ribbons.normals).float()
    return Piece(points, normals, colors, details, faces, MATERIALS[HAIR], LABEL["hair"])


def visible(points: Tensor, chosen: Tensor, faces: Tensor, seen: Tensor) -> Tensor:
    """Whether vertices are seen: they are inside the picture, and nothing lies in front of them.

    Args:
        points: (S, V, 3) x, y in samples of the picture, z the depth.
        chosen: (N,) vertices.
        faces: (F, 3).
        seen: (S, H, W) the face behind every sample.

    Returns:
        (S, N) bool.
    """
    height, width = seen.shape[1:]
    place = points[:, chosen]
    texel = place[..., :2].floor().long()
    inside = ((texel >= 0) & (texel < texel.new_tensor([width, height]))).all(dim=-1)
    column, row = texel.clamp_min(0).minimum(texel.new_tensor([width - 1, height - 1])).unbind(-1)
    face = seen.flatten(1).gather(1, row * width + column)
    corners = faces[face.clamp_min(0)]
    views = torch.arange(len(points))[:, None, None]
    a, b, c = points[views, corners].unbind(dim=2)
    x, y = place[..., 0], place[..., 1]
    weights = torch.stack([
        (b[..., 0] - x) * (c[..., 1] - y) - (b[..., 1] - y) * (c[..., 0] - x),
        (c[..., 0] - x) * (a[..., 1] - y) - (c[..., 1] - y) * (a[..., 0] - x),
        (a[..., 0] - x) * (b[..., 1] - y) - (a[..., 1] - y) * (b[..., 0] - x),
    ], dim=-1)  # fmt: skip
    over = (weights / torch.stack([a[..., 2], b[..., 2], c[..., 2]], dim=-1)).sum(dim=-1)
    depth = weights.sum(dim=-1) / torch.where(over == 0, 1.0, over)
    mine = (corners == chosen[None, :, None]).any(dim=-1)
    return inside & ((face < 0) | mine | (place[..., 2] <= depth + TOUCHING))


def labelled(composed: Composed, size: int) -> tuple[Tensor, Tensor]:
    """(S, 1, size, size) uint8 labels of `parsing` at every pixel's centre, and the face model's depth, 0 elsewhere."""
    scene = composed.scene
    seen = scene.seen(size, 1)
    labels = torch.where(seen >= 0, composed.labels[seen.clamp_min(0)], 0)
    depth = depth_behind(scene.points, scene.faces, seen)
    return labels[:, None], torch.where(labels >= FACE_MODEL, depth, 0.0)[:, None]
