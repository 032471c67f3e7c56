"""The fine-grained module: its two stages, its switches, and that details are found in pictures that have them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn
from torch.optim import Adam
from torch.utils.data import DataLoader, Dataset

from datamodules.batch import FaceBatch, MultiViewBatch, Truth
from lightning_modules.components.backbones import VGG, CoefficientRegressor, ResNet
from lightning_modules.components.schedule import cosine_factor
from lightning_modules.finegrained import CoarseWeights, Finegrained, FineWeights
from lightning_modules.finegrained.held_out import in_held_out_views, in_true_place
from lightning_modules.finegrained.network import (
    AlbedoModule,
    DisplacementModule,
    UnwrappedFace,
    WaveletEncoder,
    spread,
    unwrap_face,
)
from lightning_modules.finegrained.shading import without_wide_waves
from losses.metrics import NormalAngularError
from renderers.camera import default_intrinsics, euler_to_rotation, pose_and_project
from renderers.coefficients import CoefficientLayout, Coefficients
from renderers.face_models.base import MorphableModel
from renderers.face_models.default.model import load_default
from renderers.face_renderer import FaceRenderer, mean_coefficients
from renderers.illumination import irradiance
from renderers.uv.chart import UVChart, unit
from renderers.uv.detail import add_detail, draw_detail
from tests.conf.parts import SmallEncoder, Told

SIZE, CHART = 48, 40
CHANNELS = (4, 6, 8)
COARSE_TERMS = {"photometric", "landmark", "identity", "regularization"}
FINE_TERMS = {"fine_photometric", "fine_identity", "albedo", "smoothness"}


@cache
def face_model() -> MorphableModel:
    return load_default()


def make_module(**arguments: Any) -> Finegrained:
    torch.manual_seed(0)
    given: dict[str, Any] = {"channels": CHANNELS, "camera": "perspective", "chart_size": CHART, **arguments}
    return Finegrained(face_model(), ResNet(18, stages=3), SmallEncoder(), SIZE, **given)


def turned_faces(count: int = 2) -> Coefficients:
    """Mean faces under light from aside, so that their relief shows."""
    coefficients = mean_coefficients(face_model(), count)
    coefficients.angles[:, 1] = torch.linspace(-0.7, 0.7, count)
    light = coefficients.illumination.view(count, 3, 9)
    light[:, :, 1], light[:, :, 2], light[:, :, 3] = -0.15, 0.05, 0.35
    return coefficients


@cache
def waves(chart: int = CHART) -> Tensor:
    """(1, 1, R, R) decimetres: ripples of a millimetre across the brow and the cheeks."""
    along = (torch.arange(chart) + 0.5) / chart
    return 0.01 * torch.sin(30 * along)[:, None].expand(chart, chart)[None, None]


def rippled_batch(count: int = 2) -> tuple[FaceBatch, Coefficients]:
    """Exact faces whose surface is rippled, and their coefficients, which know nothing of it."""
    model, coefficients = face_model(), turned_faces(count)
    rendering = FaceRenderer(model, SIZE)(coefficients)
    chart = UVChart(model, CHART)
    relief = (waves() * chart.mask).expand(count, -1, -1, -1)
    drawn = draw_detail(chart, rendering, coefficients.illumination, chart.bake(rendering.vertex_albedo), relief)
    image = (rendering.albedo * drawn.shading).clamp(0, 1)
    vector = model.layout().join(coefficients)
    batch = FaceBatch(
        image=image,
        landmarks=rendering.landmarks,
        skin=rendering.mask.float(),
        intrinsics=default_intrinsics(SIZE).repeat(count, 1, 1),
        truth=Truth(vector, rendering.depth, normals=drawn.normals),
    )
    return batch, coefficients


def normal_error(predicted: Tensor, true: Tensor) -> float:
    metric = NormalAngularError()
    metric.update(predicted, true)
    return float(metric.compute())


def test_untrained_the_fine_face_is_the_coarse_one() -> None:
    batch, coefficients = rippled_batch()
    module = make_module()
    rendering = module.renderer(coefficients, batch.intrinsics)
    face = module.refine(batch.image, batch.skin, coefficients, rendering)
    assert face.displacement is not None and torch.equal(face.displacement, torch.zeros_like(face.displacement))
    torch.testing.assert_close(face.rendering.albedo, rendering.albedo)
    torch.testing.assert_close(face.rendering.normals, unit(rendering.normals) * rendering.mask, atol=1e-5, rtol=0)
    # Shaded pixel by pixel and not vertex by vertex.
    assert (face.rendering.image - rendering.image).abs().mean() < 1e-3


def test_each_stage_trains_its_own_part(monkeypatch: pytest.MonkeyPatch) -> None:
    batch, _ = rippled_batch()
    module = make_module(fine_start=3, identity_start=1)
    seen: list[set[str]] = []
    monkeypatch.setattr(module, "log_terms", lambda stage, terms, loss, size: seen.append(set(terms)))
    module.train()
    normalization = next(m for m in module.regressor.modules() if isinstance(m, torch.nn.BatchNorm2d))
    for step in range(5):
        monkeypatch.setattr(Finegrained, "global_step", step)
        before = normalization.running_mean.clone()  # type: ignore[union-attr]
        module.zero_grad()
        module.training_step(batch, step).backward()
        coarse = [p.grad is not None for p in module.regressor.parameters()]
        fine = [p.grad is not None for part in fine_parts(module) for p in part.parameters()]
        assert all(coarse) == (step < 3) and any(coarse) == (step < 3)
        assert all(fine) == (step >= 3) and any(fine) == (step >= 3)
        assert torch.equal(before, normalization.running_mean) == (step >= 3)  # type: ignore[arg-type]
    assert seen == [COARSE_TERMS - {"identity"}, *[COARSE_TERMS] * 2, *[FINE_TERMS] * 2]


def fine_parts(module: Finegrained) -> tuple[torch.nn.Module, torch.nn.Module]:
    return module.albedo_module, module.displacement_module


def test_a_weight_of_zero_costs_nothing() -> None:
    batch, coefficients = rippled_batch()
    nothing = FineWeights(photometric=0, identity=0, albedo=0, smoothness=0)
    for name, term in zip(("photometric", "identity", "albedo", "smoothness"), FineWeights().terms(), strict=True):
        module = make_module(fine=replace(nothing, **{name: 1.0}))
        rendering = module.renderer(coefficients, batch.intrinsics)
        face = module.refine(batch.image, batch.skin, coefficients, rendering)
        assert set(module.fine_terms(batch, rendering, face)) == {term}
    silent = CoarseWeights(**dict.fromkeys(CoarseWeights.__dataclass_fields__, 0.0))
    for name, term in (("photometric",) * 2, ("landmark",) * 2, ("identity",) * 2, ("prior_albedo", "regularization")):
        module = make_module(coarse=replace(silent, **{name: 1.0}))
        rendering = module.renderer(coefficients, batch.intrinsics)
        assert set(module.coarse_terms(batch, coefficients, rendering)) == {term}
    assert make_module(fine=nothing).identity_encoder.calls == 0


@pytest.mark.parametrize("switch", ["wavelet", "displacement", "albedo"])
def test_the_rows_of_table_5(switch: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is switched off takes no part and gets no gradient."""
    batch, coefficients = rippled_batch()
    module = make_module(**{switch: False})
    for part in fine_parts(module):
        torch.nn.init.normal_(part.head.weight, std=0.1)
    rendering = module.renderer(coefficients, batch.intrinsics)
    face = module.refine(batch.image, batch.skin, coefficients, rendering)
    terms = module.fine_terms(batch, rendering, face)
    sum(terms.values()).backward()  # type: ignore[union-attr]

    def learns(part: torch.nn.Module) -> bool:
        return any(p.grad is not None and bool(p.grad.abs().max() > 0) for p in part.parameters())

    albedo, displacement = fine_parts(module)
    assert learns(albedo) == (switch != "albedo") and learns(displacement) == (switch != "displacement")
    assert (face.displacement is None) == (switch == "displacement")
    assert ("albedo" in terms) == (switch != "albedo") and ("smoothness" in terms) == (switch != "displacement")
    if switch == "wavelet":
        assert not learns(albedo.perception) and not learns(displacement.perception)  # type: ignore[arg-type]


