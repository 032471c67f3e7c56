"""`FaceModule.reconstruct`: one door for all papers, each with its own renderer, camera and findings."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_modules.base import FaceModule
from lightning_modules.finegrained import Finegrained
from lightning_modules.mgcnet import MGCNet
from lightning_modules.rogue import ROGUE
from lightning_modules.self_augmentation import SelfAugmentation
from lightning_modules.specular import Specular
from renderers.camera import default_intrinsics, euler_to_rotation, project_orthographic, transform
from renderers.coefficients import Coefficients
from renderers.io.errors import UserError
from renderers.reflectance import decode_shininess
from tests.conf.parts import SmallEncoder
from tests.conf.scenes import small_face_model
from tests.conf.shiny import small_shiny_model
from tests.conf.tiny_papers import SIZE, FixedCorruption, SmallBackbone

KINDS: dict[str, type[FaceModule]] = {
    "mgcnet": MGCNet, "rogue": ROGUE, "self_augmentation": SelfAugmentation, "specular": Specular,
    "finegrained": Finegrained,
}  # fmt: skip
OWN: dict[str, dict[str, Any]] = {
    "self_augmentation": {"channels": 4, "hidden": 16},
    "finegrained": {"channels": (4, 6, 8), "chart_size": 32, "most_displacement": 8.0},
}


@cache
def loud_module(paper: str) -> FaceModule:
    """An untrained one whose last layers are not zero: it finds something in every picture."""
    torch.manual_seed(0)
    model = small_shiny_model() if paper == "specular" else small_face_model()
    own = dict(OWN.get(paper, {}))
    if paper == "self_augmentation":
        own |= {"attribute_encoder": SmallEncoder(), "corruption": FixedCorruption()}
    module = KINDS[paper](model, SmallBackbone(), SmallEncoder(), image_size=SIZE, **own)  # type: ignore[arg-type]
    for parameter in module.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    return module.eval()


def pictures(side: int) -> Tensor:
    """The same smooth ones at every size."""
    spots = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    return nn.functional.interpolate(spots, (side, side), mode="bilinear")


@pytest.mark.parametrize("paper", KINDS)
def test_a_face_is_drawn_into_its_picture_whatever_its_size(paper: str) -> None:
    """At twice the size the module looks at the same pixels, and draws the same face twice as large."""
    module, small = loud_module(paper), pictures(SIZE)
    own = module.reconstruct(small)
    large = module.reconstruct(pictures(2 * SIZE), coefficients=module.answer(small))
    assert own.rendering.image.shape == (2, 3, SIZE, SIZE) and large.rendering.image.shape == (2, 3, 2 * SIZE, 2 * SIZE)
    assert (large.coarse is None) == (own.coarse is None) == (paper not in OWN)
    assert type(large.rendering) is type(own.rendering) and set(large.maps) == set(own.maps)
    torch.testing.assert_close(large.rendering.landmarks, 2 * own.rendering.landmarks, atol=1e-3, rtol=0)
    shrunk = nn.functional.avg_pool2d(large.rendering.image, 2)
    inside = (nn.functional.avg_pool2d(large.rendering.mask.float(), 2) == 1) & own.rendering.mask
    assert inside.float().mean() > 0.1
    assert ((shrunk - own.rendering.image) * inside).abs().mean() < 0.05 * own.rendering.image.abs().mean()


@pytest.mark.parametrize("paper", KINDS)
def test_given_coefficients_are_drawn_again(paper: str) -> None:
    module, image = loud_module(paper), pictures(SIZE)
    coefficients = module.answer(image)
    coefficients.angles[:, 1] += 0.3
    found = module.reconstruct(image, coefficients=coefficients)
    wanted = module.renderer(coefficients)
    torch.testing.assert_close(found.rendering.landmarks, wanted.landmarks)
    assert torch.equal(found.coefficients.angles, coefficients.angles)
    moved = default_intrinsics(SIZE).repeat(2, 1, 1)
    moved[:, 0, 2] += 3
    shifted = module.reconstruct(image, None, moved, coefficients).rendering.landmarks
    torch.testing.assert_close(shifted, wanted.landmarks + torch.tensor([3.0, 0.0]), atol=1e-4, rtol=0)


def test_the_orthographic_camera_is_kept() -> None:
    """Drawn in perspective the landmarks would lie up to several pixels aside."""
    module = loud_module("finegrained")
    found = module.reconstruct(pictures(224))
    given = found.coefficients
    shape = module.face_model.shape(given.identity, given.expression)
    posed = transform(shape, euler_to_rotation(given.angles), given.translation)
    camera = default_intrinsics(224).expand(2, 3, 3)
    wanted = project_orthographic(posed, given.translation, camera)[:, module.face_model.landmark_indices, :2]
    torch.testing.assert_close(found.rendering.landmarks, wanted, atol=1e-3, rtol=0)


def test_what_each_paper_finds() -> None:
    image, found = pictures(SIZE), {}
    for paper in KINDS:
        found[paper] = loud_module(paper).reconstruct(image)
        assert loud_module(paper).finds_detail == (found[paper].texture is not None or bool(found[paper].maps))
    assert not any(found[paper].maps or found[paper].texture is not None for paper in ("mgcnet", "rogue"))
    textured = found["self_augmentation"]
    assert textured.texture is not None and textured.coarse is not None
    assert torch.equal(textured.rendering.vertex_albedo, textured.texture)
    assert (textured.texture - textured.coarse.vertex_albedo).abs().max() > 0.01
    shiny = found["specular"]
    assert set(shiny.maps) == {"specular_albedo", "light_position", "shininess", "intensity"}
    assert torch.equal(shiny.maps["shininess"], decode_shininess(shiny.coefficients.extra["shininess"]))
    detailed = found["finegrained"]
    assert set(detailed.maps) == {"albedo", "displacement"} and detailed.coarse is not None
    assert detailed.maps["displacement"].abs().max() > 0
    assert not torch.equal(detailed.rendering.normals, detailed.coarse.normals)


def test_the_skin_reaches_the_fine_stage() -> None:
    module, image = loud_module("finegrained"), pictures(SIZE)
    skin = torch.ones(2, 1, 5, 5)
    everywhere, absent = module.reconstruct(image, skin), module.reconstruct(image)
    nowhere = module.reconstruct(image, 0 * skin)
    assert torch.equal(everywhere.maps["albedo"], absent.maps["albedo"])
    assert not torch.equal(everywhere.maps["albedo"], nowhere.maps["albedo"])
    torch.testing.assert_close(nowhere.coefficients.illumination, module.answer(image).illumination)


def test_answers_that_are_not_finite_are_refused() -> None:
    class Broken(nn.Module):
        def forward(self, image: Tensor) -> Coefficients:
            layout = small_face_model().layout()
            return layout.split(torch.full((len(image), layout.length), torch.nan))

    module = MGCNet(small_face_model(), SmallBackbone(), SmallEncoder(), SIZE)
    module.regressor = Broken()  # type: ignore[assignment]
    with pytest.raises(UserError, match="not finite"):
        module.reconstruct(pictures(SIZE))
