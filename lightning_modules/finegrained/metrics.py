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


class StageMetrics(NamedMetrics):
    """PSNR, SSIM and RMSE (tables 1 to 3 and 5) and the normals' angular error, of the coarse and of the fine faces.

    Pictures are compared where the rendered and the true face overlap, or on the whole rendered face if the true one is
    not known. Both stages cover the same pixels. Normals are compared if the true ones are known.
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
        self.sets = nn.ModuleDict({stage: metrics.clone() for stage in STAGES})

    def of(self, stage: str) -> MetricCollection:
        """The metrics of one stage."""
        return cast(MetricCollection, self.sets[stage])

    @torch.no_grad()
    def update(self, batch: FaceBatch, coarse: Rendering, fine: Rendering) -> None:
        """Count one batch.

        Args:
            batch: of images.
            coarse: its coarse faces.
            fine: its fine faces.
        """
        truth = batch.truth
        mask = coarse.mask if truth is None else coarse.mask & (truth.depth > 0)
        for stage, rendering in zip(STAGES, (coarse, fine), strict=True):
            known = self.of(stage)
            for name in ("psnr", "ssim", "rmse"):
                known[name].update(rendering.image, batch.image, mask)
            if truth is not None and truth.normals is not None:
                known["normal_error_deg"].update(rendering.normals, truth.normals)

    def named(self) -> Iterator[tuple[str, Metric]]:
        """Each with its name `STAGE_METRIC`."""
        for stage in STAGES:
            for name, metric in self.of(stage).items():
                yield f"{stage}_{name}", metric
