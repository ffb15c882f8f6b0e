"""One fork policy for the whole core: a child may call everything, whatever other threads did."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from lmcore.ops.negatives import SequenceSampler

# Threads are in calls of all kinds all the time while children are made, and each child makes
# these calls itself, in one thread and in several. A child that waits is killed by its alarm.
CODE = """
import os, signal, sys, threading, time, warnings
import numpy as np
from lmcore.ops import (
    entities, false_negatives, lcs, matching, negatives, philox, predictions, ranking, words
)
warnings.simplefilter("ignore")  # newer Pythons warn of a fork with threads
n = 200_000
offsets, items = np.arange(0, 2 * n + 1, 2), np.ones(2 * n, int)
sampler = negatives.SequenceSampler(
    offsets, items, 9, batch_size=64, max_length=2, negative_count=4, order="shuffle", seed=3
)
large = negatives.SequenceSampler(
    [0, 3], [1, 2, 4], 99, batch_size=64, max_length=3, negative_count=9_000, threads=2
)
scores, targets = np.arange(600_000.0).reshape(600, 1000), np.zeros(600, int)
row = {"words": ["a", "b"], "labels": ["O", "B-x"], "label_list": ["x"], "prediction": "a(O)"}
rows = [row] * 2000
batch = [["a", "b"]] * 600, ["a(O) b(B-x)"] * 600, [["x"]] * 600

common = false_negatives.FalseNegativeMemory()

def remember(memory, epoch):
    negatives = np.ones((64, 2, 8), int)
    ones = np.ones((64, 2), int)
    reversed_ = memory.inject(ones[:, 0], ones, negatives)
    memory.observe(ones[:, 0], ones, negatives, np.ones((64, 2, 8), bool), reversed_)

def calls(epoch):
    memory = false_negatives.FalseNegativeMemory()
    return [
        lambda: sampler.sample(epoch, 0),
        lambda: large.sample(epoch, 0),
        lambda: ranking.rank_targets(scores, targets, threads=2),
        lambda: predictions.score_examples(rows, threads=2),
        lambda: predictions.score_examples(rows, threads=2, back_tokenize=lambda w: w),
        lambda: matching.match_labels_batch(*batch, threads=2),
        lambda: entities.count_entities_batch(*[[["O"]] * 900] * 3, threads=2),
        lambda: philox.random_bits(1, 0, range(50), 50),
        lambda: lcs.longest_common_subsequence(range(900), range(3, 903)),
        lambda: words.split_words("a b" * 99),
        lambda: remember(memory, epoch),
        lambda: remember(common, epoch),
    ]

expected = [sampler.sample(e, 0).users.tolist() for e in range(4)]
stop = False

def work(index):
    epoch = 10 * index
    while not stop:
        epoch += 1
        calls(epoch % 2**20)[index]()

threads = [threading.Thread(target=work, args=(k,), daemon=True) for k in {kinds}]
[thread.start() for thread in threads]
failed = []
for turn in range({children}):
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        for call in calls(turn)[:-1]:
            call()
        try:
            remember(common, turn)
        except RuntimeError as error:  # its other user stands still in the middle of a call
            assert str(error).startswith("Already"), error
        same = sampler.sample(turn % 4, 0).users.tolist() == expected[turn % 4]
        os._exit(0 if same else 3)
    _, status = os.waitpid(child, 0)
    if status:
        failed.append((turn, os.waitstatus_to_exitcode(status)))
        break
    time.sleep(0.003 * (turn % 5))
stop = True
[thread.join() for thread in threads]
print(failed)
"""


def run(kinds: range, children: int) -> str:
    code = CODE.replace("{kinds}", repr(kinds)).replace("{children}", str(children))
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=500
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_children_call_everything_while_threads_are_in_calls() -> None:
    assert run(range(12), children=8) == "[]\n"


def test_children_shuffle_while_a_thread_shuffles() -> None:
    """The order of an epoch is made without a lock: a child would wait for it for ever."""
    assert run(range(1), children=20) == "[]\n"


class Steps(Dataset[torch.Tensor]):
    """Batches of one sampler, which each worker of a loader inherits."""

    def __init__(self, sampler: SequenceSampler) -> None:
        self.sampler = sampler

    def __len__(self) -> int:
        return 6

    def __getitem__(self, step: int) -> torch.Tensor:
        return torch.from_numpy(self.sampler.sample(2, step).negatives)


@pytest.mark.parametrize("start", ["fork", "spawn"])
@pytest.mark.parametrize("order", ["replacement", "shuffle"])
def test_workers_of_a_loader_draw_the_same(order: str, start: str) -> None:
    offsets, items = np.arange(0, 201, 2), np.tile([1, 2], 100)
    sampler = SequenceSampler(
        offsets, items, 50, batch_size=8, max_length=3, negative_count=1_500, order=order, threads=2
    )
    expected = [sampler.sample(2, step).negatives for step in range(6)]
    loader = DataLoader(
        Steps(sampler), batch_size=None, num_workers=2, multiprocessing_context=start
    )
    drawn = list(loader)
    assert len(drawn) == 6
    for ours, theirs in zip(expected, drawn, strict=True):
        assert np.array_equal(ours, theirs.numpy())
