"""How the simulator reads a text: its mood, its topic, its most telling sentence. Pure.

Owns the judgement over the terms that a text has. Deterministic, quick (tens of microseconds for a
review), and no more than plausible.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

from ondine_dagster.simulator import lexicon
from ondine_dagster.simulator.matching import Hits, WordLists, normalised

_SENTENCE_END = re.compile(r"(?<=[.!?。！？।])\s+|\n+|(?<=[。！？])")
_LABEL = re.compile(r"^\s*[A-Z]\w{0,19}( \w{1,19})?:\s+")
# A line such as "Product: Desk lamp" above the text that the prompt is about.
_SHORT_FIELD = re.compile(r"^[A-Z]\w{0,19}: +[^.!?\n]{1,40}\n+(?=\S)", re.MULTILINE)
_SUMMARY_LENGTH = 120
_STEM = 5
# A mood below this share of the telling words is no mood.
_NEUTRAL_BAND = 0.15
_HEDGE_WEIGHT = 1.5


@dataclass(frozen=True)
class Reading:
    """What the simulator makes of one text."""

    text: str

    @cached_property
    def words(self) -> str:
        """The text as the word lists are matched with it."""
        return normalised(self.text)

    @cached_property
    def mood(self) -> float:
        """From -1 (bad words only) to 1 (good ones only); one word alone takes it half the way."""
        good, bad = map(len, self._telling)
        return (good - bad) / (1 + good + bad + _HEDGE_WEIGHT * len(self._hits["neutral"]))

    @property
    def tendency(self) -> int:
        """1 for a positive text, -1 for a negative one, 0 for neither."""
        if abs(self.mood) < _NEUTRAL_BAND:
            return 0
        return 1 if self.mood > 0 else -1

    def summary(self) -> str:
        """Return the sentence with the most telling words, without a leading label, cut short."""
        body = _SHORT_FIELD.sub("", self.text.strip())
        sentences = [part for part in _SENTENCE_END.split(body) if part and part.strip()]
        best = max(sentences, key=self._weight, default=body)
        return _shortened(_LABEL.sub("", best).strip())

    def choose(self, options: Sequence[str]) -> str:
        """Return the option that suits the text: by mood, by topic, or by common words."""
        return options[self._position(_prepared(tuple(options)))]

    @cached_property
    def _hits(self) -> Hits:
        return _LISTS.hits(self.words)

    @cached_property
    def _telling(self) -> tuple[list[str], list[str]]:
        """The good and the bad terms; not "hurts" in a text that says "no longer hurts"."""
        good, bad, hedges = (self._hits[name] for name in ("positive", "negative", "neutral"))
        return _outside(good, bad + hedges), _outside(bad, good + hedges)

    def _weight(self, sentence: str) -> tuple[int, int]:
        words = normalised(sentence)
        telling = sum(term in words for terms in self._telling for term in terms)
        return telling, min(len(words), _SUMMARY_LENGTH)

    def _position(self, options: _Options) -> int:
        if options.moods:
            return options.moods[self.tendency]
        if options.scale:
            return options.scale[round((1 - self.mood) / 2 * (len(options.scale) - 1))]
        scores = [0.0] * options.count
        for index, topic in options.topics:
            scores[index] += len(self._hits[topic])
        for stem in _stems(self.words):
            for index, weight in options.stems.get(stem, ()):
                scores[index] += weight
        best = max(range(options.count), key=lambda index: scores[index])
        return best if scores[best] > 0 else options.fallback


@dataclass(frozen=True)
class _Options:
    """The options of one enum, prepared for choosing; numbers are positions in the enum."""

    count: int
    moods: Mapping[int, int]
    scale: Sequence[int]
    topics: Sequence[tuple[int, str]]
    stems: Mapping[str, Sequence[tuple[int, float]]]
    fallback: int


@lru_cache(maxsize=256)
def _prepared(options: tuple[str, ...]) -> _Options:
    names = [normalised(option).split() for option in options]
    return _Options(
        count=len(options),
        moods=_mood_positions(names),
        scale=_scale_positions(names),
        topics=[(i, topic) for i, name in enumerate(names) for topic in _topics_named(name)],
        stems=_stem_positions(names),
        fallback=_first_named(names, lexicon.FALLBACK_NAMES, 0),
    )


def _first_named(names: Sequence[Sequence[str]], wanted: frozenset[str], otherwise: int) -> int:
    found = (i for i, name in enumerate(names) if not wanted.isdisjoint(name))
    return next(found, otherwise)


def _mood_positions(names: Sequence[Sequence[str]]) -> Mapping[int, int]:
    good = _first_named(names, lexicon.POSITIVE_NAMES, -1)
    bad = _first_named(names, lexicon.NEGATIVE_NAMES, -1)
    if good < 0 or bad < 0:
        return {}
    return {1: good, -1: bad, 0: _first_named(names, lexicon.NEUTRAL_NAMES, good)}


def _scale_positions(names: Sequence[Sequence[str]]) -> Sequence[int]:
    """Return the positions from mild to strong where all options are degrees of urgency."""
    if not all(len(name) == 1 and name[0] in lexicon.URGENCY for name in names):
        return ()
    return sorted(range(len(names)), key=lambda index: lexicon.URGENCY.index(names[index][0]))


def _topics_named(name: Sequence[str]) -> list[str]:
    return [topic for topic, words in _TOPIC_NAMES.items() if not words.isdisjoint(name)]


def _stem_positions(
    names: Sequence[Sequence[str]],
) -> Mapping[str, Sequence[tuple[int, float]]]:
    """Return stem -> options that have it; stems of few options weigh more."""
    holders: dict[str, set[int]] = {}
    for index, name in enumerate(names):
        for stem in _stems(" ".join(name)):
            holders.setdefault(stem, set()).add(index)
    return {
        stem: [(index, 1 / (len(indices) * len(names[index]) ** 0.5)) for index in sorted(indices)]
        for stem, indices in holders.items()
    }


def _stems(words: str) -> set[str]:
    return {word[:_STEM] for word in words.split() if len(word) > 2}


def _shortened(sentence: str) -> str:
    if len(sentence) <= _SUMMARY_LENGTH:
        return sentence
    return sentence[:_SUMMARY_LENGTH].rsplit(" ", 1)[0].rstrip(" ,;:-") + "…"


def _outside(terms: Sequence[str], others: Sequence[str]) -> list[str]:
    """Return the terms that are no part of a longer term of the other side."""
    return [t for t in terms if not any(t in other and len(t) < len(other) for other in others)]


_LISTS = WordLists(
    {
        "positive": lexicon.POSITIVE,
        "negative": lexicon.NEGATIVE,
        "neutral": lexicon.NEUTRAL,
        **{topic: terms for topic, (_, terms) in lexicon.TOPICS.items()},
    }
)
_TOPIC_NAMES = {
    topic: frozenset(name.strip() for name in names.split(","))
    for topic, (names, _) in lexicon.TOPICS.items()
}