def test_all_rows_stand_in_the_fitted_light() -> None:
    """Else the first row of table 5 would differ from the others in its light too."""
    batch, coefficients = rippled_batch()
    dimmer = replace(batch, image=0.6 * batch.image)
    lights = []
    for switches in ({"displacement": False, "albedo": False}, {}):
        module = make_module(**switches)
        rendering = module.renderer(coefficients, batch.intrinsics)
        face = module.refine(dimmer.image, batch.skin, coefficients, rendering)
        assert (face.rendering.image - dimmer.image).abs().mean() < 0.5 * (rendering.image - dimmer.image).abs().mean()
        lights.append(face.illumination)
    assert torch.equal(*lights)


def test_without_both_modules_the_coarse_stage_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    module = make_module(displacement=False, albedo=False, fine_start=2)
    monkeypatch.setattr(Finegrained, "global_step", 5)
    assert not module.refining
    assert make_module(albedo=False, fine_start=2).refining


def test_all_rows_go_on_from_one_coarse_checkpoint(tmp_path: Path) -> None:
    start = make_module()
    path = tmp_path / "coarse.ckpt"
    contents: dict = {"state_dict": start.state_dict()}
    start.on_save_checkpoint(contents)
    torch.save(contents, path)
    for switches in ({"wavelet": False}, {"displacement": False}, {"albedo": False, "displacement": False}):
        row = make_module(init_weights=str(path), **switches)
        assert set(row.state_dict()) == set(start.state_dict())


