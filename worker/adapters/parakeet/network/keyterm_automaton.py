"""Spelling of terms by the pieces of a vocabulary, and the automaton of a job's keyterms over them; without torch.

A state is a prefix of a term, in letters; state 0 is no match. A piece leads from a state to the state of all letters
that match after it, so a term is followed however it is split into pieces. A term that begins with a capital does not
boost pieces that begin with a small letter: Theodore says nothing for "the".
"""

import re
import unicodedata
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from worker.adapters.parakeet.network.words import WORD_START

_CONTROL = re.compile(r"<.*>")
"""Control pieces: unknown, padding, languages, bytes."""


def spelling(text: str) -> str:
    """Return the letters of a term or a piece as they are compared: composed, in lower case, each word marked."""
    return "".join(WORD_START + word for word in unicodedata.normalize("NFKC", text).lower().split())


def spelling_of_piece(piece: str) -> str:
    """Return the letters that a piece spells; empty for a control piece."""
    return "" if _CONTROL.fullmatch(piece) else unicodedata.normalize("NFKC", piece).lower()


class Speller:
    """The texts that pieces, given by their letters, can spell."""

    def __init__(self, pieces: Iterable[str]) -> None:
        self._pieces = frozenset(pieces) - {""}
        self._longest = max(map(len, self._pieces), default=0)

    def can_spell(self, letters: str) -> bool:
        """Return True where some sequence of pieces spells the letters."""
        reached = {0}
        for start in range(len(letters)):
            if start in reached:
                ends = range(start + 1, min(start + self._longest, len(letters)) + 1)
                reached.update(end for end in ends if letters[start:end] in self._pieces)
        return bool(letters) and len(letters) in reached


_WHOLE_BOOST_LETTERS = 3
"""The least letters that earn the whole boost: with it a term of one letter would flood a text."""

_ROOT = 0


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Automaton:
    """Tables by state. A label that no arc of a state has leads where it leads from state 0."""

    root_targets: NDArray[np.int64]
    """The state that each label leads to from state 0, (labels,)."""
    root_boosts: NDArray[np.float32]
    """The boost of each label in state 0, in log-probability, (labels,)."""
    labels: NDArray[np.int64]
    """The labels of each state's own arcs, (states, arcs), filled up with the blank."""
    targets: NDArray[np.int64]
    """The state each arc leads to, (states, arcs)."""
    boosts: NDArray[np.float32]
    """The boost of each arc, over that of its label in state 0, (states, arcs)."""


@dataclass(slots=True)
class _Node:
    """A prefix of terms or of pieces. `letters` counts its letters without the marks of words."""

    parent: int = _ROOT
    letters: int = 0
    letters_before: int = 0
    """Letters before its last word."""
    word_ends: int = 0
    """Letters at the end of its last word, the shortest where terms differ."""
    children: dict[str, int] = field(default_factory=dict)
    ends: bool = False
    """A term ends here."""
    labels: list[int] = field(default_factory=list)
    """The pieces that end here, written as they are."""
    lower: list[int] = field(default_factory=list)
    """The pieces that end here when their first letter, a capital, is made small: inside a word it may be either."""


