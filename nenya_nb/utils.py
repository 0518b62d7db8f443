"""DINO's import path, `from nenya_nb.utils import update_teacher_EMA`; the code is in `models.momentum`."""

from .core import seed_everything
from .models.momentum import update_teacher_EMA

__all__ = ["seed_everything", "update_teacher_EMA"]
