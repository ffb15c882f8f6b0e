"""Detoxification step by step: find toxic spans, mask them, fill the masks, look again."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

from lmcore.detox import (
    FilledText,
    MaskedText,
    RephraseRule,
    load_span_finder,
    mask_texts,
    ngram_similarity,
    read_labelled,
    rephrase_texts,
    train_spans,
)
from lmcore.detox.span_recipes import tiny
from lmcore.detox.tokenization import make_tokenizer
from lmcore.training.config import change
from lmcore.worlds.detox import list_tokens, make_world, score_toxicity

# Toxic are nonsense words here, and pairs of words that are harmless alone.
prompts = [comment.prompt for comment in make_world(0, comments=900).comments]
tokenizer = make_tokenizer(list_tokens()[5:])
SETTINGS = {"shape.layers": 1, "loop.steps": 80, "optimizer.lr": 3e-3, "device.threads": 1}

# A scorer, which is any callable, labels each distinct pair of tokens once.
with tempfile.TemporaryDirectory() as folder:
    file = Path(folder, "train.jsonl")
    file.write_text("".join(f'{{"text": "{prompt}"}}\n' for prompt in prompts[:800]))
    labelled = read_labelled(file, tokenizer, scorer=score_toxicity)
    train_spans(change(tiny(), SETTINGS), labelled.examples, Path(folder, "run"),
                tokenizer=tokenizer)  # fmt: skip
    finder = load_span_finder(Path(folder, "run"), device="cpu")


class WordFiller:
    """The simplest filler; `load_filler` loads a BART or a T5."""

    def fill(
        self, texts: Sequence[MaskedText], numbers: Sequence[int], *, seed: int, attempt: int
    ) -> list[FilledText]:
        word = ("wet lantern", "kind neighbour")[attempt]  # the first one is toxic itself
        filled = [one.masked.replace("<MASK>", word) for one in texts]
        return [FilledText(masked=o.masked, text=t) for o, t in zip(texts, filled, strict=True)]


tests = prompts[800:]
masked = mask_texts(finder, tests, form="text")
found = rephrase_texts(masked, WordFiller(), score_toxicity, numbers=range(len(tests)),
                       rule=RephraseRule(attempts=2))  # fmt: skip
contexts = [one.context or "" for one in found]
place = next(place for place, one in enumerate(found) if one.masked.masks)
print(*(tests[place], masked[place].masked, contexts[place]), sep="\n")
for name, texts in (("before", tests), ("after", contexts)):
    toxic = sum(score > 0.5 for score in score_toxicity(texts)) / len(texts)
    print(f"{name}: {toxic:.2f} toxic, similarity {sum(ngram_similarity(texts, tests)) / 100:.2f}")
