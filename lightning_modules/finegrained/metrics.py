"""The same metrics for the coarse stage and for the fine stage."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import torch
from torch import nn
from torchmetrics import Metric, MetricCollection

from datamodules.batch import FaceBatch
from lightning_modules.components.evaluation import NamedMetrics
from losses.metrics import MaskedPSNR, MaskedRMSE, MaskedSSIM, NormalAngularError
from renderers.face_renderer import Rendering

STAGES = ("coarse", "fine")
HELD_OUT = "held_out/"  # before the names of what is measured in pictures that the face was not found in


class StageMetrics(NamedMetrics):
    """PSNR, SSIM and RMSE (tables 1 to 3 and 5) and the normals' angular error, of the coarse and of the fine faces.

    Pictures are compared where the rendered and the true face overlap, or on the whole rendered face if the true one is
    not known. Both stages cover the same pixels. Normals are compared if the true ones are known. Everything is
    measured twice: in the picture that the face was found in, and, if there is one, in a held-out picture.
    """

    def __init__(self) -> None:
        super().__init__()
        metrics = MetricCollection(
            {
                "psnr": MaskedPSNR(),
                "ssim": MaskedSSIM(),
                "rmse": MaskedRMSE(),
                "normal_error_deg": NormalAngularError(),
            },
            compute_groups=False,
        )
        self.sets = nn.ModuleDict({f"{place}{stage}": metrics.clone() for place in ("", HELD_OUT) for stage in STAGES})

    @torch.no_grad()
    def update(self, batch: FaceBatch, coarse: Rendering, fine: Rendering, held_out: bool = False) -> None:
        """Count one batch.

        Args:
            batch: of images.
            coarse: its coarse faces.
            fine: its fine faces.
            held_out: whether the faces were found in other images than these.
        """
        truth = batch.truth
        mask = coarse.mask if truth is None else coarse.mask & (truth.depth > 0)
        for stage, rendering in zip(STAGES, (coarse, fine), strict=True):
            known = cast(MetricCollection, self.sets[HELD_OUT * held_out + stage])
            for name in ("psnr", "ssim", "rmse"):
                known[name].update(rendering.image, batch.image, mask)
            if truth is not None and truth.normals is not None:
                known["normal_error_deg"].update(rendering.normals, truth.normals)

    def named(self) -> Iterator[tuple[str, Metric]]:
        """Each with its name, `STAGE_METRIC` or `held_out/STAGE_METRIC`."""
        for part, metrics in self.sets.items():
            for name, metric in cast(MetricCollection, metrics).items():
                yield f"{part}_{name}", metric
