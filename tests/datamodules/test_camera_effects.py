"""Each effect alone against what it should do; views of one person share a camera."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from datamodules.batch import MultiViewBatch
from datamodules.camera_effects import CameraEffects, CameraRanges
from renderers.color import decode, encode

ZERO, ONE = (0.0, 0.0), (1.0, 1.0)
NOTHING = CameraRanges(
    exposure=ZERO, white_balance=ZERO, gamma=ZERO, contrast=ZERO, saturation=ONE, grayscale=0, low_resolution=0,
    defocused=0, moved=0, noisy=0, sharpened=0, compressed=0,
)  # fmt: skip


def pictures(count: int = 6, size: int = 32) -> Tensor:
    """Smooth, neither black nor white."""
    coarse = torch.rand(count, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    return 0.2 + 0.6 * torch.nn.functional.interpolate(coarse, (size, size), mode="bilinear", align_corners=True)


def taken(ranges: CameraRanges, image: Tensor, camera: Tensor | None = None) -> Tensor:
    torch.manual_seed(1)
    return CameraEffects(ranges).taken(image, torch.arange(len(image)) if camera is None else camera)


def test_a_camera_without_effects_changes_nothing() -> None:
    image = pictures()
    torch.testing.assert_close(taken(NOTHING, image), image)


def test_exposure_and_white_balance_multiply_the_light() -> None:
    image = pictures() * 0.6
    brighter = taken(replace(NOTHING, exposure=(0.5, 0.5)), image)
    torch.testing.assert_close(decode(brighter), decode(image) * 2**0.5, atol=1e-4, rtol=1e-4)
    warm = taken(replace(NOTHING, white_balance=(0.1, 0.1)), image)
    gain = torch.tensor([0.1, 0.0, 0.1]).exp()[:, None, None]
    torch.testing.assert_close(warm, encode(decode(image) * gain), atol=1e-4, rtol=1e-4)


def test_saturation_gamma_and_contrast() -> None:
    image = pictures()
    gray = taken(replace(NOTHING, grayscale=1.0), image)
    torch.testing.assert_close(gray[:, 0], gray[:, 2])
    dark = taken(replace(NOTHING, gamma=(0.3, 0.3)), image)
    torch.testing.assert_close(dark, image ** torch.tensor(0.3).exp())
    hard = taken(replace(NOTHING, contrast=(0.5, 0.5)), image)
    assert (hard.std(dim=(2, 3)) > image.std(dim=(2, 3))).all()


@pytest.mark.parametrize(
    "ranges",
    [
        replace(NOTHING, defocused=1.0, defocus=(4.0, 4.0)),
        replace(NOTHING, moved=1.0, motion=(20.0, 20.0)),
        replace(NOTHING, low_resolution=1.0, resolution=(0.25, 0.25)),
    ],
)
def test_blur_of_every_kind_keeps_the_mean_and_takes_the_detail(ranges: CameraRanges) -> None:
    checks = 0.5 + 0.3 * torch.rand(6, 3, 32, 32, generator=torch.Generator().manual_seed(2)).sub(0.5)
    blurred = taken(ranges, checks)
    torch.testing.assert_close(blurred.mean(dim=(2, 3)), checks.mean(dim=(2, 3)), atol=0.02, rtol=0)
    detail = [(x - torch.nn.functional.avg_pool2d(x, 3, 1, 1))[..., 3:-3, 3:-3].std() for x in (checks, blurred)]
    assert detail[1] < 0.6 * detail[0]


def test_noise_grows_with_the_light_as_stated() -> None:
    ranges = replace(NOTHING, noisy=1.0, shot_noise=(0.004, 0.004), read_noise=(0.01, 0.01))
    for level in (0.2, 0.6):
        flat = torch.full((4, 3, 64, 64), level)
        assert abs(float(taken(ranges, flat).std()) - (0.004 * level + 0.01**2) ** 0.5) < 1e-3


def test_sharpening_and_coding_change_edges_a_little() -> None:
    image = pictures()
    sharp = taken(replace(NOTHING, sharpened=1.0, sharpening=(1.0, 1.0)), image)
    assert sharp.var() > image.var()
    coded = taken(replace(NOTHING, compressed=1.0, jpeg=(30.0, 30.0)), image)
    assert 1e-4 < (coded - image).abs().mean() < 0.05 and coded.shape == image.shape


def test_views_of_a_person_share_a_camera_and_strangers_do_not() -> None:
    image = torch.full((6, 3, 16, 16), 0.4)
    batch = MultiViewBatch(
        image, torch.zeros(6, 68, 2), torch.zeros(6, 1, 16, 16), torch.eye(3).repeat(6, 1, 1),
        views=torch.tensor([[0, 2, 4]]),
    )  # fmt: skip
    torch.manual_seed(0)
    colors = CameraEffects(replace(CameraRanges(), noisy=0.0))(batch).image.mean(dim=(2, 3))
    torch.testing.assert_close(colors[[0, 0]], colors[[2, 4]], atol=0.01, rtol=0)
    assert torch.pdist(colors[[0, 1, 3, 5]]).min() > 0.005
    assert batch.image is image and (image == 0.4).all()


def test_the_full_camera_stays_in_range_and_follows_torchs_seed() -> None:
    first, again = (taken(CameraRanges(), pictures(16)) for _ in range(2))
    assert torch.equal(first, again) and first.min() >= 0 and first.max() <= 1
    assert ((first - pictures(16)).abs().amax(dim=(1, 2, 3)) > 0.02).all()
