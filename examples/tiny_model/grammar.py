"""English small enough for a tiny model: 17 sentence patterns, 129 words, with capitals and punctuation.

The order of the random draws is part of the recipe: the shipped model's texts are known by their seeds alone.
"""
# ruff: noqa: SIM905 - a list of words is read best as words

import random
import re

DIGITS = "zero one two three four five six seven eight nine".split()
NUMBERS = [*DIGITS[1:], *"ten twenty thirty forty fifty hundred".split()]
COLOURS = "red green blue white black yellow".split()
THINGS = "box book door window car train letter phone table house light ticket".split()
NAMES = "Anna Peter Maria John David Helen".split()
VERBS = "open close send call move bring read find stop start take check".split()
PLACES = "city station office market garden river school bank".split()
DIRECTIONS = "north south east west".split()
DATES = "today tomorrow".split()
DAYS = "Monday Tuesday Friday Sunday".split()
PARTS = "morning evening night".split()
QUALITIES = "small large new old long cold warm good".split()
PRONOUNS = "we you they he she".split()
OTHERS = (
    "the a to from at in on and of is are was will can please now my your our I not yes no "
    "what when where who how many number name time day turn off go come with for this that have has"
).split()
WORDS = sorted(
    {*NUMBERS, "zero", *COLOURS, *THINGS, *NAMES, *VERBS, *PLACES, *DIRECTIONS}
    | {*DATES, *DAYS, *PARTS, *QUALITIES, *PRONOUNS, *OTHERS}
)

SLOTS = {
    "number": NUMBERS,
    "colour": COLOURS,
    "thing": THINGS,
    "name": NAMES,
    "verb": VERBS,
    "place": PLACES,
    "direction": DIRECTIONS,
    "date": DATES,
    "day": DAYS,
    "part": PARTS,
    "quality": QUALITIES,
    "pronoun": PRONOUNS,
    "pronoun_is": ["we are", "you are", "they are", "he is", "she is"],
    "word": WORDS,
    "digit": DIGITS,
    "whose": ["my", "your", "our"],
    "what": ["number", "name", "time"],
    "on": ["on", "off"],
    "yes": ["yes", "no"],
    "room": ["house", "car", "office", "garden"],
    "this": ["this", "that"],
}

# `{slot}` is one choice, `{slot:low-high}` that many in a row.
PATTERNS = [
    "please {verb} the {colour} {thing}.",
    "{name} will {verb} the {quality} {thing} {date}.",
    "the number is {digit:3-6}.",
    "what is {whose} {what}?",
    "where is the {quality} {thing}?",
    "turn {on} the light in the {place} now.",
    "{pronoun} will go to the {place} on {day} {part}.",
    "call {name} at {digit:3-5}.",
    "I can {verb} the {thing} and the {colour} {thing}.",
    "who has the {colour} {thing} from {name}?",
    "the {place} is {number} {number} {direction} of the {place}.",
    "{yes}, this {thing} is not {quality}.",
    "{pronoun_is} at the {place} with {name}.",
    "when will {name} come to the {place}?",
    "the {thing} was in my {room} {this} {part}.",
    "{verb} {number} {colour} {thing} for {name}.",
    "{word:3-8}.",
]
_PATTERN_WITH_A_SPARE_DRAW = 9  # the model's training texts were made by code that drew once for nothing here

_SLOT = re.compile(r"\{(?P<slot>\w+)(?::(?P<low>\d)-(?P<high>\d))?\}")


def sentence(rng: random.Random) -> str:
    """One sentence, capitalised and punctuated."""
    number = rng.randrange(len(PATTERNS))
    if number == _PATTERN_WITH_A_SPARE_DRAW:
        rng.random()
    text = _SLOT.sub(lambda match: _fill(match, rng), PATTERNS[number])
    return text[0].upper() + text[1:]


def _fill(match: re.Match[str], rng: random.Random) -> str:
    count = rng.randint(int(match["low"]), int(match["high"])) if match["low"] else 1
    return " ".join(rng.choice(SLOTS[match["slot"]]) for _ in range(count))


def utterance(rng: random.Random) -> str:
    """One to three sentences, mostly one."""
    count = rng.choices([1, 2, 3], [0.72, 0.22, 0.06])[0]
    return " ".join(sentence(rng) for _ in range(count))
