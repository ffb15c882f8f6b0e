"""The experiments on OpenBA: what they read, and what they compare."""

import dataclasses
from collections import Counter

import numpy as np
import pytest

from lmcore.openba.pairs import Pairs
from lmcore.reproduce.claim import Estimate
from lmcore.reproduce.openba import (
    downstream_formats,
    harness,
    instructions,
    length_adaptation,
    shallow_encoder,
)
from lmcore.reproduce.openba.answers import (
    encode_pairs,
    find_right,
    frame,
    learn_pairs,
    measure_answers,
    write_answers,
)
from lmcore.reproduce.openba.pretraining import (
    SCALES,
    Corpus,
    Pretraining,
    generate_corpus,
    read_corpus,
    under,
)
from lmcore.reproduce.openba.stages import hold_out, train_stages
from lmcore.reproduce.openba.words import Words
from lmcore.worlds.openba import LANGUAGES
from lmcore.worlds.openba.downstream import KINDS

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


# Answers.


@pytest.fixture(scope="module")
def lesson() -> tuple[Words, Corpus, Pairs]:
    """Names that are to be said again, with an end."""
    words = Words()
    texts = [(f"Say {name}.", name) for name in ("Ada", "Berta", "Clara", "Dora met Ada")]
    for pair in texts:
        for text in pair:
            words.encode(text)
    corpus = generate_corpus(0, TINY, words)
    return words, corpus, encode_pairs(texts, words, corpus.ids)


def test_answers_are_right_if_each_token_is(lesson: tuple[Words, Corpus, Pairs]) -> None:
    words, corpus, pairs = lesson
    scale = dataclasses.replace(TINY, hidden_size=32, inner_size=64)
    model = Pretraining(0, scale, corpus, corpus.denoisers).model
    before = measure_answers(model, pairs, corpus)
    assert not find_right(model, pairs, corpus).any()
    learn_pairs(model, pairs, corpus, seed=0, steps=120, batch_size=4)
    assert find_right(model, pairs, corpus).all()
    assert measure_answers(model, pairs, corpus) < before - 2
    written = [words.decode(ids) for ids in write_answers(model, pairs, corpus)]
    assert written == ["Ada", "Berta", "Clara", "Dora met Ada"]
    # What is asked for with another ending is another answer.
    longer = Pairs([pairs[3].source], [[*pairs[3].target[:-1], pairs[0].target[0], 1]])
    assert not find_right(model, longer, corpus).any()
    # The prefix is one that no pair was learned behind.
    assert measure_answers(model, pairs, corpus, "X") != measure_answers(model, pairs, corpus)


def test_pairs_are_framed_whole(lesson: tuple[Words, Corpus, Pairs]) -> None:
    _, corpus, pairs = lesson
    samples = frame(pairs, corpus, "R")
    assert samples.count_cut() == (0, 0)
    rows = np.arange(len(pairs))
    batch = samples.make_rows(rows, samples.plan_rows(rows))
    assert set(batch.encoder[:, 0]) == {corpus.prefixes["R"]}
    assert set(batch.decoder[:, 1]) == {corpus.ids.first_sentinel}


def test_what_is_asked_is_not_trained_on() -> None:
    words = Words()
    texts = [("a", "b"), ("c", "d"), ("e", "f"), ("a", "b")]
    for pair in texts:
        words.add(pair)
    corpus = generate_corpus(0, TINY, words)
    train, asked = hold_out(texts, 1, words, corpus)
    assert (len(train), len(asked)) == (2, 1)
    assert train.tokens.tolist() == [*words.add("cd"), 1, *words.add("ef"), 1]


def test_stages_follow_each_other() -> None:
    stages = train_stages(0, "tiny")
    assert stages is train_stages(0, "tiny")
    assert len(stages.rows) == len(stages.asked) == 20
    before, after = (
        {name: weight.tolist() for name, weight in model.named_parameters()}
        for model in (stages.before, stages.after)
    )
    assert before.keys() == after.keys()
    assert before != after
    assert {kind: len(asked) for kind, (_, asked) in stages.tuning.items()} == dict.fromkeys(
        KINDS, 10
    )
    # No word of any row is unknown to the model.
    assert max(int(asked.tokens.max()) for _, asked in stages.tuning.values()) < 2 + len(
        stages.words
    )


@pytest.mark.parametrize(
    ("least", "spread", "verdict"), [(5.0, 1.0, True), (5.0, 6.0, False), (-5.0, 1.0, False)]
)
def test_the_worst_task_decides(least: float, spread: float, verdict: bool) -> None:
    estimates = {"least": Estimate(mean=least, spread=spread)}
    assert instructions.every_task_is_learned(estimates) == verdict


def test_a_guess_is_no_answer() -> None:
    """Of two tasks that are answered as often, the one that is easier to guess is learned less."""
    values = instructions.measure_instructions(0, "tiny").values
    assert values["least"] <= values["after/en/role"] - 12.5
    assert values["shrink"] == values["range/before"] - values["range/after"]


@pytest.mark.parametrize(
    ("gain", "worst", "verdict"), [(60.0, 70.0, True), (60.0, 40.0, False), (0.5, 90.0, False)]
)
def test_a_format_is_learned_if_most_of_it_is(gain: float, worst: float, verdict: bool) -> None:
    estimates = {
        "gain": Estimate(mean=gain, spread=1.0),
        "worst": Estimate(mean=worst, spread=1.0),
    }
    assert downstream_formats.every_format_is_learned(estimates) == verdict


# The harness.


def test_questions_have_one_right_option_and_do_not_say_it() -> None:
    rows = list(harness._generate(3, 40))
    for row in rows:
        options = [row[f"res{number}"] for number in range(1, 5)]
        assert len(set(options)) == 4
        assert not any(option in row["question"].split() for option in options)
    # Every letter is right as often.
    assert Counter(row["ans"] for row in rows) == dict.fromkeys("ABCD", 10)
    # What is right is what her deeds tell: the verbs of her role.
    roles, verbs = LANGUAGES["en"].roles, LANGUAGES["en"].verbs
    for row in rows:
        right = roles.index(row[f"res{'ABCD'.index(row['ans']) + 1}"])
        done = [verbs.index(word) // 4 for word in row["question"].split() if word in verbs]
        assert set(done) <= {right}


@pytest.mark.parametrize(
    ("ours", "differ", "verdict"), [(50.0, 0.0, True), (49.0, 0.0, False), (50.0, 0.5, False)]
)
def test_one_other_answer_is_one_too_many(ours: float, differ: float, verdict: bool) -> None:
    estimates = {
        "ours": Estimate(mean=ours, spread=1.0),
        "theirs": Estimate(mean=50.0, spread=1.0),
        "differ": Estimate(mean=differ, spread=0.0),
    }
    assert harness.no_question_differs(estimates) == verdict
