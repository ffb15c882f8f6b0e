"""The models that are pruned and recovered, what they are asked, and that verdicts can fail."""

import math
import re
from pathlib import Path

import pytest

from lmcore.openba import OpenBAForConditionalGeneration, OpenBATokenizer
from lmcore.reproduce.arms import one_thread
from lmcore.reproduce.claim import Estimate, decide_verdict
from lmcore.reproduce.compression import abilities, pruned_path
from lmcore.reproduce.compression.abilities import CLAIMS, measure_abilities
from lmcore.reproduce.compression.pruned_path import (
    LENGTH,
    MODELS,
    OPTIONS,
    SCALES,
    generate_questions,
    make_models,
)
from lmcore.worlds.ner.domains import generate_domain_sentences, make_domains
from lmcore.worlds.openba import LANGUAGES

TINY = SCALES["tiny"]
NER, QUESTIONS = CLAIMS


def test_what_somebody_does_tells_the_answer() -> None:
    english = LANGUAGES["en"]
    found = generate_questions(3, 200)
    assert len(found) == 200
    for question in found:
        [verb] = {*question.text.split()} & {*english.verbs}
        right = question.roles[question.answer]
        assert english.roles.index(right) == english.verbs.index(verb) // 4
        assert len({*question.roles}) == OPTIONS
        # Nothing else does.
        assert not {*re.findall("[a-z]+", question.text)} & {*english.roles}
    # Neither a place nor a role is right more often than others.
    answers = [question.answer for question in found]
    assert [answers.count(place) for place in range(OPTIONS)] == [50] * OPTIONS
    assert {question.text for question in found} > {generate_questions(3, 1)[0].text}


def test_texts_are_rows_of_whole_tokens(tmp_path: Path) -> None:
    corpus, texts = pruned_path._make_corpus(0, TINY, tmp_path / "model")
    tokenizer = OpenBATokenizer.from_pretrained(tmp_path / "model")
    assert corpus.train.shape == (3 * TINY.rows - TINY.scale.tests, LENGTH)
    for row in corpus.train[1:60:3].tolist():
        assert row[-1] == tokenizer.eos_token_id
        assert tokenizer.decode(row[:-1]).startswith("Question: ")
    for row in corpus.train[2:60:3].tolist():
        first, second = tokenizer.decode(row[:-1]).split(": ")
        assert first == second
    # What GNER writes takes whole words, too.
    sentence = generate_domain_sentences(make_domains(0), 1, 0)[0]
    [row] = abilities._make_rows([sentence], 0)
    pieces = tokenizer.tokenize(row["target"])
    assert {piece for piece in pieces if piece.startswith("(")} <= {"(O)", "(B-", "(I-"}
    assert len(pieces) == sum(2 if label == "O" else 4 for label in sentence.labels)
    assert any("(B-" in text for text in texts)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    with one_thread():
        return make_models(1, "tiny", tmp_path_factory.mktemp("models"))


def test_models_have_the_sizes_of_their_stage(folders: dict[str, Path]) -> None:
    assert list(folders) == list(MODELS)
    configs = {
        name: OpenBAForConditionalGeneration.from_pretrained(folder).config
        for name, folder in folders.items()
    }
    assert configs["unpruned"].hidden_size == TINY.scale.hidden_size
    for name in ("cut", "recovered", "untrained"):
        config = configs[name]
        assert (config.encoder_layers, config.decoder_layers) == (
            TINY.encoder_layers, TINY.decoder_layers,
        )  # fmt: skip
        assert (config.hidden_size, config.num_heads) == (TINY.hidden_size, TINY.heads)
        assert config.vocab_size == TINY.tokens
        assert len(OpenBATokenizer.from_pretrained(folders[name])) == TINY.tokens


def test_recovered_weights_are_others_of_the_same_cut(folders: dict[str, Path]) -> None:
    states = {
        name: OpenBAForConditionalGeneration.from_pretrained(folder).state_dict()
        for name, folder in folders.items()
    }
    one, two, new = (states[name] for name in ("cut", "recovered", "untrained"))
    name = "encoder.embed_tokens.weight"
    near = (one[name] - two[name]).abs().mean()
    assert 0 < near < 0.5 * (new[name] - two[name]).abs().mean()


def test_words_of_texts_are_still_tokens_after_the_cut(folders: dict[str, Path]) -> None:
    before, after = (OpenBATokenizer.from_pretrained(folders[n]) for n in ("unpruned", "cut"))
    for question in generate_questions(7, 20):
        assert after.tokenize(question.to_text()) == before.tokenize(question.to_text())
    gone = {*before.get_vocab()} - {*after.get_vocab()}
    assert gone


def test_a_measurement_holds_what_it_says() -> None:
    values = measure_abilities(0, "tiny").values
    for model in MODELS:
        assert {f"{model}/{kind}" for kind in ("questions", "seen", "unseen")} <= {*values}
    assert values["back"] == values["recovered/questions"] - values["cut/questions"]
    assert values["change"] == values["recovered/seen"] - values["unpruned/seen"]
    assert values["unpruned/parameters"] > values["cut/parameters"]
    assert len({values[f"{m}/parameters"] for m in MODELS if m != "unpruned"}) == 1


@pytest.mark.parametrize(
    ("change", "ahead", "verdict"),
    [
        ((1.0, 9.0), (20.0, 5.0), "reproduced"),
        ((-4.9, 1.0), (20.0, 5.0), "reproduced"),
        ((-5.1, 9.0), (20.0, 5.0), "not reproduced"),
        ((1.0, 9.0), (5.0, 6.0), "not reproduced"),
        ((math.nan, 9.0), (20.0, 5.0), "not reproduced"),
    ],
)
def test_entities_can_be_lost(
    change: tuple[float, float], ahead: tuple[float, float], verdict: str
) -> None:
    estimates = {
        "change": Estimate(mean=change[0], spread=change[1]),
        "ahead": Estimate(mean=ahead[0], spread=ahead[1]),
    }
    assert decide_verdict(NER, estimates, seed_count=3) == verdict


@pytest.mark.parametrize(
    ("kept", "back", "verdict"),
    [
        (90.0, (30.0, 5.0), "reproduced"),
        (84.0, (30.0, 5.0), "not reproduced"),
        (90.0, (4.0, 5.0), "not reproduced"),
        (math.nan, (30.0, 5.0), "not reproduced"),
    ],
)
def test_answers_can_be_lost(kept: float, back: tuple[float, float], verdict: str) -> None:
    estimates = {
        "kept": Estimate(mean=kept, spread=1.0), "back": Estimate(mean=back[0], spread=back[1]),
    }  # fmt: skip
    assert decide_verdict(QUESTIONS, estimates, seed_count=3) == verdict
