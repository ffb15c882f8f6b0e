"""Evaluation: prompts as by the authors, scores of answers, rows, windows, resumed runs."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

from lmcore.openba import EvaluationConfig, Question, QuestionSet, evaluate, read_questions
from lmcore.openba import evaluation as evaluation_module
from lmcore.openba.answers import AnswerScorer
from lmcore.openba.question_prompts import PROMPTS, make_source
from stopped_runs import Stop
from tiny_generation import PROMPTS as TEXTS
from tiny_generation import make_pair
from tiny_questions import CEVAL, make_pairs, write_json, write_text

LONG = {"max_seq_length": 1024, "decoder_max_seq_length": 1024}


def make_question(text: str = "Who?", subject: str = "law", **changes: Any) -> Question:
    parts: dict[str, Any] = {"key": "1", "place": "a:1", "options": ("w", "x", "y", "z")}
    return Question(**{**parts, "subject": subject, "text": text, "answer": 2, **changes})


@pytest.fixture
def suite(tmp_path: Path) -> QuestionSet:
    """Questions of many lengths, of three and four options."""
    rows = make_pairs(9, demos=3)
    for number, row in enumerate(rows):
        row["data"]["question"] += " Ada met Otto." * (5 * number % 7)
    write_json(tmp_path / "anatomy_test.json", rows)
    write_json(tmp_path / "astronomy_test.json", make_pairs(5, demos=3, opt_num=3, ans="B"))
    return read_questions(tmp_path, "mmlu", shots=3)


# Prompts: the authors' strings, written out.


def test_prompts_by_letter() -> None:
    question, demo = make_question(), make_question("{options}?", options=("1", "2"))
    options = "A. w B. x C. y D. z"

    def ask(name: str, *demos: Question, by: str = "letter", subject: str = "law") -> str:
        asked = replace(question, subject=subject)
        return make_source(asked, PROMPTS[name][by], demos, suite=name)

    shown = replace(demo, answer=1)
    assert ask("mmlu") == f"Question: Who? Options: {options} Answer:"
    assert ask("mmlu", shown, shown) == (
        "Question: {options}? Options: A. 1 B. 2 Answer:B\n "
        "Question: {options}? Options: A. 1 B. 2 Answer:B\n "
        f"Question: Who? Options: {options} Answer:"
    )
    chinese = f"以下是关于(法学)的单项选择题，请直接给出正确答案的选项。题目：Who? {options} "
    assert ask("ceval") == f"{chinese}答案是："
    assert ask("cmmlu", subject="arts") == chinese.replace("法学", "艺术学")
    assert PROMPTS["cmmlu"]["letter"].answer_start == "答案是："
    assert ask("cmmlu", replace(shown, subject="arts"), subject="arts").startswith(
        "以下是关于(艺术学)的单项选择题，请直接给出正确答案的选项。题目：{options}? A. 1 B. 2 "
        "答案是：B\n 以下"
    )
    assert ask("mmlu-v2") == (
        "Please answer the following multiple choice question: \n\n Question: Who? Options: "
        "A: w B: x C: y D: z Answer:"
    )
    assert ask("piqa").endswith("knowledge\n\nQuestion: Who? Options: (A) w (B) x (C) y (D) z "
                                "Answer: (")  # fmt: skip
    assert ask("arc").endswith(f"principles.Question: Who? Options: {options} Answer: ")


def test_prompts_by_loss() -> None:
    question = make_question(options=("w", "x"))
    shown = replace(question, answer=1)
    source = make_source(question, PROMPTS["mmlu"]["loss"], [shown])
    assert source == (
        "Fisrt, l will give you some examples. You need to answer the last question. Examples:"
        "Question: Who? OPTIONS: - w - x Answer:  x Please answer the following question. "
        "Question: Who? OPTIONS: - w - x Answer: "
    )
    assert make_source(question, PROMPTS["ceval"]["loss"], [shown]) == (
        "题目：Who? 选项：- w - x 答案是： x 题目：Who? 选项：- w - x 答案是："
    )
    assert make_source(question, PROMPTS["piqa"]["loss"]) == "Question: Who? Answer: "
    assert make_source(question, PROMPTS["mmlu"]["loss"]).endswith(
        "- w - x Choose one of the options as an answer to the question."
    )


# Scores.


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_scores_are_those_of_one_at_a_time(attention: str, tied: bool) -> None:
    """Whatever shares a batch, or a row: the whole logits of one source and one continuation."""
    model, tokenizer = make_pair(tie_word_embeddings=tied, add_lm_head_bias=not tied)
    model.set_attn_implementation(attention)
    scorer = AnswerScorer(model, tokenizer, batch_size=3)
    sources = scorer.encode_all(TEXTS)
    assert tokenizer.convert_ids_to_tokens(sources[2]) == ["<S>", "▁Otto", "<extra_id_0>", "</s>"]
    # Some begin alike, and some have a token at the same place behind another one.
    texts = ("Ada met Otto", "Ada met Ada", "Otto met Otto", "Ada met", "A B C Ada", "")
    options = [scorer.encode_continuation(text) for text in (*texts, texts[0])]
    likeliest = [
        model.generate(torch.tensor([source]), decoder_input_ids=torch.tensor([scorer.start]),
                       max_new_tokens=3, min_new_tokens=3)[0, 2:].tolist()
        for source in sources
    ]  # fmt: skip
    continuations = [[*options, greedy] for greedy in likeliest]
    found = scorer.score_continuations(sources, continuations)
    tokens = scorer.score_tokens(sources, [[660, 661], [662], [660], [661], [663, 660]])
    for row, source in enumerate(sources):
        ids = torch.tensor([source])
        for score, continuation in zip(found[row], continuations[row], strict=True):
            assert score.tokens == len(continuation)
            if not continuation:
                assert score == (0.0, 0, True)
                continue
            target = torch.tensor([scorer.start + continuation[:-1]])
            with torch.no_grad():
                logits = model(ids, decoder_input_ids=target).logits[0, 1:]
            labels = torch.tensor(continuation)
            loss = float(cross_entropy(logits, labels, reduction="sum"))
            assert score.loss == pytest.approx(loss, abs=2e-4)
            assert score.is_greedy == bool((logits.argmax(-1) == labels).all())
        assert found[row][-1].is_greedy
        with torch.no_grad():
            logits = model(ids, decoder_input_ids=torch.tensor([scorer.start])).logits[0, -1]
        wanted = {0: [660, 661], 1: [662], 2: [660], 3: [661], 4: [663, 660]}[row]
        assert tokens[row] == pytest.approx(logits[wanted].tolist(), abs=1e-4)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_keys_and_values_need_not_be_made(attention: str, bias: bool) -> None:
    """Cross-attention with its maps on the queries, padding and rows without a source too."""
    model, _ = make_pair(add_qkv_bias=bias)
    model.set_attn_implementation(attention)
    torch.manual_seed(0)
    size = model.config.hidden_size
    with torch.no_grad():
        for block in model.decoder.block:
            for parameter in block.inter_attn.parameters():
                parameter.normal_(0, 0.5)
    source, target = torch.randn(3, 9, size), torch.randn(3, 4, size)
    shown = (torch.arange(9) < torch.tensor([[9], [5], [0]])).long()
    lowest = torch.zeros(3, 1, 1, 9).masked_fill(torch.arange(9) > 6, -float("inf"))
    for mask in (None, shown, lowest):
        found = [
            model.decoder(target, source, encoder_attention_mask=mask, use_cache=False,
                          projects_source=projects).last_hidden_state
            for projects in (True, False)
        ]  # fmt: skip
        torch.testing.assert_close(*found, atol=2e-5, rtol=0)
    with pytest.raises(ValueError, match="a cache keeps keys and values"):
        model.decoder(target, source, use_cache=True, projects_source=False)


def test_losses_do_not_depend_on_what_else_is_asked() -> None:
    model, tokenizer = make_pair()
    scorer = AnswerScorer(model, tokenizer)
    sources = scorer.encode_all(TEXTS)
    texts = ("Ada met", "Ada", "Otto lived in Kelp", "")
    continuations = [scorer.encode_continuations(texts)] * len(sources)
    wanted = scorer.score_continuations(sources, continuations)
    found = scorer.score_continuations(sources, continuations, finds_greedy=False)
    for ours, theirs in zip(found, wanted, strict=True):
        assert [score._replace(is_greedy=None) for score in theirs] == ours


def test_padding_on_the_left_changes_nothing() -> None:
    """The authors pad there. Attention sees differences of positions alone."""
    model, tokenizer = make_pair()
    scorer = AnswerScorer(model, tokenizer)
    source = scorer.encode("Ada met Otto")
    [[alone]] = scorer.score_tokens([source], [[660]])
    padded = torch.tensor([[0] * 7 + source])
    mask = (torch.arange(padded.shape[1]) >= 7).long()[None]
    start = torch.tensor([scorer.start])
    with torch.no_grad():
        logits = model(padded, mask, decoder_input_ids=start).logits
    assert alone == pytest.approx(float(logits[0, -1, 660]), abs=1e-4)


def test_batches_change_no_answer(suite: QuestionSet, tmp_path: Path) -> None:
    model, tokenizer = make_pair(**LONG)
    for by in ("letter", "loss"):
        rows = []
        for size in (1, 3, 64):
            config = EvaluationConfig(by=by, batch_size=size)
            evaluate(model, tokenizer, suite, config=config, out=tmp_path / f"{size}.jsonl")
            lines = (tmp_path / f"{size}.jsonl").read_text().splitlines()
            rows.append([json.loads(line) for line in lines])
        for one, *others in zip(*rows, strict=True):
            for other in others:
                assert other["scores"] == pytest.approx(one["scores"], abs=1e-4)
                assert {**other, "scores": 0} == {**one, "scores": 0}
            best = max(one["scores"]) if by == "letter" else min(one["scores"])
            assert one["prediction"] == "ABCD"[one["scores"].index(best)]


def test_numbers(suite: QuestionSet, tmp_path: Path) -> None:
    model, tokenizer = make_pair(**LONG)
    done: list[int] = []
    out = tmp_path / "r.jsonl"
    found = evaluate(model, tokenizer, suite, out=out, progress=done.append)
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [(row["subject"], row["id"]) for row in rows] == [
        (question.subject, question.key) for question in suite.questions
    ]
    assert sum(done) == 14
    assert [len(row["scores"]) for row in rows] == [4] * 9 + [3] * 5
    right = [row["prediction"] == row["answer"] for row in rows]
    assert found.total.accuracy == sum(right) / 14
    assert [(s.name, s.questions, s.correct) for s in found.subjects] == [
        ("anatomy", 9, sum(right[:9])),
        ("astronomy", 5, sum(right[9:])),
    ]
    assert [(c.name, c.questions, c.mean) for c in found.categories] == [
        ("STEM", 5, sum(right[9:]) / 5),
        ("Other", 9, sum(right[:9]) / 9),
    ]
    shares = [sum(row["prediction"] == letter for row in rows) / 14 for letter in "ABCD"]
    assert list(found.total.letters.values()) == pytest.approx(shares)
    assert json.loads(json.dumps(found.to_dict()))["subjects"]["anatomy"]["questions"] == 9


def test_hard_subjects_stand_apart(tmp_path: Path) -> None:
    for subject in ("college_physics", "law", "operating_system"):
        write_text(tmp_path / f"{subject}_val.csv", CEVAL + "0,q,a,b,c,d,A\n1,r,a,b,c,d,B\n")
    found = evaluate(*make_pair(**LONG), read_questions(tmp_path, "ceval"))
    assert [(c.name, c.questions) for c in found.categories] == [
        ("STEM", 4), ("Humanities", 2), ("Hard", 2),
    ]  # fmt: skip
    assert found.total.questions == 6


def test_secret_answers_do_not_count(tmp_path: Path) -> None:
    rows = "id,question,A,B,C,D\n0,q,a,b,c,d\n"
    write_text(tmp_path / "law_test.csv", rows)
    write_text(tmp_path / "logic_test.csv", CEVAL + "0,q,a,b,c,d,A\n1,q,a,b,c,d,\n")
    found = evaluate(*make_pair(**LONG), read_questions(tmp_path, "ceval", split="test"))
    assert (found.total.questions, found.total.answered) == (3, 1)
    assert [score.accuracy is None for score in found.subjects] == [True, False]
    assert found.to_table()[1].split()[:3] == ["law", "1", "-"]


# The window.


def test_fewer_demonstrations_where_more_do_not_fit(suite: QuestionSet, tmp_path: Path) -> None:
    """The longest prompt whose tokens, and the two of the frame, are no more than the window."""
    model, tokenizer = make_pair(**LONG)
    prompt = PROMPTS["mmlu"]["letter"]
    counts = [
        [len(tokenizer(make_source(q, prompt, q.demos[:n]))["input_ids"]) + 2 for n in range(4)]
        for q in suite.questions
    ]
    most = sorted(count[2] for count in counts)[5]
    wanted = [max([n for n in range(4) if count[n] <= most], default=0) for count in counts]
    assert len(set(wanted)) > 1
    config = EvaluationConfig(max_source_tokens=most)
    found = evaluate(model, tokenizer, suite, config=config, out=tmp_path / "r.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text().splitlines()]
    assert [row["shots"] for row in rows] == wanted
    assert found.fewer_shots == sum(count < 3 for count in wanted)
    assert found.cut == 0
    config = EvaluationConfig(max_source_tokens=min(count[0] for count in counts) + 1)
    found = evaluate(model, tokenizer, suite, config=config, out=tmp_path / "r.jsonl")
    assert found.cut == sum(count[0] > config.max_source_tokens for count in counts)  # type: ignore[operator]
    assert found.cut > 0


def test_a_cut_source_keeps_its_frame() -> None:
    model, tokenizer = make_pair()
    scorer = AnswerScorer(model, tokenizer, max_source_tokens=5)
    source = scorer.encode("Ada met Otto in Kelp")
    assert tokenizer.convert_ids_to_tokens(scorer.cut(source)) == [
        "<S>", "▁Ada", "▁met", "<extra_id_0>", "</s>",
    ]  # fmt: skip
    assert scorer.cut(source[:5]) == source[:5]


# Runs that end early.


def test_a_run_goes_on_to_the_same_bytes(
    suite: QuestionSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tokenizer = make_pair(**LONG)
    monkeypatch.setattr(evaluation_module, "_BATCHES", 1)
    config = EvaluationConfig(batch_size=2)
    out = tmp_path / "out.jsonl"
    whole = evaluate(model, tokenizer, suite, config=config, out=tmp_path / "whole.jsonl")
    calls = []

    def stop(count: int) -> None:
        calls.append(count)
        if sum(calls) >= 8:
            raise Stop

    with pytest.raises(Stop):
        evaluate(model, tokenizer, suite, config=config, out=out, progress=stop)
    assert not out.exists()
    other = EvaluationConfig(batch_size=2, by="loss")
    with pytest.raises(FileExistsError, match="rows of it are there, made with another by"):
        evaluate(model, tokenizer, suite, config=other, out=out)
    found = evaluate(model, tokenizer, suite, config=config, out=out)
    assert out.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert found.resumed == 6
    assert replace(found, resumed=0) == whole
    assert sorted(path.name for path in tmp_path.iterdir() if path.name[0] == ".") == []


def test_what_does_not_fit() -> None:
    model, tokenizer = make_pair(vocab_size=128)
    with pytest.raises(ValueError, match="the tokenizer and the model do not fit"):
        AnswerScorer(model, tokenizer)
    scorer = AnswerScorer(*make_pair())
    with pytest.raises(ValueError, match="the tokenizer has no token 'ß'"):
        scorer.find_token("ß")
    for changes, text in (
        ({"by": "x"}, "by must be one of letter, loss"),
        ({"prompts": "x"}, "prompts must be one of mmlu, "),
        ({"batch_size": 0}, "batch_size must be from 1"),
        ({"max_source_tokens": 3}, "max_source_tokens must be from 4"),
    ):
        with pytest.raises(ValueError, match=text):
            EvaluationConfig(**changes)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="batch_size must be an int: got bool"):
        EvaluationConfig(batch_size=True)


@pytest.mark.parametrize("by", ["letter", "loss"])
def test_a_model_that_is_broken_answers_nothing(by: str, suite: QuestionSet) -> None:
    model, tokenizer = make_pair(**LONG)
    with torch.no_grad():
        model.decoder.final_layernorm.bias.fill_(torch.nan)
    with pytest.raises(FloatingPointError, match=r"anatomy_test.json:\d+: .* NaN"):
        evaluate(model, tokenizer, suite, config=EvaluationConfig(by=by))
