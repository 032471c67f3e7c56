"""What the synthetic scenes vary over, and what one of them is drawn from: people, poses, lights, backgrounds."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from datamodules.synthesis.people import HeadSettings
from renderers.camera import euler_to_rotation
from renderers.face_models.base import MorphableModel
from renderers.face_models.sampling import sample_shape_coefficients
from renderers.illumination import AMBIENT, turned_light

LATER_SETTINGS = ("side_light", "specular", "ggx", "texture_detail", "displacement", "heads")
LAMP_ANGLE = 60.0  # degrees from the viewing axis, at most
LAMP_SPREAD = 0.15  # standard deviation of its tangents around those of the diffuse light's dominant direction
LAMP_DISTANCE = (6.0, 20.0)  # decimetres from the origin
SHININESS = (6.0, 32.0)  # of skin: a roughness of about 0.25 to 0.5
INTENSITY = (1.0, 4.0)
EXPOSURE = 0.7  # of the diffuse light where there are highlights, so that these seldom end in white


@dataclass(frozen=True)
class SceneSettings:
    """What the synthetic scenes vary over.

    Attributes:
        views: images of each face (one identity, one expression), the target in the middle.
        max_yaw: degrees; no view turns further.
        view_gap: degrees; (least, most) yaw between the target and a source view.
        light_strength: standard deviation of the directional light against the ambient 0.8.
        light_change: how much of the light is drawn anew for each view; 0 keeps one light, 1 keeps nothing.
        light_turns: the views' common light belongs to the head and turns with it in the pictures, as when several
            cameras stand around a head that keeps still: a point of the face has one colour in all views. Else it
            belongs to the room: the head turns before one camera. The target's view has the same light either way.
        side_light: what is added to the standard deviation, 0.6, of the light's place aside (1 is 45 degrees): light
            that grazes the skin shows its relief. The ambient light is dimmed with it, or much would end in white.
        specular: a lamp puts highlights on the faces, which the truth then holds beside the diffuse pictures; the
            diffuse light is dimmed to `EXPOSURE` of what it is without. Light is linear there (`renderers.color`). The
            lamp stands about where most of the diffuse light comes from.
        ggx: highlights have the lobe of `reflectance.ggx` and not Blinn-Phong's, which is how the answers are drawn.
        texture_detail: how strongly every person's skin is painted with what no linear albedo holds, freckles, beard
            shadow, make-up: 1 as people have it, 0 not at all.
        displacement: every person has wrinkles that deepen with the expression. With this or the one before, images are
            shaded pixel by pixel, and the truth of val and test holds the vertices' albedo and the normals.
        heads: whole heads with hair, clothes and things in real light (`synthetic_heads`) instead of the face alone.
    """

    views: int = 3
    max_yaw: float = 80.0
    view_gap: tuple[float, float] = (10.0, 40.0)
    light_strength: float = 0.35
    light_change: float = 0.0
    light_turns: bool = True
    side_light: float = 0.0
    specular: bool = False
    ggx: bool = False
    texture_detail: float = 0.0
    displacement: bool = False
    heads: HeadSettings | None = None

    @property
    def detailed(self) -> bool:
        """Whether faces have detail beyond the face model's."""
        return self.texture_detail > 0 or self.displacement

    def key(self) -> dict[str, Any]:
        """What the scenes depend on; a setting that came later is named only where it changes something."""
        named = {name: value for name, value in asdict(self).items() if value or name not in LATER_SETTINGS}
        if self.views == 1:  # one view has nobody to share its light with
            del named["light_turns"]
        return named


def sample_scene(
    face_model: MorphableModel, settings: SceneSettings, generator: np.random.Generator
) -> dict[str, np.ndarray]:
    """Coefficients of one face in every view, drawn from `generator` alone.

    Returns:
        name -> (views, n) float32, for every name of the face model's layout; with `settings.specular` also
        light_position in decimetres, shininess and intensity.
    """
    views = settings.views
    face = sample_shape_coefficients(face_model, 1, generator)
    named = {name: np.repeat(value, views, axis=0) for name, value in face.items()}
    target_yaw = generator.uniform(-settings.max_yaw, settings.max_yaw)
    steps = np.arange(views) - views // 2
    yaw = target_yaw + steps * generator.uniform(*settings.view_gap, size=views)
    # A view that would turn too far is reflected back, so that profile views stay as frequent as the others.
    yaw = np.where(np.abs(yaw) > settings.max_yaw, np.sign(yaw) * 2 * settings.max_yaw - yaw, yaw)
    pitch = generator.normal(0, 10, size=views).clip(-25, 25)
    roll = generator.normal(0, 7, size=views).clip(-20, 20)
    named["angles"] = np.deg2rad(np.stack([pitch, yaw, roll], axis=-1))
    named["translation"] = generator.normal(0, (0.08, 0.08, 0.35), size=(views, 3)).clip(-1, 1)
    kept = np.sqrt(1 - settings.light_change**2)
    common = np.repeat(_sample_light(settings, generator).reshape(1, 27), views, axis=0)
    own = np.stack([_sample_light(settings, generator) for _ in range(views)]).reshape(views, 27)
    turns = head_turns(torch.as_tensor(named["angles"])) if settings.light_turns else torch.eye(3).expand(views, 3, 3)
    turns = turns.double()
    turned = turned_light(torch.as_tensor(common), turns).numpy()
    named["illumination"] = kept * turned + settings.light_change * own
    if settings.specular:
        toward = dominant_aside(common[0])
        weights = named["illumination"].reshape(views, 3, 9)
        weights[..., 0] += AMBIENT
        weights *= EXPOSURE
        weights[..., 0] -= AMBIENT
        # Last, so that the same seed draws the same people with and without highlights.
        change, shared = settings.light_change, generator.standard_normal(3)
        lamps = [kept * shared + change * generator.standard_normal(3) for _ in range(views)]
        positions = np.stack([lamp_position(toward, lamp) for lamp in lamps])
        named["light_position"] = (turns.numpy() @ positions[..., None])[..., 0]
        for name, limits in (("shininess", SHININESS), ("intensity", INTENSITY)):
            named[name] = np.full((views, 1), np.exp(generator.uniform(*np.log(limits))))
    return {name: value.astype(np.float32) for name, value in named.items()}


