"""A generated corpus with planted entities, and generations with planted damage.

Sentences are composed from templates, so that every entity is known. Function words repeat
within a sentence as they do in real text, which is what makes an alignment ambiguous.
English words are separated by spaces; a Chinese word is one character, and a run of digits
or Latin letters is one word too.

Everything random is a draw of (seed, stream, item, position): sentence i depends on (seed, i)
alone, and the damage done to its word w on (seed, i, w).
"""

import functools
import math
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from lmcore.ops.philox import Stream, random_uniform

LANGUAGES = ("en", "zh")

_MINIMUM_WORDS, _MAXIMUM_WORDS, _MAXIMUM_ENTITIES = 8, 45, 4
_SENTENCE_STREAMS = {"en": Stream.ENGLISH_SENTENCES, "zh": Stream.CHINESE_SENTENCES}
_ROWS_AT_ONCE = 4096
_DRAWS_AT_ONCE = 96
# A word's damage takes four draws: whether, which kind, which form, which detail.
_DRAWS_PER_WORD = 4

_ENGLISH_COMMON = """
    the of and to in that was for on with as by at from had were which this an be not but it his
    her their they who has would could one two more after than other all been some into its when
    where there while because about over before between under again
"""

_T = TypeVar("_T")


@dataclass(slots=True, frozen=True)
class Sentence:
    """Words with the entities that were planted in them."""

    dataset: str
    """Name of the data set, `generated-<language>`."""
    words: tuple[str, ...]
    """The n words."""
    labels: tuple[str, ...]
    """One BIO label per word."""
    label_list: tuple[str, ...]
    """Entity types that may occur."""

    def to_row(self, prediction: str) -> dict[str, Any]:
        """Returns the JSON row that GNER's evaluator reads.

        Args:
            prediction: the generated text.

        Example:
            >>> Sentence("d", ("Bo", "ran"), ("B-person", "O"), ("person",)).to_row("")["instance"]
            {'words': ['Bo', 'ran'], 'labels': ['B-person', 'O']}
        """
        return {
            "dataset": self.dataset,
            "label_list": list(self.label_list),
            "instance": {"words": list(self.words), "labels": list(self.labels)},
            "prediction": prediction,
        }


@dataclass(kw_only=True, slots=True, frozen=True)
class DamageMix:
    """Shares of the three kinds of damage; they add up to 1."""

    omission: float
    addition: float
    substitution: float

    def __post_init__(self) -> None:
        """Raises ValueError if a share is negative or their sum is not 1."""
        shares = (self.omission, self.addition, self.substitution)
        if min(shares) < 0 or not math.isclose(sum(shares), 1.0):
            raise ValueError(f"shares must be at least 0 and add up to 1: got {shares}")


LLAMA_MIX = DamageMix(omission=0.39, addition=0.03, substitution=0.58)
"""Mismatches in long outputs of LLaMA-7B (GNER, arXiv 2402.16602)."""

T5_MIX = DamageMix(omission=0.23, addition=0.02, substitution=0.75)
"""Mismatches in long outputs of Flan-T5 (GNER, arXiv 2402.16602)."""


class WrittenWord(NamedTuple):
    """One pair of a generation."""

    word: str
    """The text before the label; it holds a space if the word was split."""
    label: str
    """The BIO label."""
    origin: int
    """Index of the input word that this stands for, or -1 if it was added."""
    damage: str
    """Empty, `addition` or `substitution`; what was omitted is not written."""


def generate_sentences(language: str, count: int, seed: int) -> list[Sentence]:
    """Returns sentences with 0 to 4 planted entities and 8 to 45 words each, 22 on average.

    Sentence i depends on the language, the seed and i alone.

    Args:
        language: `en` or `zh`.
        count: number of sentences.
        seed: below 2**64.

    Raises:
        ValueError: unknown language, negative count, or a seed out of range.

    Example:
        >>> sentence = generate_sentences("en", count=1, seed=0)[0]
        >>> len(sentence.words) == len(sentence.labels)
        True
        >>> generate_sentences("en", count=9, seed=0)[0] == sentence
        True
    """
    grammar = _grammar(language)
    if count < 0:
        raise ValueError(f"count must be at least 0: got {count}")
    sentences = []
    for start in range(0, count, _ROWS_AT_ONCE):
        items = range(start, min(start + _ROWS_AT_ONCE, count))
        stream = _SENTENCE_STREAMS[language]
        rows = random_uniform(seed, stream, list(items), _DRAWS_AT_ONCE).tolist()
        for item, row in zip(items, rows, strict=True):
            words, labels = _compose(grammar, _Draws(seed, stream, item, row))
            sentences.append(
                Sentence(f"generated-{language}", tuple(words), tuple(labels), grammar.label_list)
            )
    return sentences


