"""What is removed from texts before pre-training: rules by name, and texts that stood before.

`docs/openba.md` has a table of what each rule matches; `lmcore.ops.cleaning` and
`lmcore.ops.duplicates` hold the rules themselves.

Source: OpenBA-V2 (arXiv 2405.05957), its section on data; specification section 8.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

from lmcore._extras import optional_imports
from lmcore.ops import cleaning
from lmcore.ops.duplicates import Duplicates

# Characters of a text that tell its language.
_LOOKED_AT = 2000

RULES = (*cleaning.RULES, "languages", "duplicate_documents", "duplicate_paragraphs")
"""By their order; `CleanConfig` has a switch for each."""


@dataclass(kw_only=True, slots=True, frozen=True)
class CleanConfig:
    """Which rules clean texts.

    Example:
        >>> CleanConfig().without("phone_numbers", "html").rules
        ('links', 'emails', 'repeats', 'short_sentences', 'duplicate_documents', \
'duplicate_paragraphs')
    """

    html: bool = True
    """Remove tags and comments, and scripts and styles with what they hold."""
    links: bool = True
    """Remove addresses that begin with `http://`, `https://`, `ftp://` or `www.`."""
    emails: bool = True
    """Remove addresses of mail."""
    phone_numbers: bool = True
    """Remove phone numbers of China, of North America, and of any country after a `+`."""
    repeats: bool = True
    """Put one character in place of a run of it that is longer than `most_repeats`."""
    most_repeats: int = 3
    """At least 1."""
    short_sentences: bool = True
    """Remove sentences of fewer words than `minimum_words`."""
    minimum_words: int = 10
    """A Chinese or Japanese character counts as a word."""
    languages: tuple[str, ...] = ()
    """Drop texts in other languages than these, by their codes of ISO 639-1; none: no filter."""
    duplicate_documents: bool = True
    """Drop texts that stood before."""
    duplicate_paragraphs: bool = True
    """Remove runs of sentences that stood before."""
    paragraph_sentences: int = 1
    """Fewest sentences of such a run; longer ones consist of these."""

    def __post_init__(self) -> None:
        for name in ("most_repeats", "minimum_words", "paragraph_sentences"):
            value = getattr(self, name)
            if type(value) is not int or not 1 <= value <= 2**31 - 1:
                raise ValueError(f"{name} must be from 1 to {2**31 - 1}: got {value!r:.40}")
        if not isinstance(self.languages, tuple) or not all(
            isinstance(code, str) for code in self.languages
        ):
            raise ValueError(f"languages must be a tuple of codes: got {self.languages!r:.40}")

    @property
    def rules(self) -> tuple[str, ...]:
        """The names of the rules that are on."""
        return tuple(name for name in RULES if getattr(self, name))

    def without(self, *rules: str) -> CleanConfig:
        """Returns the same without some rules.

        Args:
            *rules: their names.

        Raises:
            ValueError: there is no such rule.
        """
        for name in rules:
            if name not in RULES:
                raise ValueError(f"rule must be one of {', '.join(RULES)}: got {name!r:.60}")
        off: dict[str, Any] = {name: () if name == "languages" else False for name in rules}
        return replace(self, **off)


@dataclass(kw_only=True, slots=True, frozen=True)
class RuleCount:
    """What a rule did."""

    documents: int = 0
    """Texts that it changed or dropped."""
    characters: int = 0
    """That it removed."""

    @classmethod
    def of(cls, found: tuple[int, int]) -> RuleCount:
        """Returns both numbers by their names."""
        return cls(documents=found[0], characters=found[1])


@dataclass(kw_only=True, slots=True, frozen=True)
class CleanedTexts:
    """Texts without what the rules remove."""

    texts: list[str | None]
    """In order; None where a text is dropped."""
    counts: dict[str, RuleCount] = field(default_factory=dict)
    """By rule that is on, and by two reasons to drop a text: `empty` where nothing is left of it,
    and `unsettled` where each pass of the rules uncovers something more to remove."""


def clean_texts(
    texts: Sequence[str], config: CleanConfig | None = None, *, threads: int | None = None
) -> CleanedTexts:
    """Returns texts without what the rules remove; what stood before is up to `Duplicates`.

    Each text is cleaned by itself, until the rules find nothing in it: cleaning once more changes
    nothing. The order of what is left is kept, and no character is added but a space for a tag.

    Args:
        texts: any number of them, without lone surrogates.
        config: the rules; those of `duplicate_documents` and `duplicate_paragraphs` are not used.
        threads: number of threads; all cores if None. The result does not depend on it.

    Raises:
        ImportError: languages are filtered, and the package for it is not installed.
        MemoryError: the memory is refused.
        TypeError: a text is no str.
        ValueError: a text holds a lone surrogate, or a language is not known.

    Example:
        >>> rules = CleanConfig(minimum_words=3)
        >>> cleaned = clean_texts(["Mail me: a@b.org. It <b>rains</b> today.", "Go!"], rules)
        >>> cleaned.texts
        ['It rains today.', None]
        >>> cleaned.counts["emails"], cleaned.counts["empty"].documents
        (RuleCount(documents=1, characters=7), 1)
    """
    config = config or CleanConfig()
    found = cleaning.clean_texts(texts, threads=threads, **_find_rules(config))
    counts = _count_rules(found.removed, config)
    left = found.texts
    if config.languages:
        left, counts["languages"] = _filter_languages(left, config.languages)
    for name in ("empty", "unsettled"):
        counts[name] = RuleCount(documents=found.dropped.count(name))
    return CleanedTexts(texts=left, counts=counts)


def remove_duplicates(
    texts: Sequence[str | None],
    seen: Duplicates,
    config: CleanConfig | None = None,
    *,
    threads: int | None = None,
) -> CleanedTexts:
    """Returns texts without what stood before: whole texts, and runs of sentences.

    The first occurrence is kept. A text that loses sentences is cleaned again, as what is left
    stands closer together.

    Args:
        texts: as `clean_texts` returns them; None stays None.
        seen: what stood before; the texts and their sentences are added to it.
        config: the rules.
        threads: number of threads; all cores if None. The result does not depend on it.

    Raises:
        MemoryError: the hashes need more memory than they may take.
        TypeError: a text is no str.
        ValueError: a text holds a lone surrogate.

    Example:
        >>> seen, rules = Duplicates(), CleanConfig(minimum_words=1)
        >>> found = remove_duplicates(["It rains. We stay.", "We stay. They go."], seen, rules)
        >>> found.texts, found.counts["duplicate_paragraphs"]
        (['It rains. We stay.', 'They go.'], RuleCount(documents=1, characters=9))
    """
    config = config or CleanConfig()
    if not config.duplicate_documents and not config.duplicate_paragraphs:
        return CleanedTexts(texts=list(texts))
    found = seen.remove(
        [text for text in texts if text is not None],
        documents=config.duplicate_documents,
        sentences=config.paragraph_sentences if config.duplicate_paragraphs else 0,
        threads=threads,
        **_find_rules(config),
    )
    counts = _count_rules(found.removed, config)
    if config.duplicate_documents:
        counts["duplicate_documents"] = RuleCount.of(found.documents)
    if config.duplicate_paragraphs:
        counts["duplicate_paragraphs"] = RuleCount.of(found.paragraphs)
    for name in ("empty", "unsettled"):
        counts[name] = RuleCount(documents=found.dropped.count(name))
    left = iter(found.texts)
    return CleanedTexts(
        texts=[None if text is None else next(left) for text in texts], counts=counts
    )


def _find_rules(config: CleanConfig) -> dict[str, Any]:
    """The rules as the ops take them."""
    return {
        "html": config.html,
        "links": config.links,
        "emails": config.emails,
        "phone_numbers": config.phone_numbers,
        "most_repeats": config.most_repeats if config.repeats else 0,
        "minimum_words": config.minimum_words if config.short_sentences else 0,
    }


def _count_rules(removed: Sequence[tuple[int, int]], config: CleanConfig) -> dict[str, RuleCount]:
    named = zip(cleaning.RULES, removed, strict=True)
    return {name: RuleCount.of(found) for name, found in named if getattr(config, name)}


@cache
def _load_identifier() -> Any:
    with optional_imports():
        from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE)


def _filter_languages(
    texts: list[str | None], languages: tuple[str, ...]
) -> tuple[list[str | None], RuleCount]:
    """The texts of these languages, and what was dropped."""
    identifier = _load_identifier()
    known = identifier.labels
    for code in languages:
        if code not in known:
            raise ValueError(
                f"language must be one of {', '.join(sorted(known))}: got {code!r:.60}"
            )
    left: list[str | None] = []
    documents = characters = 0
    for text in texts:
        if text is not None and identifier.classify(text[:_LOOKED_AT])[0] not in languages:
            documents += 1
            characters += len(text)
            text = None
        left.append(text)
    return left, RuleCount(documents=documents, characters=characters)


__all__ = [
    "RULES",
    "CleanConfig",
    "CleanedTexts",
    "Duplicates",
    "RuleCount",
    "clean_texts",
    "remove_duplicates",
]
