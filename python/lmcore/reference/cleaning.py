"""What is removed from texts before a model is trained on them.

Each rule takes characters away; in place of a tag that begins a line or a box on a page stands a
space, and in place of a run of one character that character. The rules are run in the order of
`RULES` until a text stays as it is, so that cleaning a clean text changes nothing. A text that does
not settle within `MOST_PASSES` was made to do so, and is dropped.

Source: OpenBA-V2 (arXiv 2405.05957), its section on data. The paper names the rules; what exactly
each of them matches is ours.
"""

import re
import unicodedata
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from lmcore.reference.words import is_unspaced

RULES = ("html", "links", "emails", "phone_numbers", "repeats", "short_sentences")
MOST_PASSES = 16


def _split(names: str) -> frozenset[str]:
    return frozenset(names.split())


# Elements of HTML that stand in a line of text.
INLINE = _split(
    "a abbr acronym area b base basefont bdi bdo big cite code data datalist del dfn em embed font "
    "g i img input ins kbd label mark meter output picture progress q rb rp rt rtc ruby s samp "
    "small source span strike strong sub sup svg time tt u var wbr"
)
# And those that begin a line or a box of their own.
BLOCK = _split(
    "address applet article aside audio blockquote body br button canvas caption center col "
    "colgroup dd details dialog dir div dl dt fieldset figcaption figure footer form frame "
    "frameset h1 h2 h3 h4 h5 h6 head header hgroup hr html iframe legend li link main map menu "
    "meta nav noframes noscript object ol optgroup option p param pre script section select style "
    "summary table tbody td template textarea tfoot th thead title tr track ul video"
)
# Behind white space the tag ends or an attribute begins: `a <b && c> d` holds none.
_TAG = re.compile(r"""<(/?)([A-Za-z][A-Za-z0-9]*)(?=[>/]|[ \t\n\r\f]+[>/A-Za-z_:@"'])[^<>]*>""")
_DECLARATION = re.compile(r"<(?:!doctype|\?xml)[^<>]*>", re.IGNORECASE | re.ASCII)
_URL = r"""(?=[0-9A-Za-z])[!#-;=?-\[\]_a-z~]+"""
_LINK = re.compile(
    rf"(?<![0-9A-Za-z])(?:https?|ftp)://{_URL}|(?<![0-9A-Za-z_./@-])www\.{_URL}",
    re.IGNORECASE | re.ASCII,
)
_LOCAL = frozenset("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz._%+-")
_DOMAIN = _LOCAL - frozenset("_%+")
_PHONE_NUMBER = re.compile(
    r"""
    (?<![0-9A-Za-z_])(?<![0-9][-.,/:])
    (?: \+[0-9] (?:(?:\ ?\(|\)[ -]?|[ .-])?[0-9]){7,14}               # any country
      | (?:(?:00)?86[ -]?)? 1[3-9][0-9] [ -]? [0-9]{4} [ -]? [0-9]{4}   # Chinese mobile
      | (?: \(0[0-9]{2,3}\)\ ? | （0[0-9]{2,3}）\ ? | 0[0-9]{2,3}[ -])  # Chinese land line
        [1-9] (?:[0-9]{6,7} | [0-9]{2,3}[ -][0-9]{4}) (?:-[0-9]{1,4})?
      | [48]00- (?:[0-9]{3}-[0-9]{4} | [0-9]{4}-[0-9]{3} | [0-9]{7})    # Chinese hot line
      | (?:1[-. ])? (?:\([2-9][0-9]{2}\)\ ? | [2-9][0-9]{2}[-. ])       # North America
        [0-9]{3}[-. ][0-9]{4}
    )
    (?![0-9A-Za-z_])(?![-.][0-9])
    """,
    re.VERBOSE,
)
_DIGITS = frozenset("0123456789０１２３４５６７８９")
_END = re.compile("[.!?。．｡！？…]+[\"'”’」』）》】)\\]]*")
_WIDE_ENDS = frozenset("。．｡！？…")
# After these a point ends no sentence, nor after a letter alone or a word with a point in it.
ABBREVIATIONS = _split(
    "al approx capt cf ch co col corp dept dr ed eds eq etc fig figs gen gov inc jr lt ltd messrs "
    "mr mrs ms mt pp prof rep rev sec sen sgt sr st vol vols vs"
)