def write_generation(words: Sequence[str], labels: Sequence[str]) -> str:
    """Returns `word_1(label_1) word_2(label_2) ...`, the text that GNER is trained to write.

    Source: GNER (arXiv 2402.16602), its output format.

    Args:
        words: n words.
        labels: n BIO labels; one that holds `)` cannot be read back.

    Raises:
        ValueError: the lengths differ.

    Example:
        >>> write_generation(["New", "York", "!"], ["B-city", "I-city", "O"])
        'New(B-city) York(I-city) !(O)'
    """
    if len(words) != len(labels):
        raise ValueError(
            f"labels must have the same length as words: got {len(labels)} and {len(words)}"
        )
    return " ".join(f"{word}({label})" for word, label in zip(words, labels, strict=True))


def corrupt_sentences(
    sentences: Sequence[Sentence], rate: float, mix: DamageMix, seed: int
) -> list[list[WrittenWord]]:
    """Returns what a model that damages words would write for each sentence.

    Each word is hit with probability `rate`, independently of the others, and the kind of
    damage is drawn from `mix`:

    - omission: neither the word nor its label is written.
    - addition: the word is written, then one more: with probability 1/2 the same word and
      label again, else a common word of the language labelled `O`.
    - substitution: another text stands in the word's place and keeps its label. Of the forms
      that apply to the word one is drawn, each as likely: one character is lost (words of 2
      and more); a space splits it (4 and more); its accents are lost (where there are any);
      characters outside ASCII vanish, as unknown ones do (where some but not all are); it
      becomes a common word of the language (always). A single Chinese character can
      therefore only become another word. The new text is never equal to the old one, not
      even in lower case.

    With the same seed the words hit at a lower rate are among those hit at a higher one, in
    the same way, so that rates and mixes are compared on the same draws.

    Args:
        sentences: sentence i takes the draws of item i.
        rate: probability in [0, 1].
        mix: shares of the kinds.
        seed: below 2**64.

    Raises:
        ValueError: a rate or seed out of range.

    Example:
        >>> sentences = generate_sentences("en", count=1, seed=0)
        >>> written = corrupt_sentences(sentences, rate=0.0, mix=T5_MIX, seed=0)[0]
        >>> tuple(word.word for word in written) == sentences[0].words
        True
    """
    return [
        written
        for start in range(0, len(sentences), _ROWS_AT_ONCE)
        for written in _corrupt(
            sentences[start : start + _ROWS_AT_ONCE], rate, mix, seed, first_item=start
        )
    ]


def corrupt_generation(
    sentence: Sentence, rate: float, mix: DamageMix, seed: int, item: int
) -> str:
    """Returns one sentence's generation with damaged words, as `corrupt_sentences` makes it.

    Args:
        sentence: what should have been written.
        rate: probability in [0, 1] that a word is hit.
        mix: shares of the kinds of damage.
        seed: below 2**64.
        item: whose draws to take; the sentence's index in its corpus.

    Raises:
        ValueError: a rate, seed or item out of range.

    Example:
        >>> sentence = Sentence("d", ("Bo", "ran"), ("B-person", "O"), ("person",))
        >>> omission = DamageMix(omission=1.0, addition=0.0, substitution=0.0)
        >>> corrupt_generation(sentence, rate=0.0, mix=omission, seed=0, item=0)
        'Bo(B-person) ran(O)'
        >>> corrupt_generation(sentence, rate=1.0, mix=omission, seed=0, item=0)
        ''
    """
    return _join(_corrupt([sentence], rate, mix, seed, first_item=item)[0])


def generate_predictions(
    language: str, count: int, seed: int, rate: float, mix: DamageMix
) -> list[dict[str, Any]]:
    """Returns generated sentences with damaged predictions, in the rows GNER's evaluator reads.

    Args:
        language: `en` or `zh`.
        count: number of rows.
        seed: below 2**64.
        rate: probability in [0, 1] that a word of a prediction is damaged.
        mix: shares of the kinds of damage.

    Returns:
        Rows with `dataset`, `label_list`, `instance` (`words`, `labels`) and `prediction`.

    Raises:
        ValueError: unknown language, or a count, seed or rate out of range.

    Example:
        >>> rows = generate_predictions("zh", count=2, seed=0, rate=0.01, mix=LLAMA_MIX)
        >>> sorted(rows[0])
        ['dataset', 'instance', 'label_list', 'prediction']
    """
    sentences = generate_sentences(language, count, seed)
    generations = corrupt_sentences(sentences, rate, mix, seed)
    return [
        sentence.to_row(_join(written))
        for sentence, written in zip(sentences, generations, strict=True)
    ]


