"""ROGUE's game: who is moved by what, with which sign, and that the guidance leads."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
import yaml
from lightning.pytorch import Trainer
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader

from datamodules.batch import CorruptedBatch
from experiments.papers import EXPERIMENTS
from lightning_modules.components.backbones import HEAD_SCALES, ResNet
from lightning_modules.components.weighting import weighted_sum
from lightning_modules.rogue import ROGUE, ROGUEWeights
from lightning_modules.rogue.module import needed_corruptions
from lightning_modules.rogue.network import COLOR_UNIT, LENGTH_UNIT, CoefficientDiscriminator, effects
from losses.consistency import consistency_loss
from losses.photometric import render_loss
from renderers.coefficients import Coefficients
from renderers.face_renderer import FaceRenderer
from tests.conf.parts import SmallEncoder, Told
from tests.conf.scenes import exact_batch, small_face_model

SIZE = 48
NOTHING = ROGUEWeights(**dict.fromkeys(ROGUEWeights().terms(), 0.0))
GUIDANCE = ("landmark", "photometric", "perceptual", "regularization")
ROBUST = ("occlusion", "noise", "consistency")


def make_batch(faces: int = 2) -> tuple[CorruptedBatch, Coefficients]:
    """Exact faces with a dark block over a quarter of each, grain over all of them."""
    batch, truth = exact_batch(small_face_model(), faces, SIZE, views=1)
    block = torch.zeros_like(batch.skin, dtype=torch.bool)
    block[..., : SIZE // 2, : SIZE // 2] = True
    grain = 0.2 * torch.randn(batch.image.shape, generator=torch.manual_seed(3))
    return CorruptedBatch(
        batch.image, batch.landmarks, batch.skin, batch.intrinsics, batch.truth,
        corrupted={"delusional": torch.where(block, 0.1, batch.image), "noisy": (batch.image + grain).clamp(0, 1)},
        masks={"delusional": block, "noisy": torch.ones_like(block)},
    ), truth  # fmt: skip


PAPER = ROGUEWeights()


def make_module(weights: ROGUEWeights = PAPER, **arguments: object) -> ROGUE:
    torch.manual_seed(0)
    small_steps = partial(torch.optim.SGD, lr=1e-3)
    options = {"optimizer": small_steps, "discriminator_optimizer": small_steps, **arguments}
    return ROGUE(small_face_model(), ResNet(18), SmallEncoder(), SIZE, weights, **options)  # type: ignore[arg-type]


def train(module: ROGUE, batch: CorruptedBatch, steps: int = 1) -> Trainer:
    def batches() -> Iterator[CorruptedBatch]:
        while True:
            yield batch

    class Endless(torch.utils.data.IterableDataset):
        def __iter__(self) -> Iterator[CorruptedBatch]:
            return batches()

    trainer = Trainer(
        max_steps=steps, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, barebones=False,
    )  # fmt: skip
    trainer.fit(module, DataLoader(Endless(), batch_size=None))
    return trainer


def parts(module: ROGUE) -> dict[str, list[Tensor]]:
    judges = {name: list(judge.parameters()) for name, judge in module.discriminators.items()}
    return {"network": list(module.regressor.parameters()), **judges}


@pytest.mark.parametrize(
    ("weights", "moved"),
    [
        (replace(NOTHING, landmark=1e-3), {"network"}),
        (replace(NOTHING, occlusion=1.0), {"network"}),
        (replace(NOTHING, noise=1.0), {"network"}),
        (replace(NOTHING, consistency=1.0), {"network", "delusional", "noisy"}),
        (ROGUEWeights(), {"network", "delusional", "noisy"}),
    ],
)
def test_which_parameters_a_step_moves(weights: ROGUEWeights, moved: set[str]) -> None:
    module = make_module(weights)
    torch.nn.init.normal_(module.regressor.head.weight, std=0.01)
    before = {name: [p.detach().clone() for p in values] for name, values in parts(module).items()}
    train(module, make_batch()[0])
    after = parts(module)
    changed = {
        name
        for name, values in before.items()
        if any(not torch.equal(a, b) for a, b in zip(values, after[name], strict=True))
    }
    assert changed == moved
    assert all(p.requires_grad for values in after.values() for p in values)


def test_a_batch_is_one_training_step() -> None:
    """Three optimizers step, but `max_steps` and every schedule count batches."""
    module = make_module(schedule="cosine")
    trainer = train(module, make_batch()[0], steps=3)
    assert trainer.global_step == 3
    assert trainer.fit_loop.epoch_loop.total_batch_idx + 1 == 3
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0)
    assert [o.param_groups[0]["lr"] for o in trainer.optimizers[1:]] == [1e-3, 1e-3]


def test_a_step_draws_all_its_faces_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """And only those that some term looks at."""
    for weights, faces in ((replace(NOTHING, landmark=1.0, consistency=1.0), 1), (ROGUEWeights(noise=0.0), 2)):
        module, batch = make_module(weights), make_batch()[0]
        drawn: list[int] = []
        render = module.renderer.forward

        def counted(coefficients: Coefficients, *rest: Any, render: Any = render, drawn: Any = drawn) -> Any:
            drawn.append(len(coefficients.angles))
            return render(coefficients, *rest)

        monkeypatch.setattr(module.renderer, "forward", counted)
        train(module, batch, steps=1)
        assert drawn == [faces * len(batch)]


def test_the_network_carries_the_consistency_with_a_minus_and_the_discriminators_without() -> None:
    batch, truth = make_batch()
    module = make_module(replace(NOTHING, consistency=0.5))
    layout = small_face_model().layout()
    other = layout.split(layout.join(truth) + 0.3)
    coefficients = {"clean": truth, "delusional": other, "noisy": other}
    terms = module.robustification_terms(batch, coefficients, module.render(batch, coefficients))
    torch.testing.assert_close(weighted_sum(terms, module.weights.terms()), -0.5 * terms["consistency"])
    optimizers = [torch.optim.SGD(judge.parameters(), lr=1e-2) for judge in module.discriminators.values()]
    for optimizer in optimizers:
        optimizer.zero_grad()
    module.consistency(coefficients).backward()
    for optimizer in optimizers:
        optimizer.step()
    assert module.consistency(coefficients) < terms["consistency"]


@pytest.mark.parametrize("together", [False, True])
def test_no_robustification_gradient_reaches_the_guiding_coefficients(together: bool) -> None:
    """Drawn apart from the copies they get none; drawn in one batch with them, as a training step does, zeros."""
    batch, truth = make_batch()
    module = make_module()
    layout = small_face_model().layout()
    vectors = {
        name: (layout.join(truth) + shift).requires_grad_()
        for name, shift in (("clean", 0.0), ("delusional", 0.1), ("noisy", -0.1))
    }
    coefficients = {name: layout.split(vector) for name, vector in vectors.items()}
    renderings = module.render(batch, coefficients)
    if not together:
        copies = {name: value for name, value in coefficients.items() if name != "clean"}
        guiding = module.renderer(coefficients["clean"], batch.intrinsics)
        renderings = {"clean": guiding, **module.render(batch, copies)}
    terms = module.robustification_terms(batch, coefficients, renderings)
    weighted_sum(terms, module.weights.terms()).backward()
    leading = vectors["clean"].grad
    if together:
        assert leading is not None and not leading.any()
    else:
        assert leading is None
    for name in ("delusional", "noisy"):
        gradient = vectors[name].grad
        assert gradient is not None and gradient.isfinite().all() and gradient.abs().max() > 0


def test_huber_labels() -> None:
    """(8), (9) against the closed form: guiding is (1, 0), corrupted (0, 1); quadratic within 1, linear beyond."""
    guiding, corrupted = torch.tensor([[1.0, 0.0], [0.5, 0.0]]), torch.tensor([[0.0, 1.0], [3.0, 1.0]])
    by_hand = 0.5 * ((0.5 * 0.5**2) / 4 + (3 - 0.5) / 4)
    assert consistency_loss(guiding, corrupted) == pytest.approx(by_hand)
    assert consistency_loss(corrupted, guiding) > consistency_loss(guiding, corrupted)


def test_corrupted_copies_are_held_against_the_clean_image() -> None:
    batch, truth = make_batch()
    module = make_module(replace(NOTHING, occlusion=1.0, noise=1.0))
    wrong = replace(truth, albedo=truth.albedo + 1)
    coefficients = {"clean": truth, "delusional": truth, "noisy": wrong}
    renderings = module.render(batch, coefficients)
    terms = module.robustification_terms(batch, coefficients, renderings)
    assert terms["occlusion"] < 1e-3 < terms["noise"]
    # One shape and pose, so one outline: the mean distance inside it.
    drawn = module.renderer(wrong, batch.intrinsics)
    expected = render_loss(drawn.image, batch.image, drawn.mask, torch.ones_like(batch.skin)).mean()
    torch.testing.assert_close(terms["noise"], expected)


def test_the_perceptual_term_is_the_cosine_of_clean_and_drawn() -> None:
    batch, truth = make_batch()
    module = make_module(replace(NOTHING, perceptual=1.0))
    wrong = replace(truth, albedo=truth.albedo + 1)
    rendering = module.renderer(wrong, batch.intrinsics)
    features = [
        module.identity_encoder(image, points)
        for image, points in ((batch.image, batch.landmarks), (rendering.image, rendering.landmarks))
    ]
    expected = 1 - F.cosine_similarity(*features).mean()
    torch.testing.assert_close(module.guidance_terms(batch, wrong, rendering)["perceptual"], expected)


@pytest.mark.parametrize("name", GUIDANCE + ROBUST)
def test_a_weight_of_zero_switches_off_the_term_and_its_cost(name: str) -> None:
    batch = make_batch()[0]
    module = make_module(replace(NOTHING, **{name: 1.0}))
    expected = {"occlusion": ("delusional",), "noise": ("noisy",), "consistency": ("delusional", "noisy")}
    needed = needed_corruptions(module.weights)
    assert needed == expected.get(name, ())
    coefficients = module.regress(batch, needed)
    renderings = module.render(batch, coefficients)
    terms = module.guidance_terms(batch, coefficients["clean"], renderings["clean"])
    terms |= module.robustification_terms(batch, coefficients, renderings)
    assert list(terms) == [name]
    assert (module.identity_encoder.calls > 0) == (name == "perceptual")  # type: ignore[operator]


def test_the_skin_mask_of_a_baseline_leaves_out_what_is_no_skin() -> None:
    batch, truth = make_batch()
    wrong = replace(truth, albedo=truth.albedo + 1)
    bare = replace(batch, skin=torch.zeros_like(batch.skin))
    for skin_mask in (True, False):
        module = make_module(replace(NOTHING, photometric=1.0), skin_mask=skin_mask)
        term = module.guidance_terms(bare, wrong, module.renderer(wrong, batch.intrinsics))["photometric"]
        assert (term == 0) == skin_mask


def test_corruptions_wait_for_their_step() -> None:
    module = make_module(replace(ROGUEWeights(), perceptual=0.0), robust_start=1)
    asked: list[tuple[str, ...]] = []
    regress = module.regress
    module.regress = lambda batch, names: (asked.append(tuple(names)), regress(batch, names))[1]  # type: ignore[method-assign]
    train(module, make_batch()[0], steps=2)
    assert asked == [(), ("delusional", "noisy")]


def test_the_perceptual_term_waits_for_its_step() -> None:
    module = make_module(replace(NOTHING, landmark=1e-3, perceptual=1.0), perceptual_start=1)
    logged: list[set[str]] = []
    module.log_terms = lambda stage, terms, loss, size: logged.append(set(terms))  # type: ignore[method-assign]
    train(module, make_batch()[0], steps=2)
    assert logged == [{"landmark"}, {"landmark", "perceptual"}]


def test_layers_of_the_discriminator_with_bfm_2009() -> None:
    """257, 124 and 2 units for a vector of 257 (section 6.2.2)."""
    judge = CoefficientDiscriminator(small_face_model().layout(), effects(small_face_model()))
    assert [(m.in_features, m.out_features) for m in judge.layers if hasattr(m, "in_features")] == [
        (514, 257), (257, 124), (124, 2),
    ]  # fmt: skip
    guiding, other = (judge.layout.split(100 * torch.randn(4, 257)) for _ in range(2))
    answer = judge(guiding, other)
    torch.testing.assert_close(answer.sum(dim=1), torch.ones(4))


@pytest.fixture(scope="module")
def judge() -> CoefficientDiscriminator:
    """One that was trained hard: random faces, whose corrupted copies gave another of them."""
    torch.manual_seed(0)
    judge = CoefficientDiscriminator(small_face_model().layout(), effects(small_face_model()))
    layout = judge.layout
    optimizer = torch.optim.Adam(judge.parameters(), lr=1e-2)
    for _ in range(60):
        guiding, corrupted = (layout.split(torch.randn(64, layout.length)) for _ in range(2))
        optimizer.zero_grad()
        consistency_loss(judge(guiding, guiding), judge(guiding, corrupted)).backward()
        optimizer.step()
    return judge.eval()


def test_scores_move_no_faster_than_the_coefficients(judge: CoefficientDiscriminator) -> None:
    """However hard a discriminator has been trained, so that its answers leave the network a gradient."""
    guiding, corrupted = torch.randn(2, 64, judge.layout.length)
    with torch.no_grad():
        same, other = (judge.layers(torch.cat([guiding, vector], dim=1)) for vector in (guiding, corrupted))
    assert ((same - other).norm(dim=1) <= 1.02 * (guiding - corrupted).norm(dim=1)).all()


def test_a_wrong_answer_is_told_beside_the_clean_one(judge: CoefficientDiscriminator) -> None:
    """Both vectors are drawn alike, so that neither tells anything alone."""
    guiding, corrupted = (judge.layout.split(vector) for vector in torch.randn(2, 64, judge.layout.length))
    with torch.no_grad():
        same, other = judge(guiding, guiding), judge(guiding, corrupted)
    assert (same[:, 0] > other[:, 0]).float().mean() > 0.9


def test_coefficients_count_by_what_they_do_to_the_drawn_face() -> None:
    """Against the renderer's own vertices and colours, a few coefficients of each kind."""
    face_model = small_face_model()
    layout, scale = face_model.layout(), effects(face_model)
    renderer, step = FaceRenderer(face_model, SIZE), 1e-2
    still = renderer(layout.split(torch.zeros(1, layout.length)))
    firsts = torch.tensor(list(layout.sizes.values())).cumsum(0) - torch.tensor(list(layout.sizes.values()))
    for index in (*firsts.tolist(), *(firsts + 2).tolist()):
        vector = torch.zeros(1, layout.length)
        vector[0, index] = step
        other = renderer(layout.split(vector))
        moved = (other.vertices - still.vertices).square().sum(dim=-1) / LENGTH_UNIT**2
        painted = (other.vertex_colors - still.vertex_colors).square().sum(dim=-1) / COLOR_UNIT**2
        torch.testing.assert_close(scale[index], (moved + painted).mean().sqrt() / step, rtol=0.05, atol=1e-3)


