"""Builders of LLMGA's training data with any vision-language model: captions, refinements and edits.

A build asks (``asking``), cleans (``cleaning``), and writes into ``out``: ``answers.jsonl`` with every raw
reply, ``train.json`` in the released schema, and ``manifest.json``. Running it again asks only what is
missing or was answered about another picture, and applies the cleaning rules anew to all answers.

Source: LLMGA §3.2 (GPT-4V captions; a language model writes ``Instruction: … Target caption: …``). The paper
gives neither prompts nor cleaning rules, so both are ours.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ..chat.endpoints import find_endpoint
from ..chat.engines.base import ChatEngine, Sampling
from ..chat.engines.endpoint import EndpointEngine, EndpointError
from ..files.writing import sweep, write_text
from .asking import Answer, AnswerLog, OnAnswer, Question, ask_all
from .cleaning import RULES, CaptionRules, RejectedError, clean_caption, clean_edit, word_list
from .schemas import Caption, Edit, Records, Refinement, check_image_path, write_records
from .templates import Language

PICTURE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"})

_KEY_DIGITS = 12
Built = Caption | Refinement | Edit
"""A record that a build makes."""

_LANGUAGES: Mapping[Language, str] = {"en": "English", "zh": "Chinese"}

_STYLE = """\
Write one paragraph of plain {language}, 120 to 200 words: first the main subject, its look and what it \
does, then each other thing and where it stands, then surroundings, viewpoint, light, colours and medium. \
Left and right are as the viewer sees them. Name only what can be seen, guess nothing, and do not speak of \
"the image". No lists, no headings."""

CAPTION_PROMPT = "Describe this picture so that a painter who never saw it could paint it again.\n" + _STYLE

REFINEMENT_PROMPT = (
    "Here is a short caption of a picture:\n{caption}\n\n"
    "Write the detailed caption. Keep every fact of the short one, and work out what it leaves open.\n"
    + _STYLE
)

EDIT_PROMPT = """\
Here is the caption of a picture:
{caption}

