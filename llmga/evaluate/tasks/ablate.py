"""Table 6: what each part of the training data brings: rows that differ in the chat engine alone, in two tables at once."""

from __future__ import annotations

from dataclasses import dataclass

from ..paper import Claim
from ..results import TableResult
from ..stages import Stages
from . import fill, text_to_image
from .fill import FillConfig
from .text_to_image import TextToImageConfig


@dataclass(frozen=True)
class AblateConfig:
    """Settings of Table 6: both tables with rows of the same names, one for each engine that was trained on less data."""

    t2i: TextToImageConfig
    fill: FillConfig
    """One set of holes."""
    claims: tuple[Claim, ...] = ()
    minutes: float = 0.0
    """Of one CPU core, for ``llmga evaluate all`` to say beforehand what it takes; 0 where nobody measured it."""


def run(config: AblateConfig, stages: Stages) -> list[TableResult]:
    """Both tables side by side; the figures of the second are called ``METRIC: TABLE``.

    Raises:
        ValueError, FileNotFoundError: the configuration cannot be used; the message names what is wrong.
    """
    names = [[row.name for row in part.rows] for part in (config.t2i, config.fill)]
    if names[0] != names[1] or len(config.fill.holes) != 1:
        raise ValueError(
            f"'t2i' and 'fill' must hold rows of the same names and 'fill' one set of holes, got {names[0]} and "
            f"{names[1]} and {len(config.fill.holes)} sets"
        )
    (painted,), (filled,) = text_to_image.run(config.t2i, stages), fill.run(config.fill, stages)
    kind = filled.table.partition("-")[0] + "ing"
    rows = {
        name: {
            **painted.rows[name],
            **{f"{metric}: {kind}": estimate for metric, estimate in filled.rows[name].items()},
        }
        for name in painted.rows
    }
    conditions = {
        **painted.conditions,
        **{f"{kind}: {key}": value for key, value in filled.conditions.items()},
    }
    notes = {name: [*painted.notes[name], *filled.notes[name]] for name in painted.rows}
    return [TableResult("ablate", conditions, rows, notes)]
