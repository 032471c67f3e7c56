"""Deep3D-style networks and checkpoints with random weights: torchvision's ResNet-50 and seven 1x1 convolutions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import resnet50

WIDTHS = (80, 64, 80, 3, 27, 2, 1)


class ReconstructionNetwork(nn.Module):
    """(B, 3, H, W) in [0, 1] -> (B, 257)"""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.backbone = resnet50()
        del self.backbone.fc
        self.final_layers = nn.ModuleList(nn.Conv2d(2048, width, 1) for width in WIDTHS)
        for module in self.backbone.modules():
            if isinstance(module, nn.BatchNorm2d):  # as if it had seen data
                nn.init.normal_(module.running_mean, std=0.1)  # type: ignore[arg-type]
                nn.init.uniform_(module.running_var, 0.5, 1.5)  # type: ignore[arg-type]
                nn.init.uniform_(module.weight, 0.6, 1.0)
                nn.init.normal_(module.bias, std=0.1)

    def forward(self, image: Tensor) -> Tensor:
        net = self.backbone
        hidden = net.maxpool(net.relu(net.bn1(net.conv1(image))))
        hidden = net.avgpool(net.layer4(net.layer3(net.layer2(net.layer1(hidden)))))
        return torch.cat([layer(hidden) for layer in self.final_layers], dim=1).flatten(1)


def write_checkpoint(path: Path, network: nn.Module, **changes: Any) -> Path:
    """Saves the network as that code base does, with weights of `net_recon` replaced, or dropped where None."""
    held = {**network.state_dict(), **{name.replace("__", "."): value for name, value in changes.items()}}
    optimizer = torch.optim.Adam(network.parameters())
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 10, 0.2)
    contents = {
        "net_recon": {name: value for name, value in held.items() if value is not None},
        "opt_00": optimizer.state_dict(),
        "sched_00": scheduler.state_dict(),
    }
    torch.save(contents, path)
    return path
