"""Claim: a smaller vocabulary costs English more than Chinese."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmcore.ops.denoising import SpecialIds
from lmcore.reproduce.claim import Claim, Estimates, Measurement, Panel, Plot, Series, Size
from lmcore.reproduce.openba.pretraining import SCALES, Corpus, Pretraining, Scale

_LANGUAGES = {"en": "English", "zh": "Chinese"}
_FOLDER = "corpora"
_PAD, _END, _UNKNOWN = "<pad>", "</s>", "<unk>"
_SENTINELS = [f"<extra_id_{number}>" for number in range(99, -1, -1)]
_PREFIXES = ["<R>", "<S>", "<X>"]


@dataclass(kw_only=True, slots=True, frozen=True)
class _Sizes:
    scale: Scale
    lines: int
    """Of each language, for training."""
    held_out: int
    vocabulary: int
    shares: tuple[float, ...]
    """Of the tokens that may go, those that stay."""


_SIZES: dict[Size, _Sizes] = {
    "tiny": _Sizes(
        scale=SCALES["tiny"], lines=120, held_out=60, vocabulary=2500, shares=(0.5, 0.0)
    ),
    "full": _Sizes(
        scale=replace(SCALES["full"], encoder_layers=1, decoder_layers=2),
        lines=40_000, held_out=600, vocabulary=12_000, shares=(0.75, 0.5, 0.25, 0.0),
    ),
}  # fmt: skip


def measure_vocabularies(seed: int, size: Size) -> Measurement:
    """Returns the losses of a small OpenBA with smaller and smaller vocabularies.

    Args:
        seed: of the choice of lines and of training.
        size: of the model, and how many steps.

    Returns:
        Values named `<language>/<share>`: nats per character of the end of texts (S), where share
        is that of the tokens which may go that stayed; `<language>/rise` is how much more the
        smallest vocabulary costs, in per cent; `kept/<share>` and `tokens/<language>/<share>` are
        the number of tokens and how many of them a character takes; `gap` is the rise of English
        minus that of Chinese.
    """
    from lmcore.compression import count_files, prune_vocabulary
    from lmcore.training.checkpoint import no_bars

    sizes = _SIZES[size]
    train, held_out = _read_lines(seed, sizes)
    values: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name, no_bars():
        folder, whole = Path(name), Path(name, "whole")
        whole.mkdir()
        files = _write_texts(folder, train)
        tokenizer = _train_tokenizer(files, sizes.vocabulary)
        tokenizer.save(str(whole / "tokenizer.json"))
        turns = [line for pair in zip(*train.values(), strict=True) for line in pair]
        corpus = _group(tokenizer, turns, held_out["en"], sizes.scale)
        run = Pretraining(seed, sizes.scale, corpus, corpus.denoisers).train()
        run.model.save_pretrained(whole)
        _measure(values, "1", whole, held_out, sizes.scale)
        groups = [(language, str(file)) for language, file in zip(train, files, strict=True)]
        counts = count_files(files, whole, folder / "counts", groups=groups).counts
        stays = prune_vocabulary(whole, folder / "all", counts, tokenizer.get_vocab_size())
        least = stays.required + stays.characters
        for share in sizes.shares:
            keep = round(least + share * (tokenizer.get_vocab_size() - least))
            target = folder / f"share {share}"
            prune_vocabulary(whole, target, counts, keep, logits=False)
            _measure(values, f"{share:g}", target, held_out, sizes.scale)
    for language in _LANGUAGES:
        before, after = values[f"{language}/1"], values[f"{language}/{sizes.shares[-1]:g}"]
        values[f"{language}/rise"] = 100 * (after / before - 1)
    values["gap"] = values["en/rise"] - values["zh/rise"]
    return Measurement(values=values)


def _read_lines(seed: int, sizes: _Sizes) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Lines of each language, for training and held out, in an order of the seed."""
    generator = np.random.default_rng(seed)
    train, held_out = {}, {}
    for language in _LANGUAGES:
        files = sorted(Path(os.environ["LMCORE_DATA"], _FOLDER, language).glob("*.txt"))
        found = [line for file in files for line in file.read_text().splitlines() if line.strip()]
        lines = [found[index] for index in generator.permutation(len(found))]
        held_out[language] = lines[: sizes.held_out]
        train[language] = lines[sizes.held_out :][: sizes.lines]
    # As many of each.
    count = min(map(len, train.values()))
    return {language: lines[:count] for language, lines in train.items()}, held_out


def _write_texts(folder: Path, texts: Mapping[str, Sequence[str]]) -> list[Path]:
    files = []
    for language, lines in texts.items():
        files.append(folder / f"{language}.txt")
        files[-1].write_text("".join(f"{line}\n" for line in lines))
    return files


def _train_tokenizer(files: Sequence[Path], size: int) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.train(
        [str(file) for file in files],
        trainers.UnigramTrainer(
            vocab_size=size, unk_token=_UNKNOWN, show_progress=False,
            special_tokens=[_PAD, _END, _UNKNOWN, *_SENTINELS, *_PREFIXES],
        ),
    )  # fmt: skip
    return tokenizer


