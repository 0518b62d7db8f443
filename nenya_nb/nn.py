"""Lucid's import path, `import nenya_nb.nn as nn; nn.ResNet`; the code is in `models`."""

from .models.backbones.resnet import ResNet
from .models.blocks import BasicBlock, Bottleneck

__all__ = ["BasicBlock", "Bottleneck", "ResNet"]
