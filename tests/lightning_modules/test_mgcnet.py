"""MGCNet's module: which terms run, on which images, and that the truth is a minimum of what they measure."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, nn

from datamodules.batch import MultiViewBatch
from lightning_modules.components.backbones import ResNet
from lightning_modules.components.schedule import cosine_factor
from lightning_modules.components.weighting import weighted_sum
from lightning_modules.mgcnet import MGCNet, MGCNetWeights
from losses.landmark import landmark_loss, landmark_weights
from losses.regularization import coefficient_regularization
from renderers.coefficients import Coefficients
from renderers.io.errors import UserError
from tests.conf.parts import SmallEncoder, Told
from tests.conf.scenes import exact_batch, small_face_model

SIZE = 48


PAPER = MGCNetWeights()


def make_module(weights: MGCNetWeights = PAPER, **arguments: Any) -> MGCNet:
    torch.manual_seed(0)
    return MGCNet(small_face_model(), ResNet(18), SmallEncoder(), SIZE, weights, **arguments)


def told(module: MGCNet, answer: Coefficients) -> MGCNet:
    module.regressor = Told(answer)  # type: ignore[assignment]
    return module


NOTHING = MGCNetWeights(**dict.fromkeys(MGCNetWeights().terms(), 0.0))


def test_untrained_answer_is_the_mean_face() -> None:
    module = make_module()
    coefficients = module(torch.rand(2, 3, SIZE, SIZE))
    assert all((value == 0).all() for value in coefficients.named().values())


def test_the_truth_is_consistent_and_a_wrong_pose_is_not() -> None:
    batch, truth = exact_batch(small_face_model(), faces=2, size=96)
    module = make_module()
    module.renderer.size = (96, 96)
    exact = told(module, truth).multi_view_terms(batch, module.renderer(truth, batch.intrinsics))
    assert exact["epipolar"] < 0.05  # float32 pixels, summed over 68 landmarks
    assert exact["pixel"] < 0.02  # interpolation alone
    assert exact["depth"] < 2.5  # millimetres
    angles, identity = truth.angles.clone(), truth.identity.clone()
    angles[0::3, 1] += 0.25
    identity[0::3, 0] += 3
    # One rigid face is consistent in depth under any poses: depth tells of shapes that differ between views.
    wrong_pose = module.multi_view_terms(batch, module.renderer(replace(truth, angles=angles), batch.intrinsics))
    wrong_shape = module.multi_view_terms(batch, module.renderer(replace(truth, identity=identity), batch.intrinsics))
    assert wrong_pose["epipolar"] > 100 * exact["epipolar"]
    assert wrong_pose["pixel"] > 1.5 * exact["pixel"]
    assert wrong_shape["depth"] > 1.5 * exact["depth"]


def test_single_views_feed_only_the_2d_terms() -> None:
    """Flags [0, 1, 1]: the multi-view terms are those of the two groups alone, the 2D terms see all images."""
    batch, truth = exact_batch(small_face_model(), faces=3, size=SIZE)
    assert batch.views is not None
    mixed = MultiViewBatch(batch.image, batch.landmarks, batch.skin, batch.intrinsics, None, batch.views[1:])
    both = MultiViewBatch(
        batch.image[3:], batch.landmarks[3:], batch.skin[3:], batch.intrinsics[3:], None, batch.views[:2]
    )
    estimate = replace(truth, angles=truth.angles + 0.1 * torch.randn(9, 3, generator=torch.manual_seed(1)))
    module = make_module()
    all_terms = module.multi_view_terms(mixed, module.renderer(estimate, batch.intrinsics))
    own_terms = module.multi_view_terms(both, module.renderer(estimate.index(slice(3, None)), both.intrinsics))
    for name, value in all_terms.items():
        torch.testing.assert_close(value, own_terms[name], msg=name)
    features = module.feature_terms(mixed, estimate, module.renderer(estimate, batch.intrinsics))
    of_all = landmark_loss(module.renderer(estimate).landmarks, batch.landmarks, landmark_weights(), SIZE)
    torch.testing.assert_close(features["landmark"], of_all.mean())


def test_the_epipolar_term_counts_in_the_groups_that_say_so() -> None:
    """Flags [1, 2]: pixel and depth see both groups, the epipolar term the second alone."""
    batch, truth = exact_batch(small_face_model(), faces=2, size=SIZE)
    assert batch.views is not None
    estimate = replace(truth, angles=truth.angles + 0.1 * torch.randn(6, 3, generator=torch.manual_seed(1)))
    module = make_module()
    rendering = module.renderer(estimate, batch.intrinsics)
    every = module.multi_view_terms(batch, rendering)
    gated = module.multi_view_terms(replace(batch, epipolar=torch.tensor([False, True])), rendering)
    second = module.multi_view_terms(replace(batch, views=batch.views[1:]), rendering)
    torch.testing.assert_close(gated["epipolar"], second["epipolar"])
    assert gated["epipolar"] != every["epipolar"]
    torch.testing.assert_close(gated["pixel"], every["pixel"])
    none = module.multi_view_terms(replace(batch, epipolar=torch.tensor([False, False])), rendering)
    assert none["epipolar"] == 0 and none["depth"] == every["depth"]


def losses(module: MGCNet, batch: MultiViewBatch) -> tuple[dict[str, Tensor], Tensor]:
    """Every term of a batch, and their weighted sum."""
    terms = module.terms(batch, *module.faces(batch), module.weights)
    return terms, weighted_sum(terms, module.weights.terms())


@pytest.mark.parametrize("covisible", [True, False])
def test_a_batch_without_groups_trains_on(covisible: bool) -> None:
    batch, _ = exact_batch(small_face_model(), faces=1, size=SIZE)
    alone = replace(batch, views=torch.zeros(0, 3, dtype=torch.long))
    module = make_module(covisible=covisible)
    terms, loss = losses(module, alone)
    assert terms["pixel"] == terms["depth"] == terms["epipolar"] == 0
    loss.backward()
    gradients = [p.grad for p in module.regressor.parameters() if p.grad is not None]
    assert gradients and all(g.isfinite().all() for g in gradients)


def test_a_weight_of_zero_switches_off_the_term_and_its_cost() -> None:
    batch, _ = exact_batch(small_face_model(), faces=1, size=SIZE)
    for name, value in MGCNetWeights().terms().items():
        module = make_module(replace(NOTHING, **{name: value}))
        terms, loss = losses(module, batch)
        assert list(terms) == [name]
        torch.testing.assert_close(loss, value * terms[name])
        assert (module.identity_encoder.calls > 0) == (name == "identity")


@pytest.mark.parametrize("name", ["render", "landmark", "identity", "pixel", "depth", "epipolar"])
def test_every_term_moves_the_regressor(name: str) -> None:
    batch, truth = exact_batch(small_face_model(), faces=1, size=SIZE)
    module = make_module(replace(NOTHING, **{name: 1.0}))
    layout = small_face_model().layout()
    noise = torch.randn(3, layout.length, generator=torch.manual_seed(2))
    vector = (layout.join(truth) + 0.05 * noise).requires_grad_()
    _, loss = losses(told(module, layout.split(vector)), batch)
    loss.backward()
    assert vector.grad is not None and vector.grad.isfinite().all()
    assert vector.grad.abs().max() > 0
    moved = {key for key, value in layout.split(vector.grad).named().items() if value.abs().max() > 0}
    expected = {
        "render": {"identity", "expression", "albedo", "angles", "illumination", "translation"},
        "landmark": {"identity", "expression", "angles", "translation"},
        "identity": {"identity", "expression", "albedo", "angles", "illumination", "translation"},
        "pixel": {"identity", "expression", "angles", "translation"},
        "depth": {"identity", "expression", "angles", "translation"},
        "epipolar": {"angles", "translation"},
    }
    assert moved == expected[name]


def test_terms_wait_for_their_step(monkeypatch: pytest.MonkeyPatch) -> None:
    batch, _ = exact_batch(small_face_model(), faces=1, size=SIZE)
    weights = replace(NOTHING, landmark=1.0, identity=1.0, epipolar=1.0)
    module = make_module(weights, multi_view_start=5, identity_start=7)
    logged: dict[str, Tensor] = {}
    monkeypatch.setattr(module, "log_terms", lambda stage, terms, loss, size: logged.update(terms))
    late = {"landmark", "epipolar", "identity"}
    for step, names in ((4, {"landmark"}), (5, {"landmark", "epipolar"}), (6, {"landmark", "epipolar"}), (7, late)):
        monkeypatch.setattr(MGCNet, "global_step", step)
        logged.clear()
        module.training_step(batch, 0)
        assert set(logged) == names


def test_identity_of_the_targets_alone() -> None:
    batch, truth = exact_batch(small_face_model(), faces=3, size=SIZE)
    assert batch.views is not None
    mixed = replace(batch, views=batch.views[1:])
    module = make_module(replace(NOTHING, identity=1.0))
    module.identity_views = "targets"
    rows = torch.tensor([0, 1, 2, 4, 7])
    assert mixed.targets().tolist() == rows.tolist()
    estimate = replace(truth, albedo=truth.albedo + 1)
    rendering = module.renderer(estimate, batch.intrinsics)
    drawn = module.identity_encoder(rendering.image[rows], rendering.landmarks[rows])
    wanted = module.identity_encoder(batch.image[rows], batch.landmarks[rows])
    expected = 1 - torch.cosine_similarity(drawn, wanted).mean()
    torch.testing.assert_close(module.feature_terms(mixed, estimate, rendering)["identity"], expected)


def test_the_papers_configuration_has_the_releases_terms() -> None:
    """Its regularization is summed over the batch's samples; colours have a Euclidean distance."""
    folder = Path(__file__).parents[2] / "experiments/mgcnet"
    contents = yaml.safe_load((folder / "paper.yaml").read_text())
    data = yaml.safe_load((folder / contents["data"]).read_text())
    given, samples = contents["model"]["init_args"], data["init_args"]["batch_size"]
    weights = MGCNetWeights(**given["weights"])
    module, views = make_module(weights), 3
    drawn = module.face_model.layout().split(torch.randn(samples * views, module.face_model.layout().length))
    ours = (
        weights.regularization
        * coefficient_regularization(
            drawn, weights.prior_identity, weights.prior_expression, weights.prior_albedo
        ).mean()
    )
    squares = [float(value.square().sum()) for value in (drawn.identity, drawn.expression, drawn.albedo)]
    expected = 1e-4 * (squares[0] + 0.8 * squares[1] + 3e-3 * squares[2]) / views
    assert float(ours) == pytest.approx(expected, rel=1e-4)

    batch, answer = exact_batch(module.face_model, faces=1, size=SIZE)
    wrong = replace(answer, angles=answer.angles + 0.1)
    rendering = module.renderer(wrong, batch.intrinsics)
    plain = module.multi_view_terms(batch, rendering)["pixel"]
    told_so = MGCNet(small_face_model(), ResNet(18), SmallEncoder(), SIZE, pixel_distance=given["pixel_distance"])
    euclidean = told_so.multi_view_terms(batch, rendering)["pixel"]
    # The mean of three channels' errors is a third of their sum, which is 1 to sqrt(3) Euclidean distances.
    assert 3**0.5 <= float(euclidean / plain) <= 3


