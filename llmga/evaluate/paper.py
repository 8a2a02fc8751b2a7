"""The figures of the paper's tables, and the claims that rest on them, to stand beside what is measured.

Source: Xia et al., LLMGA: Multimodal Large Language Model based Generation Assistant, ECCV 2024, Tables 1 to 4 and 6; of
stories and dialogues Koh et al., Generating Images with Multimodal Language Models, NeurIPS 2023; of RFBench the tables of
RFNet, ECCV 2024.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from .estimates import Estimate

Verdict = Literal["holds", "within the error", "does not hold", "not tested here"]

LOWER = frozenset({"FID", "LPIPS", "L1", "L2"})
"""Metrics of which less is better; of all others, more is. A metric's name may go on behind a colon."""

PAPER: dict[str, dict[str, dict[str, float]]] = {
    "t2i": {
        "SD1.5": {"FID": 24.0081, "IS": 35.99},
        "GILL": {"FID": 25.1123, "IS": 34.20},
        "LLMGA-7b (SD1.5)": {"FID": 23.5946, "IS": 37.12},
        "LLMGA-7b (SD1.5-ft)": {"FID": 18.5234, "IS": 41.04},
        "LLMGA-13b (SD1.5)": {"FID": 23.5828, "IS": 37.58},
        "LLMGA-13b (SD1.5-ft)": {"FID": 18.4063, "IS": 41.16},
    },
    "edit": {
        "InstructPix2Pix": {"L1": 0.1197, "L2": 0.0416, "CLIP-I": 0.8442, "DINO": 0.7252, "CLIP-T": 0.2909},
        "MagicBrush": {"L1": 0.0647, "L2": 0.0224, "CLIP-I": 0.9293, "DINO": 0.8913, "CLIP-T": 0.2979},
        "LLMGA": {"L1": 0.0814, "L2": 0.0218, "CLIP-I": 0.8936, "DINO": 0.8768, "CLIP-T": 0.3137},
    },
    "outpaint-narrow": {
        "SD1.5": {"FID": 2.0167, "LPIPS": 0.2283},
        "LLMGA-7b (SD1.5)": {"FID": 1.5530, "LPIPS": 0.2263},
        "LLMGA-7b (SD1.5-ft)": {"FID": 1.2973, "LPIPS": 0.2215},
        "LLMGA-13b (SD1.5)": {"FID": 1.5631, "LPIPS": 0.2263},
        "LLMGA-13b (SD1.5-ft)": {"FID": 1.2160, "LPIPS": 0.2210},
    },
    "outpaint-wide": {
        "SD1.5": {"FID": 5.0090, "LPIPS": 0.3734},
        "LLMGA-7b (SD1.5)": {"FID": 3.2630, "LPIPS": 0.3688},
        "LLMGA-7b (SD1.5-ft)": {"FID": 2.4409, "LPIPS": 0.3616},
        "LLMGA-13b (SD1.5)": {"FID": 3.0845, "LPIPS": 0.3679},
        "LLMGA-13b (SD1.5-ft)": {"FID": 2.3663, "LPIPS": 0.3609},
    },
    "inpaint-narrow": {
        "SD1.5": {"FID": 1.0795, "LPIPS": 0.1236},
        "LLMGA-7b (SD1.5)": {"FID": 1.0692, "LPIPS": 0.1233},
        "LLMGA-7b (SD1.5-ft)": {"FID": 0.8027, "LPIPS": 0.1171},
        "LLMGA-13b (SD1.5)": {"FID": 1.0326, "LPIPS": 0.1228},
        "LLMGA-13b (SD1.5-ft)": {"FID": 0.7992, "LPIPS": 0.1166},
    },
    "inpaint-wide": {
        "SD1.5": {"FID": 1.2855, "LPIPS": 0.1434},
        "LLMGA-7b (SD1.5)": {"FID": 1.0983, "LPIPS": 0.1427},
        "LLMGA-7b (SD1.5-ft)": {"FID": 0.9807, "LPIPS": 0.1405},
        "LLMGA-13b (SD1.5)": {"FID": 1.0978, "LPIPS": 0.1426},
        "LLMGA-13b (SD1.5-ft)": {"FID": 0.9780, "LPIPS": 0.1400},
    },
    "restore": {
        "LLMGA": {"FID": 2.4409, "LPIPS": 0.3616},
        "DiffIR": {"FID": 2.3587, "LPIPS": 0.3612},
        "DiffRIR, reference": {"FID": 2.2993, "LPIPS": 0.3609},
        "DiffRIR, reference and colour": {"FID": 2.2687, "LPIPS": 0.3607},
    },
    "ablate": {
        "10 % prompt refinement": {"FID": 21.4460, "FID: outpainting": 2.6533},
        "10 % inpainting and outpainting": {"FID": 19.1914, "FID: outpainting": 3.1054},
        "10 % similar image generation": {"FID": 19.5698, "FID: outpainting": 2.6612},
        "10 % instruction-based editing": {"FID": 19.0642, "FID: outpainting": 2.8047},
        "all data": {"FID": 18.5234, "FID: outpainting": 2.4409},
    },
    "story": {
        "SD1.5": {"CLIP-I: 1 caption": 0.592, "CLIP-I: 5 captions": 0.598},
        "GILL": {
            "CLIP-I: 1 caption": 0.581,
            "CLIP-I: 5 captions": 0.612,
            "CLIP-I: 5 captions, 4 pictures": 0.641,
            "LPIPS: 1 caption": 0.702,
            "LPIPS: 5 captions": 0.696,
            "LPIPS: 5 captions, 4 pictures": 0.693,
        },
    },
    "dialog": {
        "SD1.5": {"CLIP-I: 1 round": 0.552, "CLIP-I: 5 rounds": 0.629, "CLIP-I: 10 rounds": 0.622},
        "GILL": {"CLIP-I: 1 round": 0.528, "CLIP-I: 5 rounds": 0.621, "CLIP-I: 10 rounds": 0.645},
    },
    "rfbench": {
        "SD1.5": {
            "GPT4Score: realistic": 0.667,
            "GPT4Score: creative": 0.440,
            "GPT4Score: all": 0.541,
            "GPT4-CLIP: realistic": 0.573,
            "GPT4-CLIP: creative": 0.552,
            "GPT4-CLIP: all": 0.561,
        },
        "RFNet": {
            "GPT4Score: realistic": 0.833,
            "GPT4Score: creative": 0.627,
            "GPT4Score: all": 0.719,
            "GPT4-CLIP: realistic": 0.587,
            "GPT4-CLIP: creative": 0.623,
            "GPT4-CLIP: all": 0.607,
        },
        "RFNet, no part": {"GPT4Score: all": 0.295},
        "RFNet, assessment": {"GPT4Score: all": 0.407},
        "RFNet, guidance": {"GPT4Score: all": 0.554},
        "RFNet, guidance and suppression": {"GPT4Score: all": 0.572},
    },
}
"""By table and row the figures as printed. Table 3 is four tables here, one for each kind of mask. Figure 5 prints none."""


@dataclass(frozen=True)
class Claim:
    """What the paper says of two rows of a table, or of two figures of one row: that one is better in a metric."""

    words: str
    better: str
    worse: str
    metric: str
    worse_metric: str = ""
    """Of the worse row, where it is another one: the same row at another turn, or with less context."""

    def verdict(self, rows: Mapping[str, Mapping[str, Estimate]]) -> Verdict:
        """Whether it holds among measured rows.

        A difference counts where it is more than twice its standard error, which is that over the same units where both
        figures were measured on the same; see ``Estimate.minus``.
        """
        try:
            one, other = rows[self.better][self.metric], rows[self.worse][self.worse_metric or self.metric]
        except KeyError:
            return "not tested here"
        if math.isnan(one.value) or math.isnan(other.value):
            return "not tested here"
        sign = -1 if self.metric.partition(":")[0] in LOWER else 1
        difference = one.minus(other)
        if abs(difference.value) <= 2 * difference.error:
            return "within the error"
        return "holds" if sign * difference.value > 0 else "does not hold"
