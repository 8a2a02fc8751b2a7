"""Values of widgets that are good and cheap, by the input's name."""

# Values of widgets that would only cost time.
CHEAP = {
    "steps": 2,
    "max_new_tokens": 8,
    "width": 64,
    "height": 64,
    "max_chunks": 4,
    "min_chunks": 1,
    "grow": 2,
}
GOOD = {  # of text that has a grammar or must fit another input
    "words": ["star", "red, star"],
    "word_weights": ["", "star: 1.3"],
    "word_steps": ["", "star: 0.5"],
    "blend_words": ["", "star"],
    "subtract_words": [""],
    "transcript": [""],
    "source_prompt": ["a large red star on snow"],
    "target_prompt": ["a large blue star on snow", "a large red star on grass"],
    "negative_prompt": ["", "blurred"],
    "name": ["a chat"],
    "plan": [
        '{"objects": [{"name": "a red star", "box": [0.1, 0.3, 0.4, 0.5], "descriptions": ["striped"]}], '
        '"background": "snow"}'
    ],
}
