"""What the fine stage adds to the coarse one: both measured by the same rules."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import torch
from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection

from datamodules.batch import FaceBatch
from lightning_modules.components.evaluation import NamedMetrics
from losses.metrics import MaskedPSNR, MaskedRMSE, MaskedSSIM, NormalAngularError
from renderers.face_renderer import Rendering

STAGES = ("coarse", "fine")


class StageMetrics(NamedMetrics):
    """PSNR, SSIM and RMSE (tables 1 to 3 and 5) and the normals' angular error, of the coarse and of the fine faces.

    Pictures are compared where the drawn face lies on the true one, or all over the drawn one where the truth is not
    known; both stages draw the same pixels. Normals need a truth that has them.
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
    def update(self, batch: FaceBatch, rendering: Rendering, drawn: Rendering) -> None:
        """Count one batch.

        Args:
            batch: of images.
            rendering: its coarse faces.
            drawn: its fine faces.
        """
        truth = batch.truth
        mask = rendering.mask if truth is None else rendering.mask & (truth.depth > 0)
        shown: dict[str, tuple[Tensor, Tensor]] = {
            "coarse": (rendering.image, rendering.normals),
            "fine": (drawn.image, drawn.normals),
        }
        for stage, (image, normals) in shown.items():
            known = self.of(stage)
            for name in ("psnr", "ssim", "rmse"):
                known[name].update(image, batch.image, mask)
            if truth is not None and truth.normals is not None:
                known["normal_error_deg"].update(normals, truth.normals)

    def named(self) -> Iterator[tuple[str, Metric]]:
        """Each with its name `STAGE_METRIC`."""
        for stage in STAGES:
            for name, metric in self.of(stage).items():
                yield f"{stage}_{name}", metric