def test_metrics_by_corruption_and_panels() -> None:
    batch, truth = make_batch()
    module = make_module()
    together = Coefficients.from_named({name: value.repeat(3, 1) for name, value in truth.named().items()})
    module.regressor = Told(together)  # type: ignore[assignment]
    logged: dict[str, Tensor] = {}
    module.log = lambda name, value, **_: logged.update({name: value})  # type: ignore[method-assign,assignment]
    module.log_dict = lambda values, **_: logged.update(values)  # type: ignore[method-assign,assignment]
    module.validation_step(batch, 0)
    module.on_validation_epoch_end()
    for name in ("clean", "delusional", "noisy"):
        assert logged[f"val/{name}/shape_rmse_mm"] < 1e-4  # rounding
        assert logged[f"val/{name}/texture_rmse"] < 1e-4  # rounding
        assert (f"val/{name}/posed_drift_mm" in logged) == (name != "clean")
    assert "val/rational/nme" not in logged
    pictures = module.panels(batch)
    assert {"input", "delusional", "delusional overlay", "noisy overlay"} <= set(pictures)
    assert all(picture.shape == batch.image.shape for picture in pictures.values())


def test_the_drift_is_measured_from_the_same_networks_clean_answer() -> None:
    """However wrong that is: a turn by a radians about the mean vertex moves it by 2 sin(a / 2) times its distance."""
    model, angle = small_face_model(), 0.2
    batch, truth = make_batch()
    module = make_module()
    clean = replace(truth, identity=truth.identity + 1, angles=torch.zeros_like(truth.angles))
    turned = replace(clean, angles=clean.angles + torch.tensor([0.0, 0.0, angle]), translation=clean.translation + 0.3)
    answers = {"clean": clean, "delusional": turned, "noisy": clean}
    module.own_metrics.update(batch, answers, module.render(batch, answers))
    found = module.own_metrics.compute()
    shape = model.shape(clean.identity, clean.expression)
    around = (shape - shape.mean(dim=1, keepdim=True))[..., :2].square().sum(dim=-1).mean(dim=1).sqrt().mean()
    assert found["delusional/posed_drift_mm"] == pytest.approx(200 * math.sin(angle / 2) * float(around), rel=1e-4)
    assert found["noisy/posed_drift_mm"] < 1e-3 < found["noisy/posed_rmse_mm"]


