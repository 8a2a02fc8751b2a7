"""Editing real pictures: inversion, prompt alignment, attention control, blending, and the two editors."""

from .control import Blend, Control
from .editor import Edited, edit
from .inversion import Trajectory, invert

__all__ = ["Blend", "Control", "Edited", "Trajectory", "edit", "invert"]
