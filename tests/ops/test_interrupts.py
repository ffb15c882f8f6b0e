"""Ctrl-C ends every long call of the recommendation half within half a second."""

import subprocess
import sys

import pytest

# Each makes something and then calls for seconds, if nobody stops it.
CALLS = {
    "random_bits": ("", "philox.random_bits(1, 0, np.arange(500_000), 1000)"),
    "random_uniform": ("", "philox.random_uniform(1, 0, 1, 500_000_000)"),
    "rank_targets": (
        "scores = np.broadcast_to(np.arange(50_000, dtype=np.float32), (200_000, 50_000))",
        "ranking.rank_targets(scores, np.zeros(200_000, int), threads={threads})",
    ),
    "rank_targets with ties": (
        "scores = np.broadcast_to(np.zeros(50_000, np.float32), (200_000, 50_000))",
        "ranking.rank_targets(scores, np.zeros(200_000, int), threads={threads})",
    ),
    "list_excluded": (
        "excluded = np.arange(2**25) % 1000; bounds = np.array([0, 2**25])",
        "[_core.list_excluded(1000, bounds[:1], bounds, excluded) for _ in range(40)]",
    ),
    "ranking_metrics": (
        "ranks = np.zeros(50_000_000)",
        "ranking.ranking_metrics(ranks, range(1, 60))",
    ),
    "count_ids": (
        "ids = np.zeros(2**26, np.uint16)",
        "[vocabulary.count_ids(ids, 2**22, threads={threads}) for _ in range(200)]",
    ),
    "rank_ids": (
        "counts = np.random.default_rng(0).integers(0, 2**60, 2**23)",
        "[vocabulary.rank_ids(counts) for _ in range(40)]",
    ),
    "remap_ids": (
        "ids = np.zeros(2**26, np.int32); out = ids.copy()",
        "[vocabulary.remap_ids(ids, [-1], fill=2, report=True, out=out, threads={threads})"
        " for _ in range(99)]",
    ),
    "read_columns": (
        "text = b'ann,lamp,12\\nbob,cup,17\\n' * 2**21",
        "[interactions.read_columns(text, ',', 3, [0, 1], 2, threads={threads})"
        " for _ in range(99)]",
    ),
    "read_columns of distinct values": (
        "text = '\\n'.join(map(str, range(2**21))).encode()",
        "[interactions.read_columns(text, ',', 1, [0, 0, 0], threads={threads})"
        " for _ in range(99)]",
    ),
    "group_by_user": (
        "ids = np.arange(2**22, dtype=np.int32) % 9999 + 1",
        "[interactions.group_by_user(ids, ids, None, 9999, 9999) for _ in range(99)]",
    ),
    "group_by_user of one user": (
        "ids = np.ones(2**24, np.int32); times = np.random.default_rng(0).permutation(2**24)",
        "[interactions.group_by_user(ids, ids, times, 1, 1) for _ in range(20)]",
    ),
    "list_segments": (
        "ids = np.arange(2**23) % 999_999; offsets = np.array([0, 2**23])",
        "[segments.list_segments(ids, offsets) for _ in range(99)]",
    ),
    "mask_segments": (
        "n = 2**18; ids = np.arange(n * 64); offsets = np.arange(0, n * 64 + 1, 64)"
        "; labels = np.ones(n * 63, int)",
        "[segments.mask_segments(ids, offsets, labels, 5, threads={threads}) for _ in range(99)]",
    ),
    "clean_texts": (
        "texts = ['It rains today. ' * 2**22]",
        "[cleaning.clean_texts(texts, threads={threads}) for _ in range(99)]",
    ),
    "clean many texts": (
        "texts = ['<p>It rains</p> on 2 of us. '] * 2**20",
        "[cleaning.clean_texts(texts, threads={threads}) for _ in range(99)]",
    ),
    "Duplicates.add": (
        "texts = [str(k) for k in range(2**21)]",
        "[duplicates.Duplicates().add(texts, threads={threads}) for _ in range(99)]",
    ),
    "Duplicates.remove": (
        "texts = ['It rains ' + str(k) + '. It rains ' + str(k + 1) + '. ' for k in range(2**20)]",
        "[duplicates.Duplicates().remove(texts, threads={threads}) for _ in range(99)]",
    ),
    "hash_texts": (
        "texts = ['a' * 99] * 2**21",
        "[duplicates.hash_texts(texts, threads={threads}) for _ in range(99)]",
    ),
    "sentence_bleu": (
        "texts = ['a b c d ' * 9] * 2**14; rows = [[text] * 4 for text in texts]",
        "[ngrams.sentence_bleu(texts, rows, order=16, threads={threads}) for _ in range(99)]",
    ),
    "self_bleu": (
        "texts = ['a b c d ' * 9] * 2**15",
        "[ngrams.self_bleu(texts, order=16) for _ in range(99)]",
    ),
    "choose_candidates": (
        "groups = [['a b c d ' * 9] * 2000] * 2",
        "[ngrams.choose_candidates(groups, threads={threads}) for _ in range(99)]",
    ),
    "count_ngrams": (
        "texts = [' '.join(map(str, (k, k % 7, k % 99))) for k in range(2**20)]",
        "[ngrams.count_ngrams(texts, order=16) for _ in range(99)]",
    ),
    "a word as long as its text": (
        "texts = ['a' * 2**29]",
        "[ngrams.count_ngrams(texts) for _ in range(99)]",
    ),
    "candidates": (
        "s = negatives.SequenceSampler([0, 3], [1, 2, 4], 100_000)",
        "s.candidates(np.ones(5_000, int), 100_000)",
    ),
    "candidates of one user": (
        "s = negatives.SequenceSampler([0, 3], [1, 2, 4], 100)",
        "s.candidates([1], 500_000_000)",
    ),
    "sample": (
        "s = negatives.SequenceSampler([0, 9], np.arange(1, 10), 10**6, batch_size=4096,"
        " max_length=8, negative_count=16_000, threads={threads})",
        "s.sample(0, 0)",
    ),
    "sample in shuffled order": (
        "n = 30_000_000; s = negatives.SequenceSampler(np.arange(0, 2 * n + 1, 2),"
        " np.ones(2 * n, int), 9, batch_size=1, max_length=1, negative_count=1, order='shuffle')",
        "[s.sample(epoch, 0) for epoch in range(9)]",
    ),
    "a sampler": (
        "n = 10_000_000; offsets, items = np.arange(0, 2 * n + 1, 2), np.ones(2 * n, int)",
        "[negatives.SequenceSampler(offsets, items, 9) for _ in range(40)]",
    ),
    "denoise": (
        "t = np.ones((1, 2**25), np.uint16)"
        "; d = [denoising.Denoiser(name='', kind='spans', density=0.5, mean_span=1,"
        " excess='run_on')]"
        "; ids = denoising.SpecialIds(vocabulary_size=2**31 - 1, first_sentinel=2**31 - 2)",
        "[denoising.denoise_packed(t, [0], seed=i, denoisers=d, ids=ids, dtype=np.int32)"
        " for i in range(99)]",
    ),
    "denoise a batch": (
        "t = np.ones((1, 568), np.uint16); rows = np.zeros(2**17, int)",
        "[denoising.denoise_packed(t, rows, rows=rows, seed=i, dtype=np.int32, threads={threads})"
        " for i in range(99)]",
    ),
    "plan": (
        # Few enough for numpy's own passes over them, which nobody interrupts, to be short.
        "n = np.full(2**22, 568)",
        "[denoising.plan_batch(n, n, seed=i) for i in range(99)]",
    ),
    "draw_neighbours": (
        "t = np.zeros(2**22, int); near = schedule.NoiseNeighbours(np.zeros(1, int) - 1,"
        " np.zeros(1, int) - 1)",
        "[schedule.draw_neighbours(t, near, seed=0, step=i) for i in range(999)]",
    ),
    "draw by losses": (
        "s = schedule.LossAwareSampler(2**20, history=9); t = np.arange(2**20)"
        "; [s.update(t, t) for _ in range(9)]",
        "[s.draw(2**22, seed=0, step=i) for i in range(99)]",
    ),
    "observe": (
        "m = false_negatives.FalseNegativeMemory(); b = np.ones((2**14, 4), int)"
        "; neg = np.ones((2**14, 4, 1000), np.int32); z = np.zeros((2**14, 4, 1001), np.float32)"
        "; u = np.ones(2**14, int); r = m.inject(u, b, neg)",
        "[m.observe(u, b, neg, z, r) for _ in range(99)]",
    ),
    "state_dict": (
        "m = false_negatives.FalseNegativeMemory(); n = 10**7"
        "; keys = (np.arange(n, dtype=np.uint64) // 10 + 1 << 40) + np.arange(n, dtype=np.uint64)"
        " % 10 + 1; none = np.zeros(0, np.uint32)"
        "; m.load_state_dict(dict(hard_keys=none, hard_offsets=np.zeros(1, int), hard_items=none,"
        " count_keys=keys, counts=np.ones(n, np.uint32), evicted_count=np.array(0)))",
        "[m.state_dict() for _ in range(20)]",
    ),
}

