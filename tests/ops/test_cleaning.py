"""`ops.cleaning`: what each rule removes, the laws of cleaning, and the definition."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmcore.ops import cleaning
from lmcore.ops.cleaning import RULES
from lmcore.reference import cleaning as reference
from parity import agree
from strategies import characters, surrogate_texts, texts

OFF = {
    "html": False, "links": False, "emails": False, "phone_numbers": False, "most_repeats": 0,
    "minimum_words": 0,
}  # fmt: skip
# What rules look for, and what is like it, in pieces that meet in every order.
PIECES = [
    *("<", ">", "</", "/>", "<b>", "<P>", "</p>", "<br/>", "<int>", "<a href='", "<!--", "-->"),
    *("（", "）", "（010）", "&&", "=", "<b ", "<i\n"),
    *("<script>", "</script>", "</SCRIPT ", "<style ", "</style", "<!DOCTYPE", "<?xml"),
    *("http", "https", "ftp", "://", "www", "WWW.", ".", ",", ")", "(", "@", "a.org", "x@y", "com"),
    *("+", "+86", "0086", "86", "1", "138", "0013", "8000", "010", "400", "555", "12345678", "-"),
    *("0", "123", "4567", "123456789", " (", ") ", ":", "/", "_", "%"),
    *(" ", "\n", "\t", "\x1c", "\u3000", "a", "b", "It", "rains", "mr", "Mr", "U.S.", "e.g", "!"),
    *(
        "?",
        "。",
        "！",
        "？",
        "…",
        "．",
        "｡",
        "”",
        "」",
        '"',
        "'",
        "，",
        "哈",
        "哈哈",
        "北京",
        "0000",
    ),
    *(
        "００００",
        "é",
        "e\u0301\u0301\u0301\u0301",
        "ſ",
        "K",
        "👍👍👍👍👍",
        "\x00",
        "\x1b[31m",
        "½",
        "_",
    ),
]
hostile = st.lists(st.one_of(st.sampled_from(PIECES), st.text(characters, max_size=2)), max_size=24)
hostile_texts = st.one_of(hostile.map("".join), hostile.map(" ".join), texts)
rule_sets = st.fixed_dictionaries(
    {
        **{name: st.booleans() for name in RULES[:4]},
        "most_repeats": st.sampled_from([0, 1, 2, 3, 9]),
        "minimum_words": st.sampled_from([0, 1, 2, 3, 10]),
    }
)


def clean(text: str, **rules: Any) -> str | None:
    """The text as both clean it."""
    return agree(clean_by_reference, clean_by_op, [text], rules)[0][0]


def clean_by_reference(given_texts: list[str], rules: dict[str, Any]) -> list[Any]:
    found = reference.clean_texts(given_texts, **rules)
    removed = [[each.removed[k] for each in found] for k in range(len(RULES))]
    return [
        [each.text for each in found],
        [each.dropped for each in found],
        [(sum(map(bool, each)), sum(each)) for each in removed],
    ]


def clean_by_op(given_texts: list[str], rules: dict[str, Any]) -> list[Any]:
    return list(cleaning.clean_texts(given_texts, **rules))


def only(rule: str, text: str, **numbers: int) -> str | None:
    """The text as one rule leaves it."""
    rules = {"repeats": {"most_repeats": 3}, "short_sentences": {"minimum_words": 4}}
    return clean(text, **{**OFF, **rules.get(rule, {rule: True}), **numbers})


# Golden: what each rule matches, case by case.


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("a<b>c</B >d", "acd"),
        ("one<br>two<BR/>three", "one two three"),
        ("<p class='x'>One.</p><p>Two.</p>", "One.  Two."),
        ("1 < 2 and 3 > 2, a<b, vector<int>, <3", "1 < 2 and 3 > 2, a<b, vector<int>, <3"),
        ("<!-- a > b\n <b> -->c<!-- d", "c<!-- d"),
        ("<!doctype html><?xml version='1'?>x", "x"),
        ("a<script>if (a<b) f('</b>')</Script\n>b", "a b"),
        ("a<style type=x>p {}</style>b<script>c", "a b c"),
        ("<a href=\"x\" title='1>2'>y</a>", "2'>y"),
        ("<h1>北京</h1>", "北京"),
        ("AT&amp;T", "AT&amp;T"),
        ("<<b>b>x<b</b>>", "x"),
        # Comparisons of variables that are called as elements are.
        ("if (a<b && c>d) i<b = c>d", "if (a<b && c>d) i<b = c>d"),
        ("<b >x</b\n><a 'x'>y<a\t@x=1>z<br  />", "xyz"),
    ],
)
def test_html(text: str, left: str) -> None:
    assert only("html", text) == left


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("see https://a.org/b?c=d#e.", "see ."),
        ("见http://a.cn/北京，www.b.com.cn。", "见北京，。"),
        ("(ftp://a.b/c), HTTP://A.B/~c!", "(), !"),
        ("xhttp://a.b http:// http://? www.", "xhttp://a.b http:// http://? www."),
        ("a.www.b.c @www.d.e www.f", "a.www.b.c @www.d.e"),
        ('"http://a.b"<www.c.d>', '""<>'),
        ("httpſ://a.b", "httpſ://a.b"),
    ],
)
def test_links(text: str, left: str) -> None:
    assert only("links", text) == left


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("mail a.b+c@mail.x-y.org, please", "mail , please"),
        ("邮箱abc_1@163.com。", "邮箱。"),
        ("a@b @home.com me@localhost a@b.c1 a@.com", "a@b @home.com me@localhost a@b.c1 a@.com"),
        ("a@b.com.", "."),
        ("a@b.com@c.org", "@c.org"),
    ],
)
def test_emails(text: str, left: str) -> None:
    assert only("emails", text) == left


@pytest.mark.parametrize(
    "number",
    [
        "13800138000", "138 0013 8000", "138-0013-8000", "+86 138 0013 8000", "0086-13800138000",
        "8613800138000", "010-62345678", "(0571) 8765432", "0571-8765432-801", "010 6234 5678",
        "（010）62345678", "（0571） 8765432-1", "(010)6234-5678",
        "400-123-4567", "400-1234-567", "800-1234567", "555-123-4567", "(555) 123-4567",
        "1-555-123-4567", "555.123.4567", "+1 (555) 123-4567", "+44 20 7946 0958", "+4915112345678",
    ],
)  # fmt: skip
def test_phone_numbers(number: str) -> None:
    assert only("phone_numbers", f"电话{number}，或") == "电话，或"
    assert only("phone_numbers", f"Call {number}. Now") == "Call . Now"
    for text in (f"x{number}", f"{number}x", f"5{number}", f"{number}5", f"1-{number}"):
        assert only("phone_numbers", text) != text.replace(number, "")


@pytest.mark.parametrize(
    "text",
    [
        "2023-10-12 10:30", "192.168.1.100", "1,234,567,890", "3.14159265358979", "12345678",
        "1234567890123", "978-7-111-12345-6", "x = 12800138000", "2008年8月8日", "$1000000000",
    ],
)  # fmt: skip
def test_other_numbers_stay(text: str) -> None:
    assert only("phone_numbers", text) == text


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("哈哈哈哈哈!!!!", "哈!"),
        ("aaa ... ===", "aaa ... ==="),
        ("1000000 ００００００", "1000000 ００００００"),
        ("a\n\n\n\n\nb", "a\nb"),
        ("👍👍👍👍", "👍"),
        ("e\u0301\u0301\u0301\u0301", "e\u0301"),
    ],
)
def test_repeats(text: str, left: str) -> None:
    assert only("repeats", text) == left


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("Go. It rains in spring. Stop!", "It rains in spring."),
        ("走！今天下雨。好", "今天下雨。"),
        ("One two three four\nsix\nIt rains here too", "One two three four\nIt rains here too"),
        ("Mr. Li met J. Wu, Dr. Xu etc. in the U.S. today. Yes.", ...),
        ("We paid 3.5 % today. Ok... then we left it.", ...),
        ("他说：“今天下雨。”走。", "他说：“今天下雨。”"),
        ("- - - - ，，，，。", None),
        ("北京2008年。a-b c d e.", "北京2008年。a-b c d e."),
    ],
)  # fmt: skip
def test_short_sentences(text: str, left: Any) -> None:
    expected = text.removesuffix(" Yes.") if left is ... else left
    assert only("short_sentences", text) == expected


def test_a_text_that_does_not_settle_is_dropped() -> None:
    nested = "x" + "<" * 40 + "b>" * 40
    assert only("html", nested[:20]) is not None
    found = cleaning.clean_texts([nested, "a"], **{**OFF, "html": True})
    assert found.texts == [None, "a"]
    assert found.dropped == ["unsettled", ""]


# Laws.


@given(hostile_texts, rule_sets)
def test_cleaning_twice_is_cleaning_once(text: str, rules: dict[str, Any]) -> None:
    once = cleaning.clean_texts([text], **rules).texts[0]
    if once is not None:
        again = cleaning.clean_texts([once], **rules)
        assert again.texts == [once]
        assert again.removed == [(0, 0)] * len(RULES)


@given(hostile_texts, rule_sets)
def test_what_is_left_stood_there_in_this_order(text: str, rules: dict[str, Any]) -> None:
    left = cleaning.clean_texts([text], **rules).texts[0] or ""
    rest = iter(text)
    # A space may stand for a tag.
    assert all(character in rest for character in left if character != " ")


@given(st.lists(hostile_texts, max_size=8), rule_sets)
def test_a_text_is_cleaned_by_itself(many: list[str], rules: dict[str, Any]) -> None:
    together = cleaning.clean_texts(many * 99, threads=3, **rules)
    alone = [cleaning.clean_texts([text], **rules) for text in many]
    assert together.texts == [found.texts[0] for found in alone] * 99
    assert together.dropped == [found.dropped[0] for found in alone] * 99
    for index, (documents, removed) in enumerate(together.removed):
        assert documents == 99 * sum(found.removed[index][0] for found in alone)
        assert removed == 99 * sum(found.removed[index][1] for found in alone)


@given(hostile_texts, rule_sets)
def test_counts_are_what_is_missing(text: str, rules: dict[str, Any]) -> None:
    found = cleaning.clean_texts([text], **{**rules, "html": False})
    left = found.texts[0]
    if left is not None:
        removed = sum(characters for _, characters in found.removed)
        missing = len(text) - len(left)
        assert removed <= missing
        if text == text.strip() and left == text:
            assert removed == 0


# Parity.


@given(st.lists(hostile_texts, max_size=3), rule_sets)
def test_cleaning_agrees(many: list[str], rules: dict[str, Any]) -> None:
    agree(clean_by_reference, clean_by_op, many, rules)


@given(st.lists(st.sampled_from([p for p in PIECES if p.isascii()]), max_size=30).map("".join))
def test_each_rule_agrees(text: str) -> None:
    for rule in RULES:
        only(rule, text)


digits = st.text("0123456789", min_size=1, max_size=9)
separators = st.sampled_from(["", " ", "-", ".", " (", ")", ") ", "(", "+", "x", "，", "\n"])


@given(st.lists(st.one_of(digits, separators, st.sampled_from(["138", "0013", "8000", "010"]))))
def test_numbers_agree(parts: list[str]) -> None:
    only("phone_numbers", "".join(parts))


@pytest.mark.parametrize(
    "text",
    [
        "<script>" * 50_000 + "</script",
        "<!--" * 100_000,
        "<b " * 100_000,
        "a" * 400_000 + "@",
        "@a." * 100_000,
        "a. " * 100_000,
        "http://" * 50_000,
        "1-" * 200_000,
        "(010)" * 80_000,
        "+1 " * 100_000,
        "www." * 100_000,
        "." * 300_000 + " a",
        "<" * 300_000,
    ],
    ids=lambda text: text[:6],
)
def test_no_text_takes_more_than_its_length(text: str) -> None:
    for rules in ({}, {"minimum_words": 0, "most_repeats": 0}):
        cleaning.clean_texts([text], **rules)


# Errors.


@given(surrogate_texts)
def test_lone_surrogates_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"^texts\[1\] holds a lone surrogate$"):
        cleaning.clean_texts(["a", text])


@pytest.mark.parametrize(
    ("arguments", "kind", "reason"),
    [
        ({"texts": "ab"}, TypeError, "texts must be a sequence of str: got str"),
        ({"texts": [1]}, TypeError, r"texts\[0\] must be a str: got int"),
        ({"most_repeats": -1}, ValueError, "most_repeats must be"),
        ({"minimum_words": 1 << 31}, ValueError, "minimum_words must be"),
        ({"minimum_words": 1.5}, TypeError, "minimum_words must be an int"),
    ],
)
def test_wrong_arguments_are_named(
    arguments: dict[str, Any], kind: type[Exception], reason: str
) -> None:
    with pytest.raises(kind, match=rf"^{reason}"):
        cleaning.clean_texts(**{"texts": [], **arguments})
