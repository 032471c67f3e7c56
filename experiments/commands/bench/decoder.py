"""Shape and albedo from coefficients, forward and backward, against dense bases multiplied one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from experiments.commands.bench.measure import Row, race
from experiments.commands.bench.meshes import face_like_model
from renderers.face_models.linear import LinearModel

FACES = 70_789
BATCH = 8


class DenseBases:
    """The decoder as its equation is written: (V, 3, K) bases, one product for each kind of coefficient.

    Args:
        model: whose bases they are.
    """

    def __init__(self, model: LinearModel) -> None:
        self.mean_shape, self.mean_albedo = model.mean_shape, model.mean_albedo
        self.identity_basis = model.identity_basis.contiguous()
        self.expression_basis = model.expression_basis.contiguous()
        self.albedo_basis = model.albedo_basis.contiguous()

    def __call__(self, identity: Tensor, expression: Tensor, albedo: Tensor) -> tuple[Tensor, Tensor]:
        """(B, I), (B, E), (B, A) -> shape and albedo, (B, V, 3) each."""
        shape = self.mean_shape + torch.einsum("vck,bk->bvc", self.identity_basis, identity)
        shape = shape + torch.einsum("vck,bk->bvc", self.expression_basis, expression)
        return shape, self.mean_albedo + torch.einsum("vck,bk->bvc", self.albedo_basis, albedo)


def run(device: torch.device) -> Iterator[Row]:
    """One row, at the size of BFM 2009."""
    model = face_like_model(FACES).to(device)
    dense = DenseBases(model)
    generator = torch.Generator().manual_seed(0)
    sizes = (model.identity_size, model.expression_size, model.albedo_size)
    given = [torch.randn(BATCH, size, generator=generator).to(device).requires_grad_() for size in sizes]

    def ours(identity: Tensor, expression: Tensor, albedo: Tensor) -> tuple[Tensor, Tensor]:
        return model.shape(identity, expression), model.albedo(albedo)

    def trained(decode: Callable[..., tuple[Tensor, Tensor]]) -> Callable[[], None]:
        def step() -> None:
            shape, albedo = decode(*given)
            torch.autograd.grad(shape.sum() + albedo.square().sum(), given)

        return step

    case = f"shape and albedo: {model.vertex_count:,} vertices, {sum(sizes)} coefficients, {BATCH} faces"
    yield race("decoder", case, device, trained(ours), "dense bases by einsum", trained(dense))
