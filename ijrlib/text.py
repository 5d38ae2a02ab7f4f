"""Reviews as sequences of words, and words as integers.

The tokenizer: ``<br />`` is a space, letters are made small, and a word is a longest run of the
letters a to z, digits and apostrophes; all else separates.  Word 0 fills short reviews up, word 1
stands for every word that is not in the vocabulary, and 2, 3, … are the most frequent words of the
training split, most frequent first, ties in alphabetical order.
"""

from __future__ import annotations

import itertools
import random
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

VOCABULARY = 20_000
"""Words that a network for reviews knows, the first two included (Jastrzebski et al. 2020, App.
C)."""

FILLER, UNKNOWN = 0, 1
SPECIAL = 2

WORD = re.compile(r"[a-z0-9']+")


def words(text: str) -> list[str]:
    """The words of a text, in order.

    >>> words("It's <b>not</b> bad.<br /><br />8/10, I'd say")
    ["it's", 'b', 'not', 'b', 'bad', '8', '10', "i'd", 'say']
    """
    return WORD.findall(text.replace("<br />", " ").lower())


def vocabulary(reviews: Iterable[Sequence[str]], size: int = VOCABULARY) -> dict[str, int]:
    """Word → its number, from 2 on, for the ``size`` − 2 most frequent words."""
    counts = Counter(itertools.chain.from_iterable(reviews))
    ranked = sorted(counts, key=lambda word: (-counts[word], word))
    return {word: number for number, word in enumerate(ranked[: size - SPECIAL], SPECIAL)}


def endings(
    reviews: Iterable[Sequence[str]], numbers: Mapping[str, int], length: int
) -> np.ndarray:
    """The last ``length`` words of each review, filled up in front: integers (n, length)."""
    rows = []
    for review in reviews:
        known = [numbers.get(word, UNKNOWN) for word in review[-length:]]
        rows.append([FILLER] * (length - len(known)) + known)
    return np.array(rows, dtype=np.int64).reshape(-1, length)


def windows(
    reviews: Iterable[Sequence[str]], numbers: Mapping[str, int], length: int
) -> tuple[np.ndarray, np.ndarray]:
    """Each review cut into pieces of ``length`` words and the word that follows them, what is left
    over left out: integers (n, length) and (n,)."""
    pieces = []
    for review in reviews:
        known = [numbers.get(word, UNKNOWN) for word in review]
        last = len(known) - length
        pieces += [known[at : at + length + 1] for at in range(0, last, length + 1)]
    table = np.array(pieces, dtype=np.int64).reshape(-1, length + 1)
    return table[:, :-1], table[:, -1]


# -- reviews that need no file ---------------------------------------------------------------------

SUBJECTS = ("film", "plot", "acting", "music", "ending", "dialogue", "director", "cast", "script")
JUDGEMENTS = (
    ("dull", "awful", "weak", "clumsy", "boring", "poor", "flat", "silly", "tedious"),
    ("great", "moving", "superb", "clever", "funny", "lovely", "bright", "strong", "perfect"),
)
SENTENCES = (
    "I thought that the {} was {}.",
    "The {} is rather {}, you know!",
    "What a {}: how {} it is.",
    "And the {}... so {}<br />",
)
INVENTED = {"train": 400, "test": 100}


def invented(split: str) -> tuple[list[str], list[int]]:
    """Reviews made up of a few sentences, and whether each is favourable (1) or not (0): the same
    ones every time.  One judgement in five is of the other kind."""
    draw = random.Random(split)
    texts, labels = [], []
    for number in range(INVENTED[split]):
        label = number % 2
        sentences = []
        for _ in range(draw.randint(4, 14)):
            kind = label if draw.random() < 0.8 else 1 - label
            sentence = draw.choice(SENTENCES)
            sentences.append(sentence.format(draw.choice(SUBJECTS), draw.choice(JUDGEMENTS[kind])))
        texts.append(" ".join(sentences))
        labels.append(label)
    return texts, labels
