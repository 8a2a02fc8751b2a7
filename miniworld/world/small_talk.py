"""Conversation without pictures: questions with answers, and short illustrated stories."""

from __future__ import annotations

from dataclasses import replace

from .captions import description, short_caption
from .phrases import ON, WHERE
from .scene import BACKGROUNDS, PLACES, Scene, choose, shuffled

SMALL_TALK: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (
    (
        (
            "Hello!",
            "Hi!",
            "Hello.",
            "Hi there.",
            "Hey",
            "Good morning.",
            "Good evening!",
            "Hello, how are you?",
        ),
        ("Hello! What would you like to see?", "Hello! Tell me what I can draw for you."),
    ),
    (
        ("Who are you?", "What are you?", "What is your name?", "Are you a person?", "Tell me about you."),
        ("I am LLMGA, a very small model that talks about pictures and writes prompts for them.",),
    ),
    (
        ("What can you do?", "How can you help me?", "What can I ask you?", "Help", "What is possible here?"),
        (
            "I can write the prompt of a picture from a few words, describe a picture, make a similar one, "
            "fill a black area, and change what you name.",
        ),
    ),
    (
        ("What can you draw?", "Which shapes do you know?", "What do you know?", "What is in your world?"),
        (
            "I know the circle, the square, the triangle, the star, the heart, the diamond, the cross and the "
            "ring, in eight colours, on eight backgrounds.",
        ),
    ),
    (
        ("Thank you!", "Thanks.", "Thank you very much.", "Great, thank you!", "Nice!", "That is beautiful."),
        ("You are welcome.", "You are welcome. What shall we draw next?"),
    ),
    (
        ("Goodbye!", "Bye.", "See you.", "That is all, thank you.", "Good night."),
        ("Goodbye! Come back with a new idea.",),
    ),
    (
        (
            "Can you draw a cat?",
            "Can you draw people?",
            "Can you make a photo of a house?",
            "Do you know trees?",
        ),
        ("My world is small: I only know simple shapes of paper. Ask me for a star, or a ring.",),
    ),
    (
        ("How does it work?", "How do you make pictures?", "Who paints the picture?", "What is a prompt?"),
        ("I write a prompt between two tags, and an image generator paints what it says.",),
    ),
    (
        ("Which colours do you know?", "What colours are there?", "Tell me the colours."),
        ("I know red, orange, yellow, green, blue, purple, white and black.",),
    ),
    (
        ("Which backgrounds do you know?", "What backgrounds are there?", "Where can things stand?"),
        ("There are grass, sand, snow, water, a brick wall, wood, the sky and the night sky.",),
    ),
)
_BEGINNINGS = ("Once there was {noun}. It stood {on}.", "This is the story of {noun}. It began {on}.")
_MIDDLES = ("Then it went on, and came to stand {on}.", "One day it moved, and stood {on}.")
_ENDS = ("In the end it stood {on}, and there it is to this day.", "At last it came to rest {on}.")


def small_talk(seed: int) -> tuple[str, str]:
    """Something that is asked without a picture in mind, and an answer."""
    asked, answers = choose(SMALL_TALK, seed, "talk")
    return choose(asked, seed, "asked"), choose(answers, seed, "answer")


def story(scene: Scene, seed: int) -> str:
    """A story of the scene's first object in three parts, each with the prompt of its picture in tags."""
    hero = scene.objects[0]
    others = [name for name in shuffled(BACKGROUNDS, seed, "ways") if name != scene.background]
    parts = []
    for lines, background in zip((_BEGINNINGS, _MIDDLES, _ENDS), (scene.background, *others), strict=False):
        there = hero if lines is _BEGINNINGS else replace(hero, place=choose(tuple(PLACES), seed, background))
        line = choose(lines, seed, "told", background).format(noun=description(hero), on=ON[background])
        prompt = short_caption(replace(scene, objects=(there,), background=background), seed)
        parts.append(f"{line}\n<gen_image> {prompt} </gen_image>")
    return "\n".join(parts)


def wish_of(scene: Scene) -> str:
    """What a story is asked about: "a red star on grass", "a red star at the left"."""
    hero = scene.objects[0]
    noun = f"{'an' if hero.colour[0] in 'aeiou' else 'a'} {hero.colour} {hero.shape}"
    return choose(
        (f"{noun} {ON[scene.background]}", f"{noun} {WHERE[hero.place]}", noun), hero, scene.background
    )
