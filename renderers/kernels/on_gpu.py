"""A decorator: on a GPU a function runs as one Warp kernel."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from importlib import import_module
from importlib.util import find_spec
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

Parameters = ParamSpec("Parameters")
Answer = TypeVar("Answer")


def on_gpu(module: str) -> Callable[[Callable[Parameters, Answer]], Callable[Parameters, Answer]]:
    """On CUDA in single precision, calls the function of the same name in another module.

    A GPU spends nearly all the time of a torch operation on reading and writing pictures. A kernel does the work of the
    whole function and reads and writes once. The decorated function runs on every other device and in every other
    precision. It defines what is computed, and the kernel is tested against it.

    Args:
        module: of the kernels, imported when first needed.
    """

    def decorate(function: Callable[Parameters, Answer]) -> Callable[Parameters, Answer]:
        @wraps(function)
        def chosen(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Answer:
            if has_kernels(*args, *kwargs.values()):
                return getattr(import_module(module), function.__name__)(*args, **kwargs)
            return function(*args, **kwargs)

        return chosen

    return decorate


def has_kernels(*values: Any) -> bool:
    """Whether those of the values that are tensors lie on a GPU, in single precision where they are real numbers."""
    tensors = [value for value in values if isinstance(value, Tensor)]
    fit = all(
        tensor.is_cuda and (tensor.dtype == torch.float32 or not tensor.is_floating_point()) for tensor in tensors
    )
    return fit and bool(tensors) and find_spec("warp") is not None