def _join(written: Sequence[WrittenWord]) -> str:
    return write_generation([w.word for w in written], [w.label for w in written])


def _corrupt(
    sentences: Sequence[Sentence], rate: float, mix: DamageMix, seed: int, first_item: int
) -> list[list[WrittenWord]]:
    if not 0.0 <= rate <= 1.0:
        raise ValueError(f"rate must be in [0, 1]: got {rate}")
    longest = max((len(sentence.words) for sentence in sentences), default=0)
    items = [first_item + i for i in range(len(sentences))]
    rows = random_uniform(seed, Stream.DAMAGE, items, _DRAWS_PER_WORD * longest)
    return [
        _corrupt_words(sentence, rate, mix, row)
        for sentence, row in zip(sentences, rows.tolist(), strict=True)
    ]


def _corrupt_words(
    sentence: Sentence, rate: float, mix: DamageMix, draws: Sequence[float]
) -> list[WrittenWord]:
    fillers = _common_words(sentence.dataset)
    written = []
    for i, (word, label) in enumerate(zip(sentence.words, sentence.labels, strict=True)):
        hit, kind, form, detail = draws[_DRAWS_PER_WORD * i : _DRAWS_PER_WORD * (i + 1)]
        if hit >= rate:
            written.append(WrittenWord(word, label, i, ""))
        elif kind < mix.substitution:
            written.append(
                WrittenWord(_substitute(word, fillers, form, detail), label, i, "substitution")
            )
        elif kind < mix.substitution + mix.addition:
            written.append(WrittenWord(word, label, i, ""))
            extra = (word, label) if form < 0.5 else (_take(fillers, detail), "O")
            written.append(WrittenWord(*extra, -1, "addition"))
    return written


def _substitute(word: str, fillers: Sequence[str], form: float, detail: float) -> str:
    letters = (c for c in unicodedata.normalize("NFD", word) if not unicodedata.combining(c))
    unaccented = unicodedata.normalize("NFC", "".join(letters))
    known = "".join(c for c in word if c.isascii())
    place = int(detail * len(word))
    cut = 1 + int(detail * (len(word) - 1))
    candidates = [_take([w for w in fillers if w.lower() != word.lower()], detail)]
    if len(word) >= 2:
        candidates.append(word[:place] + word[place + 1 :])
    if len(word) >= 4:
        candidates.append(word[:cut] + " " + word[cut:])
    if unaccented != word:
        candidates.append(unaccented)
    if 0 < len(known) < len(word):
        candidates.append(known)
    return _take(candidates, form)


def _take(options: Sequence[_T], draw: float) -> _T:
    return options[int(draw * len(options))]


class _Draws:
    """The uniform draws of one sentence, handed out in order."""

    def __init__(self, seed: int, stream: int, item: int, first: list[float]) -> None:
        self._uniforms = self._read(seed, stream, item, first)

    @staticmethod
    def _read(seed: int, stream: int, item: int, first: list[float]) -> Iterator[float]:
        yield from first
        position = len(first)
        while True:
            more = random_uniform(seed, stream, item, _DRAWS_AT_ONCE, position=position)
            yield from more.tolist()
            position += _DRAWS_AT_ONCE

    def uniform(self) -> float:
        return next(self._uniforms)

    def pick(self, options: Sequence[_T]) -> _T:
        return _take(options, next(self._uniforms))


_Slot = Callable[[_Draws], str]


@dataclass(kw_only=True, slots=True, frozen=True)
class _Grammar:
    label_list: tuple[str, ...]
    openers: tuple[tuple[str, ...], ...]
    clauses: tuple[tuple[str, ...], ...]
    tails: tuple[tuple[str, ...], ...]
    slots: dict[str, _Slot]
    entities: dict[str, str]
    """Slots that are entities, and their types."""
    cut: Callable[[str], list[str]]
    end: str
    common_words: tuple[str, ...]


