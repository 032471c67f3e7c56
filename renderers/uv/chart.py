"""UV space: maps of a face's surface, baked from its vertices and unwrapped from images.

A map is (B, C, R, R): row 0 is v = 1, column 0 is u = 0, texel (row i, column j) has its centre at
u = (j + 0.5) / R, v = 1 - (i + 0.5) / R. Texels that no face covers are 0 in every map that is made here.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sparse
import torch
from scipy.ndimage import distance_transform_edt
from scipy.sparse.csgraph import connected_components
from torch import Tensor, nn
from torch.nn.functional import grid_sample, pad

from renderers.camera import CAMERA_DISTANCE, NEAR
from renderers.constants import constant
from renderers.face_models.base import MorphableModel
from renderers.face_models.mesh_edit import vertex_neighbours
from renderers.face_models.symmetry import mirror_vertices
from renderers.face_renderer import Rendering
from renderers.fixed_sum import FixedSum
from renderers.io.errors import within
from renderers.raster import rasterize
from renderers.raster.interpolation import make_fragments

DEPTH_TOLERANCE = 0.03  # decimetres between a texel and the surface that its pixel shows
GRAZING = 0.2  # cosine to the line of sight below which a texel's visibility fades
EDGE_ON = 0.05  # of a vertex's stretch into the image: below this share its slope in depth is damped
FOLDED = 1e-3  # of the chart's mean stretch: where the surface has less, its slopes are damped
FLAT = 1e-24  # squared length of a vector that has no direction


class UVChart(nn.Module):
    """A face model's UV plane at one resolution. What depends on the model alone is made once, without a gradient.

    Where faces overlap in the plane (the cylindrical chart of a scanned model), the outermost one has the texel.

    Args:
        face_model: whose `uv` and `faces` are charted; the buffers stand on its device.
        size: R, texels along a side.

    Attributes:
        uv: (1, V, 2).
        mask: (1, 1, R, R) bool, texels whose centres a face covers.
        mirror_places: (1, 2, R, R) the u, v of each texel's mirror image across the face; 0 outside the chart.
    """

    uv: Tensor
    mask: Tensor
    outside: Tensor
    nearest: Tensor
    linked_across: Tensor
    linked_down: Tensor
    scale_across: Tensor
    scale_down: Tensor
    mirror_places: Tensor

    def __init__(self, face_model: MorphableModel, size: int = 256) -> None:
        super().__init__()
        self.size = within("the chart's size", size, 2, 4096)
        device = face_model.uv.device
        uv, faces = face_model.uv.cpu(), face_model.faces.cpu()
        corners, weights, mask = _rasterize_chart(uv, faces, face_model.mean_shape.cpu(), size)
        vertices, covered = face_model.vertex_count, np.flatnonzero(mask)
        texels = np.repeat(covered, 3), corners[covered].ravel()
        self.interpolation = FixedSum(
            sparse.csr_matrix((weights[covered].ravel(), texels), shape=(size * size, vertices))
        )
        self.tangents = FixedSum(_tangent_operator(uv.numpy(), faces.numpy()))
        self.register_buffer("uv", uv[None], persistent=False)
        self.register_buffer("mask", torch.from_numpy(mask).view(1, 1, size, size), persistent=False)

        nearest = distance_transform_edt(~mask.reshape(size, size), return_distances=False, return_indices=True)
        index = np.ravel_multi_index(tuple(nearest), (size, size)).ravel()
        self.register_buffer("outside", torch.from_numpy(np.flatnonzero(~mask)), persistent=False)
        self.register_buffer("nearest", torch.from_numpy(index[~mask]), persistent=False)
        part = connected_components(vertex_neighbours(faces.numpy(), vertices), directed=False)[1]
        self._link_neighbours(np.where(mask, part[corners[:, 0]], -1).reshape(size, size))
        self.register_buffer("mirror_places", self.bake(uv[mirror_vertices(face_model)][None]), persistent=False)
        area = _doubled_areas(face_model.mean_shape.cpu().numpy(), faces.numpy()).sum()
        self.least_stretch = FOLDED * float(area / np.abs(_signed_doubled_areas(uv.numpy()[faces.numpy()])).sum())
        self.to(device)

    def _link_neighbours(self, part: np.ndarray) -> None:
        """Notes which neighbouring texels lie on one connected part of the surface; (R, R) parts, -1 outside."""
        parts = torch.from_numpy(part)[None, None]
        for axis, name in ((3, "across"), (2, "down")):
            first, second = (parts.narrow(axis, start, self.size - 1) for start in (0, 1))
            linked = ((first == second) & (first >= 0)).float()
            before, after = _both_sides(linked, axis)
            self.register_buffer(f"linked_{name}", linked, persistent=False)
            self.register_buffer(f"scale_{name}", self.size / (before + after).clamp_min(1), persistent=False)

    def bake(self, attributes: Tensor) -> Tensor:
        """Vertex attributes as a map, linear within each face.

        Args:
            attributes: (B, V, C).

        Returns:
            (B, C, R, R)
        """
        batch, _, channels = attributes.shape
        texels = self.interpolation(_rows(attributes))
        return texels.T.contiguous().view(batch, channels, self.size, self.size)

    def places(self, rendering: Rendering) -> Tensor:
        """(B, 2, H, W) the u, v that each pixel shows; 0 on background."""
        return rendering.draw(self.uv.expand(len(rendering.vertices), -1, -1))

    def fill(self, maps: Tensor) -> Tensor:
        """(B, C, R, R) the maps with their texels outside the chart taken from the nearest inside."""
        flat = maps.flatten(2)
        return flat.index_copy(2, self.outside, flat.index_select(2, self.nearest)).view_as(maps)

    def sample(self, maps: Tensor, places: Tensor, smooth: bool = False) -> Tensor:
        """Bilinear samples, or bicubic ones; what stands in the maps outside the chart has no weight.

        Args:
            maps: (B, C, R, R).
            places: (B, 2, H, W) u, v, or (B, N, 2). Background pixels, at (0, 0), read the chart's nearest texel.
            smooth: bicubic.

        Returns:
            (B, C, H, W), or (B, N, C).
        """
        points = places.permute(0, 2, 3, 1) if places.dim() == 4 else places[:, None]
        u, v = points.unbind(-1)
        grid = torch.stack([2 * u - 1, 1 - 2 * v], dim=-1)
        mode = "bicubic" if smooth else "bilinear"
        sampled = grid_sample(self.fill(maps), grid, mode=mode, padding_mode="border", align_corners=False)
        return sampled if places.dim() == 4 else sampled[:, :, 0].transpose(1, 2)

    def unwrap(self, image: Tensor, rendering: Rendering) -> tuple[Tensor, Tensor]:
        """What an image shows of each texel, and how visible it is; differentiable in the image alone.

        A texel is compared with the four pixels around its projection: those whose drawn depth is the texel's own,
        carried to the pixel's centre along the surface's slope, show it. The color is their bilinear mean, so that
        neither background nor an occluding part of the face bleeds in; the visibility is their bilinear share, 0 where
        the surface turns away or the projection lies outside the image, and fading below a cosine of `GRAZING`.

        Args:
            image: (B, C, H, W).
            rendering: of the same B faces, drawn at H x W.

        Returns:
            Colors (B, C, R, R), 0 where no pixel shows the texel, and visibility (B, 1, R, R) in [0, 1].
        """
        batch, channels, height, width = image.shape
        with torch.no_grad():
            maps = self.bake(_seen_attributes(self.vertex_tangents(rendering.vertices_image), rendering)).flatten(2)
            x, y, depth, slope_x, slope_y, facing = maps.split(1, dim=1)
            x, y = x / depth.clamp_min(NEAR), y / depth.clamp_min(NEAR)
            inside = (x >= 0) & (x <= width) & (y >= 0) & (y <= height) & (depth > NEAR) & (facing > 0)
            left, top = ((place.clamp(-1, size + 1) - 0.5).floor() for place, size in ((x, width), (y, height)))
        pixels, drawn = image.flatten(2), rendering.depth.detach().flatten(2)
        colors = pixels.new_zeros(batch, channels, self.size * self.size)
        share = pixels.new_zeros(batch, 1, self.size * self.size)
        for column, row in ((left, top), (left + 1, top), (left, top + 1), (left + 1, top + 1)):
            with torch.no_grad():
                weight = (1 - (x - 0.5 - column).abs()).clamp_min(0) * (1 - (y - 0.5 - row).abs()).clamp_min(0)
                column, row = column.clamp(0, width - 1), row.clamp(0, height - 1)
                index = (row * width + column).nan_to_num(0).long()
                expected = depth + slope_x * (column + 0.5 - x) + slope_y * (row + 0.5 - y)
                found = drawn.gather(2, index)
                shown = inside & (found > 0) & ((found - expected).abs() < DEPTH_TOLERANCE)
                weight = torch.where(shown, weight, 0)
            colors = colors + weight * pixels.gather(2, index.expand(-1, channels, -1))
            share = share + weight
        colors = colors / torch.where(share > 0, share, 1)
        visibility = share.clamp(max=1) * torch.where(inside, facing / GRAZING, 0).clamp(max=1)
        square = (self.size, self.size)
        return colors.unflatten(2, square), visibility.unflatten(2, square)

    def vertex_tangents(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """How fast points move along u and along v: (B, V, C) -> twice (B, V, C), per unit of u and of v.

        The mean over the adjacent faces, weighted by their areas in the chart.
        """
        batch, count, channels = points.shape
        moved = self.tangents(_rows(points)).view(2, count, batch, channels).transpose(1, 2)
        return moved[0], moved[1]

    def surface_gradient(self, rendering: Rendering, heights: Tensor) -> Tensor:
        """grad_S of a function on the surface: a tangent vector, uphill, as long as the slope is steep.

        With tangents T_u, T_v and the normal n, grad_S d = (d_u (T_v x n) + d_v (n x T_u)) / (n . T_u x T_v)
        (Mikkelsen 2010, section 2); the vectors beside d_u and d_v are made at the vertices.

        Args:
            rendering: of B faces; differentiable in its vertices.
            heights: (B, 1, R, R); differentiable.

        Returns:
            (B, 3, R, R) camera space, per decimetre; 0 outside the chart.
        """
        normals = rendering.vertex_normals
        along_u, along_v = self.vertex_tangents(rendering.vertices)
        stretch = (normals * torch.linalg.cross(along_u, along_v)).sum(dim=-1, keepdim=True)
        inverse = stretch / (stretch.square() + self.least_stretch**2)
        across = torch.cat([torch.linalg.cross(along_v, normals), torch.linalg.cross(normals, along_u)], dim=-1)
        grad_u, grad_v = self.bake(across * inverse).split(3, dim=1)
        slope_u, slope_v = self.slopes(heights).split(1, dim=1)
        return slope_u * grad_u + slope_v * grad_v

    def slopes(self, heights: Tensor) -> Tensor:
        """The derivatives along u and v by central differences, one-sided at the chart's border.

        No difference reaches across the border, nor between parts of the surface that do not touch (an eye, its lids).

        Args:
            heights: (B, 1, R, R).

        Returns:
            (B, 2, R, R) per unit of u and of v; 0 outside the chart and where no neighbour is linked.
        """
        found = []
        for axis, linked, scale in ((3, self.linked_across, self.scale_across), (2, self.linked_down, self.scale_down)):
            steps = linked * heights.diff(dim=axis)
            before, after = _both_sides(steps, axis)
            found.append((before + after) * scale)
        return torch.cat([found[0], -found[1]], dim=1)  # rows run against v

    def normals(self, rendering: Rendering, displacement: Tensor) -> Tensor:
        """Normals of the displaced surface: n' = normalize(n - grad_S d) (Blinn 1978), n the interpolated ones.

        Args:
            rendering: of B faces; differentiable in its vertices.
            displacement: (B, 1, R, R) decimetres along the normals; differentiable.

        Returns:
            (B, 3, R, R) unit, camera space; 0 outside the chart. No displacement leaves n.
        """
        return unit(unit(self.bake(rendering.vertex_normals)) - self.surface_gradient(rendering, displacement))

    def mirror(self, maps: Tensor) -> Tensor:
        """(B, C, R, R) the maps of the mirrored faces: each texel reads the other side; 0 outside the chart."""
        places = self.mirror_places.to(maps.dtype).expand(len(maps), -1, -1, -1)
        return self.sample(maps, places) * self.mask


def unit(vectors: Tensor) -> Tensor:
    """(B, 3, H, W) to length 1; 0, without a gradient, where they are 0."""
    return vectors * vectors.square().sum(dim=1, keepdim=True).clamp_min(FLAT).rsqrt()


def _rows(attributes: Tensor) -> Tensor:
    """(B, V, C) -> (V, B * C)"""
    return attributes.transpose(0, 1).reshape(attributes.shape[1], -1)


def _both_sides(steps: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """The R - 1 steps between R texels, as each texel's step before it and after it; 0 at the ends."""
    before, after = ((1, 0), (0, 1)) if axis == 3 else ((0, 0, 1, 0), (0, 0, 0, 1))
    return pad(steps, before), pad(steps, after)