def _encode(tokenizer: Any, lines: Sequence[str]) -> NDArray[np.int64]:
    end = [tokenizer.token_to_id(_END)]
    encoded = tokenizer.encode_batch([*lines], add_special_tokens=False)
    return np.array([number for item in encoded for number in (*item.ids, *end)], np.int64)


def _group(tokenizer: Any, train: Sequence[str], tests: Sequence[str], scale: Scale) -> Corpus:
    def cut(lines: Sequence[str]) -> NDArray[np.int64]:
        stream = _encode(tokenizer, lines)
        return stream[: len(stream) // scale.length * scale.length].reshape(-1, scale.length)

    ids = SpecialIds(
        vocabulary_size=tokenizer.get_vocab_size(), sentinel_count=len(_SENTINELS),
        first_sentinel=tokenizer.token_to_id(_SENTINELS[-1]), eos=tokenizer.token_to_id(_END),
    )  # fmt: skip
    prefixes = {name[1]: tokenizer.token_to_id(name) for name in _PREFIXES}
    return Corpus(
        train=cut(train), test=cut(tests), vocabulary_size=ids.vocabulary_size, ids=ids,
        prefixes=prefixes,
    )  # fmt: skip


def _measure(
    values: dict[str, float],
    share: str,
    folder: Path,
    texts: Mapping[str, Sequence[str]],
    scale: Scale,
) -> None:
    """Adds what a model's folder loses of each character."""
    from tokenizers import Tokenizer

    from lmcore.openba import OpenBAForConditionalGeneration
    from lmcore.openba.objective import measure_losses

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    model = OpenBAForConditionalGeneration.from_pretrained(folder).eval()
    values[f"kept/{share}"] = tokenizer.get_vocab_size()
    for language, lines in texts.items():
        corpus = _group(tokenizer, [], lines, scale)
        suffix = corpus.denoisers[2]
        loss = measure_losses(
            model, corpus.test, denoisers=(suffix,), ids=corpus.ids, batch_size=64
        )["loss"]
        tokens = len(_encode(tokenizer, lines)) / sum(len(line) + 1 for line in lines)
        values[f"{language}/{share}"] = loss * tokens
        values[f"tokens/{language}/{share}"] = tokens


def english_loses_more(estimates: Estimates) -> bool:
    """Returns whether English loses the larger share, by more than the spread.

    Args:
        estimates: the numbers of `measure_vocabularies`.
    """
    gap = estimates["gap"]
    return gap.mean > gap.spread


def _shares(estimates: Estimates) -> list[str]:
    found = [name.removeprefix("kept/") for name in estimates if name.startswith("kept/")]
    return sorted(found, key=float, reverse=True)


def _describe(estimates: Estimates) -> str:
    lines = ["nats per character of the end of texts; right after the cut"]
    for share in _shares(estimates):
        losses = (
            f"{name} {estimates[f'{language}/{share}'].format(2)}"
            for language, name in _LANGUAGES.items()
        )
        lines.append(f"{estimates[f'kept/{share}'].mean:,.0f} tokens: {', '.join(losses)}")
    for language, name in _LANGUAGES.items():
        lines.append(f"rise of {name}: {estimates[f'{language}/rise'].format(1, sign=True)} %")
    return "\n".join(lines)


def _plot(estimates: Estimates) -> tuple[Plot, ...]:
    shares = _shares(estimates)
    series = tuple(
        Series(
            name=name,
            y=tuple(estimates[f"{language}/{share}"].mean for share in shares),
            spread=tuple(estimates[f"{language}/{share}"].spread for share in shares),
        )
        for language, name in _LANGUAGES.items()
    )
    kept = tuple(f"{estimates[f'kept/{share}'].mean:,.0f}" for share in shares)
    return (
        Plot(
            title="Loss of held-out texts", kind="bars", x_label="tokens that stayed",
            y_label="nats per character", x=kept, panels=(Panel(title="", series=series),),
        ),
    )  # fmt: skip


CLAIMS = (
    Claim(
        id="vocabulary_size",
        system="compression",
        statement="A smaller vocabulary costs English more than Chinese.",
        source="OpenBA-V2, arXiv 2405.05957, figure 8",
        paper="from 120,000 to 20,000 pieces Chinese tasks hold or improve, English ones fall",
        setting=(
            "A unigram tokenizer and a small OpenBA, both trained from nothing on lines of "
            "Shakespeare, of a Chinese novel and of Chinese headlines, as many of each language. "
            "The least frequent tokens are cut, down to those that must stay: special ones and all "
            "single characters that occur. Nothing is trained again."
        ),
        measure=measure_vocabularies,
        describe=_describe,
        rule="The loss of English rises by the larger share, by more than the spread.",
        expected="reproduced",
        needs=(f"data:{_FOLDER}",),
        sizes=("tiny", "full"),
        holds=english_loses_more,
        plot=_plot,
    ),
)
