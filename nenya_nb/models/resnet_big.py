"""Nenya's import path, `from nenya_nb.models.resnet_big import SupConResNet`; the code is in `encoders`."""

from .encoders import SupCEResNet, SupConResNet, get_resnet

__all__ = ["SupConResNet", "SupCEResNet", "get_resnet"]