def _rasterize_chart(uv: Tensor, faces: Tensor, mean_shape: Tensor, size: int) -> tuple[np.ndarray, ...]:
    """Each texel's corners (R * R, 3), their weights (R * R, 3), and whether a face covers it (R * R)."""
    flat = torch.stack([uv[:, 0] * size, (1 - uv[:, 1]) * size, torch.ones_like(uv[:, 0])], dim=-1)
    radius = (mean_shape[:, 0].square() + (mean_shape[:, 2] - mean_shape[:, 2].min()).square()).sqrt()
    layered = torch.cat([flat[:, :2], (1 + radius.max() - radius)[:, None]], dim=-1)
    # Seen from outside, but with weights of the plane. Depth only decides which of two overlapping faces is drawn.
    seen = rasterize(layered[None], faces, (size, size)).pix_to_face
    fragments = make_fragments(flat[None], faces, seen)
    corners = faces[seen.clamp_min(0)].view(-1, 3)
    return corners.numpy(), fragments.barycentric.view(-1, 3).numpy(), fragments.mask.view(-1).numpy()


def _tangent_operator(uv: np.ndarray, faces: np.ndarray) -> sparse.csr_matrix:
    """(2V, V): of any vertex attribute its derivatives along u (first V rows) and along v at the vertices.

    In a face with signed doubled area D, db_0/du = (v_1 - v_2) / D and db_0/dv = (u_2 - u_1) / D, and so on in turn;
    the mean over a vertex's faces, weighted by |D|, never divides by one face's area.
    """
    count, corners = len(uv), uv[faces].astype(np.float64)
    doubled = _signed_doubled_areas(corners)
    ahead, behind = np.roll(corners, -1, axis=1), np.roll(corners, -2, axis=1)
    along_u = np.sign(doubled)[:, None] * (ahead[..., 1] - behind[..., 1])
    along_v = np.sign(doubled)[:, None] * (behind[..., 0] - ahead[..., 0])
    at, of = np.repeat(faces, 3, axis=1).ravel(), np.tile(faces, 3).ravel()  # every pair of a face's corners
    total = np.maximum(np.bincount(faces.ravel(), np.repeat(np.abs(doubled), 3), count), 1e-12)
    entries = [(np.tile(values, 3).ravel() / total[at]) for values in (along_u, along_v)]
    rows, columns = np.concatenate([at, at + count]), np.concatenate([of, of])
    return sparse.csr_matrix((np.concatenate(entries), (rows, columns)), shape=(2 * count, count))


