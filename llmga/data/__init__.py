"""Training data: the released JSON files, their mixture and instructions, and builders of more data.

``llmga.data.degradations`` must be imported explicitly: it needs torch, and the rest does not.
"""

from .building import Manifest, Options, build_captions, build_edits, build_refinements
from .mixture import Mixture, Part, Preset, parts_from_dict, preset
from .samples import RandomHole, Sample, SampleOptions, SampleTurn, make_sample
from .schemas import Caption, Dialogue, Edit, Message, Record, Records, Refinement, write_records
from .templates import TEMPLATES, pick, tagged

__all__ = [
    "TEMPLATES",
    "Caption",
    "Dialogue",
    "Edit",
    "RandomHole",
    "Manifest",
    "Message",
    "Mixture",
    "Options",
    "Part",
    "Preset",
    "SampleOptions",
    "Record",
    "Records",
    "Refinement",
    "Sample",
    "SampleTurn",
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
