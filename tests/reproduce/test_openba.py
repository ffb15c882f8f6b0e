"""The experiments on OpenBA: what they read, and what they compare."""

import dataclasses

import numpy as np
import pytest

from lmcore.reproduce.claim import Estimate
from lmcore.reproduce.openba import length_adaptation, shallow_encoder
from lmcore.reproduce.openba.pretraining import (
    SCALES,
    Pretraining,
    generate_corpus,
    read_corpus,
    under,
)
from lmcore.reproduce.openba.words import Words

TINY = SCALES["tiny"]


def test_groups_hold_known_ids_and_tests_stand_apart() -> None:
    corpus = generate_corpus(3, TINY)
    assert corpus.train.shape[1] == corpus.test.shape[1] == TINY.length
    assert corpus.train.min() > 0
    assert corpus.train.max() < corpus.ids.first_sentinel - 99
    assert sorted(corpus.prefixes.values()) == [corpus.vocabulary_size - n for n in (3, 2, 1)]
    assert not any((corpus.train == group).all(axis=1).any() for group in corpus.test)


def test_a_run_is_a_function_of_its_seed() -> None:
    corpus = generate_corpus(0, TINY)
    losses = [
        Pretraining(seed, TINY, corpus, corpus.denoisers)
        .train()
        .evaluate(corpus.denoisers[2])["loss"]
        for seed in (0, 0, 1)
    ]
    assert losses[0] == losses[1] != losses[2]


def test_a_model_learns() -> None:
    scale = dataclasses.replace(TINY, steps=30)
    corpus = generate_corpus(0, scale)
    run = Pretraining(0, scale, corpus, corpus.denoisers)
    before = run.evaluate(corpus.denoisers[2])["loss"]
    assert run.train().evaluate(corpus.denoisers[2])["loss"] < before - 0.3


def test_the_prefix_is_what_the_model_is_asked_with() -> None:
    corpus = generate_corpus(0, TINY)
    run = Pretraining(0, TINY, corpus, corpus.denoisers)
    suffix = corpus.denoisers[2]
    losses = {
        name: run.evaluate(under(suffix, id_))["loss"] for name, id_ in corpus.prefixes.items()
    }
    assert losses["S"] == run.evaluate(suffix)["loss"]
    assert len(set(losses.values())) == 3


def test_depths_have_equal_weights_where_they_are_to() -> None:
    scale = SCALES["full"]
    corpus = generate_corpus(0, dataclasses.replace(scale, documents=200, tests=8))
    counts = []
    for encoder, decoder in ((2, 6), (4, 4), (6, 2)):
        shape = dataclasses.replace(scale, encoder_layers=encoder, decoder_layers=decoder)
        inner = shallow_encoder._equalize(shape, scale)
        shape = dataclasses.replace(shape, inner_size=inner)
        counts.append(Pretraining(0, shape, corpus, corpus.denoisers).parameter_count)
    assert max(counts) / min(counts) < 1.002


def test_depths_are_measured() -> None:
    values = shallow_encoder.measure_generated(0, "tiny").values
    losses = [value for name, value in values.items() if name.count("/") == 3]
    assert len(losses) == 2 * 3 * 8
    assert np.isfinite(losses).all()


@pytest.mark.usefixtures("data_dir")
def test_real_texts_have_the_vocabulary_that_was_asked_for() -> None:
    corpus = read_corpus(0, TINY, most=500)
    assert corpus.vocabulary_size == 2 + 500 + 100 + 3
    assert corpus.train.max() == 501


def test_what_a_stage_learns_does_not_change_the_model_before() -> None:
    values = length_adaptation.measure_length_adaptation(0, "tiny").values
    arms = ("before", "longer", "halves", "adapted")
    assert len({values[f"{arm}/long"] for arm in arms}) == len(arms)
    others = [values[f"{arm}/long"] for arm in arms[:-1]]
    assert values["gain"] == min(others) - values["adapted/long"]
    assert values == length_adaptation.measure_length_adaptation(0, "tiny").values


def test_long_texts_are_those_of_short_ones() -> None:
    corpus = generate_corpus(0, TINY)
    joined = length_adaptation._join(corpus.test)
    assert joined.shape == (len(corpus.test) // 4, 4 * TINY.length)
    assert joined.ravel().tolist() == corpus.test.ravel().tolist()


def test_a_gain_is_judged_by_its_spread() -> None:
    for spread, verdict in ((0.1, True), (0.3, False)):
        estimates = {"gain": Estimate(mean=0.2, spread=spread)}
        assert length_adaptation.adapted_loses_least(estimates) == verdict


def test_words_that_have_an_id_keep_it() -> None:
    words = Words()
    first = words.encode("Where did Ada live? 小芳住在哪里？")
    corpus = generate_corpus(0, TINY, words)
    assert words.encode("Where did Ada live? 小芳住在哪里？") == first
    assert corpus.vocabulary_size == 2 + len(words) + 100 + 3
    assert words.decode(first) == "Where did Ada live ? 小芳 住在 哪 里 ？"