def _compose(grammar: _Grammar, draws: _Draws) -> tuple[list[str], list[str]]:
    words: list[str] = []
    labels: list[str] = []
    # The product of two draws: most sentences are short, a few reach the maximum.
    span = _MAXIMUM_WORDS - _MINIMUM_WORDS
    wanted = _MINIMUM_WORDS + int(span * draws.uniform() * draws.uniform())
    if draws.uniform() < 0.3:
        _fill(grammar, draws.pick(grammar.openers), draws, words, labels)
    _fill(grammar, draws.pick(grammar.clauses), draws, words, labels)
    while len(words) < wanted:
        more_words, more_labels = words.copy(), labels.copy()
        _fill(grammar, draws.pick(grammar.tails), draws, more_words, more_labels)
        entities = sum(label.startswith("B-") for label in more_labels)
        if len(more_words) >= _MAXIMUM_WORDS or entities > _MAXIMUM_ENTITIES:
            break
        words, labels = more_words, more_labels
    words[0] = words[0][:1].upper() + words[0][1:]
    return [*words, grammar.end], [*labels, "O"]


def _fill(
    grammar: _Grammar,
    template: tuple[str, ...],
    draws: _Draws,
    words: list[str],
    labels: list[str],
) -> None:
    for part in template:
        slot = grammar.slots.get(part)
        new = [part] if slot is None else grammar.cut(slot(draws))
        kind = grammar.entities.get(part)
        words += new
        labels += (
            ["O"] * len(new) if kind is None else [f"B-{kind}", *[f"I-{kind}"] * (len(new) - 1)]
        )


def _parse_templates(lines: str, cut: Callable[[str], list[str]]) -> tuple[tuple[str, ...], ...]:
    """Returns one template per line: words as they are, slots with their braces."""
    templates = []
    for line in lines.strip().splitlines():
        parts: list[str] = []
        for piece in re.split(r"(\{\w+\})", line.strip()):
            parts += [piece] if piece.startswith("{") else cut(piece)
        templates.append(tuple(parts))
    return tuple(templates)


def _choose(options: Sequence[str]) -> _Slot:
    return lambda draws: draws.pick(options)


def _among(words: str) -> _Slot:
    return _choose(words.split())


def _number(least: int, most: int) -> _Slot:
    return lambda draws: str(least + int(draws.uniform() * (most - least + 1)))


def _combine(*slots: _Slot) -> _Slot:
    return lambda draws: "".join(slot(draws) for slot in slots)


def _phrase(*slots: _Slot) -> _Slot:
    return lambda draws: " ".join(slot(draws) for slot in slots)


def _mixture(*weighted: tuple[float, _Slot]) -> _Slot:
    """Returns a slot that draws one of several slots; the last takes what weight is left."""

    def draw(draws: _Draws) -> str:
        left = draws.uniform()
        for weight, slot in weighted[:-1]:
            if left < weight:
                return slot(draws)
            left -= weight
        return weighted[-1][1](draws)

    return draw


def _cut_characters(text: str) -> list[str]:
    return re.findall(r"[A-Za-z0-9]+|\S", text)


@functools.cache
def _grammar(language: str) -> _Grammar:
    if language == "en":
        return _english()
    if language == "zh":
        return _chinese()
    raise ValueError(f"language must be one of {', '.join(LANGUAGES)}: got {language!r}")


@functools.cache
def _common_words(dataset: str) -> tuple[str, ...]:
    """Returns what a model puts for a lost word: of both languages where the data are others."""
    languages = [name for name in LANGUAGES if dataset == f"generated-{name}"] or LANGUAGES
    return tuple(word for name in languages for word in _grammar(name).common_words)


