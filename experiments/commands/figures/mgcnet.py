"""MGCNet's figures 2 to 4 and 7b: epipolar lines, views synthesized from other views, and one face in many poses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from datamodules.batch import MultiViewBatch
from datamodules.synthesis.scenes import sample_background
from experiments.commands.evaluate.pictures import COLORS
from experiments.commands.figures.people import (
    LARGE,
    Picture,
    Request,
    enlarged,
    lines,
    targets,
    true_coefficients,
)
from experiments.commands.figures.sheet import Sheet, draw_sheet, fitted
from lightning_modules.base import FaceModule
from lightning_modules.components.panels import clay
from lightning_modules.mgcnet import MGCNet
from lightning_modules.mgcnet.view_pairs import ViewPairs
from losses.multiview import essential_matrix, pixel_consistency_loss
from renderers.camera import default_intrinsics, rays
from renderers.coefficients import Coefficients
from renderers.face_renderer import FaceRenderer, Rendering
from renderers.landmarks68 import CHIN, LEFT_EYE_CORNERS, MOUTH_CORNERS, NOSE_TIP, RIGHT_EYE_CORNERS
from renderers.view_synthesis import SynthesizedView, covisible_map, synthesize_view

MODULE = MGCNet
SHOWN = (RIGHT_EYE_CORNERS[0], LEFT_EYE_CORNERS[1], NOSE_TIP, *MOUTH_CORNERS, CHIN)  # landmarks that have a line
YAWS = (-80, -60, 0, 60, 80)  # degrees, of the paper's rendered scans
GAIN = 3.0  # a difference is shown so many times as bright as it is
DIMMED = 0.25  # brightness of what two views do not share
WIDTH, DOT = 4, 7  # pixels of a line, and of a dot's radius, in a picture of `LARGE`


def figures(request: Request) -> Iterator[Picture]:
    """`epipolar`, `synthesis` and `poses`."""
    batch = request.batch()
    rendering = request.module.reconstruct(batch.image, batch.skin, batch.intrinsics).rendering
    true = FaceRenderer(request.module.face_model, batch.size)(
        true_coefficients(request.module.face_model, batch), batch.intrinsics
    )
    labels = pair_labels(batch, request.first)
    yield "epipolar", draw_sheet(replace(epipolar_sheet(batch, rendering, true), rows=labels))
    yield "synthesis", draw_sheet(replace(synthesis_sheet(batch, rendering, true), rows=labels))
    yield "poses", draw_sheet(poses_sheet(request))


def epipolar_sheet(batch: MultiViewBatch, rendering: Rendering, true: Rendering) -> Sheet:
    """Landmarks in each target view, and their lines in its source views, by the true poses and by those found.

    Args:
        batch: of groups of views.
        rendering: what the network makes of it.
        true: the faces that it shows.
    """
    target, source = batch.pairs()
    shown = list(SHOWN)
    columns = {"target": _marked(batch.image[target], batch.landmarks[target][:, shown])}
    notes = {"target": [""] * len(target)}
    for heading, drawn in (("source, true lines", true), ("source, lines found", rendering)):
        pairs = ViewPairs.of(batch, drawn)
        pose = *pairs.cameras, pairs.rotation, pairs.translation
        found = epipolar_lines(batch.landmarks[target], *pose)
        columns[heading] = _marked(batch.image[source], batch.landmarks[source][:, shown], found[:, shown])
        off = distances(found, batch.landmarks[source]).mean(dim=1) / batch.size[1]
        notes[heading] = lines("{:.1f} % of the picture off", 100 * off)
    return Sheet("epipolar", columns, notes=notes)


def epipolar_lines(
    points: Tensor, intrinsics_target: Tensor, intrinsics_source: Tensor, rotation: Tensor, translation: Tensor
) -> Tensor:
    """Where the points of target views may lie in source views: a x + b y + c = 0 in pixels, a and b of length 1.

    Args:
        points: (P, N, 2) pixels of the target views.
        intrinsics_target: (P, 3, 3) pixels, zero skew.
        intrinsics_source: (P, 3, 3) likewise.
        rotation: (P, 3, 3) from target to source, see `renderers.camera.relative_pose`.
        translation: (P, 3) decimetres, not 0: without a baseline there are no lines.

    Returns:
        (P, N, 3) a, b, c.
    """
    essential = essential_matrix(rotation, translation)
    in_camera = rays(points, intrinsics_target) @ essential.transpose(-1, -2)
    found = in_camera @ torch.linalg.inv(intrinsics_source)
    return found / torch.linalg.vector_norm(found[..., :2], dim=-1, keepdim=True).clamp_min(1e-12)


def distances(found: Tensor, points: Tensor) -> Tensor:
    """(P, N) pixels between lines (P, N, 3) and points (P, N, 2)."""
    return ((found[..., :2] * points).sum(dim=-1) + found[..., 2]).abs()


def synthesis_sheet(batch: MultiViewBatch, rendering: Rendering, true: Rendering) -> Sheet:
    """Each target view beside what is made of it from a source view, and what difference remains (equations 2 and 3).

    Args:
        batch: of groups of views.
        rendering: what the network makes of it.
        true: the faces that it shows.
    """
    target, source = batch.pairs()
    wanted, given = batch.image[target], batch.image[source]
    exact, view = synthesized(batch, true), synthesized(batch, rendering)
    shared, face = shared_pixels(view, rendering, target, source), rendering.mask[target]
    truly = shared_pixels(exact, true, target, source)
    covisible = torch.where(shared, wanted, DIMMED * wanted)
    columns = {
        "target": wanted,
        "source": given,
        "synthesized, true face": torch.where(true.mask[target], exact.image, 0.0),
        "synthesized, face found": torch.where(face, view.image, 0.0),
        "covisible map": covisible,
        f"difference x {GAIN:g}, covisible": GAIN * torch.where(shared, (view.image - wanted).abs(), 0.0),
        f"difference x {GAIN:g}, whole face": GAIN * torch.where(face, (view.image - wanted).abs(), 0.0),
    }
    compared = (
        ("source", given, truly),
        ("synthesized, true face", exact.image, truly),
        ("synthesized, face found", view.image, shared),
    )
    notes = {
        heading: lines("difference {:.3f}", pixel_consistency_loss(one, wanted, part))
        for heading, one, part in compared
    }
    return Sheet("synthesis", columns, notes=notes)


def synthesized(batch: MultiViewBatch, rendering: Rendering) -> SynthesizedView:
    """The target views made from the source views, by the depth and the poses of these faces."""
    pairs = ViewPairs.of(batch, rendering)
    depth_source, depth_target = rendering.depth[pairs.source], rendering.depth[pairs.target]
    pose = *pairs.cameras, pairs.rotation, pairs.translation
    return synthesize_view(batch.image[pairs.source], depth_source, depth_target, *pose)


def shared_pixels(view: SynthesizedView, rendering: Rendering, target: Tensor, source: Tensor) -> Tensor:
    """(P, 1, H, W) bool: where a target view shows what its source view shows too."""
    seen, vertices = rendering.fragments.pix_to_face, rendering.vertices.shape[1]
    return view.inside & covisible_map(seen[target], seen[source], rendering.faces, vertices)


def poses_sheet(request: Request) -> Sheet:
    """Each person in the poses of the paper's rendered scans: the picture, the true shape, and the shape found."""
    module, batch = request.module, targets(request.batch())
    columns: dict[str, list[Tensor]] = {}
    notes: dict[str, list[str]] = {}
    for row in range(len(batch)):
        person = true_coefficients(module.face_model, batch).index(slice(row, row + 1))
        true, image = posed(module, person, request.first + row)
        found = module.reconstruct(image, None, default_intrinsics(module.image_size).expand(len(YAWS), 3, 3))
        yaw = torch.rad2deg(found.coefficients.angles[:, 1])
        panels = (fitted(image, LARGE), clay(enlarged(true)), clay(enlarged(found.rendering)))
        for place, degrees in enumerate(YAWS):
            heading = f"yaw {degrees}\N{DEGREE SIGN}"
            columns.setdefault(heading, []).extend(panel[place] for panel in panels)
            notes.setdefault(heading, []).extend(["", "", f"found {float(yaw[place]):.1f}\N{DEGREE SIGN}"])
    labels = [name for row in range(len(batch)) for name in (f"person {request.first + row}", "truth", "answer")]
    return Sheet("poses", {heading: torch.stack(panels) for heading, panels in columns.items()}, labels, notes)


