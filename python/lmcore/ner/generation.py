"""Sentences through a model: what it writes, the label of each word, and how sure it is.

`Annotator` reads instructions in batches of similar lengths and generates in one of four ways:

| | greedy | beams |
| --- | --- | --- |
| free | `generate`, then Hierarchical Matching | the same |
| constrained | forced tokens in one step (`lmcore.ner.forcing`) | `ConstrainedDecoding` |

A constrained search with beams compares probabilities among legal tokens, without a premium for
long texts: all of them label the same words. A model that cannot be fed several tokens at once is
constrained token by token.

Source: GNER (arXiv 2402.16602), section 2.4 of the specification for prompts and padding.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

from lmcore._extras import optional_imports
from lmcore.ner.back_tokenization import BackTokenizer
from lmcore.ner.collator import write_prompt
from lmcore.ner.confidence import rate_labels
from lmcore.ner.decoding import ConstrainedDecoding, Constraint, ConstraintMaker
from lmcore.ner.forcing import can_force, generate_forced
from lmcore.ner.labels import check_types
from lmcore.ops.matching import match_labels, parse_generation
from lmcore.ops.words import split_words

with optional_imports():
    import torch
    from torch import Tensor
    from transformers import LogitsProcessor, LogitsProcessorList


@dataclass(kw_only=True, slots=True, frozen=True)
class Generation:
    """How texts are generated.

    Raises:
        ValueError: a number is below its least.
    """

    batch_size: int = 8
    """Sentences that are generated together."""
    num_beams: int = 1
    """1 is greedy; the paper's extra is 4."""
    constrained: bool = False
    """Whether words are copied and labels legal; beyond the paper."""
    max_source_tokens: int = 640
    """Of an instruction; longer sentences are cut into windows."""
    max_new_tokens: int = 640
    """Of a free text; a constrained one has as many as its words and labels need."""

    def __post_init__(self) -> None:
        for name, least in (
            ("batch_size", 1), ("num_beams", 1), ("max_source_tokens", 8), ("max_new_tokens", 1),
        ):  # fmt: skip
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool):
                raise TypeError(f"{name} must be an int: got {type(value).__name__}")
            if value < least:
                raise ValueError(f"{name} must be at least {least}: got {value}")


@dataclass(kw_only=True, slots=True, frozen=True)
class Question:
    """A sentence, or a window of one."""

    words: Sequence[str]
    types: Sequence[str]
    instruction: str
    split: bool = False
    """Whether the words are pieces of `split_words`, which a model may write as one."""


@dataclass(kw_only=True, slots=True, frozen=True)
class Answer:
    """What a model wrote for a question."""

    text: str
    """As it was generated; of a constrained one its words are those of the question."""
    labels: list[str]
    """One for each word."""
    probabilities: list[float]
    """Of each label; 1 where a word has none of its own and is `O`."""
    is_source_cut: bool = False
    """Whether the instruction was longer than the model was given."""
    is_output_cut: bool = False
    """Whether the text was not at its end."""


