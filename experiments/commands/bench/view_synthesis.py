"""Covisible maps and synthesized views of all pairs at once, forward and backward, against pair after pair."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from experiments.commands.bench.measure import Row, race
from experiments.commands.bench.meshes import face_like_model
from renderers.camera import NEAR, default_intrinsics, relative_pose
from renderers.face_renderer import FaceRenderer
from renderers.view_synthesis import covisible_map, synthesize_view

FACES = 70_789
SIZE = 224
PAIRS = 8


@dataclass
class Pairs:
    """What P (target, source) pairs of views are synthesized from.

    Attributes:
        image: (P, 3, H, W) of the source.
        depth_source, depth_target: (P, 1, H, W) decimetres.
        seen_source, seen_target: (P, H, W) face index.
        intrinsics: (P, 3, 3).
        rotation, translation: (P, 3, 3) and (P, 3), from target to source.
        faces: (F, 3).
        vertex_count: V.
    """

    image: Tensor
    depth_source: Tensor
    depth_target: Tensor
    seen_source: Tensor
    seen_target: Tensor
    intrinsics: Tensor
    rotation: Tensor
    translation: Tensor
    faces: Tensor
    vertex_count: int

    @property
    def leaves(self) -> tuple[Tensor, ...]:
        """What the gradient reaches."""
        return self.image, self.depth_source, self.depth_target, self.rotation, self.translation


def face_pairs(pairs: int, faces: int, size: int, device: torch.device) -> Pairs:
    """The face-like mesh from the front, and turned by up to 30 degrees to either side as the sources."""
    model = face_like_model(faces, identity=1, expression=1, albedo=1).to(device)
    layout = model.layout()
    coefficients = layout.split(torch.zeros(2 * pairs, layout.length, device=device))
    coefficients.angles[pairs:, 1] = torch.linspace(-0.5, 0.5, pairs, device=device)
    with torch.no_grad():
        rendering = FaceRenderer(model, size).to(device)(coefficients)
        pose = relative_pose(
            rendering.rotation[:pairs],
            rendering.translation[:pairs],
            rendering.rotation[pairs:],
            rendering.translation[pairs:],
        )
    seen = rendering.fragments.pix_to_face
    made = Pairs(
        image=rendering.image[pairs:],
        depth_source=rendering.depth[pairs:],
        depth_target=rendering.depth[:pairs],
        seen_source=seen[pairs:],
        seen_target=seen[:pairs],
        intrinsics=default_intrinsics(size, device).expand(pairs, 3, 3),
        rotation=pose[0],
        translation=pose[1],
        faces=model.faces,
        vertex_count=model.vertex_count,
    )
    for leaf in made.leaves:
        leaf.requires_grad_()
    return made


def together(pairs: Pairs) -> Tensor:
    """(P,) mean covisible colour and depth of every pair, by this project's functions."""
    view = synthesize_view(
        pairs.image, pairs.depth_source, pairs.depth_target,
        pairs.intrinsics, pairs.intrinsics, pairs.rotation, pairs.translation,
    )  # fmt: skip
    shared = view.inside & covisible_map(pairs.seen_target, pairs.seen_source, pairs.faces, pairs.vertex_count)
    error = torch.where(shared, view.image.mean(dim=1, keepdim=True) + view.depth, 0.0)
    return error.flatten(1).sum(dim=1) / shared.flatten(1).sum(dim=1).clamp_min(1)


def one_by_one(pairs: Pairs) -> Tensor:
    """The same, with sets of vertices and matrices over every pixel, for one pair after another."""
    height, width = pairs.seen_target.shape[1:]
    columns = torch.arange(width, device=pairs.image.device) + 0.5
    rows = torch.arange(height, device=pairs.image.device) + 0.5
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    homogeneous = torch.stack([x, y, torch.ones_like(x)]).flatten(1)
    means = []
    for pair in range(len(pairs.image)):
        target, source = pairs.seen_target[pair], pairs.seen_source[pair]
        shown = [pairs.faces[view[view >= 0].unique()].unique() for view in (target, source)]
        common = shown[0][torch.isin(shown[0], shown[1])]
        covisible = torch.isin(pairs.faces, common).any(dim=1)[target.clamp_min(0)] & (target >= 0)

        inverse = torch.linalg.inv(pairs.intrinsics[pair])
        depth = pairs.depth_target[pair].flatten()
        moved = pairs.rotation[pair] @ (inverse @ homogeneous * depth) + pairs.translation[pair, :, None]
        in_front = (depth > NEAR) & (moved[2] > NEAR)
        pixels = pairs.intrinsics[pair] @ (moved / torch.where(in_front, moved[2], 1.0))
        grid = torch.stack([2 * pixels[0] / width - 1, 2 * pixels[1] / height - 1], dim=-1).view(height, width, 2)
        sampled = [
            functional.grid_sample(layer[None], grid[None], padding_mode="border", align_corners=False)[0]
            for layer in (pairs.image[pair], pairs.depth_source[pair], (pairs.depth_source[pair] <= 0).float())
        ]
        inside = in_front.view(height, width) & (grid.abs() <= 1).all(dim=-1) & (sampled[2][0] <= 0)
        seen = inverse @ torch.cat([pixels[:2], torch.ones_like(pixels[:1])]) * sampled[1].flatten()
        back = pairs.rotation[pair].T @ (seen - pairs.translation[pair, :, None])
        error = (sampled[0].mean(dim=0) + back[2].view(height, width))[inside & covisible]
        means.append(error.sum() / max(len(error), 1))
    return torch.stack(means)


def run(device: torch.device) -> Iterator[Row]:
    """One row: pictures, depths and poses have a gradient."""
    pairs = face_pairs(PAIRS, FACES, SIZE, device)

    def trained(synthesize: Callable[[Pairs], Tensor]) -> Callable[[], None]:
        def step() -> None:
            torch.autograd.grad(synthesize(pairs).sum(), pairs.leaves)

        return step

    case = f"views and covisible maps: {len(pairs.faces):,} faces, {SIZE} px, {PAIRS} pairs"
    yield race("view_synthesis", case, device, trained(together), "pair after pair", trained(one_by_one))