CODE = """
import os, signal, sys, threading, time
import numpy as np
from lmcore import _core
from lmcore.ops import denoising, false_negatives, negatives, ngrams, philox, ranking, schedule
from lmcore.ops import cleaning, duplicates, interactions, segments, vocabulary
signal.signal(signal.SIGINT, signal.default_int_handler)
{before}
def press():
    time.sleep(0.3)
    global pressed
    pressed = time.process_time()
    os.kill(os.getpid(), signal.SIGINT)
threading.Thread(target=press).start()
try:
    {call}
except KeyboardInterrupt:
    print(time.process_time() - pressed)
"""


def time_ctrl_c(name: str, threads: int) -> float:
    """In seconds of the process, so that others on the machine do not count."""
    before, call = (part.format(threads=threads) for part in CALLS[name])
    done = subprocess.run(
        [sys.executable, "-c", CODE.format(before=before, call=call)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout, "the call ended before it was stopped"
    return float(done.stdout)


@pytest.mark.alone
@pytest.mark.parametrize(
    ("name", "threads"),
    [(name, n) for name in CALLS for n in (1, 2) if n == 1 or "{threads}" in str(CALLS[name])],
)
def test_ctrl_c_ends_a_call(name: str, threads: int) -> None:
    # Twice, if the first is late: where memory is slow to come, a single number says little.
    limit = 0.5 * threads
    assert time_ctrl_c(name, threads) < limit or time_ctrl_c(name, threads) < limit


FIRST = """
import signal, sys
from lmcore.ops import ngrams
def press(frame, event, argument):
    if "numpy" in frame.f_code.co_filename:
        signal.raise_signal(signal.SIGINT)
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.settrace(press)
print(ngrams.sentence_bleu(["a b"], [["a b"]], order=1)[0, 0])
"""


def test_ctrl_c_never_meets_the_search_for_numpy() -> None:
    """It is where a first result becomes an array, and the crate that searches would panic."""
    done = subprocess.run(
        [sys.executable, "-c", FIRST], capture_output=True, text=True, check=False, timeout=120
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "1.0\n", "")
