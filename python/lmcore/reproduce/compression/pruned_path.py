"""A small OpenBA, and what a path of cuts makes of it: models that claims ask and fine-tune.

It reads rows of 16 tokens of three kinds, which are denoised like any text: pieces of documents in
two languages; what somebody does, and what she is; and sentences that are said twice, which teach
to copy. Layers are cut first and then widths, with training on the same texts after each cut, and
in the end tokens that hardly occur, after which nothing is trained, as in the paper.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmcore.reproduce.claim import Size
from lmcore.reproduce.openba.pretraining import Corpus, Pretraining, Scale
from lmcore.worlds.ner.domains import WORDS, generate_domain_sentences, make_domains
from lmcore.worlds.openba import LANGUAGES, make_world, write_piece_file
from lmcore.worlds.openba.tasks import read_facts

OPTIONS = 4
"""Of a question."""
LENGTH = 16
"""Tokens of a row."""
MODELS = {
    "unpruned": "unpruned",
    "cut": "pruned, not recovered",
    "recovered": "pruned and recovered",
    "untrained": "as small, never trained",
}
"""The models, and what they are."""
# Twice as many, with a colon and an end, are a row.
_COPIED_WORDS = 7
# What stands in labels, within words, and in the instructions of this experiment.
_LABELS = ("(O)", "(B-", "(I-", ")", "▁.")
_WORDINGS = "Question Answer What was types sentence ? :"
# Largest step size: with half of it nothing is learned within so many steps.
_PEAK = 4e-3
# Of the seeds of worlds.
_OTHER = 1 << 32


@dataclass(kw_only=True, slots=True, frozen=True)
class PathScale:
    """How large the experiment is."""

    scale: Scale
    """Of the unpruned model."""
    rows: int
    """Of each kind."""
    pieces: int
    """Of the tokenizer: words of the texts, and others that no text has."""
    encoder_layers: int
    """After the first cut, as the next one."""
    decoder_layers: int
    hidden_size: int
    """After the second cut, as the next two."""
    heads: int
    inner_size: int
    tokens: int
    """After the third."""
    steps: tuple[int, int]
    """Of training after the first cut, and after the second."""


_SCALE = Scale(
    hidden_size=64, inner_size=128, encoder_layers=2, decoder_layers=4, steps=600, batch_size=64,
    micro_batch_size=64, length=LENGTH, documents=4000, tests=256,
)  # fmt: skip
SCALES: dict[Size, PathScale] = {
    "tiny": PathScale(
        scale=replace(
            _SCALE, hidden_size=16, inner_size=16, decoder_layers=3, steps=2, batch_size=8,
            micro_batch_size=8, documents=60, tests=8,
        ),
        rows=60, pieces=1400, encoder_layers=2, decoder_layers=2, hidden_size=12, heads=2,
        inner_size=12, tokens=1300, steps=(1, 1),
    ),
    "full": PathScale(
        scale=_SCALE, rows=20_000, pieces=1900, encoder_layers=2, decoder_layers=3,
        hidden_size=40, heads=2, inner_size=80, tokens=1300, steps=(80, 220),
    ),
}  # fmt: skip
"""By the size of the claims; the ratios of the paper's table."""


@dataclass(kw_only=True, slots=True, frozen=True)
class RoleQuestion:
    """What somebody does, and what she might be."""

    text: str
    roles: tuple[str, ...]
    answer: int
    """Which of the roles is hers."""

    def to_text(self) -> str:
        """Returns the question with its answer, in the words of the authors' prompt for PIQA."""
        return f"Question: {self.text} Answer: {self.roles[self.answer]}"


def generate_questions(seed: int, count: int) -> list[RoleQuestion]:
    """Returns questions after somebody's role, which what she does tells.

    Args:
        seed: of the world, below 2**64.
        count: how many.

    Example:
        >>> question = generate_questions(0, 1)[0]
        >>> question.text, question.roles[question.answer]
        ('Max sawed the green letter. What was Max?', 'carpenter')
    """
    english = LANGUAGES["en"]
    verbs = set(english.verbs)
    made: list[RoleQuestion] = []
    # Of two documents one is English, and of ten hardly one tells no deed.
    for document in make_world(seed, documents=4 * count + 8).documents[::2]:
        deeds = [one for one in document.text.split(". ")[1:-1] if verbs & {*one.split()}]
        if not deeds or len(made) == count:
            continue
        facts = read_facts(document)
        place, right = len(made) % OPTIONS, english.roles.index(facts.role)
        roles = english.roles
        made.append(
            RoleQuestion(
                text=f"{deeds[0]}. What was {facts.name}?",
                roles=tuple(roles[(right + i - place) % len(roles)] for i in range(OPTIONS)),
                answer=place,
            )
        )
    return made


