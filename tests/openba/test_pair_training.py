"""Training on pairs and on mixtures: losses, cuts, going on after a kill, and what is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from lmcore.openba import IndexedDataset, IndexedWriter, Mixture, MixtureSource, Pairs
from lmcore.openba.batches import SampleBatches
from lmcore.openba.models import find_ids, load_model
from lmcore.openba.objective import measure_pair_losses
from lmcore.openba.recipes import TrainConfig
from lmcore.openba.samples import PairSamples
from lmcore.openba.training import OpenBARun, train
from lmcore.ops.denoising import DenoisedBatch, pair_batch
from lmcore.training.config import change
from tiny_runs import LENGTH, make_pairs, make_texts, make_tokenizer, small

WIDTHS = (20, 10)
CHANGES: dict[str, Any] = {
    "pairs": True, "encoder_length": WIDTHS[0], "decoder_length": WIDTHS[1],
}  # fmt: skip
IDS = find_ids(make_tokenizer())
PREFIX = make_tokenizer().prefix_ids["<S>"]


def config(**changes: Any) -> TrainConfig:
    return small(**{**CHANGES, **changes})


def given() -> dict[str, Any]:
    return {"tokenizer": make_tokenizer(), "valid": make_pairs(7, seed=1)}


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def rows_of(batches: list[DenoisedBatch]) -> list[tuple[Any, ...]]:
    """All samples without their padding, sorted."""
    found = []
    for batch in batches:
        for row, (source, target) in enumerate(
            zip(batch.encoder_lengths.tolist(), batch.decoder_lengths.tolist(), strict=True)
        ):
            assert (batch.encoder[row, source:] == 0).all()
            assert (batch.decoder[row, target:] == 0).all()
            assert (batch.labels[row, target:] == -100).all()
            parts = batch.encoder[row, :source], batch.decoder[row, :target], batch.labels[row]
            found.append(tuple(tuple(part[part != -100].tolist()) for part in parts))
    return sorted(found)


def define_rows(pairs: Any, items: NDArray[np.int64]) -> list[tuple[Any, ...]]:
    """The op's rows at the full width, cut to what has a label."""
    chosen = [pairs[item] for item in items.tolist()]
    batch = pair_batch(
        [pair.source for pair in chosen], [pair.target for pair in chosen],
        encoder_width=WIDTHS[0], decoder_width=WIDTHS[1], prefix=PREFIX, ids=IDS,
    )  # fmt: skip
    found = []
    for row, length in enumerate(batch.encoder_lengths.tolist()):
        count = int((batch.labels[row] != -100).sum())
        parts = batch.encoder[row, :length], batch.decoder[row, :count], batch.labels[row, :count]
        found.append(tuple(tuple(part.tolist()) for part in parts))
    return sorted(found)


# Batches.


def samples(pairs: Any, seed: int = 3) -> PairSamples:
    return PairSamples(pairs, seed=seed, widths=WIDTHS, ids=IDS, prefix=PREFIX)


@pytest.mark.parametrize("grouped", [True, False])
@pytest.mark.parametrize("widths", [None, WIDTHS, (30, 11)])
def test_a_step_has_the_ops_samples(grouped: bool, widths: tuple[int, int] | None) -> None:
    """Sources and targets that are too short, as long as there is room, and longer."""
    pairs = Pairs(
        [[5] * size for size in (0, 1, 16, 17, 18, 40, 3)],
        [[6] * size for size in (1, 8, 9, 10, 11, 40, 2)],
    )
    source = samples(pairs)
    batches = SampleBatches([source], 7, 3, grouped=grouped, widths=widths)
    for step in (1, 2):
        made = batches(step)
        assert [len(batch.tasks) for batch in made] == [3, 3, 1]
        assert rows_of(made) == define_rows(pairs, np.arange(7))
        for batch in made:
            wide = (batch.encoder.shape[1], batch.decoder.shape[1])
            longest = (batch.encoder_lengths.max(), batch.decoder_lengths.max())
            assert wide == (longest if widths is None else widths)
    # Of sources 17 tokens find room, of targets nine.
    assert source.count_cut() == (2, 3)