def test_relief_is_found_in_the_picture() -> None:
    """The displacement module alone, on two faces with ripples that the coarse ones lack: their normals come nearer."""
    batch, coefficients = rippled_batch()
    module = make_module(albedo=False, fine=FineWeights(identity=0, albedo=0))
    rendering = module.renderer(coefficients, batch.intrinsics)
    optimizer = Adam(module.displacement_module.parameters(), lr=5e-3)
    losses = []
    for _ in range(40):
        face = module.refine(batch.image, batch.skin, coefficients, rendering)
        loss = module.fine_terms(batch, rendering, face)["fine_photometric"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]
    true = batch.truth.normals  # type: ignore[union-attr]
    assert true is not None
    before, after = normal_error(rendering.normals, true), normal_error(face.rendering.normals.detach(), true)
    assert after < 0.75 * before
    assert face.displacement is not None and face.displacement.abs().max() <= module.displacement_module.most == 0.025


def test_painted_skin_is_found_in_the_picture() -> None:
    """The albedo module alone: spots that no linear albedo holds, in the light of the coarse face."""
    batch, coefficients = rippled_batch()
    module = make_module(displacement=False, fine=FineWeights(identity=0))
    rendering = module.renderer(coefficients, batch.intrinsics)
    spots = (torch.rand(1, 1, 10, 10, generator=torch.Generator().manual_seed(2)) > 0.8) * -0.3
    spots = spots.repeat_interleave(CHART // 10, dim=2).repeat_interleave(CHART // 10, dim=3).expand(2, 3, -1, -1)
    painted = draw_detail(module.chart, rendering, coefficients.illumination, spots)
    batch = replace(batch, image=((rendering.albedo + painted.albedo) * painted.shading).clamp(0, 1))
    optimizer = Adam(module.albedo_module.parameters(), lr=5e-3)
    first: dict[str, float] = {}
    for _ in range(60):
        face = module.refine(batch.image, batch.skin, coefficients, rendering)
        terms = module.fine_terms(batch, rendering, face)
        first = first or {name: value.item() for name, value in terms.items()}
        optimizer.zero_grad()
        torch.stack([*terms.values()]).sum().backward()
        optimizer.step()
    for name in ("fine_photometric", "albedo"):
        assert terms[name].item() < 0.7 * first[name], name


def test_hidden_texels_take_the_increment_of_the_other_side() -> None:
    model, coefficients = face_model(), mean_coefficients(face_model(), 1)
    coefficients.angles[:, 1] = 0.9
    rendering, chart = FaceRenderer(model, SIZE)(coefficients), UVChart(model, CHART)
    brighter = torch.where(rendering.mask, rendering.image + 0.1, 0.5)
    skin = torch.ones_like(brighter[:, :1])
    face = unwrap_face(chart, brighter, skin, coefficients.illumination, rendering)
    _, visibility = chart.unwrap(brighter, rendering)
    hidden, shown = visibility == 0, chart.mirror(visibility) > 0.99
    completed = hidden & shown & chart.mask
    assert completed.sum() > 50
    for where in (completed, visibility > 0.99):
        torch.testing.assert_close(
            face.increment[where.expand(-1, 3, -1, -1)].mean(), torch.tensor(0.1), atol=5e-3, rtol=0
        )
    # Where neither side is seen the increment goes on as it is around.
    nowhere = (hidden & (chart.mirror(visibility) == 0) & chart.mask).expand(-1, 3, -1, -1)
    torch.testing.assert_close(face.increment[nowhere].mean(), torch.tensor(0.1), atol=0.02, rtol=0)
    outside = (~chart.mask).expand(-1, 3, -1, -1)
    assert outside.any() and not face.increment[outside].any()
    torch.testing.assert_close(face.photograph, chart.bake(rendering.vertex_colors) + face.increment)


@pytest.mark.parametrize("side", ["one", "both"])
def test_what_hides_the_skin_is_not_painted_on_it(side: str) -> None:
    """A black strand over half the forehead or all of it: what is under it is told by the other side or around it."""
    batch, coefficients = rippled_batch(1)
    coefficients.angles[:] = 0
    module = make_module()
    rendering = module.renderer(coefficients, batch.intrinsics)
    image = torch.where(rendering.mask, rendering.image + 0.1, 0.5)
    hair = torch.zeros_like(rendering.mask)
    hair[:, :, 8:19, : SIZE // 2 if side == "one" else SIZE] = True
    hair &= rendering.mask
    assert hair.sum() > 60
    hairy, skin = torch.where(hair, 0.0, image), (rendering.mask & ~hair).float()
    weights = skin, torch.ones_like(skin)
    faces = [module.refine(hairy, each, coefficients, rendering).unwrapped for each in weights]
    covered, seen = module.chart.unwrap(hair.float(), rendering)
    under = ((covered > 0.3) & (seen > 0)).expand(-1, 3, -1, -1)
    painted, believed = (face.increment[under] for face in faces)
    assert believed.abs().mean() > 3 * 0.1  # taken for skin, the strand is all that the fine stage hears of
    assert (painted - 0.1).abs().mean() < 0.02 and (painted - 0.1).abs().max() < 0.1
    assert faces[0].relief.abs().max() < 0.1 * faces[1].relief.abs().max()


def test_colours_spread_to_where_there_are_none() -> None:
    """What is known stays; a gap between two colours is filled with both, and the nearer one counts more."""
    weight = torch.zeros(1, 1, 21, 21)
    weight[..., :7], weight[..., 14:] = 1, 1
    values = torch.zeros(1, 2, 21, 21)
    values[:, 0, :, :7], values[:, 1, :, 14:] = 1, 1
    filled = spread(values, weight)
    assert torch.equal(filled * weight, values)
    torch.testing.assert_close(filled.sum(dim=1), torch.ones(1, 21, 21))
    gap = filled[0, 0, :, 7:14]
    assert (gap.diff(dim=1) <= 1e-6).all() and gap[:, 0].min() > 0.5 > gap[:, -1].max()
    assert not spread(torch.zeros(1, 3, 5, 5), torch.zeros(1, 1, 5, 5)).any()


def test_what_is_brighter_than_white_is_no_increment() -> None:
    model, coefficients = face_model(), mean_coefficients(face_model(), 1)
    coefficients.illumination[:, ::9] += 2
    rendering, chart = FaceRenderer(model, SIZE)(coefficients), UVChart(model, CHART)
    assert rendering.image.max() > 1.2
    face = unwrap_face(chart, rendering.image.clamp(0, 1), rendering.mask.float(), coefficients.illumination, rendering)
    assert face.increment.abs().max() < 1e-6 and face.relief.abs().max() < 1e-6


def test_shading_tells_ridges_from_grooves() -> None:
    """The relief follows the true one whichever side the light comes from; the increment alone does not."""
    model, chart = face_model(), UVChart(face_model(), CHART)
    relief = waves() * chart.mask
    agreement, alone = [], []
    for side in (-0.4, 0.4):
        coefficients = mean_coefficients(model, 1)
        light = coefficients.illumination.view(1, 3, 9)
        light[:, :, 1] = side  # from above or from below: the ripples run across
        rendering = FaceRenderer(model, SIZE)(coefficients)
        drawn = draw_detail(chart, rendering, coefficients.illumination, chart.bake(rendering.vertex_albedo), relief)
        image = torch.where(rendering.mask, rendering.albedo * drawn.shading, 0.0)
        face = unwrap_face(chart, image, rendering.mask.float(), coefficients.illumination, rendering)
        inside = (chart.mask & (face.increment.abs().sum(dim=1, keepdim=True) > 0)).flatten()
        wanted = without_wide_waves(relief).flatten()[inside]
        agreement.append(float(torch.corrcoef(torch.stack([face.relief.flatten()[inside], wanted]))[0, 1]))
        brightness = (
            face.increment.mean(dim=1).diff(dim=-2, prepend=face.increment.mean(dim=1)[:, :1]).flatten()[inside]
        )
        alone.append(float(torch.corrcoef(torch.stack([brightness, wanted]))[0, 1]))
    assert min(agreement) > 0.6
    assert alone[0] * alone[1] < 0


def test_the_perception_hears_details_alone() -> None:
    """LL is dropped: what is added to a whole picture changes nothing; and silence has the features' sizes."""
    torch.manual_seed(0)
    encoder = WaveletEncoder((4, 6))
    picture = torch.rand(1, 3, 11, 11)
    features, brighter = encoder(picture), encoder(picture + 0.3)
    for one, other, silent in zip(features, brighter, encoder.silence(picture), strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=0)
        assert silent.shape == one.shape and not silent.any()


@pytest.mark.parametrize("size", [16, 21])
def test_networks_at_any_size(size: int) -> None:
    torch.manual_seed(0)
    maps = torch.rand(2, 3, size, size)
    albedo, displacement = AlbedoModule(CHANNELS), DisplacementModule(CHANNELS, 0.025)
    for part in (albedo, displacement):
        torch.nn.init.normal_(part.head.weight)
    assert albedo(maps, maps).shape == (2, 3, size, size)
    relief = displacement(UnwrappedFace(maps, maps, 0.01 * maps[:, :1]), maps)
    assert relief.shape == (2, 1, size, size) and 0 < relief.abs().max() <= 0.025


def test_the_schedule_starts_anew_with_the_fine_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Finegrained, "trainer", SimpleNamespace(estimated_stepping_batches=160))

    def factors(*steps: int, **arguments: Any) -> list[float]:
        module = make_module(schedule="cosine", **arguments)
        scheduler = module.scheduled(Adam(module.parameters()))["lr_scheduler"]["scheduler"]
        return [scheduler.lr_lambdas[0](step) for step in steps]

    staged = factors(0, 59, 60, 110, 159, fine_start=60, displacement=False)
    assert staged == [cosine_factor(*at) for at in ((0, 60), (59, 60), (0, 100), (50, 100), (99, 100))]
    late = factors(60, 99, 100, 159, fine_start=60, albedo_start=40)
    assert late == [cosine_factor(*at) for at in ((0, 40), (39, 40), (0, 60), (59, 60))]
    assert factors(100, fine_start=60, albedo_start=40, relief="solved") == [cosine_factor(40, 100)]
    coarse_alone = factors(0, 60, 159, fine_start=60, albedo=False, displacement=False)
    assert coarse_alone == [cosine_factor(step, 160) for step in (0, 60, 159)]
    assert factors(60, 159, fine_start=500) == [cosine_factor(step, 160) for step in (60, 159)]
    assert make_module().scheduled(Adam([torch.zeros(1)])).keys() == {"optimizer"}


class _Rippled(Dataset[FaceBatch]):
    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> FaceBatch:
        return rippled_batch()[0]


@pytest.fixture
def loader() -> Iterator[DataLoader[FaceBatch]]:
    yield DataLoader(_Rippled(), batch_size=None)


def fit(
    module: Finegrained, loader: DataLoader[FaceBatch], steps: int, folder: Path, resumed: Path | None = None
) -> Path:
    trainer = Trainer(
        max_steps=steps, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=folder,
    )  # fmt: skip
    trainer.fit(module, loader, ckpt_path=resumed, weights_only=True)
    path = folder / f"{steps}.ckpt"
    trainer.save_checkpoint(path)
    return path


@pytest.mark.parametrize("cut", [1, 3])
def test_a_run_that_was_cut_off_ends_as_one_that_was_not(
    cut: int, loader: DataLoader[FaceBatch], tmp_path: Path
) -> None:
    """Two steps of the coarse stage, two of the fine one; cut off within the first, or within the second."""
    fresh = {name: value.clone() for name, value in make_module().state_dict().items()}
    whole = make_module(fine_start=2)
    fit(whole, loader, 4, tmp_path)
    halfway = fit(make_module(fine_start=2), loader, cut, tmp_path)
    resumed = make_module(fine_start=2)
    fit(resumed, loader, 4, tmp_path, halfway)
    ended, other = whole.state_dict(), resumed.state_dict()
    assert all(torch.equal(ended[name], other[name]) for name in ended)
    if cut == 3:  # The coarse part is what it was before the fine stage began, the fine part has moved since.
        before = make_module(fine_start=2)
        fit(before, loader, 2, tmp_path)
        coarse = before.state_dict()
        assert all(torch.equal(ended[name], coarse[name]) for name in ended if name.startswith("regressor."))
        assert not torch.equal(ended["regressor.head.weight"], fresh["regressor.head.weight"])
        for name in ("albedo_module.head.weight", "displacement_module.head.weight"):
            assert torch.equal(coarse[name], fresh[name]) and not torch.equal(ended[name], fresh[name])


def test_both_stages_are_measured() -> None:
    batch, coefficients = rippled_batch()
    module = make_module()
    module.regressor = Told(coefficients)  # type: ignore[assignment]
    logged: dict[str, Tensor] = {}
    module.log = lambda name, value, **_: logged.update({name: value})  # type: ignore[method-assign,assignment]
    module.log_dict = lambda values, **_: logged.update(values)  # type: ignore[method-assign,assignment]
    module.validation_step(batch, 0)
    module.on_validation_epoch_end()
    for name in ("psnr", "ssim", "rmse", "normal_error_deg"):
        assert logged[f"val/fine_{name}"] == pytest.approx(float(logged[f"val/coarse_{name}"]), rel=0.02), name
    # What the ripples are worth: their mean angle, by the metric itself.
    true = batch.truth.normals  # type: ignore[union-attr]
    assert true is not None
    rendering = module.renderer(coefficients, batch.intrinsics)
    assert logged["val/coarse_normal_error_deg"] == pytest.approx(normal_error(rendering.normals, true))
    assert logged["val/nme"] == pytest.approx(0, abs=1e-3)
    assert {f"val/{name}" for name in COARSE_TERMS | FINE_TERMS} <= set(logged)
    pictures = module.panels(batch)
    assert list(pictures)[:3] == ["input", "coarse", "fine"] and "true normals" in pictures
    assert all(picture.shape == batch.image.shape and picture.isfinite().all() for picture in pictures.values())


def two_lights() -> tuple[MultiViewBatch, Coefficients]:
    """Two people, each seen twice: turned and lit from the left, and turned and lit from the right. Rippled skin."""
    batch, coefficients = rippled_batch(4)
    coefficients.angles[:, 1] = torch.tensor([-0.3, 0.3, -0.2, 0.4])
    coefficients.identity[2:, 0], coefficients.albedo[:, 0] = 1.5, torch.tensor([-0.5, -0.5, 0.5, 0.5])
    coefficients.illumination.view(4, 3, 9)[:, :, 3] = torch.tensor([0.35, -0.35, 0.35, -0.35])[:, None]
    model, relief = face_model(), (waves() * UVChart(face_model(), CHART).mask).expand(4, -1, -1, -1)
    rendering = FaceRenderer(model, SIZE)(coefficients)
    drawn = draw_detail(
        UVChart(model, CHART), rendering, coefficients.illumination, torch.zeros(4, 3, CHART, CHART), relief
    )
    truth = Truth(model.layout().join(coefficients), rendering.depth, normals=drawn.normals)
    image = ((rendering.albedo + drawn.albedo) * drawn.shading).clamp(0, 1)
    given = {"image": image, "landmarks": rendering.landmarks, "skin": rendering.mask.float(), "truth": truth}
    views = torch.tensor([[0, 1], [2, 3]])
    return MultiViewBatch(intrinsics=batch.intrinsics, views=views, **given), coefficients


def test_true_faces_are_right_in_held_out_views() -> None:
    """With the true shape, albedo and relief the other picture itself is drawn; without the relief its ripples lack."""
    batch, coefficients = two_lights()
    module = make_module()
    rendering = module.renderer(coefficients, batch.intrinsics)
    nothing, relief = torch.zeros(4, 3, CHART, CHART), (waves() * module.chart.mask).expand(4, -1, -1, -1)
    # What is known of light and pose in the picture that a face was found in must not enter.
    wrong = replace(coefficients, angles=0.3 + coefficients.angles, illumination=-coefficients.illumination)
    fine = add_detail(rendering, module.chart, wrong.illumination, nothing, relief)
    shown = in_held_out_views(batch, module.renderer, wrong, fine)
    assert shown is not None
    pictures, coarse, found = shown
    assert torch.equal(pictures.image, batch.image[[0, 2, 1, 3]])
    torch.testing.assert_close(found.image.clamp(0, 1), pictures.image, atol=1e-4, rtol=0)
    assert pictures.truth is not None and pictures.truth.normals is not None
    assert normal_error(found.normals, pictures.truth.normals) < 0.1
    assert normal_error(coarse.normals, pictures.truth.normals) > 3


def test_found_faces_are_laid_on_the_true_ones() -> None:
    """A shape that is one similarity away from the true one, here the mean in another size and frame, fits exactly."""
    model, true = face_model(), turned_faces(2)
    true.translation[:] = torch.tensor([[0.1, -0.2, 0.4], [0.0, 0.1, -0.5]])
    turn = euler_to_rotation(torch.tensor([[0.1, -0.05, 0.2]]))[0]

    class Moved(nn.Module):
        """A face model whose shapes are smaller, turned and shifted where the first coefficient of identity is 1."""

        def shape(self, identity: Tensor, expression: Tensor) -> Tensor:
            shapes = model.shape(torch.zeros_like(identity), expression)
            moved = 0.9 * shapes @ turn.T + torch.tensor([0.05, 0.02, -0.03])
            return torch.where(identity[:, :1, None] == 1, moved, shapes)

    found = replace(true, identity=true.identity.clone(), angles=torch.zeros(2, 3), illumination=-true.illumination)
    found.identity[:, 0] = 1
    posed = in_true_place(Moved(), found, true)  # type: ignore[arg-type]
    assert torch.equal(posed.illumination, true.illumination)
    images = []
    for face in (posed, true):
        shape = Moved().shape(face.identity, face.expression)
        rotation = euler_to_rotation(face.angles)
        images.append(pose_and_project(shape, rotation, face.translation, default_intrinsics(SIZE).expand(2, 3, 3))[1])
    torch.testing.assert_close(images[0][..., :2], images[1][..., :2], atol=1e-3, rtol=0)


def test_a_pasted_photograph_is_no_gain_in_held_out_views() -> None:
    """As an albedo in flat light it explains its own picture; in another light its shadows fall wrong."""
    batch, coefficients = two_lights()
    coefficients.albedo[:] = 0  # nobody's, so that the coarse faces explain their own pictures worse
    module = make_module()
    rendering = module.renderer(coefficients, batch.intrinsics)
    flat = torch.zeros_like(coefficients.illumination)
    photograph, visibility = module.chart.unwrap(batch.image, rendering)
    ambient = irradiance(torch.tensor([[[0.0, 0.0, 1.0]]]), flat[:1]).mean()
    pasted = (photograph / ambient - module.chart.bake(rendering.vertex_albedo)) * (visibility > 0)
    face = add_detail(rendering, module.chart, flat, pasted, None)
    metrics = module.own_metrics
    metrics.update(batch, rendering, face)
    elsewhere = in_held_out_views(batch, module.renderer, coefficients, face)
    assert elsewhere is not None
    metrics.update(*elsewhere, held_out=True)
    found = {name: float(value) for name, value in metrics.compute().items()}
    assert found["fine_rmse"] < 0.8 * found["coarse_rmse"]
    assert found["held_out/fine_rmse"] > 1.5 * found["held_out/coarse_rmse"]


def test_without_a_second_view_or_its_truth_nothing_is_held_out() -> None:
    views, coefficients = two_lights()
    module = make_module()
    rendering = module.renderer(coefficients, views.intrinsics)
    fine = module.refine(views.image, views.skin, coefficients, rendering).rendering
    single, _ = rippled_batch(4)
    for batch in (single, replace(views, views=None), replace(views, truth=None)):
        assert in_held_out_views(batch, module.renderer, coefficients, fine) is None


def test_where_the_relief_comes_from() -> None:
    """Solved alone, it goes past the network; learned alone, the network does not see it; both by default."""
    batch, coefficients = rippled_batch()
    found = {}
    for relief in ("both", "learned", "solved"):
        module = make_module(relief=relief)
        torch.nn.init.constant_(module.displacement_module.head.weight, 0.1)
        rendering = module.renderer(coefficients, batch.intrinsics)
        found[relief] = module.refine(batch.image, batch.skin, coefficients, rendering)
    solved = found["both"].unwrapped.relief
    assert solved.abs().max() > 0 and torch.equal(found["solved"].unwrapped.relief, solved)
    assert not found["learned"].unwrapped.relief.any()
    displacement = {relief: face.displacement for relief, face in found.items()}
    torch.testing.assert_close(displacement["solved"], 0.025 * (solved / 0.025).tanh())
    assert not torch.allclose(displacement["both"], displacement["learned"])
    alone = make_module(relief="solved", albedo=False)
    assert not alone.has_fine_stage and make_module(relief="solved").has_fine_stage


def test_the_light_is_kept_where_it_is_not_fitted() -> None:
    batch, coefficients = rippled_batch()
    dimmer = 0.6 * batch.image
    module = make_module(refit_light=False)
    rendering = module.renderer(coefficients, batch.intrinsics)
    face = module.refine(dimmer, batch.skin, coefficients, rendering)
    assert torch.equal(face.illumination, coefficients.illumination)
    fitted = make_module().refine(dimmer, batch.skin, coefficients, rendering)
    assert (fitted.illumination[:, 0] < coefficients.illumination[:, 0] - 0.1).all()


def test_photographs_have_no_true_normals() -> None:
    batch, coefficients = rippled_batch()
    module = make_module()
    module.regressor = Told(coefficients)  # type: ignore[assignment]
    batch = replace(batch, truth=None)
    rendering = module.renderer(coefficients, batch.intrinsics)
    module.own_metrics.update(
        batch, rendering, module.refine(batch.image, batch.skin, coefficients, rendering).rendering
    )
    assert set(module.own_metrics.compute()) == {
        f"{s}_{n}" for s in ("coarse", "fine") for n in ("psnr", "ssim", "rmse")
    }
    assert "true normals" not in module.panels(batch)


def test_the_papers_coarse_network() -> None:
    """VGG-16 without its last layer, and 222 numbers: 80 identity, 29 expression, 80 albedo, 6 pose, 27 light."""
    with torch.device("meta"):
        backbone = VGG(16)
        layout = CoefficientLayout(80, 29, 80)
        regressor = CoefficientRegressor(backbone, layout)
        assert backbone(torch.empty(2, 3, 224, 224)).shape == (2, 4096)
    assert layout.length == 222 and regressor.head.out_features == 222
    weights = sum(parameter.numel() for parameter in backbone.parameters())
    assert weights == 138_357_544 - (4096 * 1000 + 1000)  # VGG-16's published count less its classifier's last layer
