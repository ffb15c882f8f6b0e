"""Small models that learn to label words, from other targets but for the same steps.

A T5-shaped model of some 200,000 weights knows nothing at first. It learns to copy words, on
random ones, once for all arms; then each arm goes on from there with targets of its own. Texts are
pieces for it that are whole words, so that nothing but the labels is hard.
"""

from __future__ import annotations

import functools
import random
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lmcore.reproduce.arms import branch, one_thread
from lmcore.reproduce.claim import Size
from lmcore.worlds.ner.domains import WORDS, generate_domain_sentences, make_domains
from lmcore.worlds.ner.sentences import Sentence

if TYPE_CHECKING:
    from torch import Tensor

    from lmcore.ner.instructions import Context

ARMS: Mapping[str, Context] = {"entities": 0, "one": 1, "all": "all"}
"""How many words around each entity a target holds, by arm."""

_TEMPLATE = "types {types} sentence {sentence}"  # short, since every step pays for it
_PIECE = re.compile(r"\(O\)|\([BI]-|\)|[^\s(),]+|,")
_PAD, _END = "<pad>", "</s>"
_SPECIAL = (_PAD, _END, "(O)", "(B-", "(I-", ")", ",", "types", "sentence")
_PIECES = dict.fromkeys((*_SPECIAL, *WORDS))
IDS = {piece: index for index, piece in enumerate(_PIECES)}
"""The number of each piece."""
_TEXTS = tuple(IDS)
_MOST_PIECES = 96  # of an answer: 18 words with a label of three pieces, and some


@dataclass(kw_only=True, slots=True, frozen=True)
class Scale:
    """How large the experiment is."""

    hidden_size: int
    encoder_layers: int
    decoder_layers: int
    copying_steps: int
    arm_steps: int
    batch_size: int
    sentences: int
    """Of each of the two tests."""


_SCALES: dict[Size, Scale] = {
    "tiny": Scale(
        hidden_size=16, encoder_layers=1, decoder_layers=1, copying_steps=3, arm_steps=3,
        batch_size=4, sentences=9,
    ),
    "quick": Scale(
        hidden_size=64, encoder_layers=2, decoder_layers=2, copying_steps=500, arm_steps=400,
        batch_size=32, sentences=150,
    ),
    "full": Scale(
        hidden_size=64, encoder_layers=2, decoder_layers=2, copying_steps=1_000, arm_steps=1_500,
        batch_size=32, sentences=500,
    ),
}  # fmt: skip
SCALES = _SCALES
"""By the size of the claims."""


@dataclass(kw_only=True, slots=True, frozen=True)
class Outcome:
    """How well an arm's model labels sentences."""

    f1: float
    """By the paper's scorer, in [0, 1]."""
    unlabelled: float
    """Share of the gold entities that have no label in the answer."""
    noisy: float
    """Share of the gold entities that have another type."""
    boundary: float
    """Share of the gold entities that have the type with another extent."""


