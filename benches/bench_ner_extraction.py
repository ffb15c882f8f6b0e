"""One extraction in a long source against langextract's aligner, which takes an LCS since 1.7."""

from __future__ import annotations

from langextract.core.data import Extraction
from langextract.resolver import WordAligner

from lmcore.ner import extract
from timing import compare, print_conditions, save

_TYPE = "place"


def make_source(count: int) -> tuple[list[str], str]:
    """Words that each stand once, and their text."""
    words = [f"word{number:05d}" for number in range(count)]
    return words, " ".join(words)


def main() -> None:
    """Runs all cases."""
    print_conditions()
    rows = []
    for count in (200, 2_000, 20_000):
        words, source = make_source(count)
        begin = count // 2
        wanted = words[begin : begin + 4]
        for case, extracted in (
            ("as it stands there", wanted),
            ("with a word more before it", ["other", *wanted]),
            ("with a word more within it", [*wanted[:2], "other", *wanted[2:]]),
        ):
            # An I- that begins, as behind the word that is not there, starts an entity.
            labels = [f"I-{_TYPE}"] * len(extracted)
            generation = " ".join(f"{w}({x})" for w, x in zip(extracted, labels, strict=True))

            def theirs(extracted: list = extracted, source: str = source) -> list:
                mention = Extraction(extraction_class=_TYPE, extraction_text=" ".join(extracted))
                # It may else take the first words for the whole, before it looks at the LCS.
                ((found,),) = WordAligner().align_extractions(
                    [[mention]], source, accept_match_lesser=False
                )
                return [(found.char_interval.start_pos, found.char_interval.end_pos)]

            def ours(generation: str = generation, source: str = source) -> list:
                return [(e.start, e.end) for e in extract(source, generation, [_TYPE])]

            start = source.index(wanted[0])
            end = source.index(wanted[-1]) + len(wanted[-1])
            assert ours() == theirs() == [(start, end)]
            rows += compare(
                "ner_extraction",
                f"{count} words, {case}",
                ("langextract", theirs),
                ("lmcore", ours, ""),
            )
    save("ner_extraction", rows)


if __name__ == "__main__":
    main()