class CleanedText(NamedTuple):
    """A text without what the rules remove."""

    text: str | None
    """None where it is dropped."""
    dropped: str
    """Why: `empty` where nothing is left, `unsettled`; empty where it is kept."""
    removed: tuple[int, ...]
    """By rule in the order of `RULES`, the characters that it removed."""


def clean_text(
    text: str,
    *,
    html: bool = True,
    links: bool = True,
    emails: bool = True,
    phone_numbers: bool = True,
    most_repeats: int = 3,
    minimum_words: int = 10,
) -> CleanedText:
    """Returns a text without what the rules remove.

    Args:
        text: any text.
        html: remove tags, comments, and scripts and styles with what they hold.
        links: remove addresses that begin with `http://`, `https://`, `ftp://` or `www.`.
        emails: remove addresses of mail.
        phone_numbers: remove phone numbers.
        most_repeats: longest run of one character that stays; 0 leaves all.
        minimum_words: of a sentence that stays; 0 leaves all.

    Example:
        >>> clean_text("<b>Hi</b>!!!!!! See www.a.org.", minimum_words=0).text
        'Hi! See .'
    """
    passes: list[Callable[[str], str] | None] = [
        remove_html if html else None,
        remove_links if links else None,
        remove_emails if emails else None,
        remove_phone_numbers if phone_numbers else None,
        (lambda text: collapse_repeats(text, most_repeats)) if most_repeats else None,
        (lambda text: remove_short_sentences(text, minimum_words)) if minimum_words else None,
    ]
    removed = [0] * len(RULES)
    for _ in range(MOST_PASSES):
        before = text
        for index, rule in enumerate(passes):
            if rule is not None:
                shorter = rule(text)
                removed[index] += len(text) - len(shorter)
                text = shorter
        text = text.strip()
        if text == before:
            dropped = "" if text else "empty"
            return CleanedText(text or None, dropped, tuple(removed))
    return CleanedText(None, "unsettled", tuple(removed))


def remove_html(text: str) -> str:
    """Returns a text without tags; a space stands for each that begins a line or a box.

    Example:
        >>> remove_html("<p>1 < 2<br>vector<int> a<b && c>d <!-- no --> <script>a()</script>")
        ' 1 < 2 vector<int> a<b && c>d   '
    """
    parts, start = [], 0
    place = text.find("<")
    while place >= 0:
        end, left = _find_markup(text, place)
        if end > place:
            parts += [text[start:place], left]
            start = end
        place = text.find("<", max(end, place + 1))
    return "".join([*parts, text[start:]])


def _find_markup(text: str, place: int) -> tuple[int, str]:
    """Where what begins at a `<` ends, and what is left of it; the place itself if it is text."""
    if text.startswith("<!--", place):
        end = text.find("-->", place + 4)
        if end >= 0:
            return end + 3, ""
    if declaration := _DECLARATION.match(text, place):
        return declaration.end(), ""
    tag = _TAG.match(text, place)
    name = tag[2].lower() if tag else ""
    if tag is None or name not in INLINE | BLOCK:
        return place, ""
    end = tag.end()
    if name in ("script", "style") and not tag[1]:
        closing = re.compile(f"</{name}", re.IGNORECASE | re.ASCII).search(text, end)
        close = closing and re.compile("[^<>]*>").match(text, closing.end())
        if close:
            end = close.end()
    return end, " " if name in BLOCK else ""


def remove_links(text: str) -> str:
    """Returns a text without links; punctuation at their ends stays.

    Example:
        >>> remove_links("见https://a.org/x?y=1。 (www.b.cn/) HTTP://c.de, http is no link")
        '见。 () , http is no link'
    """
    return _LINK.sub(lambda link: link[0][len(link[0].rstrip(".,;:!?')]")) :], text)


def remove_emails(text: str) -> str:
    """Returns a text without addresses of mail.

    Example:
        >>> remove_emails("邮箱a.b@163.com，or x@y.org. Not a@b, not @home.com")
        '邮箱，or . Not a@b, not @home.com'
    """
    parts, start = [], 0
    at = text.find("@")
    while at >= 0:
        first, last = at, at + 1
        while first > start and text[first - 1] in _LOCAL:
            first -= 1
        while last < len(text) and text[last] in _DOMAIN:
            last += 1
        domain = text[at + 1 : last].rstrip(".-")
        name, _, top = domain.rpartition(".")
        is_top = len(top) >= 2 and top.isalpha()
        if first < at and is_top and name and name[0] not in ".-":
            parts.append(text[start:first])
            start = at + 1 + len(domain)
        at = text.find("@", at + 1)
    return "".join([*parts, text[start:]])


