"""Backbones in bfloat16: the multiplications alone."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from lightning_modules.components.backbones import CoefficientRegressor, ResNet
from renderers.coefficients import CoefficientLayout


def test_only_a_backbones_multiplications_are_in_bfloat16() -> None:
    torch.manual_seed(0)
    plain = ResNet(18, stages=3).eval()
    fast = ResNet(18, stages=3, mixed_precision=True).eval()
    fast.load_state_dict(plain.state_dict())
    inside: list[torch.dtype] = []
    for convolution in (part for part in fast.modules() if isinstance(part, nn.Conv2d)):
        convolution.register_forward_hook(lambda _, __, answer: inside.append(answer.dtype))
    images = torch.rand(4, 3, 48, 48)
    features: Tensor = fast(images)
    assert set(inside) == {torch.bfloat16}
    assert features.dtype == torch.float32
    torch.testing.assert_close(features, plain(images), rtol=0.05, atol=0.05)
    assert not torch.equal(features, plain(images))
    assert (cosine_similarity(features, plain(images)) > 0.999).all()


def test_weights_and_coefficients_stay_in_single_precision() -> None:
    regressor = CoefficientRegressor(ResNet(18, stages=3, mixed_precision=True), CoefficientLayout(4, 3, 2))
    nn.init.normal_(regressor.head.weight)
    coefficients = regressor(torch.rand(2, 3, 48, 48))
    assert coefficients.identity.dtype == coefficients.angles.dtype == torch.float32
    coefficients.identity.square().sum().backward()
    for parameter in regressor.parameters():
        assert parameter.dtype == torch.float32
        assert parameter.grad is not None and parameter.grad.isfinite().all()
    assert any(
        bool(parameter.grad.any()) for parameter in regressor.backbone.parameters() if parameter.grad is not None
    )
