"""The words of the miniature world, apart from the grammar that joins them.

A slot is (phrasings of training, held-out phrasings); the held-out ones are new sentences of known words.
"""

from __future__ import annotations

from .scene import PLACES

Slot = tuple[tuple[str, ...], tuple[str, ...]]

WHERE = {place: f"in the {place}" if place == "centre" else f"at the {place}" for place in PLACES}
ON = {
    "grass": "on grass",
    "sand": "on sand",
    "snow": "on snow",
    "water": "on water",
    "brick": "on a brick wall",
    "wood": "on wood",
    "sky": "in the sky",
    "night": "in the night sky",
}
NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight")

NOUN: Slot = (
    ("a {size} {texture} {colour} {shape}", "a {size} {colour} {texture} {shape}"),
    ("a {texture} {size} {colour} {shape}",),
)
SHORT: Slot = (
    ("{list}, {on}", "{list} {on}", "{on}, {list}", "a picture with {list}, {on}"),
    ("a simple picture of {list} {on}", "you can see {list}, {on}"),
)

OPENING: Slot = (
    (
        "This simple picture shows {number} {on}.",
        "In this simple picture you can see {number} {on}.",
        "A simple picture of {number} {on}.",
        "Here you can see {number} {on}.",
    ),
    ("{On} you can see {number}.", "Here is a simple picture that shows {number} {on}."),
)
OBJECT: Slot = (
    (
        "{Noun} stands {where}.",
        "{Where} there is {noun}.",
        "{Noun} can be seen {where}.",
        "{Where} you find {noun}.",
        "There is {noun} {where}.",
    ),
    ("{Where} stands {noun}.", "You find {noun} {where}."),
)
RELATION: Slot = (
    ("{A} is {relation} {b}.", "{A} stands {relation} {b}."),
    ("{A} can be seen {relation} {b}.",),
)
BACKGROUND: dict[str, Slot] = {
    "grass": (
        (
            "The background is soft grass, with many thin blades that lean in the wind, some short, some long.",
            "Many short and long blades of grass cover the whole background like a soft thin carpet.",
        ),
        ("Grass covers the background, a soft carpet of many thin blades that lean in the wind.",),
    ),
    "sand": (
        (
            "The background is fine dry sand, which the wind has laid in long soft lines, like waves.",
            "Fine dry sand covers the whole background, and the wind has laid long soft lines in it.",
        ),
        ("Sand covers the background, dry and fine, with long soft lines that the wind has laid.",),
    ),
    "snow": (
        (
            "The background is fresh snow, smooth and bright, with a few soft hills here and there.",
            "Fresh bright snow covers the whole background, and its few hills look smooth and soft.",
        ),
        ("Snow covers the background, smooth and fresh, with soft, bright hills here and there.",),
    ),
    "water": (
        (
            "The background is calm clear water, with many thin bright waves that run from side to side.",
            "Calm clear water covers the whole background, and many thin bright waves run across it.",
        ),
        ("Water covers the background, clear and calm, with thin, bright waves from side to side.",),
    ),
    "brick": (
        (
            "The background is an old brick wall, with thin pale lines between its many short rows.",
            "A wall of old brick covers the whole background, with pale lines between the many rows.",
        ),
        ("Brick covers the background, many old rows of it, with thin, pale lines between them.",),
    ),
    "wood": (
        (
            "The background is smooth old wood, long boards with fine lines and thin dark gaps between them.",
            "Long boards of old wood cover the whole background, with fine lines and thin dark gaps.",
        ),
        ("Wood covers the background, smooth long boards of it, with dark gaps between them.",),
    ),
    "sky": (
        (
            "The background is the open sky, with a few soft pale clouds that drift in the wind.",
            "The clear open sky covers the whole background, and a few soft pale clouds drift across it.",
        ),
        ("The sky covers the background, clear and open, with soft clouds that drift across it.",),
    ),
    "night": (
        (
            "The background is the dark night sky, with many tiny bright lights here and there.",
            "The dark night sky covers the whole background, and many tiny bright lights shine in it.",
        ),
        ("The night sky covers the background, clear and dark, with many tiny lights that shine.",),
    ),
}
LIGHT: Slot = (
    (
        "{Tone} light comes from the {light}, so the soft shadows fall to the {shade}.",
        "The light is {tone} and comes from the {light}, so all shadows fall to the {shade}.",
        "Soft shadows fall to the {shade}, for the {tone} light comes from the {light}.",
    ),
    ("The shadows are soft and fall to the {shade}, for {tone} light comes from the {light}.",),
)
STYLE: Slot = (
    (
        "It looks like a picture made of cut paper, clear and calm, with simple shapes.",
        "Everything looks like cut paper, with clear shapes and a calm, simple style.",
        "The style is simple and calm, like clear shapes of paper laid on a table.",
    ),
    ("The picture looks like shapes cut from paper, in a clear, calm and simple style.",),
)
EDGES: Slot = (
    (
        "All edges are thin and clean, and all of the surfaces look smooth.",
        "Each shape has a thin, clean edge, and nothing is cut off.",
        "Thin, clean edges make each of the shapes clear, and nothing is cut off.",
    ),
    ("Each of the shapes has clean edges, thin and smooth, and nothing is cut off.",),
)