class Annotator:
    """A model that answers questions in batches.

    Args:
        model: of transformers, encoder-decoder or causal; it is put into evaluation mode.
        tokenizer: of the model.
        generation: how texts are generated.

    Raises:
        ValueError: the tokenizer has no token for padding or for the end of a text.
    """

    def __init__(self, model: Any, tokenizer: Any, generation: Generation | None = None) -> None:
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.generation = Generation() if generation is None else generation
        self.is_encoder_decoder = bool(model.config.is_encoder_decoder)
        if tokenizer.pad_token_id is None:
            raise ValueError("the tokenizer has no token for padding: set its pad_token")
        self._end = _find_end(model, tokenizer)
        self._constrain = ConstraintMaker(tokenizer, self._end)
        self._forces = (
            self.generation.constrained and self.generation.num_beams == 1 and can_force(model)
        )
        self._back_tokenize = BackTokenizer(tokenizer)
        self._pieces: dict[int, str] = {}
        before = tokenizer("a(O)", add_special_tokens=False)["input_ids"]
        self._before = list(before)
        self._shown_before = tokenizer.decode(before, skip_special_tokens=True)

    def count_tokens(self, instructions: Sequence[str]) -> list[int]:
        """Returns how many tokens a model reads of each instruction.

        Args:
            instructions: without a prompt's frame.
        """
        return [len(ids) for ids in self._tokenize(instructions)]

    def count_dropped(self, words: Sequence[str]) -> int:
        """Returns how many characters of words the tokenizer cannot write.

        Args:
            words: of a sentence.
        """
        found = 0
        for word, again in zip(words, self._back_tokenize(list(words)), strict=True):
            if word != again:
                found += (Counter(word) - Counter(again)).total()
        return found

    def count_target_tokens(self, words: Sequence[str]) -> int:
        """Returns how many tokens a sentence without entities takes to write, with the end.

        Args:
            words: of the sentence.
        """
        text = " ".join(f"{word}(O)" for word in words)
        return len(self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]) + 1

    def check(self, question: Question) -> None:
        """Returns nothing if a question can be asked.

        Args:
            question: any.

        Raises:
            ValueError: its types are none that a label can name, or in constrained decoding two
                of them have the same tokens.
        """
        check_types(question.types)
        if self.generation.constrained:
            self._constrain(question.words, question.types)

    def answer(
        self, questions: Sequence[Question], *, progress: Callable[[int], object] | None = None
    ) -> list[Answer]:
        """Returns the answers, in the order of the questions.

        Args:
            questions: any number; batches are made of those whose instructions have similar
                lengths, the longest first.
            progress: called with the number of questions of each batch that is done.

        Raises:
            ValueError: a question cannot be asked, or the model is broken.
        """
        sources = self._tokenize([question.instruction for question in questions])
        order = sorted(range(len(questions)), key=lambda index: (-len(sources[index]), index))
        answers: list[Answer | None] = [None] * len(questions)
        for start in range(0, len(order), self.generation.batch_size):
            indices = order[start : start + self.generation.batch_size]
            batch = [questions[index] for index in indices]
            found = self._answer(batch, [sources[index] for index in indices])
            for index, answer in zip(indices, found, strict=True):
                answers[index] = answer
            if progress is not None:
                progress(len(indices))
        return [answer for answer in answers if answer is not None]

    def _answer(self, questions: list[Question], sources: list[list[int]]) -> list[Answer]:
        most = self.generation.max_source_tokens
        is_cut = [len(source) > most for source in sources]
        kept = [
            self._cut(source) if cut else source
            for source, cut in zip(sources, is_cut, strict=True)
        ]
        if self.generation.constrained:
            answers = self._choose(questions, kept, is_cut)
        else:
            answers = self._write(questions, kept)
        return [
            replace(answer, is_source_cut=cut) for answer, cut in zip(answers, is_cut, strict=True)
        ]

    def _cut(self, source: list[int]) -> list[int]:
        """The beginning of a source, with the token that ends it."""
        most = self.generation.max_source_tokens
        if source[-1] == self.tokenizer.eos_token_id:
            return [*source[: most - 1], source[-1]]
        return source[:most]

    def _choose(
        self, questions: list[Question], sources: list[list[int]], is_cut: list[bool]
    ) -> list[Answer]:
        """Answers of copied words and legal labels."""
        constraints = []
        for question, source, cut in zip(questions, sources, is_cut, strict=True):
            prompt = None
            if not self.is_encoder_decoder and not cut:
                prompt = write_prompt(question.instruction)
            constraint = self._constrain(question.words, question.types, prompt)
            if not self.is_encoder_decoder and cut:
                constraint.prompt = source
            constraints.append(constraint)
        if not self.is_encoder_decoder:
            sources = [constraint.prompt for constraint in constraints]
        inputs = self._stack(sources)
        if self._forces:
            texts = generate_forced(self.model, constraints, inputs)
            pairs = [(text.tokens, text.log_probabilities) for text in texts]
        else:
            pairs = self._generate(inputs, max(c.most_tokens for c in constraints), constraints)
        answers = []
        for question, constraint, (tokens, logs) in zip(questions, constraints, pairs, strict=True):
            found = constraint.read(tokens)
            labels = [word.label for word in found]
            written = zip(question.words, labels, strict=True)
            answers.append(Answer(
                text=" ".join(f"{word}({label})" for word, label in written),
                labels=labels,
                probabilities=[_multiply(logs[word.start : word.stop]) for word in found],
            ))  # fmt: skip
        return answers

    def _write(self, questions: list[Question], sources: list[list[int]]) -> list[Answer]:
        """Answers of free text, matched with the words."""
        pairs = self._generate(self._stack(sources), self.generation.max_new_tokens)
        answers = []
        for question, (tokens, logs) in zip(questions, pairs, strict=True):
            is_whole = bool(tokens) and tokens[-1] == self._end
            text = self.tokenizer.decode(tokens, skip_special_tokens=True)
            lowered = [word.lower() for word in question.words]
            match = match_labels(
                question.words, text, question.types, self._back_tokenize(lowered),
                split_generated=question.split,
            )  # fmt: skip
            rated = self._rate(text, tokens, logs, split=question.split)
            probabilities = [1.0 if j < 0 else rated[j] for j in match.alignment]
            answers.append(Answer(
                text=text, labels=match.labels, probabilities=probabilities,
                is_output_cut=not is_whole,
            ))  # fmt: skip
        return answers

    def _rate(self, text: str, tokens: list[int], logs: list[float], *, split: bool) -> list[float]:
        """The probability of each generated word's label; its pieces share it."""
        words = parse_generation(text).words
        pieces = [self._show(token) for token in tokens]
        rated = rate_labels("".join(pieces), [0, *accumulate(map(len, pieces))], logs)
        if len(rated) != len(words):
            # A token may add another text than it does behind a bracket: ask for each beginning.
            begins = [tokens[:count] for count in range(len(tokens) + 1)]
            texts = self.tokenizer.batch_decode(begins, skip_special_tokens=True)
            indices = list(accumulate([min(len(own), len(text)) for own in texts], max))
            rated = rate_labels(text, indices, logs)
        if not split:
            return rated
        return [own for word, own in zip(words, rated, strict=True) for _ in split_words(word)]

    def _show(self, token: int) -> str:
        """What a token adds to a text that has begun."""
        shown = self._pieces.get(token)
        if shown is None:
            whole = self.tokenizer.decode([*self._before, token], skip_special_tokens=True)
            shown = whole[len(self._shown_before) :]
            self._pieces[token] = shown
        return shown

    def _tokenize(self, instructions: Sequence[str]) -> list[list[int]]:
        if not instructions:
            return []
        texts = list(instructions)
        if not self.is_encoder_decoder:
            texts = [write_prompt(text) for text in texts]
        found = self.tokenizer(texts, return_attention_mask=False, verbose=False)["input_ids"]
        if self.is_encoder_decoder:
            return [list(ids) for ids in found]
        end = self.tokenizer.eos_token_id
        return [list(ids[:-1] if ids and ids[-1] == end else ids) for ids in found]

    def _stack(self, sources: list[list[int]]) -> dict[str, Tensor]:
        """`[batch, longest]` int64, padded on the left for a model without an encoder."""
        longest = max(map(len, sources))
        ids = torch.full((len(sources), longest), self.tokenizer.pad_token_id, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, source in enumerate(sources):
            begin = 0 if self.is_encoder_decoder else longest - len(source)
            ids[row, begin : begin + len(source)] = torch.tensor(source, dtype=torch.long)
            mask[row, begin : begin + len(source)] = 1
        device = self.model.device
        return {"input_ids": ids.to(device), "attention_mask": mask.to(device)}

    @torch.inference_mode()
    def _generate(
        self,
        inputs: dict[str, Tensor],
        max_new_tokens: int,
        constraints: Sequence[Constraint] | None = None,
    ) -> list[tuple[list[int], list[float]]]:
        """Tokens of each sentence, to the end, and the logarithms of their probabilities."""
        beams = self.generation.num_beams
        length = 1 if self.is_encoder_decoder else inputs["input_ids"].shape[1]
        recorder = TokenRecorder(length, beams)
        processors: list[Any] = [recorder]
        options: dict[str, Any] = {}
        if constraints is not None:
            constrained = ConstrainedDecoding(constraints, prompt_length=length, num_beams=beams)
            processors.insert(0, constrained)
            options["renormalize_logits"] = True
            if beams > 1:
                options["length_penalty"] = 0.0
        found = self.model.generate(
            **inputs,
            max_new_tokens=max_new_tokens,
            do_sample=False,
            num_beams=beams,
            pad_token_id=self.tokenizer.pad_token_id,
            eos_token_id=self._end,
            logits_processor=LogitsProcessorList(processors),
            **options,
        )
        rows = []
        for row, tokens in enumerate(found[:, length:].tolist()):
            if self._end in tokens:
                tokens = tokens[: tokens.index(self._end) + 1]
            rows.append((tokens, recorder.read(row, tokens)))
        return rows


class TokenRecorder(LogitsProcessor):
    """Remembers the probabilities of tokens that `generate` takes, with beams or without.

    `output_scores` would keep those of the whole vocabulary at each step, gigabytes for a batch;
    this one keeps one step's, and of the others the tokens that were taken.

    Args:
        prompt_length: tokens before the first generated one, padding included.
        num_beams: hypotheses of each sentence.
    """

    def __init__(self, prompt_length: int, num_beams: int = 1) -> None:
        self._prompt_length = prompt_length
        self._num_beams = num_beams
        self._ids: Tensor | None = None
        self._scores: Tensor | None = None
        self._sums: Tensor | None = None
        self._steps: list[tuple[list[int], list[int], list[float]]] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Returns the scores as they are.

        Args:
            input_ids: `[rows, length]` int64, rows = sentences * beams.
            scores: `[rows, vocabulary]`, of which the softmax is taken.
        """
        if self._scores is not None:
            self._record(input_ids)
        self._ids, self._scores = input_ids.clone(), scores
        self._sums = scores.logsumexp(dim=-1)
        return scores

    def _record(self, input_ids: Tensor) -> None:
        """The step from the last call's rows to these."""
        assert self._ids is not None
        assert self._scores is not None
        assert self._sums is not None
        count = len(input_ids)
        parents = torch.arange(count, device=input_ids.device)
        if self._num_beams > 1:
            # Which row a hypothesis comes from is not said, and shows in its tokens.
            beams = self._num_beams
            old = self._ids[:, self._prompt_length :].view(count // beams, 1, beams, -1)
            new = input_ids[:, self._prompt_length : -1].view(count // beams, beams, 1, -1)
            offsets = parents.view(-1, beams)[:, :1]
            parents = ((old == new).all(dim=-1).int().argmax(dim=-1) + offsets).view(-1)
        tokens = input_ids[:, -1]
        logs = self._scores[parents, tokens] - self._sums[parents]
        self._steps.append((parents.tolist(), tokens.tolist(), logs.tolist()))

    def read(self, sentence: int, tokens: Sequence[int]) -> list[float]:
        """Returns the logarithms of the probabilities of a generated text's tokens.

        Args:
            sentence: its index in the batch.
            tokens: of the text. The last one may end it, and counts 0 where a search went on
                behind it: it belongs to no label.
        """
        found: list[float] = []
        rows = range(sentence * self._num_beams, (sentence + 1) * self._num_beams)
        here = rows[0]
        for index, token in enumerate(tokens):
            if index == len(self._steps):
                assert self._scores is not None
                assert self._sums is not None
                found.append(float(self._scores[here, token] - self._sums[here]))
                break
            parents, taken, logs = self._steps[index]
            after = next((r for r in rows if parents[r] == here and taken[r] == token), None)
            if after is None:
                break
            found.append(logs[after])
            here = after
        return found + [0.0] * (len(tokens) - len(found))


def _multiply(log_probabilities: Sequence[float]) -> float:
    return math.exp(min(0.0, math.fsum(log_probabilities)))


def _find_end(model: Any, tokenizer: Any) -> int:
    """The token that ends a text: the model's where it names one, else the tokenizer's."""
    ends = model.generation_config.eos_token_id
    if isinstance(ends, list):
        ends = ends[0] if tokenizer.eos_token_id not in ends else tokenizer.eos_token_id
    found = tokenizer.eos_token_id if ends is None else ends
    if found is None:
        raise ValueError("the tokenizer has no token for the end of a text: set its eos_token")
    return int(found)