def test_without_the_covisible_map_the_whole_face_counts() -> None:
    batch, truth = exact_batch(small_face_model(), faces=1, size=SIZE)
    target, source = batch.pairs()
    turned = torch.tensor([[0.0, -1.2, 0.0], [0.0, 0.0, 0.0], [0.0, 1.2, 0.0]])
    rendering = make_module().renderer(replace(truth, angles=turned), batch.intrinsics)
    shared = make_module().covisible_map(rendering, target, source)
    whole = make_module(covisible=False).covisible_map(rendering, target, source)
    assert torch.equal(whole, rendering.mask[target])
    assert shared.sum() < whole.sum() and not (shared & ~whole).any()


def test_checkpoints_hold_no_face_model_and_refuse_another() -> None:
    module = make_module()
    face_model_tensors = {tuple(b.shape) for b in module.face_model.buffers()}
    assert not {tuple(v.shape) for v in module.state_dict().values()} & face_model_tensors
    checkpoint: dict = {}
    module.on_save_checkpoint(checkpoint)
    module.on_load_checkpoint(checkpoint)
    other = MGCNet(small_face_model(seed=1), ResNet(18), SmallEncoder(), SIZE)
    with pytest.raises(UserError, match="made for face model"):
        other.on_load_checkpoint(checkpoint)