def head_turns(angles: torch.Tensor) -> torch.Tensor:
    """(S, 3, 3): how the head is turned in each of S views against the target, the middle one, of (S, 3) radians."""
    rotation = euler_to_rotation(angles)
    return rotation @ rotation[len(rotation) // 2].T


def _sample_light(settings: SceneSettings, generator: np.random.Generator) -> np.ndarray:
    """(3, 9) spherical-harmonics weights: a brightness, one soft light from the front, a little colour."""
    weights = np.zeros((3, 9))
    weights[:, 0] = generator.normal(0.15 - 0.4 * settings.side_light, 0.15)
    x, y = generator.normal(0, 0.6 + settings.side_light), generator.normal(0.25, 0.5)
    direction = np.array([x, y, 1.0]) / np.sqrt(x * x + y * y + 1)
    strength = abs(generator.normal(0, settings.light_strength))
    # The basis holds -y, z, -x in its first band (renderers/illumination.py).
    weights[:, 1:4] = strength * np.array([-direction[1], direction[2], -direction[0]])
    weights[:, 4:] = generator.normal(0, 0.04, size=5)
    tint = 1 + generator.normal(0, 0.06, size=(3, 1))
    return weights * tint + generator.normal(0, 0.015, size=(3, 9))


def dominant_aside(illumination: np.ndarray) -> np.ndarray:
    """(27,) weights -> (2,) tangents, to the right and upwards, of the direction that most of the light comes from."""
    y, z, x = illumination.reshape(3, 9)[:, 1:4].mean(axis=0) * [-1, 1, -1]  # the basis holds -y, z, -x
    return np.array([x, y]) / max(z, 1e-6)


def lamp_position(toward: np.ndarray, lamp: np.ndarray) -> np.ndarray:
    """Where a lamp stands, (3,) decimetres.

    Within `LAMP_ANGLE` of the viewing axis; the distance is log-uniform in `LAMP_DISTANCE`.

    Args:
        toward: (2,) tangents of the direction that it is expected in.
        lamp: (3,) standard normal numbers.
    """
    aside = toward + LAMP_SPREAD * lamp[:2]
    aside *= min(1.0, math.tan(math.radians(LAMP_ANGLE)) / float(np.hypot(*aside)))
    near, far = LAMP_DISTANCE
    distance = near * (far / near) ** (0.5 + 0.5 * math.erf(lamp[2] / math.sqrt(2)))
    return distance * np.append(aside, 1.0) / np.hypot(1.0, np.hypot(*aside))


def sample_background(size: int, generator: np.random.Generator) -> np.ndarray:
    """(3, size, size) in [0, 1]: soft patches of colour, some with bars, and fine grain."""
    cells = int(generator.integers(2, 9))
    coarse = torch.as_tensor(generator.uniform(0, 1, size=(1, 3, cells, cells)))
    mode = "bicubic" if generator.random() < 0.6 else "nearest"
    picture = torch.nn.functional.interpolate(coarse, size=(size, size), mode=mode)[0].numpy()
    if generator.random() < 0.3:
        axis = np.linspace(0, generator.uniform(3, 20) * np.pi, size)
        bars = (np.sin(axis + generator.uniform(0, 6)) > 0) * generator.uniform(-0.4, 0.4)
        picture = picture + (bars[None, :] if generator.random() < 0.5 else bars[:, None])
    contrast = generator.uniform(0.2, 1.0)
    picture = 0.5 + contrast * (picture - 0.5) + generator.normal(0, 0.03, size=picture.shape)
    return picture.clip(0, 1).astype(np.float32)
