"""Sampling in 2,000 steps against 20 and 10, end to end, on one thread.

The small model of the recipe `tiny` and generated sentences: a step is cheap, so that what does
not grow with the steps counts as much as it can. Tokens are those of the authors' chain, which is
asserted first. `--steps T` takes another process than the paper's, for a quick look.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import authors_sampling as authors
from lmcore.diffusion import SamplingConfig, TextDiffusionModel, TextGenerator, load_generator
from lmcore.diffusion.models import make_model, save_model
from lmcore.diffusion.noise import SamplingNoise
from lmcore.diffusion.pairs import Pair
from lmcore.diffusion.recipes import tiny
from lmcore.diffusion.tokenization import TextTokenizer, make_bert_tokenizer
from lmcore.ops.schedule import make_betas
from lmcore.training.config import change
from lmcore.worlds.diffusion import list_tokens, make_world
from timing import Row, compare, print_conditions, save

TEXTS, SEED, LENGTH = 32, 5, 32
GOALS = {20: "90x", 10: "180x"}
CASE = f"{TEXTS} texts, rows of {LENGTH}, 2 layers of 128"


def make_lively_model(tokenizer: TextTokenizer, steps: int) -> TextDiffusionModel:
    """Returns random weights whose texts differ: plain ones say nearly the same of any latents."""
    torch.manual_seed(0)
    model = make_model(change(tiny(), {"diffusion_steps": steps}), tokenizer)
    model.config.row_length = LENGTH
    with torch.no_grad():
        for projection in (model.input_up_proj, model.output_down_proj):
            for layer in (projection[0], projection[2]):
                layer.weight.mul_(6)
    return model


def sample_as_authors(generate: TextGenerator, sources: list[str]) -> list[list[int]]:
    """Returns the tokens of the authors' chain with our noise."""
    model, questions = generate.model, generate.encode(Pair(text, "") for text in sources)
    ids, mask = generate.stack(questions)
    table = model.word_embedding.weight.detach()
    noise = SamplingNoise(SEED, [question.row for question in questions], LENGTH, table.shape[1])
    with torch.no_grad():
        tokens = authors.sample(
            model, table, model.lm_head.bias, ids, mask,
            make_betas("sqrt", generate.process.total_steps), sorted(generate.timesteps),
            noise.start(), noise,
        )  # fmt: skip
    return [row[len(q.given) :] for row, q in zip(tokens.tolist(), questions, strict=True)]


def compare_steps(folder: Path, total: int, sources: list[str]) -> list[Row]:
    """Returns rows of the whole process against few steps, once they give the authors' tokens."""
    counts = {"2000": total, "20": 20, "10": 10}
    generators: dict[str, TextGenerator] = {
        name: load_generator(folder, SamplingConfig(steps=steps), device="cpu")
        for name, steps in counts.items()
    }
    few = generators["20"]
    ours = few.answer(few.encode(Pair(text, "") for text in sources), SEED)
    assert ours == sample_as_authors(few, sources)
    assert len({*map(tuple, ours)}) == TEXTS

    def answer(name: str) -> Callable[[], object]:
        return lambda: generators[name](sources, seed=SEED)

    def load_and_answer(name: str) -> Callable[[], object]:
        sampling: Any = SamplingConfig(steps=counts[name])
        return lambda: load_generator(folder, sampling, device="cpu")(sources, seed=SEED)

    rows: list[Row] = []
    for made, what in ((answer, "loaded"), (load_and_answer, "with loading")):
        contenders = [(f"{name} steps", made(name), GOALS[int(name)]) for name in ("20", "10")]
        rows += compare(
            "sampling", f"{CASE}, {what}", (f"{total} steps", made("2000")), *contenders,
            rounds=3, repeats=7,
        )  # fmt: skip
    theirs = ("authors' chain, 20 steps", lambda: sample_as_authors(few, sources))
    rows += compare("sampling", CASE, theirs, ("20 steps", answer("20"), ""), rounds=7)
    return rows


def main() -> None:
    """Prints the comparison."""
    arguments = sys.argv[1:]
    total = int(arguments[arguments.index("--steps") + 1]) if "--steps" in arguments else 2000
    print_conditions()
    torch.set_num_threads(1)
    tokenizer = make_bert_tokenizer(list_tokens())
    sources = [pair.source for pair in make_world(1, pairs=TEXTS).pairs]
    with tempfile.TemporaryDirectory() as name:
        save_model(make_lively_model(tokenizer, total), tokenizer, Path(name))
        rows = compare_steps(Path(name), total, sources)
    if "--save" in arguments:
        save("sampling", rows)


if __name__ == "__main__":
    main()
