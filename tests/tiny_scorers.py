"""Small scorers and labelled texts of nonsense words."""

import json
from pathlib import Path
from typing import Any

TOXIC = ("blap", "zorg", "snibb")
PLAIN = ("river", "table", "green", "walks", "house", "bird", "slow", "paper", "坏", "天")


def make_texts(count: int = 200) -> tuple[list[str], list[int]]:
    """Texts of plain words, every third with a toxic one, and their labels."""
    texts, labels = [], []
    for number in range(count):
        words = [PLAIN[number * step % len(PLAIN)] for step in (1, 3, 7)]
        is_toxic = number % 3 == 0
        if is_toxic:
            words.insert(number % 4, TOXIC[number % 7 % 3])
        texts.append(f"{' '.join(words)} {number}")
        labels.append(int(is_toxic))
    return texts, labels


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_labelled(path: Path, count: int = 200) -> Path:
    pairs = zip(*make_texts(count), strict=True)
    return write_jsonl(path, [{"text": text, "label": label} for text, label in pairs])


def make_letter_tokenizer() -> Any:
    """A tokenizer of the letters a, b and c, with BERT's marks and no limit."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "b", "c"]
    tokenizer = Tokenizer(
        models.WordLevel({name: place for place, name in enumerate(names)}, unk_token="[UNK]")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    marks = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]"}
    marks = {f"{name}_token": mark for name, mark in marks.items()}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **marks)
