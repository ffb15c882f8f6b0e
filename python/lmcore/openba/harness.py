"""A model of OpenBA in lm-evaluation-harness, whose tasks are then OpenBA's too.

```python
import lm_eval
from lmcore.openba.harness import OpenBALM

lm_eval.simple_evaluate(model=OpenBALM("model"), tasks=["arc_easy", "belebele_zho_Hans"])
```

The encoder reads `<S> {context} <extra_id_0>`, and the decoder, behind its start token and
`<extra_id_0>`, what is scored. So a continuation is cut into pieces as the text behind
`<extra_id_0>`: its first word begins with the mark of a word's start, whether or not the task
puts a space before it. What differs from `lmcore.openba.evaluate`:

| | here | `lmcore.openba.evaluate` |
| --- | --- | --- |
| by loss | the sum over tokens (`acc`), or by characters (`acc_norm`) | the mean over tokens |
| by letter | `▁A` against `▁B`, the pieces that begin a word | `A` against `B`, as by the authors |
| too long a context | the end of it is read: the question stands there | fewer demonstrations |

With `bare_letters` a continuation of one letter is the piece without the mark: then both choose
the same, as for the same prompts they always do where all options have as many tokens.

Without the harness this module is imported all the same, and a model is not made.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lmcore._extras import MissingExtra, optional_imports
from lmcore.openba.answers import AnswerScorer, Continuation
from lmcore.openba.generation import Generation, TextGenerator
from lmcore.openba.models import load_pair

with optional_imports():
    from transformers import PreTrainedModel

if TYPE_CHECKING:
    from lm_eval.api.model import LM as _LM
else:
    try:
        from lm_eval.api.model import LM as _LM
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "lm_eval":
            raise

        class _LM:
            """Stands for the harness's class where that is not installed."""

            def __init__(self) -> None:
                raise MissingExtra("lm_eval", "eval")


NAME = "openba"
"""What the harness calls the model: `simple_evaluate(model="openba", model_args=...)`."""
_LETTER = re.compile(r"\s*([A-Z])\s*")
# What a context keeps behind it: sentinel and end.
_BEHIND = 2
_MOST_NEW = 256