def test_every_pair_comes_once_in_a_pass_and_little_is_padding() -> None:
    pairs = make_pairs(60)
    source = samples(pairs)
    found = source.find(np.arange(180)).reshape(3, 60)
    assert (np.sort(found) == np.arange(60)).all()
    assert len({tuple(row) for row in found.tolist()}) == 3
    grouped = SampleBatches([source], 60, 6)
    wide = SampleBatches([source], 60, 6, grouped=False, widths=WIDTHS)
    assert rows_of(grouped(2)) == rows_of(wide(2))
    by_target = SampleBatches([source], 60, 6)
    by_target._group = lambda plan: np.argsort(plan.decoder_lengths)  # type: ignore[method-assign]
    shares = [each.measure_padding([1, 2]) for each in (grouped, by_target, wide)]
    assert shares[0] < shares[1] * 0.9
    assert shares[0] < shares[2] * 0.6


def test_a_file_gives_the_pairs_of_memory(tmp_path: Path) -> None:
    pairs = make_pairs(20)
    with IndexedWriter(tmp_path / "pairs", vocabulary_size=len(make_tokenizer())) as writer:
        for index in range(20):
            writer.add(*pairs[index])
    train(config(), pairs, tmp_path / "memory", **given())
    train(config(), tmp_path / "pairs", tmp_path / "file", **given())
    one, two = (load_file(tmp_path / n / "best/model.safetensors") for n in ("memory", "file"))
    assert all(torch.equal(one[name], two[name]) for name in one)
    recipe = json.loads((tmp_path / "file" / "recipe.json").read_text())
    assert recipe["data"]["path"] == str(tmp_path / "pairs")
    assert (recipe["data"]["pairs"], recipe["data"]["texts"]) == (20, 0)
    assert recipe["data"]["valid_pairs"] == 7


# A step.


@pytest.mark.parametrize("grouping", [True, False])
def test_the_loss_is_the_mean_over_the_labels_of_the_batch(grouping: bool) -> None:
    """Of transformers, sample by sample, whatever the micro-batches are."""
    pairs = make_pairs(30)
    for size in (1, 5, 12):
        changes = {"shape.dropout": 0.0, "micro_batch_size": size, "grouping": grouping}
        run = OpenBARun(config(**changes), pairs, **given())
        total = count = 0.0
        items = run.samples[0].find(np.arange(12))
        for source, _, labels in define_rows(pairs, items):
            with torch.no_grad():
                target = torch.tensor([labels])
                loss = run.model(torch.tensor([source]), labels=target).loss
            total += float(loss) * len(labels)
            count += len(labels)
        values = run.step(1)
        assert float(values["loss"]) == pytest.approx(total / count, abs=1e-6)
        assert float(values["loss_pairs"]) == float(values["loss"])
        assert set(values) == {"loss", "loss_pairs", "tokens"}
        if not grouping:
            assert {b.encoder.shape[1] for b in run.batches(1)} == {WIDTHS[0]}
            assert {b.decoder.shape[1] for b in run.batches(1)} == {WIDTHS[1]}


def test_validation_takes_the_first_pairs_as_they_are() -> None:
    pairs = make_pairs(9, seed=1)
    run = OpenBARun(config(validation_texts=5), make_pairs(), pairs, tokenizer=make_tokenizer())
    run.step(1)
    metrics = run.validate()
    run.model.eval()
    total = count = 0.0
    for source, _, labels in define_rows(pairs, np.arange(5)):
        with torch.no_grad():
            loss = run.model(torch.tensor([source]), labels=torch.tensor([labels])).loss
        total += float(loss) * len(labels)
        count += len(labels)
    assert metrics == pytest.approx({"loss": total / count, "loss_pairs": total / count}, abs=1e-5)
    again = measure_pair_losses(run.model, samples(pairs, seed=99), count=5, batch_size=1)
    assert again == pytest.approx(metrics, abs=1e-5)


