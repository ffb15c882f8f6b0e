"""A scorer of a sequence classifier of transformers, from a folder that is here.

A text that is longer than the model's window is read in windows with an overlap, and gets the
largest of their scores: nothing is truncated. `windowed_texts` counts them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lmcore._extras import optional_imports

with optional_imports():
    import transformers
    from torch import Tensor, nn

    from lmcore._folder_models import compute_by_length, load_folder
    from lmcore.training.fingerprint import fingerprint_model

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_TOXIC = ("toxicity", "toxic")
_UNLIMITED = 1 << 20
_OVERLAP_SHARE = 8


class ClassifierScorer:
    """The probability that a classifier gives one of its labels.

    Args:
        tokenizer: of transformers.
        model: a sequence classifier, on its device.
        label: which of its labels counts.
        labels: all of them, in order; those of the configuration if None.
        is_multi_label: whether labels have a probability each (sigmoid), or one together
            (softmax); what the configuration says if None.
        batch_size: windows at once; scores do not depend on it but for rounding.

    Raises:
        ValueError: there is no such label, or none that is called toxic or toxicity.

    Example:
        >>> ClassifierScorer.load("nowhere")
        Traceback (most recent call last):
        ValueError: nowhere: no such folder of a model
    """

    def __init__(
        self,
        tokenizer: Any,
        model: Any,
        *,
        label: str | None = None,
        labels: Sequence[str] | None = None,
        is_multi_label: bool | None = None,
        batch_size: int = 32,
    ) -> None:
        names = _list_labels(model.config) if labels is None else [*labels]
        if is_multi_label is None:
            kind = getattr(model.config, "problem_type", None)
            is_multi_label = kind == "multi_label_classification" or len(names) == 1
        self.label = choose_label(names, label)
        self.windowed_texts = 0
        self._tokenizer, self._model = tokenizer, model
        self._place, self._is_multi_label = names.index(self.label), is_multi_label
        self._pad = tokenizer.pad_token_id
        if self._pad is not None and model.config.pad_token_id is None:
            model.config.pad_token_id = self._pad
        # Without a mark for it a decoder cannot tell where a shorter row ends.
        self._batch_size = batch_size if self._pad is not None else 1
        self.window_tokens = _find_window(tokenizer, model)
        self.key = (
            f"classifier {fingerprint_model(model, tokenizer)} {self._place} "
            f"{'sigmoid' if is_multi_label else 'softmax'} {self.window_tokens}"
        )

    @classmethod
    def load(
        cls,
        folder: str | os.PathLike[str],
        *,
        label: str | None = None,
        device: str = "auto",
        batch_size: int = 32,
    ) -> ClassifierScorer:
        """Returns the scorer of a folder.

        Args:
            folder: of any `AutoModelForSequenceClassification` and its tokenizer.
            label: which label counts; the one called toxic or toxicity if None.
            device: as for `lmcore.training.processes.find_device`.
            batch_size: windows at once.

        Raises:
            ValueError: the folder holds no such model, or the model no such label.
        """
        kind = transformers.AutoModelForSequenceClassification
        tokenizer, model = load_folder(folder, kind, device, unused="")
        try:
            return cls(tokenizer, model, label=label, batch_size=batch_size)
        except ValueError as error:
            raise ValueError(f"{os.fspath(folder)}: {error}") from None

    def __call__(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """Returns the probability of the label for each text.

        Args:
            texts: N texts.

        Raises:
            ValueError: a text holds a lone surrogate, or the tokenizer cannot cut windows.
        """
        import numpy as np

        windows, owners = [], []
        for index, text in enumerate(texts):
            cut = self._cut(index, text)
            self.windowed_texts += len(cut) > 1
            windows += cut
            owners += [index] * len(cut)
        scores = np.zeros(len(texts))
        if windows:
            found = compute_by_length(
                windows, self._batch_size, self._model.device, self._compute, pad=self._pad or 0
            )
            np.maximum.at(scores, owners, found)
        return scores

    def _cut(self, index: int, text: str) -> list[list[int]]:
        """The windows of a text, as token ids with the tokenizer's marks."""
        try:
            text.encode()
        except UnicodeEncodeError:
            raise ValueError(f"texts[{index}] holds a lone surrogate") from None
        # Where no token comes of it, the model reads a mark, so that it can answer.
        row: list[int] = self._tokenizer(text, verbose=False)["input_ids"] or [self._pad or 0]
        if len(row) <= self.window_tokens:
            return [row]
        if not self._tokenizer.is_fast:
            raise ValueError(
                f"texts[{index}] has {len(row)} tokens: the model takes {self.window_tokens}, "
                "and its tokenizer cannot cut windows"
            )
        cut: list[list[int]] = self._tokenizer(
            text, truncation=True, max_length=self.window_tokens,
            stride=self.window_tokens // _OVERLAP_SHARE, return_overflowing_tokens=True,
        )["input_ids"]  # fmt: skip
        return cut

    def _compute(self, tokens: Tensor, mask: Tensor) -> list[float]:
        logits = self._model(input_ids=tokens, attention_mask=mask).logits.double()
        shares = logits.sigmoid() if self._is_multi_label else logits.softmax(-1)
        scores: list[float] = shares[:, self._place].tolist()
        return scores


def choose_label(labels: Sequence[str], label: str | None) -> str:
    """Returns the label that counts.

    Args:
        labels: those that a model has.
        label: its name, in small or capital letters; the one called toxic or toxicity if None.

    Raises:
        ValueError: there is none, or two.

    Example:
        >>> choose_label(["neutral", "TOXIC"], None)
        'TOXIC'
    """
    wanted = _TOXIC if label is None else (label.lower(),)
    found = [name for name in labels if name == label] or [
        name for name in labels if name.lower() in wanted
    ]
    if len(found) != 1:
        asked = "toxic or toxicity" if label is None else repr(label)[:60]
        raise ValueError(f"no one label is called {asked}: {', '.join(labels)[:300]}; name one")
    return found[0]


def _list_labels(config: Any) -> list[str]:
    names: Mapping[int, str] = config.id2label
    return [str(names.get(index, f"LABEL_{index}")) for index in range(config.num_labels)]


def _find_window(tokenizer: Any, model: nn.Module) -> int:
    """Tokens that the model has positions for."""
    limits = [_UNLIMITED, int(min(tokenizer.model_max_length, _UNLIMITED))]
    most = getattr(model.config, "max_position_embeddings", None)
    if isinstance(most, int):
        limits.append(most)
    for name, part in model.named_modules():
        # RoBERTa counts its positions from behind that of the padding.
        if name.endswith("position_embeddings") and isinstance(part, nn.Embedding):
            first = 0 if part.padding_idx is None else part.padding_idx + 1
            limits.append(part.num_embeddings - first)
    return min(limits)
