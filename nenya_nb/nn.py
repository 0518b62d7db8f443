"""Lucid's import path: torch's layers and its own, `import nenya_nb.nn as nn; nn.ResNet`; the code is in `models`."""

from torch.nn import *  # noqa: F403

from .models.backbones.resnet import ResNet
from .models.blocks import BasicBlock, Bottleneck
