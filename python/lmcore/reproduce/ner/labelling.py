"""Small models that learn to label words, from other targets but for the same steps.

A T5-shaped model of some 170,000 weights knows nothing at first. It learns to copy words, on
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

    from lmcore.ner.generation import Answer
    from lmcore.ner.instructions import Context

_TEMPLATE = "types {types} sentence {sentence}"  # short, since every step pays for it
_PAD, _END = "<pad>", "</s>"
_MARKS = ("(O)", "(B-", "(I-", "(E-", "(S-", ")", ",", "types", "sentence")
_PIECE = re.compile(r"\(O\)|\([BIES]-|\)|,|[^\s(),]+")
_MOST_TOKENS = 80  # of an answer: 17 words, with labels of three pieces where there are entities


@dataclass(kw_only=True, slots=True, frozen=True)
class Style:
    """How the targets and instructions of an arm are written."""

    context: Context = "all"
    """Words around each entity that a target holds."""
    boundaries: str = "bio"
    """How labels say where an entity begins."""
    shuffles: bool = True
    """Whether types stand in another order in each instruction."""


ARMS: Mapping[str, Style] = {
    "entities": Style(context=0),
    "one": Style(context=1),
    "all": Style(),
}
"""The arms of the paper's preliminary study."""


@dataclass(kw_only=True, slots=True, frozen=True)
class Scale:
    """How large the experiment is."""

    hidden_size: int
    layers: int
    """Of the encoder, and as many of the decoder."""
    copying_steps: int
    arm_steps: int
    batch_size: int
    train: int
    """Sentences."""
    test: int
    """Sentences of each test."""


SCALES: dict[Size, Scale] = {
    "tiny": Scale(
        hidden_size=16, layers=1, copying_steps=3, arm_steps=3, batch_size=4, train=50, test=9
    ),
    "quick": Scale(
        hidden_size=64, layers=2, copying_steps=500, arm_steps=400, batch_size=32, train=20_000,
        test=100,
    ),
    "full": Scale(
        hidden_size=64, layers=2, copying_steps=600, arm_steps=900, batch_size=32, train=50_000,
        test=200,
    ),
}  # fmt: skip
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
        style: of its targets; None: it copies.
        train: the sentences.
    """

    def __init__(
        self, seed: int, scale: Scale, style: Style | None, train: Sequence[Sentence]
    ) -> None:
        import torch
        from transformers import T5Config, T5ForConditionalGeneration

        torch.manual_seed(seed)
        self.tokenizer = make_tokenizer()
        start: dict[str, Any] = {"decoder_start_token_id": self.tokenizer.pad_token_id}
        size = scale.hidden_size
        self.model = T5ForConditionalGeneration(
            T5Config(
                vocab_size=len(self.tokenizer), d_model=size, d_kv=size // 4, d_ff=2 * size,
                num_heads=4, num_layers=scale.layers, num_decoder_layers=scale.layers,
                dropout_rate=0.0, pad_token_id=self.tokenizer.pad_token_id,
                eos_token_id=self.tokenizer.eos_token_id,
                **start,
            )
        )  # fmt: skip
        self.model.set_attn_implementation("eager")  # the faster one for texts of this length
        self._ids = self.tokenizer.get_vocab()
        self._optimizer = torch.optim.Adam(self.model.parameters(), lr=2e-3, fused=True)
        self._seed, self._scale, self._style, self._train = seed, scale, style, train

    def step(self, step: int) -> None:
        """Trains on the batch of a step, counted from 0 over copying and labelling.

        Args:
            step: which one.
        """
        import torch

        source = random.Random(f"{self._seed} {step}")
        pairs = [self.make_pair(source, step) for _ in range(self._scale.batch_size)]
        inputs, mask = self._encode([question for question, _ in pairs])
        labels, known = self._encode([answer for _, answer in pairs])
        labels = labels.masked_fill(known == 0, -100)
        self.model.train()
        loss = self.model(input_ids=inputs, attention_mask=mask, labels=labels).loss
        self._optimizer.zero_grad()
        loss.backward()
        # Copying comes at once after a plateau, with gradients that are larger than before.
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 10.0)
        self._optimizer.step()

    def make_pair(self, source: random.Random, step: int) -> tuple[str, str]:
        """Returns an instruction and its target.

        Args:
            source: of what is random.
            step: while it copies, rows are short at first.
        """
        from lmcore.ner.instructions import write_target
        from lmcore.ner.labels import write_labels

        if self._style is None:
            most = 2 + 10 * step // self._scale.copying_steps
            words = source.choices(WORDS, k=source.randint(2, max(2, most)))
            return ask(words, source.sample(WORDS[:36], 4)), " ".join(words)
        sentence = source.choice(self._train)
        types = list(sentence.label_list)
        if self._style.shuffles:
            source.shuffle(types)
        labels = write_labels(sentence.labels, self._style.boundaries)
        target = write_target(sentence.words, labels, context=self._style.context)
        return ask(sentence.words, types), target

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

    def annotate(
        self, sentences: Sequence[Sentence], *, num_beams: int = 1, constrained: bool = False
    ) -> list[Answer]:
        """Returns what the model writes for sentences, whose types stand in their own order.

        Args:
            sentences: what it is asked.
            num_beams: 1 is greedy.
            constrained: whether words are copied and labels legal.
        """
        from lmcore.ner.generation import Annotator, Generation, Question

        generation = Generation(
            batch_size=100, num_beams=num_beams, constrained=constrained,
            max_new_tokens=_MOST_TOKENS,
        )  # fmt: skip
        return Annotator(self.model, self.tokenizer, generation).answer(
            [
                Question(words=s.words, types=s.label_list, instruction=ask(s.words, s.label_list))
                for s in sentences
            ]
        )

    def _encode(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """The ids that the tokenizer gives, which would be a sixth of the time of a step."""
        import torch

        rows = [[self._ids[piece] for piece in _PIECE.findall(text)] for text in texts]
        length = 1 + max(map(len, rows))
        ids = torch.full((len(rows), length), self.tokenizer.pad_token_id)
        mask = torch.zeros((len(rows), length), dtype=torch.long)
        for index, row in enumerate(rows):
            ids[index, : len(row) + 1] = torch.tensor([*row, self.tokenizer.eos_token_id])
            mask[index, : len(row) + 1] = 1
        return ids, mask


def make_tokenizer() -> Any:
    """Returns a tokenizer of transformers whose pieces are the words of the domains and marks.

    A type is the same piece in an instruction, in a sentence and in a label.

    Example:
        >>> tokenizer = make_tokenizer()
        >>> text = "the(O) bela(B-river) river(I-river)"
        >>> tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True) == text
        True
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    pieces = dict.fromkeys((_PAD, _END, *_MARKS, *WORDS))
    ids = {piece: index for index, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token=_PAD))
    marks = pre_tokenizers.Split(Regex(r"\(O\)|\([BIES]-|\)|,|\s+"), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([marks, pre_tokenizers.WhitespaceSplit()])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {_END}", special_tokens=[(_END, ids[_END])]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace(Regex("^"), " "),
            decoders.Fuse(),
            decoders.Replace(Regex(r" (?=[(),])|(?<=-) "), ""),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=_PAD, eos_token=_END)


