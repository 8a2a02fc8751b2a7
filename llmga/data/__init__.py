"""Training data: the released json files, their mixture, instructions and holes; building more of it.

``llmga.data.degradations`` is imported by itself, for it brings torch, and the rest does without.
"""

from .building import Manifest, Options, build_captions, build_edits, build_refinements
from .masks import MIXES, Borders, Boxes, MaskMix, Strokes
from .mixture import Mixture, Part, Preset, parts_from_dict, preset
from .samples import Hole, Recipe, Sample, Turn, make_sample
from .schemas import Caption, Dialogue, Edit, Message, Record, Records, Refinement, write_records
from .templates import TEMPLATES, pick, tagged

__all__ = [
    "MIXES",
    "TEMPLATES",
    "Borders",
    "Boxes",
    "Caption",
    "Dialogue",
    "Edit",
    "Hole",
    "Manifest",
    "MaskMix",
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
    "Strokes",
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
