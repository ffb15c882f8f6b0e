"""Inputs that hypothesis draws: words, labels, generated texts, sequences to align."""

import random
from collections.abc import Sequence

from hypothesis import strategies as st

TYPES = ["x", "X", "the x!", "per", "musical artist", "x-y", "é", ""]

# Words that went wrong somewhere before, or could: each row has its reason.
PECULIAR_WORDS = [
    *("", " ", "\t", "\n", "\x1c", "\x85", "\xa0", "\u3000", "\u200b"),  # white space, and not
    *("(", ")", "((", "()", ")(", "(O)", "(O", "O)", "(B-", "(I-x", "(B-x)", "B-x", "O", "B-", "-"),
    *("a", "an", "the", "The", "A.", "t.he", "a\u0301", "a_the", "the-a"),  # articles
    *("İ", "İSTANBUL", "ı", "ß", "ẞ", "Σ", "ΑΣ", "ΑΣ.", "ΑΣΑ", "ΑΣ\u0301", "ς", "ǅ", "ŉ"),  # case
    *("é", "e\u0301", "\u0301", "क्षि", "กำ", "\u0345Σ"),  # marks
    *("北", "北京", "東京都", "カ", "ｶﾞ", "々", "〇", "한국", "𠀀", "\U0002ffff"),  # CJK
    *(
        "👍",
        "👍🏽",
        "👩‍👩‍👧",
        "👩\u200d",
        "\u200d",
        "🇪🇺",
        "🇪🇺🇪",
        "❤\ufe0f",
        "1\ufe0f\u20e3",
    ),  # emoji
    *("abcdefg", "abcdefgh", "abcdefghi", "abcdefghj", "abcdefg\0", "a\0", "\0"),  # eight bytes
    *("½", "Ⅷ", "٣", "²", "_", "a_b", "x-y", "x--y", "-x", "x-", "3-д", "北-京", "U.S.", "'s"),
]

# Unassigned characters are left out: the core's Unicode tables are newer than Python's.
characters = st.characters(exclude_categories=["Cs", "Cn"])
texts = st.one_of(
    st.lists(
        st.one_of(st.sampled_from(PECULIAR_WORDS), st.text(characters, max_size=4)), max_size=12
    ).map("".join),
    st.text(characters, max_size=40),
    st.text("ab -_é\u0301北\u200d🏽🇪\n().Σ", max_size=40),
)
words = st.one_of(
    st.sampled_from("abcd"),
    st.sampled_from("abcd"),
    st.sampled_from(PECULIAR_WORDS),
    st.text(characters, min_size=1, max_size=6),
)
label_lists = st.lists(st.one_of(st.sampled_from(TYPES), st.text(max_size=4)), max_size=4)
surrogate_texts = st.builds(
    lambda before, code, after: before + chr(code) + after,
    st.text("aé北", max_size=3),
    st.integers(0xD800, 0xDFFF),
    st.text("aé北", max_size=3),
)


@st.composite
def sentences(draw: st.DrawFn, max_size: int = 24) -> list[str]:
    """Words, often with repetition."""
    pool = draw(st.lists(words, min_size=1, max_size=8))
    return draw(st.lists(st.sampled_from(pool), max_size=max_size))


def bio_labels(size: int | None = None, types: Sequence[str] = ("x", "y")) -> st.SearchStrategy:
    """BIO labels in any order: an I- may stand anywhere."""
    label = st.one_of(
        st.just("O"), st.builds(str.__add__, st.sampled_from(["B-", "I-"]), st.sampled_from(types))
    )
    if size is None:
        return st.lists(label, max_size=16)
    return st.lists(label, min_size=size, max_size=size)


def labels(size: int) -> st.SearchStrategy[list[str]]:
    """Labels of which some do not have the form of a label."""
    broken = st.sampled_from(["", "o", "B", "I", "B_x", "-x", "O ", "b-x", " B-x", "\u200b", "'\""])
    label = st.one_of(
        bio_labels(1).map(lambda row: row[0]), broken, st.text(characters, max_size=3)
    )
    return st.lists(label, min_size=size, max_size=size)


@st.composite
def labelled_sentences(draw: st.DrawFn) -> tuple[list[str], list[str], list[str]]:
    """Words with gold labels and predicted labels that are often the same."""
    sentence = draw(sentences())
    gold = draw(bio_labels(len(sentence), TYPES))
    keep = draw(st.lists(st.booleans(), min_size=len(sentence), max_size=len(sentence)))
    other = draw(bio_labels(len(sentence), TYPES))
    return sentence, gold, [g if k else o for g, k, o in zip(gold, keep, other, strict=True)]


def write_generation(pairs: Sequence[tuple[str, str]]) -> str:
    """Returns `word_1(label_1) word_2(label_2) ...`."""
    return " ".join(f"{word}({label})" for word, label in pairs)