Invent one edit of this picture: {kind}. Answer in {language} and in exactly this form:
Instruction: what a person would ask for, as a command of at most 20 words
Target caption: the caption of the edited picture, with as few words changed as possible"""

EDIT_KINDS = (
    "replace one thing by another",
    "change the colour or material of one thing",
    "add one thing",
    "remove one thing",
    "change the background",
    "change the season, the weather or the time of day",
    "change the medium or the style",
    "change the pose or the number of the main subject",
)


@dataclass(frozen=True)
class Options:
    """Settings of a build.

    Args:
        language: of what the model writes.
        sampling: its seed moves the seeds of all questions.
        concurrency: requests at a time; 1 for an engine that runs in this process.
        on_step: gets the count of answers and questions.
    """

    language: Language = "en"
    sampling: Sampling = Sampling(temperature=0.7, top_p=0.95, max_new_tokens=512)
    concurrency: int = 4
    on_step: OnAnswer = lambda done, total: None


@dataclass(frozen=True)
class Manifest:
    """Summary of a build, written as ``manifest.json``.

    Args:
        kind: ``captions``, ``refinements`` or ``edits``.
        settings: what the answers depend on: engine name, prompts, language, sampling.
        asked: questions in all; of these
        kept: are records in ``train.json``,
        rejected: were thrown away, each reason with the keys of its questions,
        failed: got no answer, each key with the error; run the build again. A picture whose name no record can hold is
            among them, by its name as Python writes it.
        sha256: of the files written.
    """

    kind: str
    settings: dict[str, Any]
    asked: int
    kept: int
    rejected: dict[str, list[str]]
    failed: dict[str, str]
    sha256: dict[str, str]


@dataclass(frozen=True)
class _Job:
    question: Question
    to_record: Callable[[str], Built]  # from the raw reply; raises RejectedError


def build_captions(folder: Path, engine: ChatEngine, out: Path, options: Options | None = None) -> Manifest:
    """Describe every picture under ``folder`` in detail; ``train.json`` holds ``{image, caption}``.

    It serves similar generation, inpainting, outpainting, and the second training stage. ``out`` is made if
    need be, and continued if it was begun.

    Raises:
        NotADirectoryError: there is no such folder.
        ValueError: it holds no pictures, the engine sees none, or ``out`` was begun with other settings.
        EndpointError: the endpoint is down; run it again, what was answered is kept.
    """
    if not folder.is_dir():
        raise NotADirectoryError(f"there is no folder {folder}; 'folder' must hold the pictures")
    options = options or Options()
    prompt = CAPTION_PROMPT.format(language=_LANGUAGES[options.language])
    rules = RULES[options.language]

    files = sorted(f for f in folder.rglob("*") if f.suffix.lower() in PICTURE_SUFFIXES and not f.is_dir())
    if not files:
        raise ValueError(f"folder {folder} holds no picture ({', '.join(sorted(PICTURE_SUFFIXES))})")
    jobs: list[_Job] = []
    misnamed: dict[str, str] = {}
    for file in files:
        name = file.relative_to(folder).as_posix()
        try:
            jobs.append(_caption_job(check_image_path(name), file, prompt, rules))
        except ValueError as error:
            misnamed[repr(name)] = f"rename the file: {error}"
    return _build("captions", (CAPTION_PROMPT,), jobs, engine, out, options, misnamed)


def _caption_job(image: str, file: Path, prompt: str, rules: CaptionRules) -> _Job:
    return _Job(Question(image, prompt, file), lambda reply: Caption(image, clean_caption(reply, rules)))


def build_refinements(
    source: Path,
    engine: ChatEngine,
    out: Path,
    options: Options | None = None,
    *,
    images: Path | None = None,
) -> Manifest:
    """Write each short caption of ``source`` (``{image, caption}``) out; ``{image, caption, ori_caption}``.

    With the folder ``images`` the model is shown the pictures too. Raises as ``build_captions``, and
    ``ValueError`` where ``source`` is not as said.
    """
    if images is not None and not images.is_dir():
        raise NotADirectoryError(
            f"there is no folder {images}; 'images' must be the folder that the paths in {source} begin at"
        )
    options = options or Options()
    rules = RULES[options.language]

    def job(short: Caption) -> _Job:
        text = REFINEMENT_PROMPT.format(caption=short.caption, language=_LANGUAGES[options.language])
        return _Job(
            Question(_key(short), text, images / short.image if images else None),
            lambda reply: Refinement(short.image, clean_caption(reply, rules), short.caption),
        )

    return _build(
        "refinements", (REFINEMENT_PROMPT,), map(job, Records(source, Caption)), engine, out, options
    )


def build_edits(source: Path, engine: ChatEngine, out: Path, options: Options | None = None) -> Manifest:
    """Invent one edit for each caption of ``source``; ``{image, instruction, new_caption, caption}``.

    Its kind is picked by the caption's hash. Raises as ``build_refinements``, and asks no picture.
    """
    options = options or Options()

    def job(described: Caption) -> _Job:
        key = _key(described)
        kind = EDIT_KINDS[int(key[-_KEY_DIGITS:], 16) % len(EDIT_KINDS)]
        language = _LANGUAGES[options.language]

        def to_record(reply: str) -> Edit:
            instruction, target = clean_edit(reply, described.caption, options.language)
            return Edit(described.image, instruction, target, described.caption)

        text = EDIT_PROMPT.format(caption=described.caption, kind=kind, language=language)
        return _Job(Question(key, text), to_record)

    return _build(
        "edits", (EDIT_PROMPT, *EDIT_KINDS), map(job, Records(source, Caption)), engine, out, options
    )


def _build(
    kind: str,
    prompts: tuple[str, ...],
    jobs: Iterable[_Job],
    engine: ChatEngine,
    out: Path,
    options: Options,
    misnamed: Mapping[str, str] = MappingProxyType({}),
) -> Manifest:
    """Ask, clean and write; ``misnamed`` are pictures that cannot be asked about, each with the reason."""
    by_key = {job.question.key: job for job in jobs}
    settings = {
        "kind": kind,
        "engine": engine.name,
        "language": options.language,
        "sampling": asdict(options.sampling),
        "prompts": prompts,
    }
    out.mkdir(parents=True, exist_ok=True)
    sweep(out, alone=True)
    log = AnswerLog(out / "answers.jsonl", settings)
    failed = ask_all(
        [job.question for job in by_key.values()],
        engine,
        log,
        sampling=options.sampling,
        concurrency=options.concurrency,
        on_step=options.on_step,
    )
    # The log may hold an answer about another picture for a question that failed now.
    kept, rejected = _sort_out(by_key, {key: log.answers[key] for key in by_key if key not in failed})
    write_records(out / "train.json", kept)
    files = ("answers.jsonl", "train.json")
    hashes = {name: hashlib.sha256((out / name).read_bytes()).hexdigest() for name in files}
    asked, failed = len(by_key) + len(misnamed), {**misnamed, **failed}
    manifest = Manifest(kind, settings, asked, len(kept), rejected, failed, hashes)
    write_text(out / "manifest.json", json.dumps(asdict(manifest), ensure_ascii=False, indent=1) + "\n")
    return manifest


def _sort_out(
    jobs: Mapping[str, _Job], answers: Mapping[str, Answer]
) -> tuple[list[Built], dict[str, list[str]]]:
    """Split answers into records to keep and keys of rejected ones by reason, in the order of the jobs."""
    kept: list[Built] = []
    rejected: dict[str, list[str]] = {}
    seen: set[Hashable] = set()
    for key, job in jobs.items():
        if key not in answers:
            continue
        answer = answers[key]
        try:
            if answer.unreadable:
                raise RejectedError("unreadable picture")
            if answer.cut:
                raise RejectedError("cut off at max_new_tokens")
            record = job.to_record(answer.reply)
            # One picture has several short captions, but needs one detailed caption only.
            picture = answer.picture_sha256 if isinstance(record, Caption) else ""
            if picture and picture in seen:
                raise RejectedError("duplicate picture")
            if (said := _said(record)) in seen:
                raise RejectedError("duplicate text")
            seen |= {picture, said}
            kept.append(record)
        except RejectedError as reason:
            rejected.setdefault(str(reason), []).append(key)
    return kept, rejected


def _said(record: Built) -> Hashable:
    """The words that the model wrote, without case and punctuation: equal ones are duplicates."""
    texts = (record.instruction, record.new_caption) if isinstance(record, Edit) else (record.caption,)
    return tuple(tuple(word_list(text)) for text in texts)


def _key(record: Caption) -> str:
    digest = hashlib.sha256(f"{record.image}\n{record.caption}".encode()).hexdigest()
    return f"{record.image}#{digest[:_KEY_DIGITS]}"


def main(argv: Sequence[str] | None = None) -> int:
    """``captions FOLDER | refinements FILE | edits FILE``, each with an endpoint of the owner's file.

    Exit code 0 where every question has an answer and a record was kept, else 1; 2 for wrong arguments.
    """
    parser = argparse.ArgumentParser(
        prog="llmga data", description="Build training data with a language model."
    )
    parser.add_argument("kind", choices=("captions", "refinements", "edits"))
    parser.add_argument("source", type=Path, help="a folder of pictures, or a json file of {image, caption}")
    parser.add_argument("--out", type=Path, required=True, help="the folder to write to, or to go on with")
    parser.add_argument("--endpoints", type=Path, required=True, help="the file of endpoints")
    parser.add_argument("--endpoint", required=True, help="a name in that file")
    parser.add_argument(
        "--images", type=Path, help="refinements: the folder of the pictures, to show them too"
    )
    parser.add_argument("--language", choices=tuple(_LANGUAGES), default="en")
    parser.add_argument("--concurrency", type=int, default=4, help="requests at a time")
    arguments = parser.parse_args(argv)
    if arguments.images is not None and arguments.kind != "refinements":
        parser.error(f"--images is for refinements alone; {arguments.kind} does not read it, leave it out")

    def show(done: int, total: int) -> None:
        sys.stderr.write(f"\r{done} of {total}")
        sys.stderr.flush()

    options = Options(arguments.language, concurrency=arguments.concurrency, on_step=show)
    try:
        engine = EndpointEngine(find_endpoint(arguments.endpoints, arguments.endpoint))
        if arguments.kind == "captions":
            manifest = build_captions(arguments.source, engine, arguments.out, options)
        elif arguments.kind == "refinements":
            manifest = build_refinements(
                arguments.source, engine, arguments.out, options, images=arguments.images
            )
        else:
            manifest = build_edits(arguments.source, engine, arguments.out, options)
    except (ValueError, OSError, EndpointError) as error:
        parser.exit(1, f"\n{error}\n")
    reasons = ", ".join(f"{len(keys)} {reason}" for reason, keys in manifest.rejected.items()) or "none"
    sys.stdout.write(
        f"\n{manifest.kept} of {manifest.asked} kept in {arguments.out / 'train.json'}; rejected: {reasons}; "
        f"failed: {len(manifest.failed)}\n"
    )
    for key, error in list(manifest.failed.items())[:3]:
        sys.stderr.write(f"failed: {key}: {error}\n")
    if len(manifest.failed) > 3:
        sys.stderr.write(f"… all that failed are listed in {arguments.out / 'manifest.json'}\n")
    if not manifest.kept:
        sys.stderr.write(f"llmga data: nothing was kept, {arguments.out / 'train.json'} holds no record\n")
    return 1 if manifest.failed or not manifest.kept else 0
