"""Masks that a model fills: what it reads, what counts as filled, and whose noise it is."""

import re
from typing import Any

import pytest

from lmcore.detox import MaskedText, MaskFiller, load_filler
from tiny_chains import make_t5
from tiny_fillers import make_bart, make_filler, make_words


@pytest.fixture(scope="module")
def bart() -> MaskFiller:
    return make_filler("bart")


@pytest.fixture(scope="module")
def t5() -> MaskFiller:
    return make_filler("t5")


def mask(text: str, masks: int | None = None) -> MaskedText:
    count = text.count("<MASK>") if masks is None else masks
    return MaskedText(text=text, masked=text, masks=count, toxicity=None)


def fill(filler: MaskFiller, text: str, written: str, *, end: bool = True) -> Any:
    """What becomes of a text if the model writes this."""
    tokens = filler.tokenizer(written, add_special_tokens=False)["input_ids"]
    tokens = tokens + [filler.tokenizer.eos_token_id] * end
    return filler._write(mask(text), tokens, limit=len(tokens))


@pytest.mark.parametrize(
    ("written", "text", "problem"),
    [
        ("you are nice", "you are nice", None),
        ("", None, "empty"),
        ("you <mask>", None, "copied_mask"),
        ("you <MASK>", None, "copied_mask"),
        ("You  are", None, "lost_mask"),
    ],
)
def test_whole_texts(bart: MaskFiller, written: str, text: str | None, problem: str) -> None:
    found = fill(bart, "you are <MASK>", written)
    assert (found.text, found.problem, found.is_cut) == (text, problem, False)


@pytest.mark.parametrize(
    ("written", "text", "problem"),
    [
        ("<extra_id_0> sea <extra_id_1> blue <extra_id_2> and so", "the sea is blue!", None),
        ("<extra_id_0> sea <extra_id_1> blue", "the sea is blue!", None),
        ("<extra_id_0> sea", None, "lost_mask"),
        ("<extra_id_1> sea", None, "lost_mask"),
        ("sea", None, "lost_mask"),
        ("<extra_id_0> <extra_id_1> blue", None, "lost_mask"),
        ("<extra_id_0> a <extra_id_0> b <extra_id_1> c", None, "copied_mask"),
        ("<extra_id_0> <MASK> <extra_id_1> c", None, "copied_mask"),
    ],
)
def test_sentinels(t5: MaskFiller, written: str, text: str | None, problem: str) -> None:
    found = fill(t5, "the <MASK> is <MASK>!", written)
    assert (found.text, found.problem) == (text, problem)


def test_texts_that_ended_for_want_of_room(bart: MaskFiller, t5: MaskFiller) -> None:
    assert fill(bart, "a <MASK>", "a nice", end=False).is_cut
    assert fill(t5, "a <MASK>", "<extra_id_0> nice", end=False).is_cut
    assert not fill(t5, "a <MASK>", "<extra_id_0> nice <extra_id_1>", end=False).is_cut


def test_what_fillers_read(bart: MaskFiller, t5: MaskFiller) -> None:
    text = mask("the <MASK> is <MASK>")
    read = [filler.tokenizer.decode(filler._read(text)) for filler in (bart, t5)]
    assert "".join(read[0].split()) == "the<mask>is<mask></s>"
    assert "".join(read[1].split()) == "the<extra_id_0>is<extra_id_1></s>"
    # Section 3.2: as many tokens as the masked prompt has, and five for each mask.
    assert bart._limit(len(bart._read(text)), 2) == len(bart._read(text)) + 10 - 1


@pytest.mark.parametrize("kind", ["bart", "t5"])
def test_a_text_does_not_depend_on_its_company(kind: str) -> None:
    texts = [mask(text) for text in ("the <MASK>", "you are <MASK> and <MASK> so", "a <MASK> b")]
    found = [
        make_filler(kind, batch_size=size).fill(texts, [7, 8, 9], seed=3) for size in (1, 2, 8)
    ]
    assert found[0] == found[1] == found[2]
    filler = make_filler(kind)
    assert filler.fill(texts[::-1], [9, 8, 7], seed=3) == found[0][::-1]
    assert filler.fill(texts[1:2], [8], seed=3) == found[0][1:2]
    if kind == "bart":
        others = [filler.fill(texts, [7, 8, 9], seed=3, attempt=1), filler.fill(texts, [1, 2, 3])]
        assert all(other != found[0] for other in others)
        assert len({one.text for one in filler.fill(texts[:1] * 4, [1, 2, 3, 4])}) > 1


@pytest.mark.parametrize(
    ("kind", "text", "message"),
    [
        ("bart", mask("no mask"), "has no mask to fill"),
        ("bart", mask("a <MASK>", 2), "masks is 2, and masked holds 1 <MASK>"),
        ("bart", mask("<mask> a <MASK>"), "has 1 masks, and the filler reads 2: <mask> stands in"),
        ("t5", mask("<extra_id_3> <MASK>"), "has 1 masks, and the filler reads 2: <extra_id_0> st"),
        ("t5", mask("<MASK> " * 5), "has 5 masks, and the filler 4 sentinels"),
        ("bart", mask("you " * 80 + "<MASK>"), "has 83 tokens and a text up to 87, and the model"),
    ],
)  # fmt: skip
def test_texts_that_cannot_be_filled(kind: str, text: MaskedText, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        make_filler(kind).check(text)


def test_models_that_fill_nothing() -> None:
    tokenizer = make_words("none")
    with pytest.raises(ValueError, match=r"^a filler's tokenizer needs a token for masks, or <ex"):
        MaskFiller(make_t5(tokenizer), tokenizer)
    with pytest.raises(ValueError, match=r"^temperature must be "):
        make_filler(temperature=0.0)
    with pytest.raises(ValueError, match=r"nowhere: no such folder of a model$"):
        load_filler("./nowhere")


def test_what_a_text_begins_with() -> None:
    """BART's texts begin with a token that its own settings force."""
    tokenizer = make_words("bart")
    model = make_bart(tokenizer)
    model.generation_config.forced_bos_token_id = 5
    filler = MaskFiller(model, tokenizer)
    given: list[Any] = []
    generate = model.generate

    def watch(**options: Any) -> Any:
        given.append(options)
        return generate(**options)

    model.generate = watch
    filler.fill([mask("a <MASK>")], [1])
    assert given[0]["decoder_input_ids"].tolist() == [[tokenizer.eos_token_id, 5]]