def remove_phone_numbers(text: str) -> str:
    """Returns a text without phone numbers.

    Example:
        >>> remove_phone_numbers("电话13800138000，（010）62345678; (555) 123-4567, 2023-10-12")
        '电话，; , 2023-10-12'
    """
    return _PHONE_NUMBER.sub("", text)


def collapse_repeats(text: str, most: int = 3) -> str:
    """Returns a text with one character in place of longer runs of it; those of digits stay.

    Example:
        >>> collapse_repeats("哈哈哈哈哈!!!!! 1000000 ...")
        '哈! 1000000 ...'
    """
    repeated = re.compile(rf"(.)\1{{{most},}}", re.DOTALL)
    return repeated.sub(lambda run: run[0] if run[1] in _DIGITS else run[1], text)


def remove_short_sentences(text: str, minimum: int = 10) -> str:
    """Returns a text without the sentences that have fewer words.

    Example:
        >>> remove_short_sentences("Go. It rains in the north. 今天下雨。走！", 4)
        'It rains in the north. 今天下雨。'
    """
    parts = [text[start:end] for start, end in split_sentences(text)]
    return "".join(part for part in parts if count_words(part) >= minimum)


def count_words(text: str) -> int:
    """Returns how many words a text has.

    A Chinese or Japanese character is one, as in `words`. Besides, white space separates words,
    and what holds neither letter nor number is none.

    Example:
        >>> count_words("Don't stop - EU-wide, 3.5 %."), count_words("北京2008年，好")
        (4, 5)
    """
    words, has_word = 0, False
    for character in text:
        if is_unspaced(character):
            words += 1
            has_word = False
        elif character.isspace():
            has_word = False
        elif not has_word and unicodedata.category(character)[0] in "LN":
            words += 1
            has_word = True
    return words


def split_sentences(text: str) -> list[tuple[int, int]]:
    """Returns the (start, end) of each sentence, with the white space after it.

    A sentence ends with a line feed; with 。．｡！？… and what closes quotes or brackets behind it;
    with . ! ? the same if white space follows. A point ends none after a letter alone, a word with
    a point in it or one of `ABBREVIATIONS`, nor before a small letter of ASCII.

    Example:
        >>> text = "Mr. Li said: “Go!” 他说：“走。”Then"
        >>> [text[start:end] for start, end in split_sentences(text)]
        ['Mr. Li said: “Go!” ', '他说：“走。”', 'Then']
    """
    sentences = []
    start = place = 0
    while place < len(text):
        if text[place] == "\n":
            end = place + 1
        elif found := _END.match(text, place):
            end = found.end()
            if not _WIDE_ENDS.intersection(found[0]) and not _is_end(text, start, place, end):
                place = end
                continue
        else:
            place += 1
            continue
        while end < len(text) and text[end].isspace():
            end += 1
        sentences.append((start, end))
        start = place = end
    if start < len(text):
        sentences.append((start, len(text)))
    return sentences


def _is_end(text: str, start: int, place: int, end: int) -> bool:
    """Whether a sentence ends with these marks of ASCII."""
    if end < len(text) and not text[end].isspace():
        return False
    marks = re.match("[.!?]+", text[place:end])
    if marks is None or set(marks[0]) != {"."}:
        return True
    after = text[end:].lstrip()[:1]
    if "a" <= after <= "z":
        return False
    if marks[0] != ".":
        return True
    words = re.search("[A-Za-z.]*$", text[start:place], re.ASCII)
    word = words[0].lower() if words else ""
    return not (len(word) == 1 or "." in word or word in ABBREVIATIONS)


def clean_texts(texts: Sequence[str], **rules: Any) -> list[CleanedText]:
    """Returns what `clean_text` makes of each text.

    Args:
        texts: any number of them.
        **rules: as for `clean_text`.

    Example:
        >>> [cleaned.dropped for cleaned in clean_texts(["", "a"], minimum_words=0)]
        ['empty', '']
    """
    return [clean_text(text, **rules) for text in texts]
