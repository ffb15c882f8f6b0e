"""Scores of what may answer a source: of single next tokens, and of whole continuations.

The encoder reads `<S> {text} <extra_id_0>`, the decoder begins with its start token and
`<extra_id_0>`. Each source is encoded once, whatever the number of its continuations: they share
one row of the decoder, in which none sees another, so that the keys and values of the source are
computed once, too.

Shapes: B sources, S source tokens, T target tokens of all continuations, D hidden size.

Source: OpenBA (arXiv 2309.10706), the released evaluation; specification section 8.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from lmcore._extras import optional_imports
from lmcore.openba.models import check_fit
from lmcore.ops.cross_entropy import cross_entropy

with optional_imports():
    import torch
    from torch import Tensor
    from torch.nn import functional

_PREFIX, _SENTINEL = "<S>", "<extra_id_0>"
# What stays of a source that is cut: prefix, sentinel and end, and a token.
LEAST_SOURCE = 4
# Logits that exist at one time: 64 MB of float32.
_LOGITS = 1 << 24
# A CPU gains nothing from larger batches, and loses what its caches hold.
_CPU_TOKENS = 1 << 10


class Continuation(NamedTuple):
    """Scores of a continuation."""

    loss: float
    """Sum of the cross-entropies of its tokens."""
    tokens: int
    is_greedy: bool | None
    """Whether each of its tokens is the likeliest at its place; None where nobody asked."""


class AnswerScorer:
    """Scores answers with a model of OpenBA.

    Batches are made of sources of like lengths. What a source shares its batch with changes no
    score but by rounding.

    Args:
        model: an `OpenBAForConditionalGeneration`; it is put into evaluation mode. Its attention
            must take masks of three dimensions, as torch's does.
        tokenizer: of the model.
        max_source_tokens: that the encoder reads, the frame included; as many as the model was
            trained with if None.
        batch_size: sources that are scored together; fewer on a CPU, where they are long.

    Raises:
        ValueError: the tokenizer is not the model's, or lacks the frame's tokens, or a number is
            out of its range.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from lmcore.openba import OpenBAConfig, OpenBAForConditionalGeneration, OpenBATokenizer
        >>> from lmcore.worlds.openba import write_piece_file
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = write_piece_file(Path(folder, "spiece.model"))
        ...     tokenizer = OpenBATokenizer(Path(folder, "spiece.model"))
        >>> model = OpenBAForConditionalGeneration(OpenBAConfig(
        ...     vocab_size=tokenizer.padded_size(), hidden_size=8, encoder_layers=1,
        ...     decoder_layers=2))
        >>> scorer = AnswerScorer(model, tokenizer)
        >>> source = scorer.encode("Ada met")
        >>> [found] = scorer.score_continuations([source], [[[5, 6], [7]]])
        >>> [score.tokens for score in found]
        [2, 1]
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        max_source_tokens: int | None = None,
        batch_size: int = 16,
    ) -> None:
        check_fit(model, tokenizer)
        for name in (_PREFIX, _SENTINEL):
            if _find_id(tokenizer, name) is None:
                raise ValueError(f"the tokenizer must have the token {name}")
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1: got {batch_size}")
        if max_source_tokens is not None and max_source_tokens < LEAST_SOURCE:
            raise ValueError(
                f"max_source_tokens must be at least {LEAST_SOURCE}: got {max_source_tokens}"
            )
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.batch_size = batch_size
        self.max_source_tokens = max_source_tokens or max(model.config.max_seq_length, LEAST_SOURCE)
        self.start = [model.config.decoder_start_token_id, self.find_token(_SENTINEL)]
        """What the decoder begins with."""
        # Maps that are quantized, adapted or elsewhere are not taken from the modules.
        maps = [block.inter_attn.kv for block in model.decoder.block]
        self._has_plain_maps = model.config._attn_implementation in ("sdpa", "eager") and all(
            type(kv) is torch.nn.Linear and not kv.weight.is_meta for kv in maps
        )

    def encode(self, text: str) -> list[int]:
        """Returns the ids that the encoder reads, as many as there are.

        Args:
            text: the source, without its frame.
        """
        return self.encode_all([text])[0]

    def encode_all(self, texts: Sequence[str]) -> list[list[int]]:
        """Returns the ids of many sources, which are cut into pieces together.

        Args:
            texts: the sources, without their frames.
        """
        framed = [f"{_PREFIX} {text} {_SENTINEL}" for text in texts]
        ids: list[list[int]] = self.tokenizer(framed, verbose=False)["input_ids"] if framed else []
        return ids

    def cut(self, source: list[int]) -> list[int]:
        """Returns a source of at most `max_source_tokens`: the sentinel and the end stay.

        Args:
            source: of `encode`.
        """
        most = self.max_source_tokens
        return source if len(source) <= most else [*source[: most - 2], *source[-2:]]

    def encode_continuation(self, text: str) -> list[int]:
        """Returns the ids of a text behind `<extra_id_0>`, without an end.

        Args:
            text: the continuation.
        """
        return self.encode_continuations([text])[0]

    def encode_continuations(self, texts: Sequence[str]) -> list[list[int]]:
        """Returns the ids of many texts behind `<extra_id_0>`, which are cut up together.

        Args:
            texts: the continuations.
        """
        framed = [f"{_SENTINEL} {text}" for text in texts]
        found = self.tokenizer(framed, verbose=False)["input_ids"] if framed else []
        return [ids[1:-1] for ids in found]

    def find_token(self, piece: str) -> int:
        """Returns the id of a piece.

        Args:
            piece: such as `A`, without the mark of a word's start.

        Raises:
            ValueError: the tokenizer has no such piece.
        """
        found = _find_id(self.tokenizer, piece)
        if found is None:
            raise ValueError(f"the tokenizer has no token {piece!r}, which would be an answer")
        return found

    def score_tokens(
        self,
        sources: Sequence[list[int]],
        candidates: Sequence[Sequence[int]],
        *,
        start: Sequence[int] = (),
        progress: Callable[[int], object] | None = None,
    ) -> list[list[float]]:
        """Returns the logits of candidates for the next token of each source.

        Args:
            sources: ids of `encode`.
            candidates: for each source, ids.
            start: what the decoder has written behind `<extra_id_0>`.
            progress: called with the number of sources of each batch that is done.
        """
        scores: list[list[float]] = [[] for _ in sources]
        for rows in self._batch(sources, progress):
            targets = [_Tree([*self.start, *start], []) for _ in rows]
            states = self._decode([sources[row] for row in rows], targets)[:, -1]
            found = self._head(states, sorted({t for row in rows for t in candidates[row]}))
            for place, row in enumerate(rows):
                scores[row] = [found[token][place] for token in candidates[row]]
        return scores

    def score_continuations(
        self,
        sources: Sequence[list[int]],
        continuations: Sequence[Sequence[Sequence[int]]],
        *,
        finds_greedy: bool = True,
        progress: Callable[[int], object] | None = None,
    ) -> list[list[Continuation]]:
        """Returns the losses of the continuations of each source.

        Args:
            sources: ids of `encode`.
            continuations: for each source, ids of any number of texts behind `<extra_id_0>`.
            finds_greedy: whether to say of each if it is the likeliest text, which takes all
                logits of each place, and as long again.
            progress: called with the number of sources of each batch that is done.
        """
        scores: list[list[Continuation]] = [[] for _ in sources]
        for rows in self._batch(sources, progress):
            trees = [_Tree(self.start, continuations[row]) for row in rows]
            states = self._decode([sources[row] for row in rows], trees)
            losses, hits = self._read_losses(states, trees, finds_greedy)
            at = 0
            for row, tree in zip(rows, trees, strict=True):
                for count in tree.counts:
                    part = slice(at, at + count)
                    total = float(losses[part].sum()) if count else 0.0
                    is_greedy = None if hits is None else bool(hits[part].all())
                    scores[row].append(Continuation(total, count, is_greedy))
                    at += count
        return scores

    def _batch(
        self, sources: Sequence[list[int]], progress: Callable[[int], object] | None
    ) -> Iterator[list[int]]:
        """Places of sources of like lengths, the longest first."""
        order = sorted(range(len(sources)), key=lambda row: (-len(sources[row]), row))
        size = self.batch_size
        while order:
            if self.model.device.type == "cpu":
                size = min(self.batch_size, max(1, _CPU_TOKENS // len(sources[order[0]])))
            rows, order = order[:size], order[size:]
            yield rows
            if progress is not None:
                progress(len(rows))

    @torch.inference_mode()
    def _decode(self, sources: list[list[int]], trees: list[_Tree]) -> Tensor:
        """The decoder's states of each row's tree, `[B, T, D]`."""
        model, pad = self.model, self.model.config.pad_token_id
        device = model.device
        ids, seen = _fill(sources, pad)
        mask = self._hide(seen)
        positions = torch.arange(ids.shape[1], device=device)[None]
        encoded = model.encoder(ids.to(device), mask, positions).last_hidden_state
        target, _ = _fill([tree.ids for tree in trees], pad)
        places, _ = _fill([tree.places for tree in trees], 0)
        length = target.shape[1]
        options: dict[str, Any] = {}
        if any(tree.counts for tree in trees):
            visible = torch.stack([tree.mask(length) for tree in trees])
            options = {"attention_mask": visible.to(device), "position_ids": places.to(device)}
        output = model.decoder(
            # Keys and values of the source cost as much as K queries with the maps on their side.
            projects_source=not (self._has_plain_maps and 2 * length <= model.config.kv_channels),
            inputs_embeds=model.encoder.embed_tokens(target.to(device)),
            encoder_hidden_states=encoded,
            encoder_attention_mask=mask,
            use_cache=False,
            **options,
        )
        states: Tensor = output.last_hidden_state
        if model.config.tie_word_embeddings:
            states = states * model.config.hidden_size**-0.5
        return states

    def _hide(self, seen: Tensor) -> Tensor | None:
        """What the model is told of the padding behind sources `[B, S]`."""
        if bool(seen.all()):
            return None
        seen = seen.to(self.model.device)
        if self.model.config._attn_implementation != "sdpa":
            return seen
        # A row for all queries: torch's attention would make a mask of queries x keys in each
        # block of what is true and false.
        lowest = torch.zeros(seen.shape, dtype=self.model.dtype, device=seen.device)
        return lowest.masked_fill(seen == 0, -math.inf)[:, None, None]

    @torch.inference_mode()
    def _head(self, states: Tensor, tokens: list[int]) -> dict[int, list[float]]:
        """Logits `[B]` of some tokens, by those rows of the output layer alone."""
        head = self.model.lm_head
        ids = torch.tensor(tokens, device=states.device)
        bias = None if head.bias is None else head.bias[ids]
        logits = functional.linear(states, head.weight[ids], bias).float().T.tolist()
        return dict(zip(tokens, logits, strict=True))

    @torch.inference_mode()
    def _read_losses(
        self, states: Tensor, trees: list[_Tree], finds_greedy: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Of each token of each continuation its cross-entropy, and whether it is likeliest.

        The logits of a place are made once, whatever the number of continuations that go on there.
        """
        rows = [row for row, tree in enumerate(trees) for _ in tree.labels]
        found = [label for tree in trees for label in tree.labels]
        spots = [place for tree in trees for place in tree.sources]
        numbers: dict[tuple[int, int], int] = {}
        chosen = [numbers.setdefault(spot, len(numbers)) for spot in zip(rows, spots, strict=True)]
        if not numbers:
            return torch.zeros(0), torch.zeros(0, dtype=torch.bool)
        labels, places = torch.tensor([found, chosen], device=states.device)
        wanted = states[tuple(torch.tensor([*numbers], device=states.device).T)]
        first = torch.zeros(len(wanted), dtype=torch.long, device=states.device)
        first[places] = labels
        # The losses of other labels at a place are those of one label, but for the logits.
        head = self.model.lm_head
        losses = cross_entropy(wanted, head.weight, first, bias=head.bias, reduction="none")
        norms = losses + self._read_logits(wanted, first)
        losses = norms[places] - self._read_logits(wanted[places], labels)
        if not finds_greedy:
            return losses.double().cpu(), None
        size = max(1, _LOGITS // self.model.config.vocab_size)
        likeliest = torch.cat([head(part).argmax(-1) for part in wanted.split(size)])
        return losses.double().cpu(), (likeliest[places] == labels).cpu()

    def _read_logits(self, states: Tensor, tokens: Tensor) -> Tensor:
        """The logit of a token for each of the states `[P, D]`, `[P]` float32."""
        head = self.model.lm_head
        logits: Tensor = (states.float() * head.weight[tokens].float()).sum(-1)
        if head.bias is not None:
            logits = logits + head.bias[tokens].float()
        return logits


class _Tree:
    """Continuations in one row, each token once however many of them begin alike with it.

    Args:
        start: ids that all continuations stand behind.
        continuations: their ids.
    """

    def __init__(self, start: Sequence[int], continuations: Sequence[Sequence[int]]) -> None:
        self.ids = list(start)
        self.places = list(range(len(start)))
        self.counts = [len(ids) for ids in continuations]
        self.labels = [token for ids in continuations for token in ids]
        self.sources: list[int] = []
        """Where the state stands that a label is read from."""
        self._parents: list[int] = []
        self._start = len(start)
        known: dict[tuple[int, int], int] = {}
        for ids in continuations:
            parent = self._start - 1
            for depth, token in enumerate(ids):
                self.sources.append(parent)
                if depth + 1 == len(ids):
                    break  # the last token of one is read, and never an input
                number = known.setdefault((parent, token), len(self.ids))
                if number == len(self.ids):
                    self.ids.append(token)
                    self.places.append(self._start + depth)
                    self._parents.append(parent)
                parent = number

    def mask(self, length: int) -> Tensor:
        """What each token sees, `[T, T]` bool: itself and what it stands behind, padding itself."""
        visible = torch.eye(length, dtype=torch.bool)
        visible[: self._start] = visible[: self._start].new_ones(self._start, length).tril()
        for number, parent in enumerate(self._parents, start=self._start):
            visible[number] |= visible[parent]
        return visible


def _find_id(tokenizer: Any, piece: str) -> int | None:
    """The id of a piece; to list the whole vocabulary takes longer than to answer a question."""
    found = tokenizer.convert_tokens_to_ids(piece)
    is_known = found is not None and tokenizer.convert_ids_to_tokens(found) == piece
    return int(found) if is_known else None


def _fill(rows: Sequence[Sequence[int]], value: int) -> tuple[Tensor, Tensor]:
    """Rows as a table `[B, longest]`, filled up behind, and where something stands in it."""
    longest = max(map(len, rows))
    table = torch.full((len(rows), longest), value)
    for number, row in enumerate(rows):
        table[number, : len(row)] = torch.tensor(row)
    lengths = torch.tensor([len(row) for row in rows])
    return table, (torch.arange(longest) < lengths[:, None]).long()