class Labeller:
    """A model that is trained on batches which its own function makes.

    Args:
        seed: of the weights, and of what it copies.
        scale: how large.
        context: of its targets; None: it copies.
        train: the sentences.
    """

    def __init__(
        self, seed: int, scale: Scale, context: Context | None, train: Sequence[Sentence]
    ) -> None:
        import torch
        from transformers import T5Config, T5ForConditionalGeneration

        torch.manual_seed(seed)
        size = scale.hidden_size
        self.model = T5ForConditionalGeneration(
            T5Config(
                vocab_size=len(IDS), d_model=size, d_kv=size // 4, d_ff=2 * size, num_heads=4,
                num_layers=scale.encoder_layers, num_decoder_layers=scale.decoder_layers, dropout_rate=0.0,
                pad_token_id=IDS[_PAD], eos_token_id=IDS[_END], decoder_start_token_id=IDS[_PAD],
            )
        )  # fmt: skip
        self._optimizer = torch.optim.Adam(self.model.parameters(), lr=2e-3)
        self._seed, self._scale, self._context, self._train = seed, scale, context, train

    def step(self, step: int) -> None:
        """Trains on the batch of a step, counted from 0 over copying and labelling.

        Args:
            step: which one.
        """
        import torch

        source = random.Random(f"{self._seed} {step}")
        make = self._copy if self._context is None else self._label
        pairs = [make(source, step) for _ in range(self._scale.batch_size)]
        inputs, mask = _pad([_cut(question) for question, _ in pairs])
        labels, known = _pad([_cut(answer) for _, answer in pairs])
        labels = labels.masked_fill(known == 0, -100)
        self.model.train()
        loss = self.model(input_ids=inputs, attention_mask=mask, labels=labels).loss
        self._optimizer.zero_grad()
        loss.backward()
        # Copying comes at once after a plateau, with gradients that are larger than before.
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 10.0)
        self._optimizer.step()

    def state_dict(self) -> dict[str, Any]:
        """Returns weights and moments."""
        return {"model": self.model.state_dict(), "optimizer": self._optimizer.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from a state of the run that copies.

        Args:
            state: as `state_dict` returns it.
        """
        self.model.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])

    def answer(self, sentences: Sequence[Sentence]) -> list[str]:
        """Returns what the model writes for sentences, greedily.

        Args:
            sentences: what it is asked.
        """
        import torch

        self.model.eval()
        answers: list[str] = []
        for start in range(0, len(sentences), 100):
            part = sentences[start : start + 100]
            inputs, mask = _pad([_cut(_ask(s.words, s.label_list)) for s in part])
            with torch.no_grad():
                found = self.model.generate(
                    input_ids=inputs, attention_mask=mask, max_new_tokens=_MOST_PIECES,
                    num_beams=1, do_sample=False,
                )  # fmt: skip
            answers += [_join(row) for row in found.tolist()]
        return answers

    def _copy(self, source: random.Random, step: int) -> tuple[str, str]:
        """Random words, few at first: the longer ones are learned in a few steps then."""
        most = 2 + 10 * step // max(self._scale.copying_steps, 1)
        words = source.choices(WORDS, k=source.randint(2, max(2, most)))
        return _ask(words, source.sample(WORDS[:36], 4)), " ".join(words)

    def _label(self, source: random.Random, _: int) -> tuple[str, str]:
        from lmcore.ner.instructions import write_target

        assert self._context is not None
        sentence = source.choice(self._train)
        types = source.sample(sentence.label_list, len(sentence.label_list))
        answer = write_target(sentence.words, sentence.labels, context=self._context)
        return _ask(sentence.words, types), answer


@functools.cache
def run_arms(seed: int, scale: Scale) -> dict[str, dict[str, Outcome]]:
    """Returns how the model of each arm labels sentences of known and of unseen domains.

    The result of equal arguments is kept, so that several claims can look at it.

    Args:
        seed: of the world and of training.
        scale: how large.

    Example:
        >>> sorted(run_arms(0, SCALES["tiny"])["all"])
        ['seen', 'unseen']
    """
    domains = make_domains(seed)
    known, unseen = domains[:7], domains[7:]
    train = generate_domain_sentences(known, 20_000 if scale.arm_steps > 10 else 50, seed)
    tests = {
        "seen": generate_domain_sentences(known, scale.sentences, seed, part=1),
        "unseen": generate_domain_sentences(unseen, scale.sentences, seed, part=2),
    }

    def make_run(arm: str | None) -> Labeller:
        return Labeller(seed, scale, None if arm is None else ARMS[arm], train)

    def score(_: str, run: Labeller, step: int) -> dict[str, Outcome]:
        if not step:
            return {}
        return {name: find_outcome(test, run.answer(test)) for name, test in tests.items()}

    with one_thread():
        found = branch(make_run, list(ARMS), scale.copying_steps, scale.arm_steps, score)
    return {arm: scores[scale.arm_steps] for arm, scores in found.scores.items()}


def find_outcome(sentences: Sequence[Sentence], answers: Iterable[str]) -> Outcome:
    """Returns how well answers label sentences, all of them as one data set.

    Args:
        sentences: with their gold labels.
        answers: one for each.

    Example:
        >>> sentence = Sentence("a", ("Bela", "river"), ("B-river", "I-river"), ("river",))
        >>> find_outcome([sentence], ["Bela(B-river) river(I-river)"]).f1 > 0.99
        True
    """
    from lmcore.ner.evaluation import score

    pairs = zip(sentences, answers, strict=True)
    rows = [{**sentence.to_row(answer), "dataset": "all"} for sentence, answer in pairs]
    (scores,) = score(rows, threads=1).datasets.values()
    gold = max(scores.entities.gold, 1)
    errors = scores.errors
    return Outcome(
        f1=scores.quality.f1,
        unlabelled=errors.unlabelled / gold,
        noisy=errors.noisy / gold,
        boundary=errors.boundary / gold,
    )


def _ask(words: Sequence[str], types: Sequence[str]) -> str:
    from lmcore.ner.instructions import write_instruction

    return write_instruction(words, types, template=_TEMPLATE)


def _cut(text: str) -> list[int]:
    return [IDS[piece] for piece in _PIECE.findall(text)] + [IDS[_END]]


def _join(ids: Iterable[int]) -> str:
    """The text of pieces: a word stands behind a space, unless a label comes to its end."""
    text = ""
    for index in ids:
        piece = _TEXTS[index]
        if piece == _END:
            break
        if piece == _PAD:
            continue
        glued = piece[0] in "(),"[:2] or text.endswith(("(B-", "(I-"))
        text += piece if glued or not text else f" {piece}"
    return text


def _pad(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """The rows as one tensor, and which of its values are theirs."""
    import torch

    length = max(map(len, rows))
    ids = torch.full((len(rows), length), IDS[_PAD])
    mask = torch.zeros((len(rows), length), dtype=torch.long)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = torch.tensor(row)
        mask[index, : len(row)] = 1
    return ids, mask
