"""RFBench: pictures of prompts that are hard to imagine, several of each, scored by a language model that sees them.

GPT4Score is the released script's two turns, a description and then a score; GPT4-CLIP compares the description with the
prompt, which is an assumption (see ``gpt4score``). The published list of prompts is not ours to ship: give it as a CSV file,
or take our own prompts of the same nine sub-categories.

A row whose painter paints planned scenes gets the plan of a scene from its chat engine instead of a prompt, as RFNet
does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from ...chat.conversation import Picture
from ...chat.engines.base import Sampling
from ...images import read_picture
from ..cache_keys import cache_key
from ..data import DataConfig, load_scores, read_items
from ..estimates import Estimate
from ..extractors import Extractor, load_network
from ..gpt4score import Judgement, caption_similarity, judge_picture
from ..paper import Claim
from ..prompting import AskedConversation, paint_turn, prompts_of_row
from ..results import TableResult
from ..rfbench import PICTURES, BenchPrompt, by_category
from ..stages import Row, Stages, faults
from ..writers import ChatConfig, EngineCalls, Writer, WrittenPrompt, load_engine
from .text_to_image import check_rows


@dataclass(frozen=True)
class RFBenchConfig:
    """Settings of RFBench."""

    data: DataConfig
    rows: tuple[Row, ...]
    pictures: int = PICTURES
    """Of each prompt."""
    judge: ChatConfig = field(default_factory=lambda: ChatConfig(temperature=0.0))
    """A chat engine that sees pictures; empty for none, and then ``scores`` judge alone."""
    clip: str = ""
    """A network that reads texts, for GPT4-CLIP; empty leaves it out."""
    size: int = 512
    """Sides of the painted pictures, in pixels."""
    seed: int = 0
    scores: tuple[str, ...] = ()
    """Judges of your own, ``package.module:function`` each; they get each prompt as often as it has pictures."""
    claims: tuple[Claim, ...] = ()
    device: str = "cpu"
    """Of the network."""
    minutes: float = 0.0
    """Of one CPU core, for ``llmga evaluate all`` to say beforehand what it takes; 0 where nobody measured it."""


def run(config: RFBenchConfig, stages: Stages) -> list[TableResult]:
    """One result: ``GPT4Score: all`` and so on by sub-category and group, the unit being the prompt.

    Raises:
        ValueError, FileNotFoundError: the configuration cannot be used; the message names what is wrong.
    """
    check_rows(config.rows, embedders=True)
    if config.pictures < 1:
        raise ValueError(f"'pictures' must be at least 1, got {config.pictures}")
    prompts: list[BenchPrompt] = read_items(config.data, stages.folder / "data")
    clip = load_network(config.clip, config.device) if config.clip else None
    if clip is not None and (not isinstance(clip, Extractor) or clip.texts is None):
        raise ValueError(f"'clip' must be a network that reads texts, got {config.clip!r}")
    scores = load_scores(config.scores)
    if not config.judge.engine and not scores:
        raise ValueError(
            "nothing judges the pictures: name a chat engine in 'judge', or a judge of your own in 'scores'"
        )
    repeated = [(one, number) for one in prompts for number in range(config.pictures)]
    rows: dict[str, dict[str, Estimate]] = {}
    notes = {}
    for row in config.rows:
        painted, notes[row.name] = _painted(row, repeated, config, stages)
        rows[row.name] = {}
        if config.judge.engine:
            found, said = _judged(row, prompts, repeated, painted, config, stages, clip)
            rows[row.name] |= found
            notes[row.name] += said
        for score in scores:
            rows[row.name] |= score([one for one, _ in repeated], painted)
    conditions = {
        "prompts": len(prompts),
        "pictures": config.pictures,
        "data": cache_key(prompts),
        "size": config.size,
        "judge": {**asdict(config.judge), "key": cache_key(config.judge)},
        "text network": f"{clip.name} ({clip.digest[:16]})" if isinstance(clip, Extractor) else "none",
        "seed": config.seed,
    }
    return [TableResult("rfbench", conditions, rows, notes)]


def _painted(
    row: Row, repeated: Sequence[tuple[BenchPrompt, int]], config: RFBenchConfig, stages: Stages
) -> tuple[list[Path], list[str]]:
    """The pictures of a row, and what must be said of its prompts. Each picture of a prompt is written for anew."""
    asked = [
        AskedConversation(f"{one.id}-{number}", ((one.prompt,),), (one.prompt,)) for one, number in repeated
    ]
    if not row.painter.paints_plans or row.embedder.kind:
        given, said = prompts_of_row("rfbench", row, asked, "refine", config.seed, stages)
        return paint_turn("rfbench", row, asked, given, 0, config.size, config.seed, stages), said

    def plan(writer: Writer, i: int) -> WrittenPrompt:
        own = repeated[i][0].plan
        return WrittenPrompt(own) if own else writer.plan(repeated[i][0].prompt, config.seed + i)

    keys = [one.key for one in asked]
    of = ("scenes", [asdict(one) for one, _ in repeated], config.seed)
    plans = stages.write(f"rfbench, {row.name}: plans", keys, row.chat, plan, *of)
    planned = [
        AskedConversation(one.key, ((p.prompt,),), (p.prompt,)) for one, p in zip(asked, plans, strict=True)
    ]
    alone = Row(row.name, painter=row.painter)
    given, _ = prompts_of_row("rfbench", alone, planned, "refine", config.seed, stages)
    painted = paint_turn("rfbench", alone, planned, given, 0, config.size, config.seed, stages)
    return painted, faults(plans)


def _judged(
    row: Row,
    prompts: Sequence[BenchPrompt],
    repeated: Sequence[tuple[BenchPrompt, int]],
    painted: Sequence[Path],
    config: RFBenchConfig,
    stages: Stages,
    clip: Any,
) -> tuple[dict[str, Estimate], list[str]]:
    """GPT4Score and GPT4-CLIP by category, and what must be said of answers without a score."""
    keys = [f"{one.id}-{number}" for one, number in repeated]
    engine = lru_cache(1)(lambda: load_engine(config.judge.engine))
    calls = EngineCalls()

    def make(i: int) -> Mapping[str, Any]:
        sampling = Sampling(
            seed=config.judge.seed + i,
            temperature=config.judge.temperature,
            max_new_tokens=config.judge.max_new_tokens,
        )
        picture = Picture.from_pil(read_picture(painted[i]))
        ask = partial(
            judge_picture,
            engine(),
            picture,
            repeated[i][0].prompt,
            sampling=sampling,
            on_text=lambda text: None,
        )
        try:
            return asdict(calls.call(ask))
        except ValueError as error:  # a NoScoreError among them
            return {"fault": str(error)}

    of = (config.judge, [*painted], [one.prompt for one, _ in repeated])
    found = stages.records(f"rfbench, {row.name}: judgements", "judgements", keys, make, *of, calls=calls)
    judgements = {key: Judgement(**one) for key, one in zip(keys, found, strict=True) if "fault" not in one}
    figures = {"GPT4Score": {key: one.score for key, one in judgements.items()}}
    if clip is not None:
        wanted = {key: one.prompt for key, (one, _) in zip(keys, repeated, strict=True)}
        figures["GPT4-CLIP"] = caption_similarity(judgements, wanted, clip.texts)
    estimates: dict[str, Estimate] = {}
    for metric, values in figures.items():
        by_prompt: dict[str, list[float]] = {}
        for key, (one, _) in zip(keys, repeated, strict=True):
            if key in values:
                by_prompt.setdefault(one.id, []).append(values[key])
        estimates |= {
            f"{metric}: {category}": value for category, value in by_category(prompts, by_prompt).items()
        }
    missing = [one["fault"] for one in found if "fault" in one]
    said = [f"{len(missing)} of {len(found)} pictures have no score ({missing[0][:120]})"] if missing else []
    return estimates, said
