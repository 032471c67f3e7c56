"""Warp kernels on torch's tensors, with the gradients that Warp derives: one source for CPU and CUDA."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import warp as wp
from torch import Tensor
from torch.autograd.function import once_differentiable

from renderers.kernels.warp_start import start_warp

start_warp()

PIECES = 256  # copies of a number that a whole image reads, so that its gradient is not summed in one place


def launch(
    kernel: wp.Kernel,
    dim: Sequence[int],
    inputs: Sequence[Any],
    outputs: Sequence[Tensor],
    adjoint: tuple[Sequence[Tensor | None], Sequence[Tensor | None]] | None = None,
) -> None:
    """Runs a kernel where its first output is, on torch's current stream.

    Args:
        kernel: whose arguments are `inputs`, then `outputs`.
        dim: threads along each of its axes.
        inputs: tensors and numbers.
        outputs: written in place.
        adjoint: runs it backwards: the inputs' gradients, which are added to, and the outputs'; None where not wanted.
    """
    if 0 in dim:
        return
    device, kinds = outputs[0].device, [argument.type for argument in kernel.adj.args]
    before, after = kinds[: len(inputs)], kinds[len(inputs) :]
    ordered = [_in_order(value) for value in inputs]
    gradients = {} if adjoint is None else {
        "adj_inputs": _arrays(adjoint[0], before), "adj_outputs": _arrays(adjoint[1], after), "adjoint": True,
    }  # fmt: skip
    wp.launch(
        kernel,
        dim=tuple(dim),
        inputs=_arrays(ordered, before),
        outputs=_arrays(outputs, after),
        device=wp.device_from_torch(device),
        stream=wp.stream_from_torch(torch.cuda.current_stream(device)) if device.type == "cuda" else None,
        **gradients,
    )


def _in_order(value: Any) -> Any:
    """A tensor whose vectors' components are neighbours in memory; anything else as it is."""
    return value.contiguous() if isinstance(value, Tensor) else value


def _arrays(values: Sequence[Any], kinds: Sequence[Any]) -> list[Any]:
    """Tensors as what a kernel's arguments of these kinds take, without a copy; anything else as it is."""
    return [
        wp.from_torch(value.detach(), dtype=kind.dtype, requires_grad=False, return_ctype=True)
        if isinstance(value, Tensor)
        else value
        for value, kind in zip(values, kinds, strict=True)
    ]


def differentiable(
    kernel: wp.Kernel, dim: Sequence[int], inputs: Sequence[Any], outputs: Sequence[Tensor]
) -> tuple[Tensor, ...]:
    """The outputs of a kernel, with gradients to the inputs that are real-valued tensors.

    Args:
        kernel: whose arguments are `inputs`, then `outputs`, every number of which it writes.
        dim: threads along each of its axes.
        inputs: tensors and numbers.
        outputs: new and empty.
    """
    return _Differentiable.apply(kernel, dim, outputs, *inputs)


class _Differentiable(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, kernel: wp.Kernel, dim: Sequence[int], outputs: Sequence[Tensor], *inputs: Any
    ) -> tuple[Tensor, ...]:
        given = [_in_order(value) for value in inputs]
        launch(kernel, dim, given, outputs)
        ctx.kernel, ctx.dim, ctx.outputs = kernel, dim, len(outputs)
        ctx.numbers = [None if isinstance(value, Tensor) else value for value in given]
        ctx.save_for_backward(*(value for value in given if isinstance(value, Tensor)), *outputs)
        ctx.mark_non_differentiable(*(output for output in outputs if not output.is_floating_point()))
        return tuple(outputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        saved = list(ctx.saved_tensors)
        outputs = saved[len(saved) - ctx.outputs :]
        inputs = [saved.pop(0) if number is None else number for number in ctx.numbers]
        wanted = ctx.needs_input_grad[3:]
        sums = [torch.zeros_like(value) if want else None for value, want in zip(inputs, wanted, strict=True)]
        given = [part.contiguous() if part.is_floating_point() else None for part in gradients]
        launch(ctx.kernel, ctx.dim, inputs, outputs, (sums, given))
        return None, None, None, *sums


def in_pieces(numbers: Tensor, images: int) -> Tensor:
    """(B, K) numbers of whole images -> (B, K, PIECES) copies, whose gradients are summed afterwards.

    Neighbouring threads read neighbouring copies: `numbers[image, k, thread % PIECES]`.

    Args:
        numbers: (B, K), or (1, K) for all images alike.
        images: B.
    """
    return numbers.unsqueeze(-1).expand(images, -1, PIECES)
