"""Constrained decoding: the model copies the words and chooses among legal labels.

This goes beyond the paper, which repairs what was generated (Hierarchical Matching). Here nothing
is left to repair: the words of the sentence are forced, in their order, and behind each of them
the model may write `O`, `B-` with one of the types, or `I-` with the type of the entity that the
word before belongs to. Words can neither be left out nor added nor changed.

A word stands as the tokens that it has in its context, `word_1(label_1) word_2(`: so the model
sees what it was trained on. `Constraint` is one sentence as a machine over tokens,
`ConstrainedDecoding` holds any `generate` of transformers to it, and `lmcore.ner.forcing` feeds
all tokens between two choices in one step.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from lmcore._extras import optional_imports
from lmcore.ner.labels import check_types

with optional_imports():
    import torch
    from transformers import LogitsProcessor

# What stands before a word that is not the first: its tokens depend on it.
_BEFORE = "a(O)"
_KNOWN_WORDS = 100_000


class LabelledWord(NamedTuple):
    """A word's label, and the tokens that wrote it."""

    label: str
    start: int
    """First of the generated tokens in which the label was chosen."""
    stop: int
    """The one behind the last."""


class State(NamedTuple):
    """How far a sentence is written."""

    word: int
    """Words that have their label."""
    label: int
    """Label of the last of them, as an index of `Constraint.labels`; 0 before the first."""
    written: int
    """Tokens of the next word that are written."""
    node: _Node | None
    """Where its label stands; None until all its tokens are written."""


class Constraint:
    """What may be generated for one sentence, token by token.

    Args:
        words: of the sentence.
        labels: `O`, then `B-` of each type, then `I-` of each type.
        parts: for each word the tokens that are forced, and the labels behind them.
        end: the token that ends a text.
        prompt: tokens that stand before, for a model without an encoder.

    Example:
        >>> o, b, i = [5], [6, 7], [6, 8]
        >>> parts = [WordTokens((1, 2), LabelTokens(("O", "B-x", "I-x"), [o, b, i]))] * 2
        >>> constraint = Constraint(["a", "a"], ("O", "B-x", "I-x"), parts, end=9)
        >>> constraint.read([1, 2, 6, 7, 1, 2, 6, 8, 9])
        [LabelledWord(label='B-x', start=2, stop=4), LabelledWord(label='I-x', start=6, stop=8)]
        >>> constraint.allowed(constraint.follow([1, 2]))
        (5, 6)
    """

    def __init__(
        self,
        words: Sequence[str],
        labels: tuple[str, ...],
        parts: Sequence[WordTokens],
        *,
        end: int,
        prompt: Sequence[int] = (),
    ) -> None:
        self.words = words
        self.labels = labels
        self.parts = parts
        self.end = end
        self.prompt = list(prompt)
        for word, part in zip(words, parts, strict=True):
            if end in part.tokens:
                raise ValueError(f"the word {word!r:.60} holds the token that ends a text")
        self.begin = self._settle(0, 0, 0)

    @property
    def most_tokens(self) -> int:
        """Tokens of the longest text that may be generated, with the one that ends it."""
        return sum(len(part.tokens) + part.labels.longest for part in self.parts) + 1

    def allowed(self, state: State) -> tuple[int, ...]:
        """Returns the tokens that may come next; one alone is forced.

        Args:
            state: how far the sentence is written.
        """
        if state.node is not None:
            return state.node.tokens
        if state.word >= len(self.parts):
            return (self.end,)
        return (self.parts[state.word].tokens[state.written],)

    def advance(self, state: State, token: int) -> State | None:
        """Returns how far the sentence is written with one more token; None if it is not legal.

        Args:
            state: before the token.
            token: one of `allowed`; behind the end any token is padding.
        """
        if state.node is not None:
            child = state.node.children.get(token)
            if child is None:
                return None
            if child.label is None:
                return state._replace(node=child)
            return self._settle(state.word + 1, child.label, 0)
        if state.word > len(self.parts):
            return state
        if token != self.allowed(state)[0]:
            return None
        if state.word == len(self.parts):
            return State(state.word + 1, 0, 0, None)
        return self._settle(state.word, state.label, state.written + 1)

    def follow(self, tokens: Iterable[int]) -> State:
        """Returns how far the sentence is written after these tokens.

        Args:
            tokens: from the first on.

        Raises:
            ValueError: one of them is not legal.
        """
        state = self.begin
        for number, token in enumerate(tokens):
            after = self.advance(state, token)
            if after is None:
                raise ValueError(
                    f"token {number} must be one of {self.allowed(state)}: got {token}"
                )
            state = after
        return state

    def read(self, tokens: Iterable[int]) -> list[LabelledWord]:
        """Returns the labels that a whole text spells, one for each word.

        Args:
            tokens: from the first to the end of the last label; more are not read.

        Raises:
            ValueError: a token is not legal, or words are missing.
        """
        found: list[LabelledWord] = []
        state, start = self.begin, 0
        for number, token in enumerate(tokens):
            if state.word >= len(self.parts):
                break
            after = self.advance(state, token)
            if after is None:
                raise ValueError(
                    f"token {number} must be one of {self.allowed(state)}: got {token}"
                )
            if state.node is None:
                start = number + 1
            if after.word > state.word:
                found.append(LabelledWord(self.labels[after.label], start, number + 1))
                start = number + 1
            state = after
        if len(found) < len(self.parts):
            raise ValueError(f"expected labels of {len(self.parts)} words: got {len(found)}")
        return found

    def _settle(self, word: int, label: int, written: int) -> State:
        """A state whose node is there as soon as the label is what comes next."""
        if word < len(self.parts) and written == len(self.parts[word].tokens):
            return State(word, label, written, self.parts[word].labels.tree(label))
        return State(word, label, written, None)