def felt(configuration: str) -> float:
    """How long L_C's gradient is beside those of L_O and L_N, weighted, in what the head's outputs move."""
    given = yaml.safe_load((EXPERIMENTS / "rogue" / f"{configuration}.yaml").read_text())
    module = make_module(ROGUEWeights(**given["model"]["init_args"]["weights"]))
    batch, truth = make_batch()
    layout = small_face_model().layout()
    units = torch.cat([torch.full((size,), HEAD_SCALES[name]) for name, size in layout.sizes.items()])
    moved = {name: torch.randn(len(batch), layout.length).requires_grad_() for name in ("delusional", "noisy")}
    wrong = {name: layout.split(layout.join(truth) + 0.2 * units * value) for name, value in moved.items()}
    coefficients = {"clean": truth, **wrong}
    terms = module.robustification_terms(batch, coefficients, module.render(batch, coefficients))
    weights = module.weights.terms()

    def length(*names: str) -> Tensor:
        loss = weighted_sum({name: terms[name] for name in names}, weights)
        return torch.cat(torch.autograd.grad(loss, list(moved.values()), retain_graph=True)).norm()

    return float(length("consistency") / length("occlusion", "noise"))


def test_the_papers_weight_leaves_the_game_without_effect_and_the_balanced_one_does_not() -> None:
    """The printed beta_C = 1e-3; its discriminators stay as they were drawn, for they learn at a rate of 1e-8."""
    assert felt("paper") < 3e-5
    assert 1e-2 < felt("paper_balanced") < 1