def ask(words: Sequence[str], types: Sequence[str]) -> str:
    """Returns the instruction for words.

    Args:
        words: of a sentence.
        types: in the order in which they are named.

    Example:
        >>> ask(["the", "river"], ["river", "bank"])
        'types river, bank sentence the river'
    """
    from lmcore.ner.instructions import write_instruction

    return write_instruction(words, types, template=_TEMPLATE)


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
    tests = make_tests(seed, scale)

    def score(_: str, run: Labeller, step: int) -> dict[str, Outcome]:
        if not step:
            return {}
        return {
            name: find_outcome(test, [answer.text for answer in run.annotate(test)])
            for name, test in tests.items()
        }

    return train_arms(seed, scale, ARMS, score)


def train_arms(
    seed: int, scale: Scale, arms: Mapping[str, Style], score: Any
) -> dict[str, dict[str, Any]]:
    """Returns what was found of each arm's model at its end.

    Args:
        seed: of the world and of training.
        scale: how large.
        arms: by name.
        score: (arm, its run, steps made) to whatever is wanted of it; called at 0 steps as well.
    """
    train = generate_domain_sentences(make_domains(seed)[:_KNOWN], scale.train, seed)

    def make_run(arm: str | None) -> Labeller:
        return Labeller(seed, scale, None if arm is None else arms[arm], train)

    with one_thread():
        found = branch(make_run, list(arms), scale.copying_steps, scale.arm_steps, score)
    return {arm: scores[scale.arm_steps] for arm, scores in found.scores.items()}


_KNOWN = 7  # domains that are trained on, of nine


def make_tests(seed: int, scale: Scale) -> dict[str, list[Sentence]]:
    """Returns new sentences of the domains that are trained on, and of the others.

    Args:
        seed: of the world.
        scale: how many.
    """
    domains = make_domains(seed)
    return {
        "seen": generate_domain_sentences(domains[:_KNOWN], scale.test, seed, part=1),
        "unseen": generate_domain_sentences(domains[_KNOWN:], scale.test, seed, part=2),
    }


def find_outcome(sentences: Sequence[Sentence], answers: Iterable[str]) -> Outcome:
    """Returns how well answers label sentences, all of them as one data set.

    Args:
        sentences: with their gold labels.
        answers: one for each.

    Example:
        >>> sentence = Sentence("a", ("bela", "river"), ("B-river", "I-river"), ("river",))
        >>> find_outcome([sentence], ["bela(B-river) river(I-river)"]).f1 > 0.99
        True
    """
    from lmcore.ner.evaluation import score

    pairs = zip(sentences, answers, strict=True)
    rows = [{**sentence.to_row(answer), "dataset": "all"} for sentence, answer in pairs]
    (scores,) = score(rows, threads=1).datasets.values()
    errors = scores.errors
    # Of errors each entity counts by its place; for F1 one that a sentence repeats counts once.
    gold = max(errors.gold, 1)
    return Outcome(
        f1=scores.quality.f1,
        unlabelled=errors.unlabelled / gold,
        noisy=errors.noisy / gold,
        boundary=errors.boundary / gold,
    )
