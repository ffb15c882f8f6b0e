"""From generated text to entities and scores, on a corpus that is made up on the spot."""

from typing import Any

from lmcore import ner
from lmcore.ops.entities import SCHEMES
from lmcore.worlds.ner import make_world

COUNT, SEED, RATE = 1_000, 0, 0.03

# The schemes differ where an entity is repeated, or where an I- follows another type.
BY_HAND = {
    "dataset": "by hand",
    "types": ["person", "city"],
    "words": ["Ada", "met", "Ada", "in", "New", "York"],
    "labels": ["B-person", "O", "B-person", "O", "B-city", "I-city"],
    "prediction": "Ada(B-person) met(O) Ada(O) in(O) New(B-person) York(I-city)",
}


def find_damaged_row(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns a short row with entities that only the longest common subsequence can align."""

    def needs_lcs(row: dict[str, Any]) -> bool:
        match = ner.match_labels(row["instance"]["words"], row["prediction"], row["label_list"])
        return match.matching == "lcs" and any(label != "O" for label in match.labels)

    return min(filter(needs_lcs, rows), key=lambda row: len(row["prediction"]))


def show_entities(row: dict[str, Any]) -> None:
    """Prints a text, what was generated for it, and the entities with their places."""
    words = row["instance"]["words"]
    text = " ".join(words)
    print(f"text        {text}\ngeneration  {row['prediction']}")
    for entity in ner.extract(text, row["prediction"], row["label_list"], words=words):
        print(f"  characters {entity.start} to {entity.end}: {entity.type} {entity.text!r}")


def show_scores(rows: list[dict[str, Any]]) -> None:
    """Prints precision, recall and F1 of each data set under each scheme."""
    print(f"\n{'scheme':<14}{'data set':<14}{'P':>7}{'R':>7}{'F1':>7}")
    for scheme in SCHEMES:
        for name, scores in ner.score(rows, scheme=scheme).datasets.items():
            quality = "".join(f"{100 * value:7.2f}" for value in scores.quality)
            print(f"{scheme:<14}{name:<14}{quality}")


if __name__ == "__main__":
    english = make_world(SEED, language="en", sentences=COUNT, rate=RATE).rows
    chinese = make_world(SEED, language="zh", sentences=COUNT, rate=RATE).rows
    show_entities(find_damaged_row(english))
    show_scores([BY_HAND, *english, *chinese])
