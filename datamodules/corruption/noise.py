"""Noise of five kinds, from hardly visible to heavy (ROGUE, section 4.1 and its supplement)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from scipy import stats
from torch import Tensor, nn

from datamodules.corruption.draws import Corrupted, Draws
from renderers.io.errors import UserError
from renderers.raster.interpolation import pixel_centres

GAUSSIAN_DEVIATION = (0.05, 0.4)
SALT_AND_PEPPER_RATE = (0.03, 0.5)
POISSON_PEAK = (3.0, 30.0)
SPECKLE_DEVIATION = (0.1, 0.8)
PERIODIC_AMPLITUDE = (0.08, 0.45)
PERIODIC_CYCLES = (4.0, 24.0)
POISSON_TAIL = 1e-5  # probability of the counts that are never drawn, because single precision cannot resolve them


def gaussian(image: Tensor, strength: Tensor, draws: Draws) -> Tensor:
    """image + deviation * normal, with a random number for every value.

    Args:
        image: (B, 3, H, W) in [0, 1].
        strength: (B,) in [0, 1], from the least to the greatest deviation.
        draws: source of the random numbers.

    Returns:
        (B, 3, H, W), not clamped.
    """
    return image + _between(GAUSSIAN_DEVIATION, strength) * draws.normal(*image.shape)


def salt_and_pepper(image: Tensor, strength: Tensor, draws: Draws) -> Tensor:
    """A share of the pixels becomes white or black, equally often; arguments as `gaussian`."""
    rate = _between(SALT_AND_PEPPER_RATE, strength)
    chance = draws.uniform(len(image), 1, *image.shape[2:])
    replaced = torch.where(chance < rate / 2, 0.0, 1.0)
    return torch.where(chance < rate, replaced, image)


def poisson(image: Tensor, strength: Tensor, draws: Draws) -> Tensor:
    """Photon noise: counts with the mean peak * image, divided by the peak. Fewer photons make stronger noise.

    Each count inverts the distribution function at a uniform number of its own, so that the values are independent.
    Arguments as `gaussian`.
    """
    least, most = POISSON_PEAK
    peak = most * (least / most) ** strength.view(-1, 1, 1, 1)
    mean = image.clamp_min(0) * peak
    chance = draws.uniform(*image.shape, high=1 - POISSON_TAIL)
    probability = torch.exp(-mean)
    cumulated = probability.clone()
    count, beyond = torch.zeros_like(mean), torch.empty_like(mean)
    greatest = int(stats.poisson.ppf(1 - POISSON_TAIL, float(mean.max())))
    for k in range(1, greatest + 1):
        count += torch.ge(chance, cumulated, out=beyond)
        probability.mul_(mean).div_(k)
        cumulated += probability
    return count / peak


def speckle(image: Tensor, strength: Tensor, draws: Draws) -> Tensor:
    """image * (1 + deviation * normal), with a random number for every value; arguments as `gaussian`."""
    return image * (1 + _between(SPECKLE_DEVIATION, strength) * draws.normal(*image.shape))


def periodic(image: Tensor, strength: Tensor, draws: Draws) -> Tensor:
    """A grey plane wave in a random direction, like electrical interference; arguments as `gaussian`."""
    height, width = image.shape[2:]
    cycles = _between(PERIODIC_CYCLES, draws.uniform(len(image)))
    angle, phase = draws.uniform(2, len(image), 1, 1, 1, high=2 * math.pi)
    x, y = pixel_centres(height, width, strength).unbind(dim=-1)
    along = (x * torch.cos(angle) + y * torch.sin(angle)) / max(height, width)
    wave = torch.sin(2 * math.pi * cycles * along + phase)
    return image + _between(PERIODIC_AMPLITUDE, strength) * wave


def _between(ends: tuple[float, float], part: Tensor) -> Tensor:
    """(B,) in [0, 1] -> (B, 1, 1, 1) between two ends."""
    low, high = ends
    return (low + (high - low) * part).view(-1, 1, 1, 1)


_KINDS: Mapping[str, Callable[[Tensor, Tensor, Draws], Tensor]] = {
    "gaussian": gaussian,
    "salt_and_pepper": salt_and_pepper,
    "poisson": poisson,
    "speckle": speckle,
    "periodic": periodic,
}
NOISE_KINDS = tuple(_KINDS)


class Noise(nn.Module):
    """Adds noise of a random kind to every image, with a strength that is uniform between two ends.

    The strengths, for images in [0, 1]:
        gaussian: standard deviation 0.05 to 0.4.
        salt_and_pepper: 3 to 50 % of the pixels.
        poisson: 30 down to 3 photons at white, uniform in the logarithm.
        speckle: relative standard deviation 0.1 to 0.8.
        periodic: amplitude 0.08 to 0.45, 4 to 24 cycles across the image's longer side.

    Args:
        kinds: the possible kinds, all equally frequent.

    Raises:
        UserError: an unknown kind, or none.
    """

    def __init__(self, kinds: Sequence[str] = NOISE_KINDS) -> None:
        super().__init__()
        if not kinds or not set(kinds) <= set(NOISE_KINDS):
            raise UserError(f"no noise of the kinds {list(kinds)}: choose among {', '.join(NOISE_KINDS)}")
        self.kinds = tuple(kinds)

    @torch.no_grad()
    def forward(self, image: Tensor, landmarks: Tensor, generator: torch.Generator | None = None) -> Corrupted:
        """The images with noise.

        Args:
            image: (B, 3, H, W) in [0, 1].
            landmarks: (B, 68, 2) pixels; not used, because noise falls everywhere.
            generator: the same state draws the same; torch's own where absent.

        Returns:
            Images clamped to [0, 1]; the mask is where a channel changed.
        """
        draws = Draws(generator, image.device)
        kind = draws.integers(len(image), high=len(self.kinds))
        strength = draws.uniform(len(image))
        noisy = image.clone()
        for index, name in enumerate(self.kinds):
            rows = (kind == index).nonzero().squeeze(1)
            if len(rows):
                noisy[rows] = _KINDS[name](image[rows], strength[rows], draws).clamp(0, 1).to(image.dtype)
        return Corrupted(noisy, (noisy != image).any(dim=1, keepdim=True))