def test_init_weights_starts_from_a_checkpoint(tmp_path: Path) -> None:
    module = make_module()
    nn.init.normal_(module.regressor.head.weight, std=0.01)
    checkpoint: dict = {"state_dict": module.state_dict()}
    module.on_save_checkpoint(checkpoint)
    path = tmp_path / "last.ckpt"
    torch.save(checkpoint, path)
    parts = small_face_model(), ResNet(18), SmallEncoder(), SIZE
    started = MGCNet(*parts, init_weights=str(path))
    image = torch.rand(2, 3, SIZE, SIZE)
    torch.testing.assert_close(started.answer(image).angles, module.answer(image).angles)
    with pytest.raises(UserError, match="no such file"):
        MGCNet(*parts, init_weights=str(tmp_path / "absent.ckpt"))
    with pytest.raises(UserError, match="do not fit this module"):
        MGCNet(small_face_model(), ResNet(50), SmallEncoder(), SIZE, init_weights=str(path))
    with pytest.raises(UserError, match="made for face model"):
        MGCNet(small_face_model(seed=1), *parts[1:], init_weights=str(path))


def test_panels_are_pictures() -> None:
    batch, truth = exact_batch(small_face_model(), faces=2, size=SIZE)
    pictures = told(make_module(), truth).panels(batch)
    assert list(pictures) == ["input", "render", "overlay", "shape", "albedo", "depth", "covisible map"]
    for name, picture in pictures.items():
        assert picture.shape == batch.image.shape, name
        assert picture.min() >= 0 and picture.max() <= 1, name


def test_cosine_schedule_warms_up_and_ends_at_zero() -> None:
    factors = [cosine_factor(step, 400) for step in range(401)]
    assert factors[0] < 0.05 and factors[400] == 0
    assert max(factors) == max(factors[40:60]) and factors[49:] == sorted(factors[49:], reverse=True)
    assert cosine_factor(0, 0) >= 0