def posed(module: FaceModule, person: Coefficients, number: int) -> tuple[Rendering, Tensor]:
    """A person turned by each of `YAWS`, the head upright and in the middle: the faces, and pictures of them.

    Args:
        module: whose face model and image size draw them.
        person: of one face.
        number: the person's, which decides about the background.
    """
    layout = module.face_model.layout()
    turned = layout.split(layout.join(person).repeat(len(YAWS), 1))
    angles = torch.zeros(len(YAWS), 3)
    angles[:, 1] = torch.deg2rad(torch.tensor(YAWS, dtype=torch.float32))
    turned = replace(turned, angles=angles, translation=torch.zeros_like(turned.translation))
    rendering = FaceRenderer(module.face_model, module.image_size)(turned)
    behind = torch.as_tensor(sample_background(module.image_size, np.random.default_rng(number)))
    return rendering, torch.where(rendering.mask, rendering.image.clamp(0, 1), behind)


def pair_labels(batch: MultiViewBatch, first: int) -> list[str]:
    """A label for each pair of views; `first` is the number of the first person."""
    assert batch.views is not None
    people, views = batch.views.shape
    return [f"person {first + row}\nsource {view + 1}" for row in range(people) for view in range(views - 1)]


def _marked(pictures: Tensor, points: Tensor, found: Tensor | None = None) -> Tensor:
    """(P, 3, `LARGE`, `LARGE`): pictures with dots at points (P, N, 2) and with lines (P, N, 3), in N colours."""
    scale, drawn = LARGE / pictures.shape[-1], []
    for row, picture in enumerate(fitted(pictures, LARGE)):
        canvas = Image.fromarray((picture.permute(1, 2, 0) * 255).round().byte().numpy())
        pen = ImageDraw.Draw(canvas)
        for index, (x, y) in enumerate((scale * points[row]).tolist()):
            color = COLORS[index % len(COLORS)]
            if found is not None:
                a, b, c = found[row, index].tolist()
                pen.line(_ends(a, b, scale * c), color, WIDTH)
            pen.ellipse((x - DOT, y - DOT, x + DOT, y + DOT), color, "white", 1)
        drawn.append(torch.from_numpy(np.array(canvas)).permute(2, 0, 1).float() / 255)
    return torch.stack(drawn)


def _ends(a: float, b: float, c: float) -> Sequence[float]:
    """x, y, x, y of a line's ends, beyond a picture of `LARGE`: the pen cuts it off."""
    x, y = -a * c, -b * c  # the point nearest to the picture's corner
    return x - 3 * LARGE * b, y + 3 * LARGE * a, x + 3 * LARGE * b, y - 3 * LARGE * a
