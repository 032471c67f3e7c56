"""The landmark loss and its confidences."""

from __future__ import annotations

import pytest
import torch

from losses.aspect_ratio import lid_distance_loss
from losses.landmark import landmark_loss, landmark_weights, mouth_and_brow_weights


def test_weights_are_strong_on_nose_and_inner_mouth_only() -> None:
    weights = landmark_weights()
    strong = set(range(27, 36)) | set(range(60, 68))
    assert weights.shape == (68,)
    assert [weights[i].item() for i in range(68)] == [10.0 if i in strong else 1.0 for i in range(68)]


def test_the_specular_papers_weights_are_strong_on_brows_and_outer_mouth_only() -> None:
    strong = set(range(17, 27)) | set(range(48, 60))
    assert mouth_and_brow_weights().tolist() == [20.0 if i in strong else 1.0 for i in range(68)]


def test_eyes_may_count_for_more() -> None:
    difference = mouth_and_brow_weights(eyes=10.0) - mouth_and_brow_weights()
    assert difference.nonzero().flatten().tolist() == list(range(36, 48)) and (difference[36:48] == 9).all()


def test_the_lid_term_sees_how_far_eyes_are_open_and_nothing_else() -> None:
    target = torch.rand(1, 68, 2, dtype=torch.float64)
    assert lid_distance_loss(target + 5, target, 224).item() == pytest.approx(0, abs=1e-12)  # another place
    open_eyes = target.clone()
    for upper, lower in ((37, 41), (38, 40), (43, 47), (44, 46)):
        open_eyes[0, upper] = torch.tensor([0.0, -3.0]) + open_eyes[0, lower]
    shut = open_eyes.clone()
    shut[0, 37], shut[0, 38] = shut[0, 41], shut[0, 40] + torch.tensor([1.0, 0.0])
    assert lid_distance_loss(shut, open_eyes, 112).item() == pytest.approx(2 * (3 + 2) / 4)
    half = (0.5 * open_eyes).requires_grad_()
    assert torch.autograd.gradcheck(lambda p: lid_distance_loss(p, open_eyes, 64), (half,))


def test_one_point_off_by_three_and_four_pixels() -> None:
    target = torch.rand(2, 68, 2) * 224
    predicted = target.clone()
    predicted[0, 30] += torch.tensor([3.0, 4.0])  # on the nose
    predicted[1, 0] += torch.tensor([-3.0, 4.0])
    loss = landmark_loss(predicted, target, landmark_weights(), 224)
    assert loss.tolist() == pytest.approx([10 * 25 / 68, 25 / 68], rel=1e-4)


@pytest.mark.parametrize("size", [64, 112, 448])
def test_the_same_face_in_another_size_has_the_same_loss(size: int) -> None:
    predicted, target = torch.rand(2, 3, 68, 2, dtype=torch.float64) * 224
    scale = size / 224
    expected = landmark_loss(predicted, target, landmark_weights(), 224)
    torch.testing.assert_close(landmark_loss(predicted * scale, target * scale, landmark_weights(), size), expected)


def test_gradcheck() -> None:
    predicted = torch.rand(2, 68, 2, dtype=torch.float64, requires_grad=True)
    target = torch.rand(2, 68, 2, dtype=torch.float64)
    weights = landmark_weights().double()
    assert torch.autograd.gradcheck(lambda p: landmark_loss(p, target, weights, 64), (predicted,))