def _english() -> _Grammar:
    first = _among("""
        Ada Alma Anton Beatriz Boris Carmen Cedric Clara Dario Dmitri Edith Elena Emil Erik
        Farid Felix Freya Gita Greta Hana Hector Hugo Ida Imran Ines Ivan Jana Jonas Juno Kamal
        Karin Lena Leo Lydia Magnus Marta Mei Milan Nadia Nils Nora Olga Omar Otto Paula Petra
        Priya Ravi Rosa Ruth Samir Selma Simon Tamar Theo Tilda Uma Vera Viktor Wanda Yara Yusuf
        Zoë René José Søren Łukasz Chloé Jürgen Björk
    """)
    last = _combine(
        _among("""
            Al Ash Bar Bel Bern Bran Cal Car Dal Den El Fal Far Gar Gil Hal Har Hol Kar Kel Lan
            Lin Mal Mar Nor Or Pal Pen Quin Ros Sal Sel Tal Tor Ul Val Var Wel Wil Zel Mü Hé Kö
            Čer
        """),
        _among("""
            berg bert by cott dale den ders dini er feld field ford gren hart holm hurst ick
            ington ino kin lund man mann mer mond more nov ova ovic quist ridge row sen ski son
            stad stein ström ton vale wick win worth zano
        """),
    )
    town = _combine(
        _among("""
            Ald Alder Apple Arden Ban Bex Birch Black Brack Bright Brook Carl Clay Cold Cor Crow
            Dun East Elm Fair Fen Glen Green Hazel High Iron King Lake Lang Maple Mill North Oak
            Old Pine Raven Red River Rock Rose Sand Silver Stan Stone Summer Thorn West White
            Wind Winter Wood
        """),
        _among("""
            bourne bridge brook burg bury by dale den fell field ford gate ham haven hill hurst
            land ley mere minster mouth port shore stead ton town vale ville wick worth
        """),
    )
    brand = _combine(
        _among("""
            Aer Alt Ax Bio Cel Cor Cy Del Dyn El Ful Gen Hel Hex In Jov Kin Lum Lyr Mag Mer Neo
            Nim Nov Om Op Or Pri Quan Qu Ra Sen Sol Syn Tel Ter Tri Uni Ven Ver Vol Xen Zen Zeph
        """),
        _among("""
            ada ala ano aris atic eon era ero ex ia ica ida ient igo ilo ion ira is ium ix ola
            onic ora oro os ova ura us yx
        """),
    )
    field = _among("Health Trade Culture Energy Transport Science Labour Finance Justice")
    role = _among("""
        analyst architect captain chairman chemist coach commissioner conductor curator director
        doctor editor engineer farmer geologist governor historian inspector judge lawyer
        manager mayor minister musician novelist painter pilot poet president professor reporter
        scientist secretary senator singer spokeswoman surgeon teacher trainer treasurer
    """)
    noun = _among("""
        account agreement airport answer archive army attack audience bank barrier battle boat
        book border bridge budget campaign canal capital castle cause centre century chapel city
        claim coast college colony company concert conflict contract council country court crew
        crisis culture decision defence degree delay design district division document drought
        economy edition election engine estate evidence exhibition expedition expert factory
        family farm festival field film fire fleet flight flood forest fortress fund future game
        garden goal government harbour history hospital hotel house idea industry inquiry island
        journal journey kingdom lake language law league letter level library machine majority
        market match meeting memory message method mine mission model monument morning mountain
        movement museum network novel office orchestra order painting palace parliament party
        patent path peace period plan plant policy population port price prison problem process
        programme project proposal protest province railway record reform region reply report
        request rescue result river road route school season shore signal society source square
        stadium state station story strategy street strike study survey system tax team temple
        theatre theory tower town trade tradition trial tunnel union valley verdict version
        victory village vote wall war warning water weather winter witness work year
    """)
    adjective = _among("""
        able ancient annual bitter bold brief bright broad busy calm careful central cheap civil
        clear cold common complete crowded daily dark deep distant double early eastern empty
        entire equal famous final firm foreign former free fresh full general global golden
        great green hard heavy helpful hidden historic huge important joint large late legal
        light local lonely long loose lost loud main major military minor modern narrow national
        native new noisy northern official old open ordinary painful partial poor popular
        private public quiet rapid rare recent regional rich rough royal rural safe second
        secret senior serious severe sharp short silent simple slow small social solid southern
        stable steep strange strong sudden tall technical thick thin third tiny tired unique
        urban useful usual vast warm weak western wide wild wooden young
    """)
    verb = _among("""
        accepted adopted announced approved attacked avoided bought built cancelled carried
        caused challenged changed chose closed collected completed confirmed controlled covered
        created criticised crossed cut defended delayed described designed destroyed discovered
        discussed doubled ended examined expected explained extended finished followed founded
        funded guarded halted ignored improved inspected joined launched left lost managed
        measured missed moved named needed noticed offered opened opposed ordered organised
        owned planned praised prepared produced promised protected published questioned raised
        reached received recorded reduced refused rejected repaired replaced reported rescued
        restored returned revealed reviewed saved searched sent shared signed sold started
        stopped studied supported surprised tested threatened visited wanted warned welcomed won
    """)
    determiner = _mixture(
        (0.45, _choose(["the"])),
        (0.55, _among("this its their his her our another every each some")),
    )
    adverb = _among("""
        again almost already also clearly finally gradually hardly later mainly never now often
        only openly partly quickly quietly rarely recently slowly soon still suddenly twice
    """)
    slots: dict[str, _Slot] = {
        "{person}": _mixture(
            (0.6, _phrase(first, last)),
            (0.22, last),
            (0.1, _phrase(first, _among("A. B. C. E. J. K. M. P. R. T."), last)),
            (0.08, _phrase(first, _choose(["van der", "de la", "von", "al"]), last)),
        ),
        "{location}": _mixture(
            (0.6, town),
            (0.2, _phrase(_among("New North South East West Upper Lower Port Lake"), town)),
            (0.12, _phrase(town, _among("Valley Bay County Forest Island"))),
            (0.04, _phrase(_choose(["Isle of", "Gulf of", "Cape of"]), town)),
            (0.04, _phrase(_choose(["Port of New", "Republic of South"]), town)),
        ),
        "{organisation}": _mixture(
            (0.25, brand),
            (0.2, _phrase(brand, _among("Group Holdings Bank Airways Motors Press"))),
            (0.2, _phrase(town, _choose(["University", "United", "City Council", "Opera"]))),
            (0.12, _phrase(_choose(["University of", "Bank of", "Museum of"]), town)),
            (0.1, _phrase(_choose(["Ministry of", "Department of"]), field)),
            (0.06, _phrase(last, _choose(["& Sons", "& Daughters"]))),
            (0.07, _phrase(_choose(["Royal Society of", "National Council for"]), field)),
        ),
        "{product}": _mixture(
            (0.4, _phrase(brand, _number(2, 9))),
            (0.3, _phrase(brand, _among("Pro Mini Air Max Plus One"))),
            (0.15, _phrase(brand, _among("Pro Mini Max"), _number(10, 99))),
            (0.15, _combine(brand, _choose(["-X", "-Z", "-S"]))),
        ),
        "{role}": role,
        "{someone}": _phrase(determiner, role),
        "{thing}": _mixture(
            (0.6, _phrase(determiner, noun)),
            (0.4, _phrase(determiner, adjective, noun)),
        ),
        "{of}": _mixture(
            (0.55, _choose(["of"])),
            (0.45, _among("for from near behind against without inside about beyond")),
        ),
        "{adjective}": adjective,
        "{verb}": verb,
        "{adverb}": adverb,
        "{number}": _mixture(
            (0.5, _among("two three four five six seven eight nine ten twelve twenty")),
            (0.5, _number(11, 980)),
        ),
        "{year}": _number(1890, 2024),
        "{month}": _among("""
            January February March April May June July August September October November
            December
        """),
        "{day}": _among("Monday Tuesday Wednesday Thursday Friday Saturday Sunday"),
        "{people}": _among(
            "reporters students workers farmers voters doctors teachers soldiers visitors"
        ),
    }
    openers = """
        on {day} ,
        in {month} {year} ,
        in {location} ,
        according to {organisation} ,
        after {thing} of {year} ,
        for {thing} ,
        with {thing} {of} {thing} ,
        although {thing} was {adjective} ,
        {number} years after {thing} ,
    """
    clauses = """
        {person} {verb} {thing} {of} {thing} in {location}
        {person} , {role} of {organisation} , {verb} {thing}
        {person} said that {thing} in {location} was {adjective}
        {person} and {person} {verb} {thing} {of} {organisation}
        {person} ( {year} ) {verb} {thing} {of} {thing}
        {person} {verb} {thing} {of} {thing}
        {organisation} {adverb} {verb} {thing} and {thing} {of} {product}
        {organisation} said on {day} that {thing} {of} the {product} was {adjective}
        {organisation} {verb} {number} of {number} {people} in {location}
        {organisation} {verb} {thing} in {location}
        {someone} from {organisation} told {people} that {product} was {adjective}
        {thing} {of} {thing} {adverb} {verb} {thing}
        {thing} and {thing} were {adjective} , and {thing} was {adjective}
        {thing} {of} {thing} was {adjective}
        {thing} from {location} to {location} was {adverb} {verb} in {month}
        {someone} {verb} {thing} , {thing} and {thing} {of} {thing}
        {someone} {verb} {thing} in {month}
        {people} in {location} {verb} {thing} {of} {person}
        there were {number} {people} in {location} and {number} in {location}
        it was {thing} {of} {thing} in {location}
        it was {adverb} {thing} {of} {thing} that {verb} {someone}
        " {thing} {of} {thing} is {adjective} , " said {person}
        neither {someone} nor {people} {verb} {thing}
        the {product} , {verb} by {organisation} in {year} , {verb} {thing}
        {product} {verb} {thing}
    """
    tails = """
        , and {thing} {of} {thing} was {adjective}
        , which {verb} {thing} and {thing} {of} {thing}
        , while {person} {verb} {thing} in {location}
        , but {someone} {adverb} {verb} {thing}
        because {thing} was as {adjective} as {thing} of {year}
        , {someone} {of} {thing} said on {day}
        before {thing} in {month} and {thing} in {month}
        , where {people} {verb} {thing} {of} {someone}
        with {someone} {of} {organisation} and {people} {of} {thing}
        and {verb} {thing} to {people} in {location}
        , although it was not {thing} that {people} {verb}
        , as {person} had said that it would be
        , one of {number} {people} and one of {number} {adjective} {people}
        , when {thing} {of} the {product} was {adjective}
        , and it was {adverb} {thing} that was {adjective}
        for {thing} {of} {thing} and for {people}
    """
    return _Grammar(
        label_list=("person", "location", "organisation", "product"),
        openers=_parse_templates(openers, str.split),
        clauses=_parse_templates(clauses, str.split),
        tails=_parse_templates(tails, str.split),
        slots=slots,
        entities={
            f"{{{name}}}": name for name in ("person", "location", "organisation", "product")
        },
        cut=str.split,
        end=".",
        common_words=tuple(_ENGLISH_COMMON.split()),
    )


