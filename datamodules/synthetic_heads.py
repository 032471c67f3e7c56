"""Whole heads in real light, with hair, clothes and things: pictures that resemble photographs, with exact truth."""

from __future__ import annotations

from functools import cached_property, lru_cache

import numpy as np
import torch
from torch import Tensor

from datamodules.batch import MultiViewBatch
from datamodules.synthesis.backgrounds import sample_background
from datamodules.synthesis.facial_detail import FacialDetail
from datamodules.synthesis.head_geometry import HAIRDOS, HeadGeometry
from datamodules.synthesis.head_scene import compose, labelled, visible
from datamodules.synthesis.lighting import sample_light
from datamodules.synthesis.parsing import batch_of
from datamodules.synthesis.people import SKINS, HeadSettings, sample_camera, sample_gaze, sample_looks
from datamodules.synthesis.scenes import head_turns, sample_scene
from datamodules.synthesis.shading import depth_behind, draw
from datamodules.synthesis.things import covered_marks, draw_things, sample_things
from datamodules.synthetic import SPLITS, SyntheticFaces
from renderers.camera import euler_to_rotation
from renderers.coefficients import Coefficients
from renderers.face_models.linear import LinearModel

TEXTURE_SIZE = 128
MODES = {"brow_brightness": 7, "brow_density": 9, "iris_blue": 11, "iris_green": 12}
"""Columns of the default model's albedo, see `renderers.face_models.default.albedo.feature_modes`."""
LOOKS, CAMERA, LIGHT, BACKGROUND, THINGS = range(3, 8)  # numbers of random streams; `SyntheticFaces` has 1 and 2


@lru_cache(maxsize=1)
def geometry_of(face_model: LinearModel, size: int) -> HeadGeometry:
    """The heads' geometry. It is built when the first head is drawn, and all splits share it."""
    return HeadGeometry(face_model, size)


@lru_cache(maxsize=1)
def _painter(face_model: LinearModel) -> FacialDetail:
    return FacialDetail(face_model, TEXTURE_SIZE)


@lru_cache(maxsize=SKINS)
def skin_texture(face_model: LinearModel, number: int) -> Tensor:
    """(3, R, R) texture of `FacialDetail` number `number`; several people may have the same."""
    return _painter(face_model).texture(np.random.default_rng([number, SKINS]))


class SyntheticHeads(SyntheticFaces):
    """Whole heads. Item `index` holds all views of one person, and is a function of (seed, split, index) alone.

    The arguments are those of `SyntheticFaces`, whose `settings.heads` is given.
    """

    face_model: LinearModel

    @cached_property
    def geometry(self) -> HeadGeometry:
        """Built when the first head is drawn.

        Raises:
            UserError: no whole head is made for this face model.
        """
        return geometry_of(self.face_model, self.size)

    def __getitems__(self, indices: list[int]) -> MultiViewBatch:
        people = [self.person(index) for index in indices]
        joined = {name: torch.cat([person[name] for person in people]) for name in people[0]}
        maps = joined.pop("image"), joined.pop("parsing"), joined.pop("depth")
        return batch_of(*maps, joined, self.settings.views)

    def _stream(self, index: int, *stream: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, SPLITS.index(self.split), index, *stream])

    @torch.no_grad()
    def person(self, index: int) -> dict[str, Tensor]:
        """One person's views: image, parsing (with `FACE_MODEL` in it), depth, and the numbers of `NUMBERS`."""
        heads, geometry = self.settings.heads or HeadSettings(), self.geometry
        drawn = sample_scene(self.face_model, self.settings, self._stream(index))
        looks = self._stream(index, LOOKS)
        albedo, person = sample_looks(drawn["albedo"][0].astype(float), MODES, HAIRDOS, heads, looks)
        units = {name: column for column, name in enumerate(self.face_model.expression_names)}
        expression = sample_gaze(drawn["expression"][0].astype(float), units, looks)
        views = self.settings.views
        drawn["albedo"] = np.repeat(albedo[None], views, axis=0)
        drawn["expression"] = np.repeat(expression[None], views, axis=0)
        intrinsics, back = sample_camera(self.size, views, heads, self._stream(index, CAMERA))
        drawn["translation"][:, 2] = back
        turns = head_turns(torch.as_tensor(drawn["angles"])) if self.settings.light_turns else None
        change, chance = self.settings.light_change, self._stream(index, LIGHT)
        light, illumination = sample_light(views, change, not heads.environments, person.dark, chance, turns)
        named = {name: torch.as_tensor(value, dtype=torch.float32) for name, value in drawn.items()}
        coefficients = Coefficients.from_named({**named, "illumination": illumination})
        composed = compose(geometry, person, coefficients, intrinsics, skin_texture(self.face_model, person.skin))
        scene = composed.scene
        chance, plain = self._stream(index, BACKGROUND), not heads.backgrounds
        pairs = zip(intrinsics, light.turn, strict=True)
        behind = torch.stack([sample_background(self.size, k, light.panorama, r, plain, chance) for k, r in pairs])
        seen = scene.seen(self.size)
        image = draw(scene, light, seen, behind)
        marks = self.face_model.landmark_indices
        parsing, depth = labelled(composed, self.size)
        seen_marks = visible(scene.at_samples(), marks, scene.faces, seen)
        worn = sample_things(heads.things, person.beard_color, self._stream(index, THINGS))
        if worn:
            behind = depth_behind(scene.at_samples(), scene.faces, seen)
            rotation = euler_to_rotation(coefficients.angles)
            first = coefficients.index(slice(0, 1))
            marked = self.face_model.landmarks(self.face_model.shape(first.identity, first.expression))[0]
            layer = draw_things(
                worn, marked, composed.skin, rotation, coefficients.translation, intrinsics, light, behind
            )
            image = image * (1 - layer.opacity) + layer.color
            parsing = torch.where(layer.label > 0, layer.label, parsing)
            depth = torch.where(layer.label > 0, 0.0, depth)
            seen_marks &= ~covered_marks(layer.opacity, scene.points[:, marks, :2])
        return {
            "image": image,
            "landmarks": scene.points[:, marks, :2],
            "intrinsics": intrinsics,
            "coefficients": self.layout.join(coefficients),
            "depth": depth,
            "parsing": parsing,
            "landmarks_visible": seen_marks,
        }