def test_a_model_learns_its_pairs(tmp_path: Path) -> None:
    longer = config(**{"loop.steps": 30, "loop.validate_every_steps": 15, "shape.dropout": 0.0})
    result = train(longer, make_pairs(), tmp_path, **given())
    losses = [line["metrics"]["loss"] for line in result.history if "metrics" in line]
    assert losses[-1] < losses[0] - 0.2
    assert result.steps_per_epoch == 3


def test_cut_pairs_are_said_and_written(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pairs = make_pairs(30)
    sizes = pairs.sizes
    cut = (int((sizes[:, 0] > 17).sum()), int((sizes[:, 1] > 9).sum()))
    assert min(cut) > 0
    train(config(), pairs, tmp_path, progress=True, **given())
    shown = capfd.readouterr().err
    assert (
        f"of 30 pairs {cut[0]} sources and {cut[1]} targets are cut: the encoder has room for 20 "
        "ids, the decoder for 10"
    ) in shown
    recipe = json.loads((tmp_path / "recipe.json").read_text())["data"]
    assert (recipe["cut_sources"], recipe["cut_targets"]) == cut


@pytest.mark.parametrize("kind", ["pairs", "mixture"])
def test_a_killed_run_ends_with_the_same_bits(kind: str, tmp_path: Path) -> None:
    data: Any = make_pairs() if kind == "pairs" else make_mixture()
    settings = config() if kind == "pairs" else small(decoder_length=30)
    whole = train(settings, data, tmp_path / "whole", **given())
    with pytest.MonkeyPatch.context() as patch:
        step = OpenBARun.step

        def dying(run: OpenBARun, number: int) -> Any:
            if number == 4:
                raise RuntimeError("killed")
            return step(run, number)

        patch.setattr(OpenBARun, "step", dying)
        with pytest.raises(RuntimeError, match="killed"):
            train(settings, data, tmp_path / "killed", **given())
    again = train(settings, data, tmp_path / "killed", **given())
    assert again.resumed_after == 3
    assert [line["loss"] for line in again.history] == [line["loss"] for line in whole.history]
    one, two = (load_file(tmp_path / n / "best/model.safetensors") for n in ("whole", "killed"))
    assert all(torch.equal(one[name], two[name]) for name in one)


# Mixtures.


def make_mixture(**changes: Any) -> Mixture:
    data: dict[str, Any] = {"texts": (make_texts(), 3), "pairs": (make_pairs(), 1), **changes}
    return Mixture(
        sources=tuple(MixtureSource(name=n, data=d, weight=w) for n, (d, w) in data.items())
    )


def test_a_mixture_has_the_samples_of_its_sources() -> None:
    """Texts and pairs in one micro-batch are what each source makes alone."""
    mixture = make_mixture(more=(make_texts(20, seed=4), 4))
    for grouping in (True, False):
        settings = small(decoder_length=30, grouping=grouping, batch_size=64, micro_batch_size=8)
        run = OpenBARun(settings, mixture, tokenizer=make_tokenizer())
        made = run.batches(2)
        sources, numbers = run.batches.draw(2)
        expected = []
        for place, own in enumerate(run.samples):
            mine = numbers[sources == place]
            expected += rows_of([own.make(mine, own.plan(mine), (None, None))])
        assert rows_of(made) == sorted(expected)
        groups = np.concatenate([batch.tasks for batch in made])
        of_source = np.array([group.source for group in run.batches.groups])[groups]
        assert np.bincount(of_source).tolist() == np.bincount(sources).tolist()
        if not grouping:
            assert {(b.encoder.shape[1], b.decoder.shape[1]) for b in made} == {(LENGTH + 2, 31)}


def test_the_log_has_shares_and_losses_of_sources(tmp_path: Path) -> None:
    settings = small(decoder_length=30, **{"loop.log_every_steps": 5, "batch_size": 256})
    run = OpenBARun(settings, make_mixture(), tokenizer=make_tokenizer())
    values = {name: float(value) for name, value in run.step(1).items()}
    sources, _ = run.batches.draw(1)
    assert values["share_of_pairs"] == (sources == 1).mean()
    assert values["share_of_pairs"] + values["share_of_texts"] == 1
    assert values["loss_of_pairs"] == values["loss_pairs"]
    result = train(settings, make_mixture(), tmp_path, **given())
    assert result.history[-1]["share_of_texts"] == pytest.approx(0.75, abs=0.04)
    # What validates may be texts as well.
    more = {**given(), "valid": make_texts(3, seed=1)}
    again = train(
        change(settings, {"loop.metric": "loss_S"}), make_mixture(), tmp_path / "a", **more
    )
    assert "loss_S" in again.history[-1]["metrics"]


def test_two_sources_of_the_same_texts_have_noise_of_their_own() -> None:
    mixture = make_mixture(texts=(make_texts(), 1), pairs=(make_texts(), 1))
    run = OpenBARun(small(), mixture, tokenizer=make_tokenizer())
    numbers = np.arange(20)
    one, two = (rows_of([s.make(numbers, s.plan(numbers), (None, None))]) for s in run.samples)
    assert one != two


def test_another_mixture_is_another_run(tmp_path: Path) -> None:
    settings = small(decoder_length=30)
    train(settings, make_mixture(), tmp_path, tokenizer=make_tokenizer())
    for mixture, text in (
        (make_mixture(pairs=(make_pairs(), 2)), "data.weights.pairs is 1.0 there and 2.0 here"),
        (make_mixture(more=(make_texts(), 2)), "data.texts is 20 there and 40 here|weights.more"),
        (make_mixture(pairs=(make_pairs(seed=9), 1)), "data"),
        (Mixture(sources=make_mixture().sources[::-1]), "data.fingerprint"),
        (make_texts(), "data"),
    ):
        with pytest.raises(FileExistsError, match=f"holds another run: {text}"):
            train(settings, mixture, tmp_path, tokenizer=make_tokenizer())
    assert train(settings, make_mixture(), tmp_path, tokenizer=make_tokenizer()).resumed_after == 5


# Lengths.


def test_a_model_grows_to_twice_its_length(tmp_path: Path) -> None:
    """Without a warning of positions that it was not trained with."""
    first = train(small(**{"loop.steps": 1}), make_texts(), tmp_path / "one", **{
        **given(), "valid": None})  # fmt: skip
    model = load_model(first.folder)
    model.config.max_seq_length, model.config.decoder_max_seq_length = LENGTH + 2, 30
    model.save_pretrained(tmp_path / "short")
    changes = {
        "stage": "length_adaptation", "denoisers": ("S_50",), "validation_denoisers": ("S_50",),
        "text_tokens": 4 * LENGTH, "encoder_length": 2 * LENGTH + 3,
        "decoder_length": 2 * LENGTH + 2, "loop.metric": "loss_S_50",
    }  # fmt: skip
    texts = make_texts().reshape(5, 4 * LENGTH)
    result = train(
        small(**changes), texts, tmp_path / "two", tokenizer=make_tokenizer(), valid=texts[:2],
        model=tmp_path / "short",
    )  # fmt: skip
    assert set(result.history[-1]["metrics"]) == {"loss", "loss_S_50"}
    grown = load_model(tmp_path / "two").config
    assert (grown.max_seq_length, grown.decoder_max_seq_length) == (2 * LENGTH + 3, 2 * LENGTH + 2)
    run = OpenBARun(small(**changes), texts, tokenizer=make_tokenizer())
    [batch] = run.batches(1)[:1]
    # One half of each text is read, and the other written, with an end.
    assert (batch.encoder_lengths == 2 * LENGTH + 3).all()
    assert (batch.decoder_lengths == 2 * LENGTH + 2).all()


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"decoder_length": 81}, "decoder_length must be at least 82 for texts of 160 tokens"),
        ({"encoder_length": 82}, "encoder_length must be at least 83 for texts of 160 tokens"),
        ({"validation_denoisers": ("S",)}, "encoder_length must be at least 162"),
    ],
)
def test_rows_that_texts_do_not_fit_are_refused(changes: dict[str, Any], text: str) -> None:
    base = {
        "denoisers": ("S_50",), "validation_denoisers": ("S_50",), "text_tokens": 160,
        "encoder_length": 83, "decoder_length": 82,
    }  # fmt: skip
    with pytest.raises(ValueError, match=text):
        OpenBARun(
            small(**{**base, **changes}), make_texts().reshape(5, 160), tokenizer=make_tokenizer()
        )