@dataclass(slots=True)
class _Node:
    """A node of the tree of the tokens of labels."""

    children: dict[int, _Node] = field(default_factory=dict)
    label: int | None = None
    """The label that ends here."""
    tokens: tuple[int, ...] = ()
    """The keys of the children, ascending: so ties fall as in `argmax` over a vocabulary."""


class LabelTokens:
    """The tokens of labels, as one tree for each label that may stand before.

    Args:
        labels: as for `Constraint`.
        tokens: of each label.

    Raises:
        ValueError: the tokens of a label begin with all those of another one.

    Example:
        >>> LabelTokens(("O", "B-x", "I-x"), [[5], [6, 7], [6, 8]]).tree(0).tokens
        (5, 6)
    """

    def __init__(self, labels: tuple[str, ...], tokens: Sequence[Sequence[int]]) -> None:
        self.labels = labels
        self.tokens = tokens
        self.longest = max(map(len, tokens))
        self._trees: dict[int, _Node] = {}
        # With all labels at once: whether two are told apart does not depend on the sentence.
        self._build(range(len(labels)))

    def tree(self, before: int) -> _Node:
        """Returns the legal labels behind a label.

        Args:
            before: its index in `labels`.
        """
        count = len(self.labels) // 2
        kind = (before - 1) % count if before else -1
        if kind not in self._trees:
            inside = [] if kind < 0 else [1 + count + kind]
            self._trees[kind] = self._build([*range(1 + count), *inside])
        return self._trees[kind]

    def _build(self, chosen: Iterable[int]) -> _Node:
        root = _Node()
        for label in chosen:
            node = root
            for token in self.tokens[label]:
                if node.label is not None:
                    break
                node = node.children.setdefault(token, _Node())
            if node.children or node.label is not None or node is root:
                other = next(_ends(node), 0)
                raise ValueError(
                    f"the labels {self.labels[other]!r:.60} and {self.labels[label]!r:.60} are "
                    "the same tokens to the tokenizer, so a model cannot choose between them"
                )
            node.label = label
        stack = [root]
        while stack:
            node = stack.pop()
            node.tokens = tuple(sorted(node.children))
            stack.extend(node.children.values())
        return root


def _ends(node: _Node) -> Iterator[int]:
    if node.label is not None:
        yield node.label
    for child in node.children.values():
        yield from _ends(child)


class WordTokens(NamedTuple):
    """A word: what is forced, and what may stand behind it."""

    tokens: tuple[int, ...]
    labels: LabelTokens


