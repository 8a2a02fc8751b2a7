"""Training data: the released json files, their mixture, instructions; building more of it.

``llmga.data.degradations`` is imported by itself, for it brings torch, and the rest does without.
"""

from .building import Manifest, Options, build_captions, build_edits, build_refinements
from .mixture import Mixture, Part, Preset, parts_from_dict, preset
from .samples import Hole, Recipe, Sample, Turn, make_sample
from .schemas import Caption, Dialogue, Edit, Message, Record, Records, Refinement, write_records
from .templates import TEMPLATES, pick, tagged

__all__ = [
    "TEMPLATES",
    "Caption",
    "Dialogue",
    "Edit",
    "Hole",
    "Manifest",
    "Message",
    "Mixture",
    "Options",
    "Part",
    "Preset",
    "Recipe",
    "Record",
    "Records",
    "Refinement",
    "Sample",
    "Turn",
    "build_captions",
    "build_edits",
    "build_refinements",
    "make_sample",
    "parts_from_dict",
    "pick",
    "preset",
    "tagged",
    "write_records",
]
