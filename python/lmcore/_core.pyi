# Types of the compiled module. Users call `lmcore.ops`.

import os
from collections.abc import Callable, Sequence
from typing import Any, Self, TypeAlias, final

import numpy as np
from numpy.typing import NDArray

_Words: TypeAlias = list[str]
_Parsed: TypeAlias = tuple[_Words, _Words, _Words, str]
_MatchRow: TypeAlias = tuple[
    _Words, str, list[int], _Parsed, list[int], list[int], list[tuple[int, int]], list[int]
]
_Counts: TypeAlias = tuple[int, int, int]
_Kinds: TypeAlias = tuple[int, int, int, int]
_WorstRow: TypeAlias = tuple[int, str, int, _Words, _Words, _Words, str, str, list[int]]
_DatasetSums: TypeAlias = tuple[
    int,
    int,
    tuple[int, int, int],
    int,
    tuple[str, int] | None,
    tuple[int, int, int],
    int,
    dict[str, int],
    _Counts,
    _Kinds,
    _Words,
    list[_WorstRow],
]
_Evaluation: TypeAlias = tuple[dict[str, _DatasetSums], int, _Words]
_Reversed: TypeAlias = tuple[NDArray[np.int64], NDArray[np.uint32], NDArray[np.int64]]
_Rules: TypeAlias = tuple[bool, bool, bool, bool, int, int]
_Cleaned: TypeAlias = tuple[list[str | None], NDArray[np.uint8], list[tuple[int, int]]]
_BackTokenize: TypeAlias = Callable[[list[str]], list[str]]

__all__ = [
    "Denoising",
    "Duplicates",
    "FalseNegativeMemory",
    "SequenceSampler",
    "__version__",
    "add_losses",
    "align_file",
    "align_row",
    "align_words",
    "choose_candidates",
    "classify_errors",
    "clean_texts",
    "compute_quality",
    "count_entities",
    "count_entities_batch",
    "count_ids",
    "count_ngrams",
    "decode_spans",
    "draw_by_loss",
    "draw_neighbours",
    "draw_timesteps",
    "find_neighbours",
    "group_by_user",
    "hash_texts",
    "list_excluded",
    "list_segments",
    "locate_words",
    "longest_common_subsequence_integers",
    "longest_common_subsequence_strings",
    "make_betas",
    "mask_segments",
    "match_labels",
    "match_labels_batch",
    "most_threads",
    "normalize_text",
    "parse_generation",
    "philox4x32",
    "random_below",
    "random_bits",
    "random_uniform",
    "rank_ids",
    "rank_targets",
    "ranking_metrics",
    "read_columns",
    "remap_ids",
    "score_examples",
    "score_files",
    "self_bleu",
    "sentence_bleu",
    "shift_timesteps",
    "split_words",
    "weigh_timesteps",
    "write_examples_batch",
]

__version__: str

def most_threads() -> int: ...
def split_words(text: str, /) -> list[tuple[int, int]]: ...
def locate_words(text: str, words: Sequence[str], /) -> list[tuple[int, int]]: ...
def longest_common_subsequence_strings(
    a: Sequence[Any], b: Sequence[Any], /
) -> NDArray[np.int64]: ...
def longest_common_subsequence_integers(
    a: NDArray[np.int64], b: NDArray[np.int64], /
) -> NDArray[np.int64]: ...
def parse_generation(text: str, /) -> _Parsed: ...
def align_words(words: Sequence[str], generated: Sequence[str], /) -> tuple[str, list[int]]: ...
def match_labels(
    words: Sequence[str],
    generation: str,
    types: Sequence[str],
    comparison_words: Sequence[str] | None,
    split_generated: bool,
    /,
) -> _MatchRow: ...
def match_labels_batch(
    words: Sequence[Sequence[str]],
    generations: Sequence[str],
    types: Sequence[Sequence[str]],
    comparison_words: Sequence[Sequence[str]] | None,
    threads: int | None,
    /,
) -> list[_MatchRow]: ...
def write_examples_batch(
    heads: Sequence[str],
    types: Sequence[Sequence[str]],
    words: Sequence[Sequence[str]],
    labels: Sequence[Sequence[str]],
    target_labels: Sequence[Sequence[str]] | None,
    datasets: Sequence[str] | None,
    template: Sequence[str],
    context: int | None,
    threads: int | None,
    /,
) -> tuple[bytes, int]: ...