INSTRUCTIONS: dict[str, Slot] = {
    "recolour": (
        ("make {it} {colour}", "change the colour of {it} to {colour}", "paint {it} {colour}"),
        ("let {it} be {colour}",),
    ),
    "reshape": (
        ("turn {it} into {shape}", "replace {it} with {shape}", "make {shape} out of {it}"),
        ("change {it} into {shape}",),
    ),
    "resize": (
        ("make {it} {size}", "change the size of {it} to {size}", "draw {it} {size}"),
        ("let {it} be {size}",),
    ),
    "retexture": (
        ("make {it} {texture}", "change the surface of {it} to {texture}", "draw {it} {texture}"),
        ("let {it} be {texture}",),
    ),
    "move": (
        ("move {it} to {there}", "draw {it} {where} instead", "let {it} stand {where}"),
        ("put {it} {where} instead",),
    ),
    "add": (
        ("add {noun} {where}", "put {noun} {where}", "draw {noun} {where}"),
        ("let {noun} stand {where}",),
    ),
    "remove": (
        ("remove {it}", "take {it} away", "delete {it}"),
        ("take away {it}",),
    ),
    "background": (
        ("change the background to {what}", "put everything {on}", "make the background {what}"),
        ("draw everything {on}",),
    ),
}

# Beside the phrasings of ``llmga.chat.tasks``, which training shows too.
REQUESTS: dict[str, Slot] = {
    "refine": (
        ("Draw {instruction}.", "I would like to see {instruction}. Please generate this image."),
        ("Please generate a picture with {instruction}.", "Design this image: {instruction}"),
    ),
    "imagine": (
        (
            "Describe a picture of {instruction}.",
            "In words only, what could a picture of {instruction} show?",
        ),
        ("Please describe, in words only, {instruction}.",),
    ),
    "similar": (
        ("Make one more image like this picture.",),
        ("Please generate a new picture like this image.", "Make a twin of this picture."),
    ),
    "describe": (
        ("Describe all that you can see.", "What does this picture show?"),
        ("Please describe what this image shows.", "Write what you can see in this picture."),
    ),
    "inpaint": (
        ("Fill the black area of this picture.",),
        ("Please complete the missing piece of this image.", "Inpaint the black area."),
    ),
    "outpaint": (
        ("Paint what lies beyond the black border.",),
        ("Please outpaint the black border of this picture.", "Extend this image beyond its edges."),
    ),
    "edit": (
        ("{instruction}", "Please change this picture. {instruction}"),
        ("Please edit the picture. {instruction}", "Make one change. {instruction}"),
    ),
}

QUESTIONS: dict[str, Slot] = {
    "colour": (
        ("What colour is {it}?", "Which colour does {it} have?"),
        ("What is the colour of {it}?",),
    ),
    "size": (
        ("How big is {it}?", "What size is {it}?"),
        ("What is the size of {it}?",),
    ),
    "texture": (
        ("Is {it} plain, striped or dotted?", "What does the surface of {it} look like?"),
        ("What is the surface of {it} like?",),
    ),
    "where": (
        ("Where is {it}?", "Where does {it} stand?"),
        ("Where can {it} be seen?",),
    ),
    "what": (
        ("What stands {where}?", "What is {where}?"),
        ("What can be seen {where}?",),
    ),
    "how many": (
        ("How many {things} are there?", "How many {things} does the picture show?"),
        ("How many {things} can you see?",),
    ),
    "exists": (
        ("Is there {thing}?", "Does the picture show {thing}?"),
        ("Can you see {thing}?",),
    ),
    "relation": (
        ("Is {it} {relation} {other}?", "Does {it} stand {relation} {other}?"),
        ("Can {it} be seen {relation} {other}?",),
    ),
    "background": (
        ("What is the background?", "What does the background show?"),
        ("What can be seen in the background?",),
    ),
    "light": (
        ("Where does the light come from?", "Does the light come from the left or from the right?"),
        ("Which side does the light come from?",),
    ),
    "tone": (
        ("Is the light warm or cool?", "What is the light like?"),
        ("What does the light look like?",),
    ),
}