def make_models(seed: int, size: Size, folder: Path) -> dict[str, Path]:
    """Writes all models of `MODELS`, each with its tokenizer, and returns their folders.

    Args:
        seed: of the texts, of training and of what is drawn.
        size: of the models, and how many steps.
        folder: where to; it is empty.
    """
    from lmcore.compression import Sizes, add_chosen_stage, prune_folder, start_plan
    from lmcore.training.checkpoint import no_bars

    scale = SCALES[size]
    unpruned = folder / "unpruned"
    corpus, texts = _make_corpus(seed, scale, unpruned)
    with no_bars():
        run = Pretraining(seed, scale.scale, corpus, corpus.denoisers)
        # As in the released model both begin with the same weights; so copying is learned sooner.
        run.model.lm_head.weight.data.copy_(run.model.encoder.embed_tokens.weight.data)
        run.train(_PEAK).model.save_pretrained(unpruned)
        targets = run.evaluate(*corpus.denoisers)
        (folder / "texts.txt").write_text("".join(f"{text}\n" for text in texts))
        vocabulary = _choose_vocabulary(unpruned, folder / "texts.txt", scale.tokens)
        plan = start_plan(unpruned)
        for sizes in (
            Sizes(encoder_layers=scale.encoder_layers, decoder_layers=scale.decoder_layers),
            Sizes(hidden=scale.hidden_size, heads=scale.heads, ffn=scale.inner_size),
            Sizes(vocabulary=vocabulary),
        ):
            plan, _ = add_chosen_stage(plan, sizes, seed=seed)
        prune_folder(unpruned, folder / "cut", plan)
        last = unpruned
        for stage, steps in enumerate(scale.steps, start=1):
            prune_folder(last, folder / f"stage {stage}", plan, stage=stage)
            last = _recover(
                folder / f"stage {stage}", folder / f"training {stage}", corpus, targets, seed,
                scale, steps,
            )  # fmt: skip
        prune_folder(last, folder / "recovered", plan, stage=3)
        _forget(folder / "cut", folder / "untrained", seed)
    return {name: folder / name for name in MODELS}


def _make_corpus(seed: int, scale: PathScale, folder: Path) -> tuple[Corpus, list[str]]:
    """Rows of the three kinds in turns, and texts in which tokens are counted.

    Writes the tokenizer.
    """
    from lmcore.openba import OpenBATokenizer
    from lmcore.openba.models import find_ids

    folder.mkdir()
    domains = make_domains(seed)
    types = sorted(kind for domain in domains for kind in domain.types)
    write_piece_file(
        folder / "spiece.model", size=scale.pieces, texts=[" ".join(WORDS), _WORDINGS],
        pieces=[*_LABELS, *types],
    )  # fmt: skip
    tokenizer = OpenBATokenizer(folder / "spiece.model")
    tokenizer.save_pretrained(folder)
    documents = make_world(seed, documents=scale.scale.documents).texts
    questions = [one.to_text() for one in generate_questions(seed + _OTHER, scale.rows)]
    # Unlabelled ones of all domains, as texts are.
    found = generate_domain_sentences(domains, 3 * scale.rows, seed, part=3)
    said = [" ".join(one.words) for one in found if len(one.words) == _COPIED_WORDS]
    copies = [f"{one}: {one}" for one in said]

    def encode(texts: Sequence[str]) -> NDArray[np.int64]:
        ids = tokenizer(list(texts), add_special_tokens=False)["input_ids"]
        stream = [number for one in ids for number in (*one, tokenizer.eos_token_id)]
        return np.array(stream[: len(stream) // LENGTH * LENGTH], np.int64).reshape(-1, LENGTH)

    kinds = [encode(texts) for texts in (documents, questions, copies)]
    rows = np.stack([np.resize(one, (scale.rows, LENGTH)) for one in kinds], 1)
    groups = rows.reshape(-1, LENGTH)
    prefixes: dict[str, Any] = {
        name: tokenizer.convert_tokens_to_ids(f"<{name}>") for name in "RSX"
    }
    tests = scale.scale.tests
    corpus = Corpus(
        train=groups[:-tests], test=groups[-tests:], vocabulary_size=tokenizer.padded_size(1),
        ids=find_ids(tokenizer), prefixes=prefixes,
    )  # fmt: skip
    labels = [f"types a(O) .(O) b(B-{kind}) c(I-{kind}), sentence" for kind in types]
    return corpus, [*documents, *questions, *copies, *labels, *WORDS]


def _choose_vocabulary(model: Path, texts: Path, keep: int) -> list[int]:
    from lmcore.compression import count_files
    from lmcore.compression.planning import choose_vocabulary

    counts = texts.with_name("counts")
    count_files([texts], model, counts)
    return choose_vocabulary(model, counts, keep)


def _recover(
    model: Path,
    out: Path,
    corpus: Corpus,
    targets: dict[str, float],
    seed: int,
    scale: PathScale,
    steps: int,
) -> Path:
    """The best model of a training with D-UL2, as the paper has it: without a teacher."""
    from lmcore.compression.recipes import tiny
    from lmcore.compression.recovery import recover
    from lmcore.training.config import change

    config = change(
        tiny(),
        {
            "objective": "d_ul2",
            "teacher": "none",
            "targets": tuple(targets[f"loss_{one.name}"] for one in corpus.denoisers),
            "text_tokens": LENGTH,
            "batch_size": scale.scale.batch_size,
            "micro_batch_size": scale.scale.micro_batch_size,
            "validation_texts": min(64, scale.scale.tests),
            "update_every_steps": 50,
            "optimizer.lr": _PEAK,
            "schedule.warmup_steps": min(20, steps - 1),
            "loop.steps": steps,
            "loop.validate_every_steps": 50,
            "loop.seed": seed,
            "device.device": "cpu",
            "device.threads": 1,
        },
    )
    recover(config, corpus.train, out, model=model, valid=corpus.test)
    return out / "best"


def _forget(model: Path, out: Path, seed: int) -> None:
    """A model of the same sizes with new weights, and the same tokenizer."""
    import torch

    from lmcore.openba import OpenBAConfig, OpenBAForConditionalGeneration, OpenBATokenizer

    torch.manual_seed(seed)
    made: Any = OpenBAForConditionalGeneration(OpenBAConfig.from_pretrained(model))
    made.lm_head.weight.data.copy_(made.encoder.embed_tokens.weight.data)
    made.save_pretrained(out)
    OpenBATokenizer.from_pretrained(model).save_pretrained(out)
