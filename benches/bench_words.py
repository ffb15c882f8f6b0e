"""Cutting text into words against the definition."""

from __future__ import annotations

from lmcore.ops.words import split_words
from lmcore.reference.words import split_words as define
from lmcore.worlds import ner
from timing import compare, print_conditions, save


def main() -> None:
    """Runs all cases."""
    print_conditions()
    rows = []
    for language, joint in (("en", " "), ("zh", "")):
        sentences = ner.generate_sentences(language, 2_000, seed=4)
        text = " ".join(joint.join(sentence.words) for sentence in sentences)
        assert split_words(text) == define(text)
        rows += compare(
            "words",
            f"{len(text)} characters, {language}",
            ("reference", lambda text=text: define(text)),
            ("lmcore", lambda text=text: split_words(text), ""),
        )
    save("words", rows)


if __name__ == "__main__":
    main()