@final
class Denoising:
    def __new__(
        cls,
        denoisers: list[tuple[str, float, float, int | None, float, int | None, str]],
        ids: tuple[int, int, int, int, int, int, int],
        /,
    ) -> Self: ...
    def plan(
        self,
        lengths: NDArray[np.int64],
        indices: NDArray[np.uint64],
        seed: int,
        given: NDArray[np.int64] | None,
        tasks: NDArray[np.int64],
        encoder_lengths: NDArray[np.int64],
        decoder_lengths: NDArray[np.int64],
        /,
    ) -> None: ...
    def write(
        self,
        tokens: NDArray[Any],
        starts: NDArray[np.int64],
        ends: NDArray[np.int64],
        indices: NDArray[np.uint64],
        seed: int,
        tasks: NDArray[np.int64],
        encoder: NDArray[Any],
        encoder_offsets: NDArray[np.int64],
        decoder: NDArray[Any],
        labels: NDArray[Any],
        decoder_offsets: NDArray[np.int64],
        threads: int | None,
        /,
    ) -> None: ...
    def apply_spans(
        self, tokens: NDArray[np.int64], lengths: NDArray[np.int64], prefix: int | None, /
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]: ...
    def write_pairs(
        self,
        sources: NDArray[np.int64],
        source_offsets: NDArray[np.int64],
        targets: NDArray[np.int64],
        target_offsets: NDArray[np.int64],
        prefix: int | None,
        encoder: NDArray[np.int64],
        encoder_offsets: NDArray[np.int64],
        decoder: NDArray[np.int64],
        labels: NDArray[np.int64],
        decoder_offsets: NDArray[np.int64],
        encoder_lengths: NDArray[np.int64],
        decoder_lengths: NDArray[np.int64],
        dropped: NDArray[np.int64],
        /,
    ) -> None: ...

@final
class Duplicates:
    def __new__(cls, key: bytes, max_memory: int | None, keeps_added: bool, /) -> Self: ...
    def __len__(self, /) -> int: ...
    def memory_bytes(self, /) -> int: ...
    def add(self, texts: Sequence[str], threads: int | None, /) -> NDArray[np.bool_]: ...
    def remove(
        self,
        texts: Sequence[str],
        documents: bool,
        sentences: int,
        rules: _Rules,
        threads: int | None,
        /,
    ) -> _Cleaned: ...
    def take_added(self, /) -> bytes: ...
    def load(self, stored: bytes, /) -> None: ...

@final
class FalseNegativeMemory:
    def __new__(cls, threshold: int | None, max_keys: int | None, /) -> Self: ...
    def inject(
        self, users: NDArray[np.int64], positives: NDArray[np.int64], negatives: NDArray[Any], /
    ) -> _Reversed: ...
    def inject_packed(
        self,
        users: NDArray[np.int64],
        flat_indices: NDArray[np.int64],
        max_length: int,
        negatives: NDArray[Any],
        /,
    ) -> _Reversed: ...
    def observe(
        self,
        users: NDArray[np.int64],
        positives: NDArray[np.int64],
        negatives: NDArray[Any],
        scores: NDArray[Any],
        reversed_: NDArray[np.int64],
        /,
    ) -> int: ...
    def observe_packed(
        self,
        users: NDArray[np.int64],
        flat_indices: NDArray[np.int64],
        max_length: int,
        negatives: NDArray[Any],
        scores: NDArray[Any],
        reversed_: NDArray[np.int64],
        /,
    ) -> int: ...
    def state(
        self, /
    ) -> tuple[
        NDArray[np.uint32],
        NDArray[np.int64],
        NDArray[np.uint32],
        NDArray[np.uint64],
        NDArray[np.uint32],
        int,
    ]: ...
    def load(
        self,
        hard_keys: NDArray[np.uint32],
        hard_offsets: NDArray[np.int64],
        hard_items: NDArray[np.uint32],
        count_keys: NDArray[np.uint64],
        counts: NDArray[np.uint32],
        evicted_count: int,
        /,
    ) -> None: ...
    @property
    def hard_count(self) -> int: ...
    @property
    def key_count(self) -> int: ...
    @property
    def reversed_key_count(self) -> int: ...
    @property
    def evicted_count(self) -> int: ...
    @property
    def memory_bytes(self) -> int: ...