class ConstraintMaker:
    """Makes the constraints of sentences with one tokenizer; known words are kept.

    Args:
        tokenizer: of transformers.
        end: the token that ends a text; the tokenizer's own if None.

    Raises:
        ValueError: there is no such token.
    """

    def __init__(self, tokenizer: Any, end: int | None = None) -> None:
        self._tokenizer = tokenizer
        found = tokenizer.eos_token_id if end is None else end
        if found is None:
            raise ValueError("the tokenizer has no token that ends a text")
        self._end: int = found
        self._labels: dict[tuple[str, ...], LabelTokens | None] = {}
        self._words: dict[tuple[str, bool, tuple[str, ...]], WordTokens] = {}

    def __call__(
        self, words: Sequence[str], types: Sequence[str], prompt: str | None = None
    ) -> Constraint:
        """Returns what may be generated for a sentence.

        Args:
            words: of the sentence.
            types: what entities may be.
            prompt: what stands before the text, for a model without an encoder. Its last tokens
                are those that it has together with the first word.

        Raises:
            ValueError: a type is empty, twice there or holds a `)`, the tokenizer gives two
                labels the same tokens, or a word holds the token that ends a text.
        """
        check_types(types)
        chosen = tuple(types)
        labels = ("O", *(f"B-{kind}" for kind in types), *(f"I-{kind}" for kind in types))
        if len(self._words) > _KNOWN_WORDS:
            self._words.clear()
            self._labels.clear()
        wanted = {(word, i == 0, chosen): None for i, word in enumerate(words)}
        new = [key for key in wanted if key not in self._words and not (key[1] and prompt)]
        self._add([word for word, first, _ in new if not first], _BEFORE, labels, chosen)
        self._add([word for word, first, _ in new if first], "", labels, chosen)
        parts = [self._words.get((word, i == 0, chosen)) for i, word in enumerate(words)]
        before: list[int] = []
        if prompt:
            before = self._encode([prompt], special=True)[0]
            if words:
                [(kept, first)] = self._split([words[0]], prompt, before, labels, chosen)
                if self._end in first.tokens:  # the word reads as a special token
                    self._add([words[0]], "", labels, chosen)
                    kept, first = len(before), self._words[words[0], True, chosen]
                before, parts[0] = before[:kept], first
        return Constraint(
            words,
            labels,
            [part for part in parts if part is not None],
            end=self._end,
            prompt=before,
        )

    def _add(
        self, words: Sequence[str], before: str, labels: tuple[str, ...], types: tuple[str, ...]
    ) -> None:
        if not words:
            return
        context = self._encode([before])[0] if before else []
        for word, (_, part) in zip(
            words, self._split(words, before, context, labels, types), strict=True
        ):
            self._words[word, not before, types] = part

    def _split(
        self,
        words: Sequence[str],
        before: str,
        context: list[int],
        labels: tuple[str, ...],
        types: tuple[str, ...],
    ) -> list[tuple[int, WordTokens]]:
        """For each word how many tokens of its context stay as they are, and its own."""
        special = bool(before) and before != _BEFORE
        gap = " " if before == _BEFORE else ""
        texts = [f"{before}{gap}{word}(" for word in words]
        opened = self._encode(texts, special=special)
        closed = self._encode([f"{text}O)" for text in texts], special=special)
        known = self._known_labels(labels, types)
        found = []
        for text, tokens, outside in zip(texts, opened, closed, strict=True):
            kept = _count_common([context, tokens])
            if known is not None and outside == [*tokens, *known.tokens[0]]:
                found.append((kept, WordTokens(tuple(tokens[kept:]), known)))
                continue
            # The bracket belongs to a token with what follows: each label is asked for here.
            whole = self._encode([f"{text}{label})" for label in labels], special=special)
            kept = _count_common([context, *whole])
            shared = _count_common(whole)
            own = LabelTokens(labels, [tokens[shared:] for tokens in whole])
            found.append((kept, WordTokens(tuple(whole[0][kept:shared]), own)))
        return found

    def _known_labels(self, labels: tuple[str, ...], types: tuple[str, ...]) -> LabelTokens | None:
        """The labels behind any word, where a bracket ends a token; they are the same for all."""
        if types not in self._labels:
            before, *whole = self._encode(["a(", *(f"a({label})" for label in labels)])
            is_split = all(tokens[: len(before)] == before for tokens in whole)
            own = [tokens[len(before) :] for tokens in whole]
            self._labels[types] = LabelTokens(labels, own) if is_split else None
        return self._labels[types]

    def _encode(self, texts: Sequence[str], *, special: bool = False) -> list[list[int]]:
        # A word may read as a special token, such as `</s>`, and is a word nevertheless; a prompt
        # may hold one that is meant.
        found = self._tokenizer(
            list(texts), add_special_tokens=special, split_special_tokens=not special
        )["input_ids"]
        if not special:
            return [list(tokens) for tokens in found]
        return [_without_end(list(tokens), self._end) for tokens in found]


