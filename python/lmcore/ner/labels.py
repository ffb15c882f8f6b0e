"""Labels of words: read in any of the usual ways, kept as BIO, written in any."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import chain, pairwise

BOUNDARIES = ("bio", "bioes", "io")
"""Ways in which a label says where an entity begins and ends."""

# Prefixes of BIO, BIOES and BILOU: whether a label begins an entity, and whether it ends one.
_PREFIXES = {
    "B": (True, False), "I": (False, False), "M": (False, False), "E": (False, True),
    "L": (False, True), "S": (True, True), "U": (True, True),
}  # fmt: skip
_LABEL = re.compile(r"([BIMELSU])-(.+)", re.DOTALL)
_LAST_LABEL = re.compile(r"\(([ES])-")


def is_label(text: str) -> bool:
    """Returns whether a text has the form of a label.

    Args:
        text: such as `B-person`.

    Example:
        >>> [is_label(text) for text in ("O", "B-person", "S-person", "person", "B-")]
        [True, True, True, False, False]
    """
    return text == "O" or _LABEL.fullmatch(text) is not None


def check_types(types: Sequence[str]) -> None:
    """Raises ValueError unless entities may be these types.

    Args:
        types: names of entity types.

    Raises:
        TypeError: they are no sequence of str.
        ValueError: there are none, or a name cannot be read back from a label.

    Example:
        >>> check_types(["city", "city (old)"])
        Traceback (most recent call last):
        ValueError: type 'city (old)' holds a closing parenthesis, where a label would end
    """
    if isinstance(types, str) or not all(isinstance(name, str) for name in types):
        raise TypeError(f"types must be a sequence of str: got {types!r:.60}")
    if not types:
        raise ValueError("types must name at least one entity type: got none")
    for name in types:
        if name == "O":
            raise ValueError("type 'O' is what words outside of all entities are labelled")
        problem = _name_problem(name)
        if problem is not None:
            raise ValueError(f"type {name!r:.60} {problem}")
    if len(set(types)) < len(types):
        twice = next(name for name in types if types.count(name) > 1)
        raise ValueError(f"types name {twice!r:.60} twice")


def write_labels(labels: Sequence[str], boundaries: str = "bio") -> list[str]:
    """Returns BIO labels, written in another way.

    Args:
        labels: n BIO labels, each `I-` behind a label of its type.
        boundaries: one of `BOUNDARIES`; IO cannot tell two entities of a type that touch.

    Returns:
        n labels.

    Raises:
        ValueError: unknown boundaries.

    Example:
        >>> labels = ["B-city", "I-city", "B-city", "O"]
        >>> write_labels(labels, "bioes")
        ['B-city', 'E-city', 'S-city', 'O']
        >>> write_labels(labels, "io")
        ['I-city', 'I-city', 'I-city', 'O']
    """
    check_boundaries(boundaries)
    if boundaries == "bio":
        return [*labels]
    if boundaries == "io":
        return [label if label == "O" else f"I-{label[2:]}" for label in labels]
    written = []
    for label, behind in pairwise([*labels, "O"]):
        if label != "O" and behind[0] != "I":
            label = f"{'S' if label[0] == 'B' else 'E'}-{label[2:]}"
        written.append(label)
    return written


def check_boundaries(boundaries: object) -> None:
    """Raises ValueError unless this is one of `BOUNDARIES`.

    Args:
        boundaries: a name.

    Raises:
        ValueError: it is something else.

    Example:
        >>> check_boundaries("bio")
    """
    if boundaries not in BOUNDARIES:
        raise ValueError(
            f"boundaries must be one of {', '.join(BOUNDARIES)}: got {boundaries!r:.60}"
        )


def generation_as_bio(text: str) -> str:
    """Returns a generated text with BIOES labels as one with BIO labels, which matching reads.

    Args:
        text: `word_1(label_1) word_2(label_2) ...`; one with BIO labels stays as it is.

    Example:
        >>> generation_as_bio("New(B-city) York(E-city) is(O) Rome(S-city)")
        'New(B-city) York(I-city) is(O) Rome(B-city)'
    """
    return _LAST_LABEL.sub(lambda match: "(I-" if match[1] == "E" else "(B-", text)


class LabelReader:
    """Labels of BIO, BIOES, BILOU or IO as BIO labels; each distinct label is checked once.

    A label that goes on with an entity (`I-`, `E-`) where none of its type is open begins one:
    that is what IO labels say, and what files with a mistake mean. `repaired` counts them.

    Args:
        types: what entities may be; None allows any type.

    Example:
        >>> reader = LabelReader()
        >>> reader.read(["I-city", "E-city", "O", "S-person"])
        ['B-city', 'I-city', 'O', 'B-person']
        >>> reader.repaired
        1
    """

    def __init__(self, types: Sequence[str] | None = None) -> None:
        self.repaired = 0
        self._types = None if types is None else {*types}
        # BIO labels that may stand behind any, and those that were seen behind another, rightly.
        self._free = {"O"}
        self._pairs: set[tuple[str, str]] = set()
        # How a label begins and ends an entity, and its type.
        self._known: dict[str, tuple[bool, bool, str]] = {"O": (True, True, "")}
        self._names: dict[str, tuple[str, str]] = {"": ("O", "O")}

    def read(self, labels: Sequence[str]) -> list[str]:
        """Returns n BIO labels.

        Args:
            labels: n labels.

        Raises:
            ValueError: one has no prefix, or a type that cannot be read back; the text says which
                word's it is.
        """
        if self._free.issuperset(labels) or self._pairs.issuperset(pairwise(chain("O", labels))):
            return [*labels]
        known, names = self._known, self._names
        made = []
        is_open = ""
        for index, label in enumerate(labels):
            if label == "O":
                made.append("O")
                is_open = ""
                continue
            kind = known.get(label)
            begins, ends, name = self._learn(index, label) if kind is None else kind
            if begins:
                made.append(names[name][0])
            elif name == is_open:
                made.append(names[name][1])
            else:
                self.repaired += 1
                made.append(names[name][0])
            is_open = "" if ends else name
        if made == [*labels]:
            self._pairs.update(pairwise(chain("O", labels)))
            self._free.update(label for label in made if label[0] == "B")
        return made

    def _learn(self, index: int, label: str) -> tuple[bool, bool, str]:
        match = _LABEL.fullmatch(label) if isinstance(label, str) else None
        if match is None:
            raise ValueError(
                f"label of word {index + 1} must be O, or a type behind B-, I-, E- or S-: "
                f"got {label!r:.60}"
            )
        name = match[2]
        problem = _name_problem(name)
        if problem is not None:
            raise ValueError(f"label of word {index + 1}, {label!r:.60}, {problem}")
        if self._types is not None and name not in self._types:
            shown = ", ".join(sorted(self._types))
            shown = shown if len(shown) <= 200 else f"{shown[:200]}..."
            raise ValueError(
                f"label of word {index + 1}, {label!r:.60}, is of none of the types: {shown}"
            )
        self._names[name] = (f"B-{name}", f"I-{name}")
        self._known[label] = (*_PREFIXES[match[1]], name)
        return self._known[label]


def _name_problem(name: str) -> str | None:
    """Why a type cannot be read back from a generated label, if so."""
    if not name.strip():
        return "names no type"
    if name != name.strip():
        return "begins or ends with white space, which is not read back"
    if ")" in name:
        return "holds a closing parenthesis, where a label would end"
    if "\n" in name:
        return "holds a line break, which is not read back"
    return None