def decode_spans(labels: Sequence[str], scheme: str, /) -> list[tuple[int, int, str]]: ...
def normalize_text(text: str, /) -> str: ...
def count_entities(
    words: Sequence[str], gold: Sequence[str], predicted: Sequence[str], scheme: str, /
) -> _Counts: ...
def classify_errors(gold: Sequence[str], predicted: Sequence[str], scheme: str, /) -> _Kinds: ...
def count_entities_batch(
    words: Sequence[Sequence[str]] | None,
    gold: Sequence[Sequence[str]],
    predicted: Sequence[Sequence[str]],
    scheme: str,
    threads: int | None,
    /,
) -> tuple[_Counts, _Kinds]: ...
def compute_quality(
    gold: int, predicted: int, correct: int, scheme: str, /
) -> tuple[float, float, float]: ...
def score_examples(
    examples: list[Any],
    scheme: str,
    threads: int | None,
    worst: int,
    skip_bad_rows: bool,
    back_tokenize: _BackTokenize | None,
    /,
) -> _Evaluation: ...
def score_files(
    paths: list[str | os.PathLike[str]],
    names: list[tuple[str, str]] | None,
    scheme: str,
    threads: int | None,
    worst: int,
    skip_bad_rows: bool,
    back_tokenize: _BackTokenize | None,
    progress: Callable[[int], None] | None,
    /,
) -> _Evaluation: ...
def align_file(
    input_path: str | os.PathLike[str],
    output_path: str | os.PathLike[str],
    scheme: str,
    threads: int | None,
    skip_bad_rows: bool,
    back_tokenize: _BackTokenize | None,
    progress: Callable[[int], None] | None,
    /,
) -> tuple[int, int, list[str]]: ...

@final
class SequenceSampler:
    def __new__(
        cls,
        offsets: NDArray[np.int64],
        items: NDArray[np.int64],
        weights: NDArray[np.uint32] | None,
        item_count: int,
        batch_size: int,
        max_length: int,
        negative_count: int,
        seed: int,
        order: str,
        threads: int | None,
        /,
    ) -> SequenceSampler: ...
    @property
    def eligible_count(self, /) -> int: ...
    @property
    def steps_per_epoch(self, /) -> int: ...
    def sample(
        self,
        epoch: int,
        step: int,
        users: NDArray[Any],
        sequences: NDArray[Any],
        positives: NDArray[Any],
        negatives: NDArray[Any],
        previous: NDArray[np.int64],
        /,
    ) -> None: ...
    def sample_packed(
        self,
        epoch: int,
        step: int,
        users: NDArray[Any],
        sequences: NDArray[Any],
        positives: NDArray[Any],
        flat_indices: NDArray[np.int64],
        negatives: NDArray[Any],
        /,
    ) -> int: ...
    def candidates(
        self,
        users: NDArray[np.int64],
        exclude: NDArray[np.int64],
        seed: int,
        out: NDArray[np.int64],
        /,
    ) -> None: ...

def align_row(row: str, scheme: str, /) -> str: ...
def philox4x32(counter: tuple[int, int, int, int], key: tuple[int, int], /) -> list[int]: ...
def random_bits(
    seed: int, stream: int, items: NDArray[np.uint64], position: int, count: int, /
) -> NDArray[np.uint64]: ...
def random_uniform(
    seed: int, stream: int, items: NDArray[np.uint64], position: int, count: int, /
) -> NDArray[np.float64]: ...
def random_below(
    seed: int, stream: int, items: NDArray[np.uint64], position: int, count: int, bound: int, /
) -> NDArray[np.uint64]: ...
def rank_targets(
    scores: NDArray[np.float32] | NDArray[np.float64],
    targets: NDArray[np.int64],
    offsets: NDArray[np.int64],
    excluded: NDArray[np.int64],
    ties: str,
    threads: int | None,
    /,
) -> tuple[NDArray[np.float64], NDArray[np.int64]]: ...
def list_excluded(
    width: int,
    targets: NDArray[np.int64],
    offsets: NDArray[np.int64],
    excluded: NDArray[np.int64],
    /,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]: ...