class Vocabulary:
    """Pieces by the letters that they spell, and the automata of terms over them."""

    def __init__(self, pieces: Sequence[str]) -> None:
        self._blank = len(pieces)
        self._pieces = [_Node()]
        texts: set[str] = set()
        for label, piece in enumerate(pieces):
            if letters := spelling_of_piece(piece):
                start = 1 if letters[0] == WORD_START else 0
                written = _with_capital(letters, start, unicodedata.normalize("NFKC", piece)[start : start + 1])
                _add(self._pieces, written).labels.append(label)
                texts.add(written)
                if written != letters and not start:
                    _add(self._pieces, letters).lower.append(label)
                    texts.add(letters)
        self._speller = Speller(texts)

    def automaton(self, terms: Sequence[str], weight: float) -> Automaton:
        """Return the automaton of the terms that the pieces spell; others only make it larger.

        A boost is that of all letters matched since a term last ended: `weight` for a word, in proportion for a part of
        it. So a match that breaks off gives back what it had: the piece that breaks it off has no boost beside one that
        goes on, which has that of all letters so far. A term that has just ended is not boosted again at once.
        """
        nodes = [_Node()]
        for term in terms:
            for variant in self._variants(term):
                _add(nodes, variant).ends = True
        arcs = self._arcs(nodes, weight)
        root = arcs.pop(_ROOT)
        root_targets, root_boosts = np.zeros(self._blank + 1, np.int64), np.zeros(self._blank + 1, np.float32)
        for label, (target, boost) in root.items():
            root_targets[label], root_boosts[label] = target, boost
        width = max((len(own) for own in arcs.values()), default=0)
        shape = len(nodes), max(1, width)
        labels, targets, boosts = np.full(shape, self._blank), np.zeros(shape, np.int64), np.zeros(shape, np.float32)
        for state, own in arcs.items():
            for place, (label, (target, boost)) in enumerate(sorted(own.items())):
                labels[state, place], targets[state, place] = label, target
                boosts[state, place] = np.float32(boost) - root_boosts[label]
        return Automaton(
            root_targets=root_targets, root_boosts=root_boosts, labels=labels, targets=targets, boosts=boosts
        )

    def _arcs(self, nodes: Sequence[_Node], weight: float) -> dict[int, Mapping[int, tuple[int, float]]]:
        """Return target and boost by state and label; a state has those of its longest suffix that is a state too."""
        suffixes = _suffixes(nodes)
        arcs: dict[int, Mapping[int, tuple[int, float]]] = {}
        for state in _by_length(nodes):
            own = dict(arcs[suffixes[state]]) if suffixes[state] != _ROOT else {}
            kept = _letters_kept(nodes, state)
            reached = [(target, pieces, weight * _progress(nodes[target], kept))
                       for target, pieces in self._reached(nodes, state)]  # fmt: skip
            if nodes[state].ends:
                prefixes = set(_prefixes(nodes, state))
                again = {label: (target, 0.0) for label, (target, _) in arcs[_ROOT].items() if target in prefixes}
                own = again | own
            for target, pieces, boost in reached:
                own.update((label, (target, boost)) for label in pieces.lower)
            for target, pieces, boost in reached:
                own.update((label, (target, boost)) for label in pieces.labels)
            arcs[state] = own
        return arcs

    def _variants(self, term: str) -> Iterator[str]:
        """Yield the ways to write the term: capitals that begin a word stay, where the pieces have them.

        A term all in small letters may be written with a capital first, or with one in each word. Other capitals make
        no difference: pieces are compared without.
        """
        words = unicodedata.normalize("NFKC", term).split()
        small = spelling(term)
        given = "".join(WORD_START + _with_capital(word.lower(), 0, word[0]) for word in words)
        if given != small:
            yield given if self._speller.can_spell(given) else small
            return
        yield small
        yield _with_capital(small, 1, small[1:2].upper())
        yield "".join(WORD_START + _with_capital(word, 0, word[0].upper()) for word in small.split(WORD_START)[1:])

    def _reached(self, nodes: Sequence[_Node], state: int) -> Iterator[tuple[int, _Node]]:
        """Yield each prefix of terms that pieces lead to from the state, with these pieces."""
        ways = [(state, _ROOT)]
        while ways:
            at, piece = ways.pop()
            for character, longer in self._pieces[piece].children.items():
                if (following := nodes[at].children.get(character)) is not None:
                    ways.append((following, longer))
                    yield following, self._pieces[longer]


def _add(nodes: list[_Node], text: str) -> _Node:
    """Add all prefixes of the text to nodes whose first is the empty prefix, and return the last."""
    at, word_ends = _ROOT, 0
    for place, character in enumerate(text):
        node = nodes[at]
        starts = character == WORD_START
        if starts:
            word_ends = node.letters + len(text[place + 1 :].partition(WORD_START)[0])
        if character not in node.children:
            node.children[character] = len(nodes)
            before = node.letters if starts else node.letters_before
            nodes.append(_Node(parent=at, letters=node.letters + (not starts), letters_before=before))
        at = node.children[character]
        nodes[at].word_ends = min(word_ends, nodes[at].word_ends or word_ends)
    return nodes[at]


def _with_capital(letters: str, place: int, written: str) -> str:
    """Return the letters with the one at the place as it is written, where that is the same letter."""
    same = written and written.lower() == letters[place : place + len(written.lower())]
    return f"{letters[:place]}{written}{letters[place + len(written.lower()) :]}" if same else letters


def _progress(node: _Node, kept: int) -> float:
    """Return the share of the boost that a prefix has earned since its first `kept` letters."""
    if node.letters_before > kept:
        return 1.0
    return min(1.0, (node.letters - kept) / max(_WHOLE_BOOST_LETTERS, node.word_ends - kept))


def _by_length(nodes: Sequence[_Node]) -> Iterator[int]:
    waiting = deque([_ROOT])
    while waiting:
        state = waiting.popleft()
        yield state
        waiting.extend(nodes[state].children.values())


def _suffixes(nodes: Sequence[_Node]) -> list[int]:
    """Return for each prefix its longest proper suffix that is a prefix of a term too."""
    suffixes = [_ROOT] * len(nodes)
    for state in _by_length(nodes):
        for character, longer in nodes[state].children.items():
            shorter = suffixes[state]
            while shorter != _ROOT and character not in nodes[shorter].children:
                shorter = suffixes[shorter]
            found = nodes[shorter].children.get(character, _ROOT)
            suffixes[longer] = found if found != longer else _ROOT
    return suffixes


def _prefixes(nodes: Sequence[_Node], state: int) -> Iterator[int]:
    while state != _ROOT:
        yield state
        state = nodes[state].parent


def _letters_kept(nodes: Sequence[_Node], state: int) -> int:
    """Return the letters up to the last end of a term."""
    return next((nodes[at].letters for at in _prefixes(nodes, state) if nodes[at].ends), 0)