def _chinese() -> _Grammar:
    given = _choose(
        "安柏晨承达东恩芳飞刚光国海浩和红华慧佳嘉建洁杰静军君凯兰乐丽莉亮林玲龙梅敏明娜宁鹏平琪强青清庆"
        "蓉瑞珊诗思涛婷伟文武霞翔晓欣新鑫秀雪雅燕阳瑶依怡艺颖永勇宇雨玉云泽振志忠子"
    )
    family = _mixture(
        (
            0.94,
            _choose("王李张刘陈杨黄赵周吴徐孙马朱胡郭何高林罗郑梁谢宋唐许韩冯邓曹彭曾萧田董袁潘"),
        ),
        (0.06, _choose(["欧阳", "司马", "诸葛", "上官"])),
    )
    place = _combine(
        _choose("安白北宝昌长常成澄川春大丹东芳丰福古广桂海汉合河黑虹华怀淮黄惠吉江金锦"),
        _choose("安昌城川德定封阜港海和河湖华江津京康乐里临陵宁平浦泉山水台阳远云州"),
    )
    brand = _combine(
        _choose("百博畅辰诚创达鼎方飞丰冠光瀚航恒宏华汇嘉捷金锦君凯康科蓝乐联龙美明鹏启勤清锐"),
        _choose("邦宝畅川达德鼎帆丰格冠瀚航恒虹佳杰科朗乐力联凌美铭诺普奇瑞盛思腾通图维信讯亚洋"),
    )
    slots: dict[str, _Slot] = {
        "{person}": _combine(family, _mixture((0.35, given), (0.65, _combine(given, given)))),
        "{location}": _combine(
            place,
            _choose(
                ["市", "市", "县", "省", "镇", "区", "山", "湖", "岛", "大桥", "机场", "火车站"]
            ),
        ),
        "{organisation}": _mixture(
            (
                0.45,
                _combine(brand, _choose(["公司", "集团", "银行", "科技公司", "出版社", "航空"])),
            ),
            (0.4, _combine(place, _choose(["大学", "医院", "博物馆", "日报", "研究院", "队"]))),
            (
                0.15,
                _combine(
                    _choose(["国家", "中央", "地方"]),
                    _choose(["教育", "文化", "卫生", "交通"]),
                    _choose(["局", "部", "委员会"]),
                ),
            ),
        ),
        "{product}": _mixture(
            (0.4, _combine(brand, _choose(["X", "S", "Pro", "Max", "Air", "Mini"]))),
            (0.3, _combine(brand, _choose(["A", "K", "M", "T"]), _number(1, 99))),
            (0.3, _combine(brand, _number(1, 9), _choose(["号", "型", "代"]))),
        ),
        "{role}": _among("""
            记者 教授 市长 校长 医生 律师 导演 作家 画家 工程师 主任 经理 总裁 部长 教练 队长
            法官 司机 船长 专家 代表 主席 秘书 科学家 历史学家
        """),
        "{noun}": _among("""
            会议 项目 计划 报告 问题 市场 经济 学校 公园 比赛 演出 电影 音乐 历史 文化 工程 铁路
            公路 桥梁 港口 政策 法律 合同 技术 产品 设备 资料 资金 价格 质量 环境 空气 河流 森林
            天气 工作 生活 时间 机会 方法 结果 消息 新闻 故事 小说 展览 图书 食品 农业 工业 能源
            教育 健康 交通 安全 旅游 城市 乡村 工厂 商店 医疗 研究 调查 实验 设计 建筑 房屋 土地
            人口 社会 国家 世界 地区 中心 部门 系统 网络 数据 信息
        """),
        "{adjective}": _among("""
            重要 新的 巨大 复杂 简单 稳定 困难 安全 美丽 古老 现代 普通 特别 明显 严重 积极 丰富
            著名 独特 全面 完整 有效 公开 正式 传统 先进
        """),
        "{verb}": _among("""
            宣布 介绍 讨论 研究 参加 支持 反对 批准 发布 完成 开始 建设 改进 购买 出售 访问 检查
            组织 推动 负责 影响 提高 减少 增加 保护 恢复 收集 记录 解释 关注
        """),
        "{number}": _mixture(
            (0.6, _number(2, 900)),
            (0.4, _among("一 两 三 四 五 六 七 八 九 十")),
        ),
        "{year}": _number(1950, 2024),
        "{month}": _number(1, 12),
        "{time}": _among("昨天 今天 去年 今年 近日 目前 上午 下午 周一 周三 周五 春天 秋天"),
    }
    openers = """
        {time}，
        {year}年{month}月，
        据{organisation}的消息，
        在{location}，
        在{noun}的{noun}中，
        对于这个{noun}，
        为了{verb}{adjective}的{noun}，
    """
    clauses = """
        {person}在{location}{verb}了{noun}的{noun}
        {organisation}的{role}{person}{verb}了{adjective}的{noun}
        {person}和{person}在{time}{verb}了{organisation}的{noun}
        {organisation}在{location}{verb}了{product}的{noun}
        {role}说，{location}的{noun}是{adjective}的{noun}
        {product}的{noun}比{year}年的{noun}更{adjective}
        {role}和{role}都{verb}了这个{noun}的{noun}
        这个{noun}的{noun}是不是{adjective}，{person}没有说
        {location}到{location}的{noun}在{month}月{month}日{verb}
        {organisation}的{noun}和{organisation}的{noun}一样{adjective}
        “{noun}的{noun}不是{noun}的{noun}，”{role}{person}说
        有{number}个人在{location}{verb}{noun}，有{number}个人在{verb}{noun}
        {noun}是{noun}，{noun}是{noun}，两个都很{adjective}
        {role}{person}一直在{organisation}{verb}{noun}
        {organisation}{verb}的{product}在{year}年{verb}了{number}台
        {person}{verb}了这个{noun}的{noun}
        {organisation}{verb}了{adjective}的{noun}
        {role}说{location}的{noun}很{adjective}
        这个{noun}的{noun}很{adjective}
    """
    tails = """
        ，{noun}的{noun}也{verb}了
        ，但是{noun}的{noun}还不{adjective}
        ，是{time}最{adjective}的{noun}
        ，{person}也在{location}{verb}了{noun}
        ，其中有{number}个{role}和{number}个{role}
        ，并且{verb}了{organisation}的{noun}
        ，因为{noun}和{noun}的{noun}都很{adjective}
        ，{role}们说这是{adjective}的{noun}
        ，大大{verb}了{product}的{noun}
        ，在{year}年到{year}年的{noun}中是{adjective}的
        ，一个一个地{verb}了{noun}
    """
    types = {
        "{person}": "人物",
        "{location}": "地点",
        "{organisation}": "机构",
        "{product}": "产品",
    }
    return _Grammar(
        label_list=tuple(types.values()),
        openers=_parse_templates(openers, _cut_characters),
        clauses=_parse_templates(clauses, _cut_characters),
        tails=_parse_templates(tails, _cut_characters),
        slots=slots,
        entities=types,
        cut=_cut_characters,
        end="。",
        common_words=tuple("的了在是和有不这个人中大上我们他为来到时地出就也得可下对年子会以要"),
    )