@st.composite
def generations(draw: st.DrawFn, sentence: Sequence[str], label_list: Sequence[str]) -> str:
    """What a model could write for a sentence: faithful, damaged, or hostile."""
    hostile = draw(st.integers(0, 5)) == 0
    if hostile:
        pieces = [
            "(B-",
            "(I-",
            "(O)",
            "(O",
            "(",
            ")",
            "\n",
            " ",
            "O",
            "(B-x)",
            "(I-x)",
            "-",
            "B",
            "é",
        ]
        return draw(st.lists(st.one_of(st.sampled_from(pieces), words), max_size=24).map("".join))
    known = [p + t for p in ("B-", "I-") for t in label_list]
    label = st.one_of(
        st.just("O"),
        st.sampled_from([*known, "O"]),
        st.sampled_from(["B-", "I-", "B-unknown", "I- x ", "B-a (b", "o", "", "O "]),
    )
    pairs = [(word, draw(label)) for word in draw(edited(sentence))]
    text = write_generation(pairs)
    if draw(st.booleans()):
        text = text[: draw(st.integers(0, len(text)))]
    return text


@st.composite
def edited(draw: st.DrawFn, sentence: Sequence[str]) -> list[str]:
    """The same words with omissions, additions, substitutions, and changes of case."""
    out: list[str] = []
    for word in sentence:
        match draw(st.integers(0, 11)):
            case 0:
                continue
            case 1:
                out += [word, draw(words)]
            case 2:
                out.append(draw(words))
            case 3:
                out.append(word.upper())
            case 4:
                out += [word, word]
            case _:
                out.append(word)
    return out


SIZES = st.one_of(
    st.sampled_from([0, 1, 2, 63, 64, 65, 127, 128, 129, 130, 191, 192, 193]), st.integers(0, 400)
)


def draw_ids(source: random.Random, size: int, distinct: int) -> list[int]:
    """Ids that are all as frequent, or, as in a text, few frequent and many rare."""
    power = source.choice([1, 1, 3])
    return [int(distinct * source.random() ** power) for _ in range(size)]


@st.composite
def unrelated_ids(draw: st.DrawFn) -> tuple[list[int], list[int]]:
    """Two sequences over the same few or many ids."""
    source = random.Random(draw(st.integers(0, 2**32)))
    distinct = draw(st.sampled_from([1, 2, 3, 8, 40, 300]))
    return draw_ids(source, draw(SIZES), distinct), draw_ids(source, draw(SIZES), distinct)


@st.composite
def similar_ids(draw: st.DrawFn) -> tuple[list[int], list[int]]:
    """A sequence and an edited copy: single edits, lost, new and moved blocks."""
    source = random.Random(draw(st.integers(0, 2**32)))
    distinct = draw(st.sampled_from([1, 2, 5, 30, 200, 2000]))
    a = draw_ids(source, draw(SIZES), distinct)
    b = edit(a, source, distinct, rate=draw(st.sampled_from([0.0, 0.01, 0.1, 0.5])))
    for kind in draw(st.lists(st.sampled_from(["lose", "insert", "move", "reverse"]), max_size=3)):
        b = change_block(b, source, distinct, kind)
    return (a, b) if draw(st.booleans()) else (b, a)


@st.composite
def ordered_ids(draw: st.DrawFn) -> tuple[list[int], list[int]]:
    """The same distinct ids in two orders: near their places, then turned."""
    source = random.Random(draw(st.integers(0, 2**32)))
    reach = draw(st.sampled_from([1, 3, 70, 200, 1000]))
    a, b = (
        sorted(range(size), key=lambda k: k + source.randrange(reach))
        for size in (draw(st.integers(0, 600)), draw(st.integers(0, 600)))
    )
    turn = source.randint(0, len(b))
    return a, b[turn:] + b[:turn]


small_ids = st.integers(1, 4).flatmap(
    lambda distinct: st.tuples(*[st.lists(st.integers(0, distinct - 1), max_size=12)] * 2)
)
id_pairs = st.one_of(small_ids, unrelated_ids(), similar_ids(), ordered_ids())


def edit(ids: Sequence[int], source: random.Random, distinct: int, rate: float) -> list[int]:
    """Returns the ids with a share of them lost, replaced, doubled or preceded by another."""
    out: list[int] = []
    for value in ids:
        if source.random() >= rate:
            out.append(value)
            continue
        other = source.randrange(distinct)
        out += source.choice(([], [other], [other, value], [value, value]))
    return out


def change_block(ids: Sequence[int], source: random.Random, distinct: int, kind: str) -> list[int]:
    """Returns the ids with one stretch of them lost, inserted, moved or reversed."""
    start = source.randint(0, len(ids))
    end = source.randint(start, len(ids))
    head, block, tail = [*ids[:start]], [*ids[start:end]], [*ids[end:]]
    match kind:
        case "lose":
            return head + tail
        case "insert":
            return head + [source.randrange(distinct) for _ in block] + block + tail
        case "move":
            rest = head + tail
            place = source.randint(0, len(rest))
            return rest[:place] + block + rest[place:]
        case _:
            return head + block[::-1] + tail