def ranking_metrics(
    ranks: NDArray[np.float64], cutoffs: list[int], /
) -> tuple[list[float], list[float], float]: ...
def sentence_bleu(
    hypotheses: Sequence[str],
    references: Sequence[Sequence[str]],
    order: int,
    smoothing: str,
    threads: int | None,
    /,
) -> NDArray[np.float64]: ...
def self_bleu(
    texts: Sequence[str], rows: NDArray[np.int64], order: int, smoothing: str, /
) -> NDArray[np.float64]: ...
def choose_candidates(
    groups: Sequence[Sequence[str]], order: int, smoothing: str, threads: int | None, /
) -> tuple[NDArray[np.int64], NDArray[np.float64]]: ...
def count_ngrams(
    texts: Sequence[str], order: int, /
) -> tuple[list[NDArray[np.int64]], NDArray[np.int64]]: ...
def count_ids(
    ids: NDArray[np.integer[Any]],
    counts: NDArray[np.int64],
    unknown: bool,
    threads: int | None,
    /,
) -> int: ...
def rank_ids(counts: NDArray[np.int64], /) -> NDArray[np.int64]: ...
def remap_ids(
    ids: NDArray[np.integer[Any]],
    table: NDArray[np.int64],
    fill: int | None,
    report: bool,
    out: NDArray[np.integer[Any]],
    threads: int | None,
    /,
) -> tuple[int, NDArray[np.int64], NDArray[np.int64]]: ...
def clean_texts(texts: Sequence[str], rules: _Rules, threads: int | None, /) -> _Cleaned: ...
def hash_texts(texts: Sequence[str], key: bytes, threads: int | None, /) -> NDArray[np.uint64]: ...
def read_columns(
    text: bytes,
    start: int,
    separator: str,
    quoted: bool,
    width: int,
    labels: Sequence[int],
    number: int | None,
    threads: int | None,
    /,
) -> tuple[list[tuple[NDArray[np.int32], list[str]]], NDArray[np.int64]] | None: ...
def group_by_user(
    users: NDArray[np.int32],
    items: NDArray[np.int32],
    times: NDArray[np.int64] | None,
    user_count: int,
    item_count: int,
    /,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64] | None, int, int]: ...
def list_segments(
    ids: NDArray[np.int64], offsets: NDArray[np.int64], size: int, /
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]: ...
def mask_segments(
    ids: NDArray[np.int64],
    offsets: NDArray[np.int64],
    labels: NDArray[np.int64],
    mask_id: int,
    size: int,
    threads: int | None,
    /,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]: ...
def make_betas(name: str, steps: int, /) -> NDArray[np.float64]: ...
def find_neighbours(
    betas: NDArray[np.float64], tolerance: float, /
) -> tuple[NDArray[np.int64], NDArray[np.int64]]: ...
def draw_neighbours(
    timesteps: NDArray[np.int64],
    up: NDArray[np.int64],
    down: NDArray[np.int64],
    far: bool,
    seed: int,
    step: int,
    first_row: int,
    /,
) -> NDArray[np.int64]: ...
def shift_timesteps(
    timesteps: NDArray[np.int64],
    total: int,
    distance: int,
    seed: int,
    step: int,
    first_row: int,
    /,
) -> NDArray[np.int64]: ...
def draw_timesteps(
    total: int, rows: int, seed: int, step: int, first_row: int, /
) -> NDArray[np.int64]: ...
def weigh_timesteps(
    history: NDArray[np.float64], counts: NDArray[np.int64], uniform_share: float, /
) -> NDArray[np.float64] | None: ...
def draw_by_loss(
    history: NDArray[np.float64],
    counts: NDArray[np.int64],
    uniform_share: float,
    rows: int,
    seed: int,
    step: int,
    first_row: int,
    /,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]: ...
def add_losses(
    history: NDArray[np.float64],
    counts: NDArray[np.int64],
    timesteps: NDArray[np.int64],
    losses: NDArray[np.float64],
    /,
) -> None: ...
