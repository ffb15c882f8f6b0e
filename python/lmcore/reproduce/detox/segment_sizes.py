"""Claim: segments of two tokens are the middle between what is left and what is taken away."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lmcore._text import count_noun
from lmcore.reproduce.claim import Claim, Estimates, Measurement, Panel, Plot, Series, Size
from lmcore.reproduce.detox.spotting import train_finder

_SIZES_OF_SEGMENTS = (1, 2, 3)


@dataclass(kw_only=True, slots=True, frozen=True)
class _Scale:
    texts: int
    tests: int
    steps: int
    hidden_size: int


_SCALES: dict[Size, _Scale] = {
    "tiny": _Scale(texts=40, tests=10, steps=2, hidden_size=16),
    "full": _Scale(texts=4000, tests=500, steps=300, hidden_size=64),
}


def measure_segment_sizes(seed: int, size: Size) -> Measurement:
    """Returns what masks of segments of one, two and three tokens leave of toxic prompts.

    Args:
        seed: of the comments and of training.
        size: how many comments, and how many steps.

    Returns:
        Values named `<n>/toxicity` (of the masked prompt, %), `<n>/similarity` (to the prompt, %)
        and `<n>/words` (that are hidden, of each prompt); `less_toxic` is how much less toxic two
        tokens leave a prompt than one, and `nearer` how much nearer to it than three.
    """
    from lmcore.detox.masking import MASK, mask_texts
    from lmcore.detox.similarity import ngram_similarity
    from lmcore.detox.span_labels import SpanExample, score_segments
    from lmcore.detox.tokenization import make_tokenizer
    from lmcore.worlds.detox import list_tokens, make_world, score_toxicity

    scale = _SCALES[size]
    comments = make_world(seed, comments=scale.texts + 4 * scale.tests).comments
    texts = [comment.text for comment in comments[: scale.texts]]
    tests = [each.prompt for each in comments[scale.texts :] if each.toxic][: scale.tests]
    tokenizer = make_tokenizer([t for t in list_tokens() if not t.startswith("[")])
    rows = [tokens.ids for tokens in tokenizer.encode(texts)]
    values: dict[str, float] = {}
    for count in _SIZES_OF_SEGMENTS:
        scored = score_segments(rows, tokenizer, score_toxicity, segment_size=count)
        examples = [
            SpanExample(_to_ids(ids), (scores > 0.5).astype("int8"), int(text > 0.5))
            for ids, scores, text in zip(rows, scored, score_toxicity(texts), strict=True)
        ]
        finder = train_finder(
            seed, examples, tokenizer, steps=scale.steps, segment_size=count,
            hidden_size=scale.hidden_size,
        )  # fmt: skip
        masked = [one.masked for one in mask_texts(finder, tests)]
        left = [text.replace(MASK, "") for text in masked]
        hidden = [
            len(test.split()) - len(text.split()) for test, text in zip(tests, left, strict=True)
        ]
        values[f"{count}/toxicity"] = 100 * sum(score_toxicity(masked)) / len(tests)
        values[f"{count}/similarity"] = 100 * sum(ngram_similarity(tests, left)) / len(tests)
        values[f"{count}/words"] = sum(hidden) / len(tests)
    values["less_toxic"] = values["1/toxicity"] - values["2/toxicity"]
    values["nearer"] = values["2/similarity"] - values["3/similarity"]
    return Measurement(values=values)


def _to_ids(ids: list[int]) -> Any:
    import numpy as np

    return np.array(ids, np.int32)


def two_tokens_are_the_middle(estimates: Estimates) -> bool:
    """Returns whether two tokens leave less toxicity than one and more text than three.

    Args:
        estimates: the numbers of `measure_segment_sizes`.
    """
    return all(estimates[name].mean > estimates[name].spread for name in ("less_toxic", "nearer"))


def _describe(estimates: Estimates) -> str:
    lines = ["toxicity of what is left, %; similarity to the prompt, %; words that are hidden"]
    for count in _SIZES_OF_SEGMENTS:
        found = (estimates[f"{count}/{name}"].format(1) for name in ("toxicity", "similarity"))
        words = estimates[f"{count}/words"].format(2)
        lines.append(f"{count_noun(count, 'token')}: {'; '.join([*found, words])}")
    lines.append(
        f"two tokens below one: {estimates['less_toxic'].format(1, sign=True)}; "
        f"nearer than three: {estimates['nearer'].format(1, sign=True)}"
    )
    return "\n".join(lines)


def _plot(estimates: Estimates) -> tuple[Plot, ...]:
    series = tuple(
        Series(
            name=name,
            y=tuple(estimates[f"{n}/{name}"].mean for n in _SIZES_OF_SEGMENTS),
            spread=tuple(estimates[f"{n}/{name}"].spread for n in _SIZES_OF_SEGMENTS),
        )
        for name in ("toxicity", "similarity")
    )
    return (
        Plot(
            title="Masked prompts", kind="bars", x_label="tokens of a segment", y_label="%",
            x=tuple(map(str, _SIZES_OF_SEGMENTS)), panels=(Panel(title="", series=series),),
        ),
    )  # fmt: skip


CLAIMS = (
    Claim(
        id="segment_sizes",
        system="detox",
        statement="Segments of two tokens leave less toxicity than one word, more text than three.",
        source="Detoxify Language Model Step-by-Step, arXiv 2308.08295, table 6",
        paper="one, two, three tokens: residual toxicity .202, .170, .145, similarity of the "
        "result .831, .812, .734, masks 1.123, 2.071, 2.970",
        setting="Small Segment-CNNs, trained from nothing on generated comments, in which some "
        "words are toxic, and some pairs of words that are harmless alone; labels are made by the "
        "scorer that knows the comments, segment by segment. Measured on masked prompts, "
        "before anything is filled in; similarity is that of n-grams of characters.",
        measure=measure_segment_sizes,
        describe=_describe,
        rule="Two tokens leave less toxicity than one, and more similarity than three, each by "
        "more than the spread.",
        expected="reproduced",
        sizes=("tiny", "full"),
        holds=two_tokens_are_the_middle,
        plot=_plot,
    ),
)