class OpenBALM(_LM):  # type: ignore[misc]  # the harness may not be installed
    """Scores and generates texts for lm-evaluation-harness.

    Args:
        pretrained: the folder of a model and its tokenizer, or a model.
        tokenizer: of a model that is given itself.
        batch_size: contexts that are worked on together.
        max_length: tokens that the encoder reads, the frame included; as many as the model was
            trained with if None.
        max_gen_toks: tokens of a generated text where the task says none.
        device: of a folder's model, as for `lmcore.openba.models.load_pair`.
        dtype: of a folder's weights, likewise.
        bare_letters: score a continuation of one capital letter as the piece without the mark of
            a word's start, as the authors' scorer does.
        kwargs: further arguments that the harness passes, without meaning here.

    Raises:
        ImportError: the harness is not installed.
        OSError: a file cannot be read.
        ValueError: the folder holds no model, or the tokenizer is not the model's.

    Example:
        >>> from importlib.util import find_spec
        >>> if find_spec("lm_eval") is None:
        ...     try:
        ...         OpenBALM("model")
        ...     except ImportError as error:
        ...         assert str(error).endswith('pip install "lmcore-research[eval]"')
    """

    def __init__(
        self,
        pretrained: str | os.PathLike[str] | Any,
        tokenizer: Any = None,
        *,
        batch_size: int | str = 16,
        max_length: int | None = None,
        max_gen_toks: int = _MOST_NEW,
        device: str | None = None,
        dtype: str = "auto",
        bare_letters: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        model: Any = pretrained
        if not isinstance(pretrained, PreTrainedModel):
            model, tokenizer = load_pair(pretrained, device=device or "auto", dtype=dtype)
        size = int(batch_size) if str(batch_size).isdecimal() else 16
        self.scorer = AnswerScorer(model, tokenizer, max_source_tokens=max_length, batch_size=size)
        self.max_gen_toks = max_gen_toks
        self._bare_letters = bare_letters
        self._device = model.device

    @property
    def tokenizer_name(self) -> str:
        """What tells the tokenizer from others in the harness's caches."""
        return f"{NAME}-{len(self.scorer.tokenizer)}"

    def loglikelihood(
        self, requests: list[Any], disable_tqdm: bool = False
    ) -> list[tuple[float, bool]]:
        """Returns of each continuation its log-likelihood, and whether it is the likeliest text.

        Continuations of one context are scored together.

        Args:
            requests: of the harness; `args` are context and continuation.
            disable_tqdm: of no meaning here.
        """
        places: dict[str, list[int]] = {}
        for number, request in enumerate(requests):
            places.setdefault(request.args[0], []).append(number)
        contexts = list(places)
        sources = [self._cut(source) for source in self.scorer.encode_all(contexts)]
        continuations = [
            [self._encode(requests[number].args[1]) for number in places[context]]
            for context in contexts
        ]
        found: list[tuple[float, bool]] = [(0.0, False)] * len(requests)
        scores = self.scorer.score_continuations(sources, continuations)
        for context, parts in zip(contexts, scores, strict=True):
            for number, part in zip(places[context], parts, strict=True):
                found[number] = self._keep("loglikelihood", requests[number], _answer(part))
        return found

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[float]:
        """Returns the log-likelihoods of texts, each token once.

        A text is cut into windows of as many tokens as the decoder was trained with; the encoder
        reads the window before, and of the first one nothing but the frame.

        Args:
            requests: of the harness; `args` are a text.
            disable_tqdm: of no meaning here.
        """
        scorer, model = self.scorer, self.scorer.model
        room = max(1, model.config.decoder_max_seq_length - len(scorer.start))
        frame = scorer.encode("")
        sources: list[list[int]] = []
        windows: list[list[list[int]]] = []
        counts = []
        for request in requests:
            ids = scorer.encode_continuation(request.args[0])
            parts = [ids[first : first + room] for first in range(0, len(ids), room)] or [[]]
            before = [[], *parts[:-1]]
            sources += [self._cut([*frame[:1], *part, *frame[-_BEHIND:]]) for part in before]
            windows += [[part] for part in parts]
            counts.append(len(parts))
        losses = iter(scorer.score_continuations(sources, windows))
        return [
            self._keep(
                "loglikelihood_rolling",
                request,
                -sum(part.loss for _ in range(count) for part in next(losses)),
            )
            for request, count in zip(requests, counts, strict=True)
        ]

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        """Returns what the model goes on with, up to one of the texts where it shall stop.

        Args:
            requests: of the harness; `args` are context and settings: `until`, `max_gen_toks`,
                and `do_sample` with `temperature`, `top_k` and `top_p`.
            disable_tqdm: of no meaning here.
        """
        groups: dict[Generation, list[int]] = {}
        for number, request in enumerate(requests):
            groups.setdefault(self._read_settings(request.args[1]), []).append(number)
        texts = [""] * len(requests)
        for settings, numbers in groups.items():
            generate = TextGenerator(self.scorer.model, self.scorer.tokenizer, settings)
            contexts = [self._shorten(requests[number].args[0]) for number in numbers]
            found = generate(contexts, rows=numbers)
            for number, answer in zip(numbers, found, strict=True):
                text = _stop(answer.text, requests[number].args[1].get("until") or [])
                texts[number] = self._keep("generate_until", requests[number], text)
        return texts

    def _read_settings(self, given: dict[str, Any]) -> Generation:
        new = given.get("max_gen_toks") or given.get("max_new_tokens") or self.max_gen_toks
        drawn: dict[str, Any] = {}
        if given.get("do_sample") and given.get("temperature", 1.0):
            drawn = {"temperature": float(given.get("temperature", 1.0))}
            drawn |= {"top_p": float(given.get("top_p", 1.0)), "top_k": int(given.get("top_k", 0))}
        return Generation(
            batch_size=self.scorer.batch_size, max_new_tokens=int(new),
            max_source_tokens=max(8, self.scorer.max_source_tokens), **drawn,
        )  # fmt: skip

    def _shorten(self, context: str) -> str:
        """A context whose end the encoder can read."""
        [source] = self.scorer.encode_all([context])
        if len(source) <= self.scorer.max_source_tokens:
            return context
        kept = self._cut(source)[1:-_BEHIND]
        return str(self.scorer.tokenizer.decode(kept, skip_special_tokens=False))

    def _cut(self, source: list[int]) -> list[int]:
        """A source whose end is read: what is asked stands there."""
        spare = len(source) - self.scorer.max_source_tokens
        return source if spare <= 0 else [source[0], *source[1 + spare :]]

    def _encode(self, continuation: str) -> list[int]:
        letter = _LETTER.fullmatch(continuation)
        if self._bare_letters and letter is not None:
            return [self.scorer.find_token(letter[1])]
        return self.scorer.encode_continuation(continuation)

    def _keep(self, kind: str, request: Any, answer: Any) -> Any:
        """Hands an answer to the harness's cache."""
        self.cache_hook.add_partial(kind, request.args, answer)
        return answer


def _answer(score: Continuation) -> tuple[float, bool]:
    return -score.loss, bool(score.is_greedy)


def _stop(text: str, until: str | Sequence[str]) -> str:
    for end in [until] if isinstance(until, str) else until:
        if end:
            text = text.partition(end)[0]
    return text


def _register() -> None:
    """Names the model for the harness, where that is installed."""
    try:
        # Its own models are registered where none is yet: after ours they would not be.
        import lm_eval.models  # noqa: F401
        from lm_eval.api.registry import model_registry, register_model
    except ModuleNotFoundError:
        return
    if NAME not in model_registry:
        register_model(NAME)(OpenBALM)


_register()

__all__ = ["NAME", "OpenBALM"]