def _signed_doubled_areas(corners: np.ndarray) -> np.ndarray:
    """(F, 3, 2) -> (F,) positive where counter-clockwise."""
    (ax, ay), (bx, by), (cx, cy) = corners.astype(np.float64).transpose(1, 2, 0)
    return (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)


def _doubled_areas(points: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """(F,) of triangles in space."""
    a, b, c = points[faces].astype(np.float64).transpose(1, 0, 2)
    return np.linalg.norm(np.cross(b - a, c - a), axis=-1)


def _seen_attributes(tangents: tuple[Tensor, Tensor], rendering: Rendering) -> Tensor:
    """What `unwrap` must know of each vertex.

    x and y are multiplied by the depth z, since x z, y z and z are linear on the surface where x and y are not.

    Args:
        tangents: of `rendering.vertices_image`, see `UVChart.vertex_tangents`.
        rendering: of B faces.

    Returns:
        (B, V, 6): x z, y z, z, the depth's slopes dz/dx and dz/dy in decimetres a pixel, cosine to the line of sight.
    """
    (x_u, y_u, z_u), (x_v, y_v, z_v) = (tangent.unbind(-1) for tangent in tangents)
    area = x_u * y_v - x_v * y_u
    stretch = (x_u.square() + x_v.square() + y_u.square() + y_v.square()) / 2
    inverse = area / (area.square() + (EDGE_ON * stretch).square()).clamp_min(FLAT)
    slope_x, slope_y = (z_u * y_v - z_v * y_u) * inverse, (x_u * z_v - x_v * z_u) * inverse
    to_camera = constant((0.0, 0.0, CAMERA_DISTANCE), rendering.vertices) - rendering.vertices
    facing = (rendering.vertex_normals * torch.nn.functional.normalize(to_camera, dim=-1)).sum(dim=-1)
    x, y, z = rendering.vertices_image.unbind(-1)
    return torch.stack([x * z, y * z, z, slope_x, slope_y, facing], dim=-1)
