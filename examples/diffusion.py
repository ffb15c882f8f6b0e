"""Text diffusion from pairs to texts: a small model, few steps, and the best of several texts."""

import tempfile

from lmcore.diffusion import (
    Pair,
    SamplingConfig,
    TextGenerator,
    load_model,
    score_texts,
    train,
)
from lmcore.diffusion.recipes import tiny
from lmcore.diffusion.tokenization import make_bert_tokenizer
from lmcore.ops.ngrams import choose_candidates
from lmcore.training.config import change
from lmcore.worlds.diffusion import list_tokens, make_world

STEPS, SEEDS, TESTS = 5, 3, 40
# More steps make better texts: this is a first look that takes seconds.
SETTINGS = {"loop.steps": 120, "schedule.warmup_steps": 20, "average": 0.9, "device.threads": 1}

# Generated sentences with a paraphrase; each has three good ones.
world = make_world(seed=0, pairs=2000 + TESTS).pairs
pairs = [Pair(one.source, one.target) for one in world]
tokenizer = make_bert_tokenizer(list_tokens())

with tempfile.TemporaryDirectory() as folder:
    result = train(change(tiny(), SETTINGS), pairs[:2000], folder, tokenizer=tokenizer)
    model = load_model(folder)
print(f"trained {result.steps} steps; loss {result.history[-1]['loss']:.3f}")

# Five of 2,000 steps, most of them where there is much noise; another text with each seed.
generate = TextGenerator(model, tokenizer, SamplingConfig(steps=STEPS))
sources = [pair.source for pair in pairs[2000:]]
texts = [generate(sources, seed=seed) for seed in range(SEEDS)]

# Of the texts of a source, the one that the others agree with most.
choices = choose_candidates(list(zip(*texts, strict=True)))
best = [texts[choice][row] for row, choice in enumerate(choices.best)]
print(f"source: {pairs[2000].source}\ntext:   {best[0]}\ngood:   {world[2000].good[0]}")
scores = score_texts(best, [pair.target for pair in pairs[2000:]])
print({name: round(scores[name], 3) for name in ("bleu_4", "rouge_l", "distinct_1", "entropy")})
