"""Self-augmentation: the refiners, which terms run when, what is fed back, what is frozen, what is measured."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from datamodules.batch import FaceBatch, Truth
from datamodules.corruption import DelusionalOcclusion
from lightning_modules.components.backbones import ResNet
from lightning_modules.components.weighting import weighted_sum
from lightning_modules.mgcnet import MGCNet
from lightning_modules.self_augmentation import CoarseWeights, SelfAugmentation, SelfAugmentationWeights
from lightning_modules.self_augmentation.mirroring import hidden_vertices, mirrored
from lightning_modules.self_augmentation.network import FineModel, Standardization
from lightning_modules.self_augmentation.rerender import TexturedFaces, difference, recolored
from renderers.illumination import irradiance
from renderers.io.errors import UserError
from tests.conf.parts import SmallEncoder, Told
from tests.conf.scenes import exact_batch, small_face_model

SIZE = 32
PAPER = SelfAugmentationWeights()


def make_module(weights: SelfAugmentationWeights = PAPER, **arguments: Any) -> SelfAugmentation:
    torch.manual_seed(0)
    parts = {"identity_encoder": SmallEncoder(), "attribute_encoder": SmallEncoder(), "code_encoder": SmallEncoder()}
    arguments = {**parts, "channels": 4, "hidden": 16, **arguments}
    arguments |= {"corruption": DelusionalOcclusion((0.3, 0.4)), "image_size": SIZE, "weights": weights}
    return SelfAugmentation(small_face_model(), ResNet(18, stages=3), **arguments)


def exact_faces(faces: int = 3) -> tuple[FaceBatch, Any]:
    return exact_batch(small_face_model(), faces, SIZE, views=1)


def told(module: SelfAugmentation, coefficients: Any) -> SelfAugmentation:
    """The module with a coarse model that answers the truth, and a fine one that answers something."""
    module.regressor = Told(coefficients)  # type: ignore[assignment]
    for network in (module.fine_model.mesh_refiner, module.fine_model.decoder.network):
        for lin in network.answer.lins:
            nn.init.normal_(lin.weight, std=0.05)
    return module


def test_untrained_fine_is_coarse() -> None:
    batch, _ = exact_faces()
    module = make_module()
    seen = module.eval().reconstruction(batch.image, batch.intrinsics)
    assert torch.equal(seen.fine.image, seen.coarse.image)
    assert torch.equal(seen.fine.vertex_albedo, seen.coarse.vertex_albedo)


def test_fine_is_the_mean_of_both_refiners() -> None:
    torch.manual_seed(0)
    model = FineModel(small_face_model(), features=5, channels=4, hidden=8).eval()
    model.mesh_refiner.answer.bias.data.fill_(0.2)
    model.decoder.network.answer.bias.data.fill_(-0.6)
    texture = torch.rand(2, small_face_model().vertex_count, 3)
    torch.testing.assert_close(model(texture, torch.randn(2, 5)), texture + (0.2 - 0.6) / 2)


@pytest.mark.parametrize("coarsening", [1, 4, 4096])
def test_decoder_answers_every_vertex_from_the_features(coarsening: int) -> None:
    torch.manual_seed(0)
    model = FineModel(small_face_model(), features=5, channels=4, hidden=8, coarsening=coarsening).eval()
    for lin in model.decoder.network.answer.lins:
        nn.init.normal_(lin.weight)
    texture = torch.rand(1, small_face_model().vertex_count, 3).expand(2, -1, -1)
    answer = model(texture, torch.randn(2, 5))
    assert answer.shape == texture.shape
    assert (answer[0] - answer[1]).abs().max() > 1e-3  # the same colours, other features


def test_standardization_counts_all_batches() -> None:
    generator = torch.Generator().manual_seed(0)
    batches = [3 + 2 * torch.randn(size, 4, generator=generator) for size in (1, 7, 12)]
    standard = Standardization(4)
    for batch in batches:
        standard.observe(batch)
    together = torch.cat(batches).numpy()
    expected = (together - together.mean(axis=0)) / together.std(axis=0)
    np.testing.assert_allclose(standard(torch.cat(batches)), expected, atol=1e-5)
    constant = Standardization(2)
    constant.observe(torch.ones(5, 2))
    assert constant(torch.ones(1, 2)).abs().max() < 1e-3


def test_only_terms_with_a_weight() -> None:
    batch, _ = exact_faces()
    everything = {"photometric", "identity", "attribute", "robustified", "rotation", "occlusion"}
    assert set(make_module().fine_terms(batch, 0)) == everything
    for name in everything - {"photometric"}:
        assert set(make_module(replace(PAPER, **{name: 0.0})).fine_terms(batch, 0)) == everything - {name}
    bare = SelfAugmentationWeights(identity=0, attribute=0, robustified=0, rotation=0, occlusion=0)
    module = make_module(bare)
    assert set(module.fine_terms(batch, 0)) == {"photometric"}
    # The decoder's input alone: nothing is compared.
    assert module.identity_encoder.calls == 0 and module.attribute_encoder.calls == 1  # type: ignore[attr-defined]


def test_alternate_turns_in_one_step_of_four_and_hides_in_the_others() -> None:
    batch, _ = exact_faces()
    module = make_module(alternate=True, augmentation_start=2)
    seen = [set(module.fine_terms(batch, step)) for step in range(6)]
    both = {"photometric", "identity", "attribute", "robustified"}
    hides, turns = both | {"occlusion"}, both | {"rotation"}
    assert seen == [{"photometric"}, {"photometric"}, hides, hides, turns, hides]


def by_hand(image: Tensor, rendered: Tensor, mask: Tensor) -> Tensor:
    """Equation (6) in a loop."""
    values = []
    for one, other, where in zip(image, rendered, mask[:, 0] > 0, strict=True):
        values.append((one - other)[:, where].square().sum(dim=0).sqrt().mean())
    return torch.stack(values).mean()


def test_fed_back_is_equation_five_on_both_pairs() -> None:
    """Section 3.2.3: (I_occ, its reconstruction) without the occluder, (I, its reconstruction) with what it hides."""
    batch, truth = exact_faces()
    module = told(make_module(), truth).eval()
    seen = module.reconstruction(batch.image, batch.intrinsics)
    wanted, mask = module.target_features(batch, seen), seen.fine.mask * module.face_mask(batch)
    view = module.hidden(batch, seen)
    looks = module.features(view.image, view.landmarks)
    value = module.fed_back(batch, seen, wanted, mask, view, looks, module.weights)
    again = module.reconstruction(view.image.detach(), batch.intrinsics)
    drawn = module.features(again.fine.image, again.fine.landmarks)
    hidden = seen.fine.mask & ~view.face
    assert hidden.any()
    expected = by_hand(view.image, again.fine.image, again.fine.mask & ~hidden)
    in_place = recolored(seen.coarse, again.fine.vertex_albedo, truth)
    expected = expected + by_hand(batch.image, in_place.image, mask)
    for target in (looks, wanted):
        cosine = torch.cosine_similarity(drawn.identity, target.identity)
        expected = expected + 0.2 * (1 - cosine).mean()
        expected = expected + 0.005 * (drawn.attributes - target.attributes).square().sum(dim=1).sqrt().mean()
    torch.testing.assert_close(value, expected)


def test_a_change_of_the_coarse_colours_costs_its_square() -> None:
    """Once for the picture and, of a face that is fed back, once for the view."""
    batch, truth = exact_faces()
    bare = SelfAugmentationWeights(identity=0, attribute=0, robustified=0, rotation=0)
    module, free = (told(make_module(replace(bare, change=weight)), truth).eval() for weight in (3.0, 0.0))
    seen = module.reconstruction(batch.image, batch.intrinsics)
    distance = (seen.fine.vertex_albedo - seen.coarse.vertex_albedo).detach().numpy()
    assert seen.change().item() == pytest.approx((distance**2).sum(axis=-1).mean(), rel=1e-5)
    assert seen.change() > 0
    view, mask = module.hidden(batch, seen), seen.fine.mask.float()
    again = module.reconstruction(view.image.detach(), batch.intrinsics)
    wanted = looks = module.features(batch.image, batch.landmarks)
    fed = [one.fed_back(batch, seen, wanted, mask, view, looks, one.weights) for one in (module, free)]
    torch.testing.assert_close(fed[0] - fed[1], 3 * again.change(), atol=1e-6, rtol=1e-4)
    assert set(module.fine_terms(batch, 0)) == set(free.fine_terms(batch, 0)) | {"change"}


def test_the_view_leads_and_does_not_follow() -> None:
    """Only L_rob pulls at the re-render; what is fed back takes it as data, yet the fine model learns from it."""
    batch, truth = exact_faces()
    module = told(make_module(), truth)
    seen = module.reconstruction(batch.image, batch.intrinsics)
    wanted, mask = module.target_features(batch, seen), seen.fine.mask * module.face_mask(batch)
    for view in (module.turned(batch, seen), module.hidden(batch, seen)):
        assert view.image.requires_grad
        looks = module.features(view.image, view.landmarks).detach()
        value = module.fed_back(batch, seen, wanted, mask, view, looks, module.weights)
        (none,) = torch.autograd.grad(value, view.image, allow_unused=True, retain_graph=True)
        assert none is None
        weight = module.fine_model.decoder.linear[0].weight
        (gradient,) = torch.autograd.grad(value, weight, retain_graph=True)
        assert gradient.abs().max() > 0


def test_turned_faces_reach_the_profile_and_keep_their_colours() -> None:
    batch, truth = exact_faces(20)
    module = told(make_module(max_yaw=90), truth).eval()
    seen = module.reconstruction(batch.image, batch.intrinsics)
    torch.manual_seed(0)
    poses: list[Tensor] = []
    draw = module.renderer.forward
    module.renderer.forward = lambda coefficients, intrinsics: (  # type: ignore[method-assign]
        poses.append(coefficients.angles), draw(coefficients, intrinsics)
    )[1]  # fmt: skip
    view = module.turned(batch, seen)
    pitch, yaw, roll = torch.rad2deg(poses[0]).abs().unbind(dim=1)
    assert 70 < yaw.max() <= 90 and yaw.min() < 30 and pitch.max() <= 20 and roll.max() <= 10
    assert not view.image[~view.face.expand(-1, 3, -1, -1)].any()  # on black
    assert view.face.flatten(1).any(dim=1).all()


def test_coarse_stage_trains_the_coarse_model_and_the_fine_stage_the_fine_one(monkeypatch: pytest.MonkeyPatch) -> None:
    batch, _ = exact_faces()
    module = make_module(coarse_steps=2, coarse_identity_start=1, coarse_weights=CoarseWeights(landmark=0.1))
    logged: list[set[str]] = []
    module.log_terms = lambda stage, terms, loss, size: logged.append(set(terms))  # type: ignore[method-assign]
    parts = {"coarse": module.regressor, "fine": module.fine_model}

    def touched(step: int) -> set[str]:
        monkeypatch.setattr(SelfAugmentation, "global_step", step)
        module.zero_grad()
        module.train()
        module.training_step(batch, step).backward()
        return {name for name, part in parts.items() if any(p.grad is not None for p in part.parameters())}

    assert [touched(0), touched(1)] == [{"coarse"}, {"coarse"}]
    coarse = {"photometric", "landmark", "regularization"}
    assert logged == [coarse, coarse | {"identity"}]
    before = {name: value.clone() for name, value in module.regressor.state_dict().items()}
    assert touched(2) == {"fine"}
    for name, value in module.regressor.state_dict().items():
        assert torch.equal(value, before[name]), name  # the running statistics too
    module.freeze_coarse = False
    assert touched(3) == {"coarse", "fine"}
    # The coarse stage's loss goes on, apart from the identity.
    assert logged[-1] - logged[-2] == {"coarse"}
    seen = module.reconstruction(batch.image, batch.intrinsics)
    terms = module.coarse_terms(batch, seen.coefficients, seen.coarse, CoarseWeights(landmark=0.1, identity=0))
    expected = 1.92 * terms["photometric"] + 0.1 * terms["landmark"] + 3e-4 * terms["regularization"]
    torch.testing.assert_close(module.coarse_loss(batch, seen), expected)


def test_mask_is_the_segmentation_or_the_truth_or_the_skin() -> None:
    batch, _ = exact_faces()
    batch = replace(batch, skin=torch.full_like(batch.skin, 0.3))
    module = make_module()
    assert batch.truth is not None
    torch.testing.assert_close(module.face_mask(batch), (batch.truth.depth > 0).float())
    torch.testing.assert_close(module.face_mask(replace(batch, truth=None)), batch.skin)
    module.segmentation = nn.AvgPool2d(1)
    assert torch.equal(module.face_mask(batch), batch.image)


def checkpoint_of(module: Any, path: Path, **more: Any) -> str:
    contents: dict[str, Any] = {"state_dict": module.state_dict()}
    module.on_save_checkpoint(contents)
    torch.save({**contents, **more}, path)
    return str(path)


def test_coarse_model_of_another_papers_checkpoint(tmp_path: Path) -> None:
    model = small_face_model()
    torch.manual_seed(5)
    other = MGCNet(model, ResNet(18, stages=3), SmallEncoder(), SIZE)
    nn.init.normal_(other.regressor.head.weight)
    module = make_module(coarse_steps=7, init_weights=checkpoint_of(other, tmp_path / "mgcnet.ckpt"))
    for name, value in other.regressor.state_dict().items():
        assert torch.equal(module.regressor.state_dict()[name], value)
    assert module.coarse_steps == 0
    # Resumed, it still knows that its coarse model was given.
    resumed = make_module(coarse_steps=7)
    contents: dict[str, Any] = {}
    module.on_save_checkpoint(contents)
    resumed.on_load_checkpoint(contents)
    assert resumed.coarse_steps == 0
    with pytest.raises(UserError, match="do not fit"):
        make_module(init_weights=checkpoint_of(MGCNet(model, ResNet(34), SmallEncoder(), SIZE), tmp_path / "r34.ckpt"))


def test_fine_model_is_taken_over_once_it_has_been_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = make_module(coarse_steps=1)
    nn.init.normal_(trained.fine_model.decoder.linear[0].weight)
    key, taken = "decoder.linear.0.weight", []
    for step in (1, 2):
        monkeypatch.setattr(SelfAugmentation, "global_step", step)
        path = checkpoint_of(trained, tmp_path / f"{step}.ckpt")
        found = make_module(init_weights=path).fine_model.state_dict()[key]
        taken.append(torch.equal(found, trained.fine_model.state_dict()[key]))
    assert taken == [False, True]


def test_hidden_vertices_of_a_wall() -> None:
    """A wall 5 dm away fills a 4 x 4 picture; its left half is covered."""
    depth = torch.full((1, 1, 4, 4), 5.0)
    depth[..., 3, :] = 0  # no face in the last row
    cover = torch.zeros(1, 1, 4, 4, dtype=torch.bool)
    cover[..., :2] = True
    vertices = torch.tensor([
        [0.5, 0.5, 5.0], [1.99, 1.0, 4.9], [1.0, 1.0, 5.04],  # on the wall, covered
        [2.01, 1.0, 5.0], [1.0, 1.0, 5.2], [1.0, 3.5, 5.0], [-0.1, 1.0, 5.0], [1.0, 4.0, 5.0],
    ])  # fmt: skip
    found = hidden_vertices(vertices[None], depth, cover)
    assert found.tolist() == [[True, True, True, False, False, False, False, False]]


def test_mirrored_copies_the_other_side_where_it_is_shown() -> None:
    batch, truth = exact_faces(2)
    module = told(make_module(), truth).eval()
    seen = module.reconstruction(batch.image, batch.intrinsics)
    hidden = torch.zeros_like(batch.skin, dtype=torch.bool)
    hidden[..., : SIZE // 2] = True
    occluded = torch.where(hidden, 0.9, batch.image)
    copied = mirrored(seen, occluded, hidden, module.partner)
    light = irradiance(seen.coarse.vertex_normals, truth.illumination)
    shown = hidden_vertices(seen.coarse.vertices_image, seen.coarse.depth, ~hidden)
    counts = {"kept": 0, "copied": 0, "coarse": 0}
    for face in range(2):
        for vertex, other in enumerate(module.partner.tolist()):
            found = copied.vertex_albedo[face, vertex]
            if shown[face, vertex]:
                kind, expected = "kept", seen.fine.vertex_albedo[face, vertex]
            elif shown[face, other]:
                x, y = seen.coarse.vertices_image[face, other, :2].floor().long().tolist()
                kind, expected = "copied", (batch.image[face, :, y, x] / light[face, other]).clamp(0, 1)
            else:
                kind, expected = "coarse", seen.coarse.vertex_albedo[face, vertex]
            counts[kind] += 1
            torch.testing.assert_close(found, expected, msg=kind)
    assert min(counts.values()) > 5, counts


def test_consistency_is_the_distance_from_what_the_view_shows() -> None:
    batch, truth = exact_faces(2)
    module = told(make_module(replace(PAPER, consistency=2.0)), truth).eval()
    seen = module.reconstruction(batch.image, batch.intrinsics)
    assert difference(seen.fine, seen.fine).item() == 0
    moved = replace(truth, translation=truth.translation + torch.tensor([0.1, 0.0, 0.0]))
    other = module.textured(batch.image, moved, module.renderer(moved, batch.intrinsics)).fine
    expected = 0.0
    for name, unit in (("vertices_image", SIZE / 2), ("vertex_albedo", 1.0), ("vertex_colors", 1.0)):
        apart = (getattr(other, name) - getattr(seen.fine, name)).detach().numpy()[..., :3] / unit
        apart = apart[..., :2] if name == "vertices_image" else apart
        expected += (apart**2).sum(axis=-1).mean()
    assert difference(other, seen.fine).item() == pytest.approx(expected, rel=1e-5)
    # In the loss it counts with its weight, once for every view.
    plain = told(make_module(), truth).eval()
    wanted, mask = module.target_features(batch, seen), seen.fine.mask.float()
    view = replace(module.hidden(batch, seen), rendering=other)
    looks = module.features(view.image, view.landmarks).detach()
    fed = [one.fed_back(batch, seen, wanted, mask, view, looks, one.weights) for one in (module, plain)]
    again = module.reconstruction(view.image.detach(), batch.intrinsics)
    torch.testing.assert_close(fed[0] - fed[1], 2 * difference(again.fine, other), atol=1e-5, rtol=1e-3)


def test_features_are_compared_now_and_then_and_count_for_the_steps_between() -> None:
    batch, _ = exact_faces()
    module = make_module(alternate=True, perceptual_every=2)
    perceptual = {"identity", "attribute", "robustified"}
    for step, compared in ((0, True), (3, True), (4, False), (7, False), (8, True)):
        assert set(module.fine_terms(batch, step)) >= {"photometric", "rotation" if step % 4 == 0 else "occlusion"}
        assert bool(perceptual & set(module.fine_terms(batch, step))) == compared
        factors = [getattr(module.fine_weights(step), name) / getattr(PAPER, name) for name in perceptual]
        assert factors == pytest.approx([2.0 if compared else 0.0] * 3)
    assert module.fine_weights(0).photometric == PAPER.photometric


def painted(batch: FaceBatch, truth: Any, module: SelfAugmentation) -> FaceBatch:
    """The faces with a colour that no coefficient explains, known at the vertices."""
    rendering = module.renderer(truth, batch.intrinsics)
    texture = rendering.vertex_albedo + torch.tensor([0.12, -0.1, 0.02])
    image = recolored(rendering, texture, truth).image.clamp(0, 1)
    assert batch.truth is not None
    known = Truth(batch.truth.coefficients, batch.truth.depth, vertex_albedo=texture)
    return replace(batch, image=image, truth=known)


def test_fine_learns_what_coarse_cannot_say_and_metrics_show_it() -> None:
    batch, truth = exact_faces(6)
    module = make_module(augmentation_start=12)
    module.regressor = Told(truth)  # type: ignore[assignment]
    batch = painted(batch, truth, module)
    optimizer = torch.optim.Adam(module.fine_model.parameters(), lr=1e-2)
    for step in range(16):
        terms = module.fine_terms(batch, step)
        optimizer.zero_grad()
        weighted_sum(terms, module.weights.terms()).backward()
        optimizer.step()
    logged: dict[str, Tensor] = {}
    module.log = lambda name, value, **_: logged.update({name: value})  # type: ignore[method-assign,assignment]
    module.log_dict = lambda values, **_: logged.update(values)  # type: ignore[method-assign,assignment]
    module.eval()
    with torch.no_grad():
        module.validation_step(batch, 0)
        module.on_validation_epoch_end()
    assert logged["val/fine_psnr"] > logged["val/coarse_psnr"] + 3
    assert logged["val/occluded/fine_psnr"] > logged["val/occluded/coarse_psnr"] + 3
    hidden = [f"val/occluded/{model}_hidden_color_rmse" for model in ("fine", "coarse")]
    assert logged[hidden[0]] < 0.7 * logged[hidden[1]]
    # By hand: the coarse colours differ from the true ones by the paint everywhere.
    paint = float(np.sqrt((0.12**2 + 0.1**2 + 0.02**2) / 3))
    assert logged[hidden[1]].item() == pytest.approx(paint, rel=1e-3)
    # Shape and light are the true ones, so lit colours differ by the lit paint.
    assert batch.truth is not None and batch.truth.vertex_albedo is not None
    known, (_, hidden_mask) = batch.truth.vertex_albedo, module.occluded(batch, 0)
    own = module.renderer(truth, batch.intrinsics)
    lit = recolored(own, known, truth).vertex_colors - own.vertex_colors
    under, _ = module.own_metrics._hidden(batch, hidden_mask, known)
    expected = [lit[face, under[face]].square().mean().sqrt().item() for face in range(6) if under[face].any()]
    assert logged["val/occluded/coarse_hidden_lit_rmse"].item() == pytest.approx(np.mean(expected), rel=1e-4)
    for name in ("fine_ssim", "coarse_identity_similarity", "fine_texture_rmse", "nme", "psnr", "vertex_rmse_mm"):
        assert np.isfinite(logged[f"val/{name}"]), name


def test_occluded_pictures_are_the_same_every_time_and_judges_have_names() -> None:
    batch, truth = exact_faces()
    module = told(make_module(judges={"other": SmallEncoder()}), truth).eval()
    first, second = module.occluded(batch, 3), module.occluded(batch, 3)
    assert torch.equal(first[0], second[0]) and torch.equal(first[1], second[1])
    assert not torch.equal(first[1], module.occluded(batch, 4)[1])
    seen: TexturedFaces = module.reconstruction(batch.image, batch.intrinsics)
    module.own_metrics.update(batch, "clean", {"coarse": seen.coarse, "fine": seen.fine}, seen.fine.mask)
    assert {"fine_similarity_other", "coarse_similarity_other"} <= set(module.own_metrics.compute())
    pictures = module.panels(batch)
    assert all(picture.shape == batch.image.shape for picture in pictures.values())
