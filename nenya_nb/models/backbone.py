"""DINO's import path, `from nenya_nb.models.backbone import BackboneBase`; the code is in `backbones`."""

from .backbones.registry import BackboneBase, get_backbone, register_backbone

__all__ = ["BackboneBase", "get_backbone", "register_backbone"]