class ConstrainedDecoding(LogitsProcessor):
    """Holds `generate` to constraints, greedy or with beams.

    Args:
        constraints: one for each sentence of the batch.
        prompt_length: tokens that stand in `input_ids` before the first generated one, padding
            included: 1 for an encoder-decoder model.
        num_beams: hypotheses of each sentence.

    Raises:
        ValueError: when it is called: no legal token is left, since the text before is not legal
            or another processor forbids them all.
    """

    def __init__(
        self, constraints: Sequence[Constraint], *, prompt_length: int, num_beams: int = 1
    ) -> None:
        self._constraints = constraints
        self._prompt_length = prompt_length
        self._num_beams = num_beams
        self._states: Mapping[tuple[int, tuple[int, ...]], State | None] = {}

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Returns the scores with minus infinity for what is not legal.

        Args:
            input_ids: `[rows, length]` int64, rows = sentences * beams.
            scores: `[rows, vocabulary]`.
        """
        states: dict[tuple[int, tuple[int, ...]], State | None] = {}
        rows: list[int] = []
        columns: list[int] = []
        for row, tokens in enumerate(input_ids[:, self._prompt_length :].tolist()):
            allowed = self._allow(row // self._num_beams, tuple(tokens), states)
            if max(allowed) >= scores.shape[-1]:
                raise ValueError(
                    f"the model has {scores.shape[-1]} tokens: got token {max(allowed)} of a "
                    "tokenizer that is not its own"
                )
            rows += [row] * len(allowed)
            columns += allowed
        self._states = states
        cells = torch.tensor([rows, columns], device=scores.device)
        legal = scores[cells[0], cells[1]]
        masked = torch.full_like(scores, -torch.inf)
        masked[cells[0], cells[1]] = legal
        if self._num_beams == 1 and bool((masked.amax(dim=-1) == -torch.inf).any()):
            row = int((masked.amax(dim=-1) == -torch.inf).nonzero()[0])
            raise ValueError(
                f"sentence {row} has no legal token left: another processor forbids them all"
            )
        return masked

    def _allow(
        self,
        sentence: int,
        tokens: tuple[int, ...],
        states: dict[tuple[int, tuple[int, ...]], State | None],
    ) -> tuple[int, ...]:
        constraint = self._constraints[sentence]
        key = sentence, tokens
        if key not in states:
            before = self._states.get((sentence, tokens[:-1])) if tokens else None
            if before is not None:
                states[key] = constraint.advance(before, tokens[-1])
            else:
                state: State | None = constraint.begin
                for token in tokens:
                    state = None if state is None else constraint.advance(state, token)
                states[key] = state
        state = states[key]
        if state is not None:
            return constraint.allowed(state)
        if self._num_beams > 1:
            # Where fewer hypotheses are legal than there are beams, the search fills up with
            # impossible ones, of probability 0 already; they may do no more than end.
            return (constraint.end,)
        raise ValueError(
            f"sentence {sentence} has no legal token left: the {len(tokens)} tokens before are "
            "not those of its words and labels"
        )


def _count_common(sequences: Sequence[Sequence[int]]) -> int:
    """How many first tokens all of them share."""
    count = 0
    for tokens in zip(*sequences, strict=False):
        if len(set(tokens)) > 1:
            break
        count += 1
    return count


def _without_end(tokens: list[int], end: int) -> list[int]:
    while tokens and tokens[-1] == end:  # some tokenizers end every text
        tokens.pop()
    return tokens