# What is refused.


def test_bad_pairs(tmp_path: Path) -> None:
    size = len(make_tokenizer())
    for name, items in (
        ("texts", [([5] * LENGTH, ())]),
        ("one", [([5], [6]), ([5] * LENGTH, ()), ([5], [6])]),
        ("empty", []),
        ("high", [([5], [6]), ([5, 5], [6, size])]),
    ):
        with IndexedWriter(tmp_path / name, vocabulary_size=size + 1) as writer:
            for source, target in items:
                writer.add(source, target)
    for data, error, text in (
        (tmp_path / "texts", ValueError, "texts.idx: expected a source and a target .* in item 0"),
        (tmp_path / "one", ValueError, "one.idx: expected a source and a target .* in item 1"),
        (tmp_path / "empty", ValueError, "empty.idx: it holds no pairs"),
        (tmp_path / "none", OSError, "No such file"),
        (tmp_path / "high", IndexError, f"high.bin: expected ids .*: got {size} in pair 1"),
        (make_texts(), ValueError, "expected pairs, got texts: the setting pairs must be false"),
        (Pairs([], []), ValueError, "it holds no pairs"),
        (Pairs([[5]], [[size]]), IndexError, f"pairs: expected ids .*: got {size} in pair 0"),
    ):
        with pytest.raises(error, match=text):  # type: ignore[call-overload]
            train(config(), data, tmp_path / "out", tokenizer=make_tokenizer())
        assert not (tmp_path / "out").exists()
    with pytest.raises(ValueError, match="expected texts alone, got pairs"):
        train(small(), make_pairs(), tmp_path / "out", tokenizer=make_tokenizer())
    with pytest.raises(ValueError, match=r"loop.metric must be loss or loss_pairs: got 'loss_S'"):
        train(config(**{"loop.metric": "loss_S"}), make_pairs(), tmp_path / "out", **given())
    with pytest.raises(ValueError, match="expected a target for each of 2 sources: got 1"):
        Pairs([[5], [6]], [[7]])
    with pytest.raises(TypeError, match="targets must be of whole numbers: got float64"):
        Pairs([[5]], [[0.5]])
    with pytest.raises(ValueError, match=r"sources must be texts .* got one of 2 axes"):
        Pairs([[[5]]], [[6]])
    (tmp_path / "cut.idx").write_bytes((tmp_path / "one.idx").read_bytes())
    (tmp_path / "cut.bin").write_bytes((tmp_path / "one.bin").read_bytes()[:-2])
    with pytest.raises(ValueError, match=r"cut.bin: expected"):
        train(config(), tmp_path / "cut", tmp_path / "out", tokenizer=make_tokenizer())


def test_pairs_of_a_file_and_of_memory_are_the_same_items(tmp_path: Path) -> None:
    pairs = make_pairs(5)
    with IndexedWriter(tmp_path / "pairs", vocabulary_size=len(make_tokenizer())) as writer:
        for index in range(5):
            writer.add(*pairs[index])
    data = IndexedDataset(tmp_path / "pairs")
    for index in range(5):
        for one, two in zip(data[index], pairs[index], strict=True):
            assert one.tolist() == two.tolist()
    with pytest.raises(IndexError, match="pair 5 of 5"):
        pairs[5]
