"""Questions about a scene and their answers, one wording for each answer."""

from __future__ import annotations

from .captions import counted, description, plural, reference, relation, sentence, standing, with_article
from .phrases import ON, QUESTIONS, WHERE, Slot
from .scene import COLOURS, SHAPES, Scene, Thing, choose, is_unseen_pair, shuffled


def sample_question(scene: Scene, seed: int, *, held_out: bool = False) -> tuple[str, str]:
    """A question that the scene can answer, and the answer; ``held_out`` words it as training never does."""
    about = choose(scene.objects, seed, "about")
    named = [thing for thing in scene.objects if WHERE[thing.place] not in reference(scene, thing)]
    kinds = ["colour", "size", "texture", "what", "how many", "exists", "background", "light", "tone"]
    kinds += ["where"] * bool(named) + ["relation"] * (len(scene.objects) > 1)
    kind = choose(kinds, seed, "question")
    words: dict[str, str] = {"it": _pointer(scene, about)}
    match kind:
        case "colour" | "size" | "texture":
            answer = f"it is {getattr(about, kind)}"
        case "where":
            thing = choose(named, seed, "where")
            words, answer = {"it": reference(scene, thing)}, f"it is {WHERE[thing.place]}"
        case "what":
            words, answer = _what_stands(scene, about, seed)
        case "how many":
            words, answer = _how_many(scene, about, seed)
        case "exists":
            words, answer = _exists(scene, about, seed)
        case "relation":
            words, answer = _related(scene, seed)
        case "background":
            answer = f"it is {ON[scene.background].split(' ', 1)[1]}"
        case "light":
            answer = f"it comes from the {scene.light}"
        case _:
            answer = f"it is {scene.tone}"
    return choose(QUESTIONS[kind][held_out], seed, "wording").format(**words), f"{sentence(answer)}."


def _pointer(scene: Scene, thing: Thing) -> str:
    """A name that gives away nothing but the shape."""
    alone = sum(other.shape == thing.shape for other in scene.objects) == 1
    return f"the {thing.shape}" if alone else f"the {thing.shape} {WHERE[thing.place]}"


def _what_stands(scene: Scene, about: Thing, seed: int) -> tuple[dict[str, str], str]:
    if choose(range(3), seed, "free"):
        return {"where": WHERE[about.place]}, description(about)
    return {"where": WHERE[choose(scene.free_places, seed, "place")]}, "nothing"


def _how_many(scene: Scene, about: Thing, seed: int) -> tuple[dict[str, str], str]:
    shape, colour = choose((about.shape, choose(SHAPES, seed, "any")), seed, "shape"), about.colour
    noun, number = choose(
        (
            ("object", len(scene.objects)),
            (f"{colour} object", sum(thing.colour == colour for thing in scene.objects)),
            (shape, sum(thing.shape == shape for thing in scene.objects)),
        ),
        seed,
        "counted",
    )
    return {"things": plural(noun)}, f"there {'is' if number == 1 else 'are'} {counted(number, noun)}"


def _exists(scene: Scene, about: Thing, seed: int) -> tuple[dict[str, str], str]:
    colour, shape = choose(
        ((about.colour, about.shape), choose(_absent(scene), seed, "absent")), seed, "exists"
    )
    present = (colour, shape) in _present(scene)
    return {"thing": with_article(f"{colour} {shape}")}, "yes" if present else "no"


def sample_existence(scene: Scene, seed: int, *, held_out: bool = False) -> tuple[str, str]:
    """A question whether a scene shows an object, and "Yes." or "No.", each half of the time.

    What is not there is as often one that differs in colour, shape or place alone from one that is there. A judge asks such
    questions (``llmga.chat.judge``).
    """
    about, there = choose(scene.objects, seed, "about"), choose((True, False), seed, "there")
    colour, shape, place = about.colour, about.shape, about.place
    if not there:
        absent = _absent(scene)
        alike = [pair for pair in absent if (pair[0] == colour) != (pair[1] == shape)]
        match choose(("any", "alike", "alike", "elsewhere"), seed, "wrong"):
            case "elsewhere" if scene.free_places:
                place = choose(scene.free_places, seed, "free")
            case "alike" if alike:
                colour, shape = choose(alike, seed, "alike")
            case _:
                colour, shape = choose(absent, seed, "absent")
    noun = with_article(
        f"{about.size if choose(range(3), seed, 'size') == 0 else ''} {colour} {shape}".strip()
    )
    if place != about.place or choose(range(3), seed, "place") == 0:
        noun = f"{noun} {WHERE[place]}"
    return choose(QUESTIONS["exists"][held_out], seed, "wording").format(
        thing=noun
    ), f"{'Yes' if there else 'No'}."


_FIND: Slot = (
    (
        "Find {it}.",
        "Show me where {it} is.",
        "Which one is {it}?",
        "What do you see of {it}?",
        "Tell me all about {it}.",
        "I would like to change {it}. Where is it?",
    ),
    ("Can you find {it}?",),
)
"""Not in ``phrases``, for the reason that ``instructions`` gives."""


def sample_find(scene: Scene, seed: int, *, held_out: bool = False) -> tuple[str, str]:
    """A request to find the one object that a name fits, and the sentence with which the reply to an edit of it begins."""
    thing = choose(scene.objects, seed, "find")
    return choose(_FIND[held_out], seed, "wording").format(it=reference(scene, thing)), standing(thing)


def _present(scene: Scene) -> set[tuple[str, str]]:
    return {(thing.colour, thing.shape) for thing in scene.objects}


def _absent(scene: Scene) -> list[tuple[str, str]]:
    """Colours and shapes that a scene does not show together."""
    # A pair that training never shows is never denied either: it would be learned as what does not exist.
    pairs = ((colour, shape) for colour in COLOURS for shape in SHAPES if not is_unseen_pair(colour, shape))
    return [pair for pair in pairs if pair not in _present(scene)]


def _related(scene: Scene, seed: int) -> tuple[dict[str, str], str]:
    a, b = shuffled(scene.objects, seed, "pair")[:2]
    claimed = choose((relation(a, b), relation(b, a)), seed, "claimed")
    words = {"it": reference(scene, a), "relation": claimed, "other": reference(scene, b)}
    return words, "yes" if claimed == relation(a, b) else "no"
