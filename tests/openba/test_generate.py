"""Answers to prompts: against plain decoding, in any batch, drawn by row, part by part."""

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from lmcore.openba import Generation, TextGenerator, generate_file, load_generator
from lmcore.openba.models import check_fit
from lmcore.openba.sampling import OwnTokens, RowSampling
from tiny_generation import PROMPTS, make_pair, make_tokenizer, save_pair


@torch.no_grad()
def continue_greedily(model: Any, source: list[int], start: list[int], count: int) -> list[int]:
    """By whole forward passes, without a cache."""
    known = len(make_tokenizer())
    tokens = list(start)
    for _ in range(count):
        logits = model(torch.tensor([source]), decoder_input_ids=torch.tensor([tokens])).logits
        tokens.append(int(logits[0, -1, :known].argmax()))
        if tokens[-1] == model.config.eos_token_id:
            break
    return tokens[len(start) :]


@pytest.mark.parametrize("plain", [False, True])
def test_greedy_answers(plain: bool) -> None:
    model, tokenizer = make_pair()
    sentinel = tokenizer.sentinel_ids[0]
    generate = TextGenerator(model, tokenizer, Generation(max_new_tokens=12, plain=plain))
    for prompt, answer in zip(PROMPTS, generate(PROMPTS), strict=True):
        source = tokenizer(prompt if plain else f"<S> {prompt} <extra_id_0>")["input_ids"]
        assert generate.encode(prompt) == (source, False)
        if not plain:
            ends = [sentinel, tokenizer.eos_token_id]
            assert (source[0], source[-2:]) == (tokenizer.prefix_ids["<S>"], ends)
        start = [model.config.decoder_start_token_id, *([] if plain else [sentinel])]
        tokens = continue_greedily(model, source, start, 12)
        hidden = {tokenizer.eos_token_id, start[0], *start[1:]}
        expected = tokenizer.decode([token for token in tokens if token not in hidden])
        assert answer.text == expected
        is_whole = tokens[-1] == tokenizer.eos_token_id
        assert answer.truncated == ([] if is_whole else ["output"])


@pytest.mark.parametrize(
    "generation",
    [
        {}, {"num_beams": 3}, {"temperature": 1.0, "seed": 3},
        {"temperature": 0.7, "top_k": 20, "top_p": 0.9},
    ],
    ids=str,
)  # fmt: skip
def test_answers_do_not_depend_on_the_batch(generation: dict[str, Any]) -> None:
    model, tokenizer = make_pair()
    settings = {"max_new_tokens": 10, **generation}
    whole = TextGenerator(model, tokenizer, Generation(**settings))(PROMPTS)
    for size in (1, 2, 3):
        generate = TextGenerator(model, tokenizer, Generation(**settings, batch_size=size))
        done: list[int] = []
        assert generate(PROMPTS, progress=done.append) == whole
        assert sum(done) == len(PROMPTS)
        assert max(done) == size
    alone = TextGenerator(model, tokenizer, Generation(**settings))
    assert [alone([p], rows=[row])[0] for row, p in enumerate(PROMPTS)] == whole
    assert alone([], rows=[]) == []


def test_samples_are_functions_of_seed_and_row() -> None:
    model, tokenizer = make_pair()

    def sample(seed: int, rows: list[int]) -> list[str]:
        settings = Generation(temperature=1.0, seed=seed, max_new_tokens=8)
        generate = TextGenerator(model, tokenizer, settings)
        return [answer.text for answer in generate(["Ada"] * len(rows), rows=rows)]

    first = sample(1, [0, 1, 2, 2**40])
    assert len({*first}) == 4
    assert sample(1, [2**40, 1]) == [first[3], first[1]]
    assert not {*sample(2, [0, 1, 2])} & {*first}


def test_draws_have_their_probabilities() -> None:
    """Chi-square of 8 tokens, one of which cannot come; the position counts like the row."""
    logits = torch.tensor([0.0, 1.0, -torch.inf, 2.0, 0.5, -1.0, 0.2, 1.5])
    count = 4000
    drawn: Counter[int] = Counter()
    for position in range(2):
        sampling = RowSampling(5, range(count), 1)
        ids = torch.zeros(count, 1 + position, dtype=torch.long)
        scores = sampling(ids, logits.repeat(count, 1))
        assert (scores.isfinite().sum(-1) == 1).all()
        drawn.update(scores.argmax(-1).tolist())
    assert drawn[2] == 0
    chances = logits.softmax(-1).tolist()
    expected = [2 * count * chance for chance in chances]
    distance = sum((drawn[i] - e) ** 2 / e for i, e in enumerate(expected) if e)
    assert distance < 24.3  # 99.9 % of chi-square with 6 degrees of freedom lie below 22.5


@pytest.mark.parametrize("rows", [1, 7])
def test_draws_at_the_edges(rows: int) -> None:
    """One token alone, and probabilities whose sum is below 1 by rounding."""
    ids = torch.zeros(rows, 1, dtype=torch.long)
    for logits in (torch.full((9,), -torch.inf), torch.full((9,), -3e4)):
        logits[4] = 3e4
        scores = RowSampling(0, range(rows), 1)(ids, logits.repeat(rows, 1))
        assert (scores.argmax(-1) == 4).all()
    wide = RowSampling(0, range(rows), 1)(ids, torch.zeros(rows, 250_000))
    assert (wide.isfinite().sum(-1) == 1).all()


def test_top_p_and_top_k_leave_the_most_likely() -> None:
    model, tokenizer = make_pair()
    greedy = TextGenerator(model, tokenizer, Generation(max_new_tokens=8))(PROMPTS)
    for narrow in ({"top_k": 1}, {"top_p": 1e-6}):
        settings = Generation(max_new_tokens=8, temperature=2.0, **narrow)  # type: ignore[arg-type]
        assert TextGenerator(model, tokenizer, settings)(PROMPTS) == greedy


def test_beams_are_those_of_transformers() -> None:
    model, tokenizer = make_pair()
    generate = TextGenerator(model, tokenizer, Generation(num_beams=4, max_new_tokens=6))
    [answer] = generate(PROMPTS[:1])
    ids = torch.tensor([generate.encode(PROMPTS[0])[0]])
    start = torch.tensor([[model.config.decoder_start_token_id, tokenizer.sentinel_ids[0]]])
    found = model.generate(
        ids, decoder_input_ids=start, num_beams=4, max_new_tokens=6, do_sample=False,
        suppress_tokens=list(range(len(tokenizer), model.config.vocab_size)),
    )  # fmt: skip
    tokens = [t for t in found[0, 2:].tolist() if t > 2 and t != tokenizer.sentinel_ids[0]]
    assert answer.text == tokenizer.decode(tokens)


@pytest.mark.parametrize("plain", [False, True])
def test_long_prompts_are_cut_behind(plain: bool) -> None:
    model, tokenizer = make_pair()
    settings = Generation(max_source_tokens=10, max_new_tokens=4, plain=plain)
    generate = TextGenerator(model, tokenizer, settings)
    prompt = "Ada met Otto in Kelp. " * 9
    whole = tokenizer(prompt if plain else f"<S> {prompt} <extra_id_0>")["input_ids"]
    ids, is_cut = generate.encode(prompt)
    assert is_cut
    kept = 1 if plain else 2
    assert ids == [*whole[: 10 - kept], *whole[-kept:]]
    answers = generate([prompt, "Ada"])
    assert [answer.truncated for answer in answers] == [["source", "output"], ["output"]]
    assert TextGenerator(model, tokenizer).max_source_tokens == 64
    assert TextGenerator(model, tokenizer).max_new_tokens == 62


def test_only_tokens_of_the_tokenizer_are_written() -> None:
    model, tokenizer = make_pair(add_lm_head_bias=True)
    size = len(tokenizer)
    assert size < model.config.vocab_size
    with torch.no_grad():
        model.lm_head.bias[size:] = 1e4
    settings = Generation(max_new_tokens=5)
    assert TextGenerator(model, tokenizer, settings)(PROMPTS) == TextGenerator(
        make_pair()[0], tokenizer, settings
    )(PROMPTS)
    with pytest.raises(ValueError, match="the model is broken"):
        OwnTokens(2)(torch.zeros(1, 1), torch.tensor([[0.0, torch.nan, 0.0]]))
    with torch.no_grad():
        model.lm_head.bias[3] = torch.nan
    with pytest.raises(ValueError, match="the model is broken: it scores tokens with NaN"):
        TextGenerator(model, tokenizer, settings)(["Ada"])


# Part by part.


@pytest.mark.parametrize("generation", [{}, {"num_beams": 2}, {"temperature": 1.0}], ids=str)
def test_parts_are_the_answer(generation: dict[str, Any]) -> None:
    model, tokenizer = make_pair()
    settings = Generation(max_new_tokens=16, **generation)
    generate = TextGenerator(model, tokenizer, settings)
    for row, prompt in enumerate(PROMPTS):
        parts: list[str] = []
        answer = generate.stream(prompt, parts.append, row=row)
        assert "".join(parts) == answer.text
        assert [answer] == generate([prompt], rows=[row])
        assert "" not in parts
        if not generation:
            assert len(parts) > 4


class _Fixed:
    """A model that writes given tokens."""

    device = torch.device("cpu")

    def __init__(self, config: Any, tokens: list[int]) -> None:
        self.config, self.tokens = config, tokens

    def eval(self) -> "_Fixed":
        return self

    def generate(self, decoder_input_ids: Any, streamer: Any = None, **options: Any) -> Any:
        tokens = torch.tensor([self.tokens])
        if streamer is not None:
            streamer.put(decoder_input_ids)
            for token in tokens[0]:
                streamer.put(token[None])
            streamer.end()
        return torch.cat([decoder_input_ids, tokens], 1)


@pytest.mark.parametrize("text", ["a 龘 b", "😀😀", "e\u0301 x", "Ada\n 大海", "\x1b[2J", "龘"])
def test_characters_of_several_tokens_come_whole(text: str) -> None:
    model, tokenizer = make_pair()
    ids = tokenizer(text)["input_ids"]
    generate = TextGenerator(_Fixed(model.config, ids), tokenizer)
    parts: list[str] = []
    answer = generate.stream("", parts.append)
    assert answer.truncated == []
    assert "".join(parts) == answer.text == tokenizer.decode(ids, skip_special_tokens=True)
    assert "\ufffd" not in answer.text


def test_a_character_that_is_broken_off() -> None:
    model, tokenizer = make_pair()
    ids = tokenizer("龘")["input_ids"][:-2]
    parts: list[str] = []
    generate = TextGenerator(_Fixed(model.config, ids), tokenizer)
    answer = generate.stream("", parts.append)
    assert "".join(parts) == answer.text
    assert answer.text.endswith("\ufffd")
    assert answer.truncated == ["output"]


def test_what_the_frame_brings_is_no_part_of_an_answer() -> None:
    model, tokenizer = make_pair()
    first, second = tokenizer.sentinel_ids[:2]
    ids = [first, *tokenizer("Ada")["input_ids"][:-1], second, tokenizer.eos_token_id, 5]
    framed = TextGenerator(_Fixed(model.config, ids), tokenizer)
    assert framed([""])[0].text.replace(" ", "") == "Ada<extra_id_1>"
    plain = TextGenerator(_Fixed(model.config, ids), tokenizer, Generation(plain=True))
    assert plain([""])[0].text.replace(" ", "") == "<extra_id_0>Ada<extra_id_1>"


# What cannot be.


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"batch_size": 0}, ValueError, "batch_size must be from 1 to 2147483647: got 0"),
        ({"num_beams": 1.0}, TypeError, "num_beams must be an int: got float"),
        ({"seed": -1}, ValueError, "seed must be from 0 to 18446744073709551615: got -1"),
        ({"max_source_tokens": 7}, ValueError, "max_source_tokens must be from 8 to"),
        ({"max_new_tokens": True}, TypeError, "max_new_tokens must be an int: got bool"),
        ({"temperature": math.nan}, ValueError, "temperature must be from 0 to 1000: got nan"),
        ({"temperature": "1"}, TypeError, "temperature must be a number: got str"),
        ({"top_p": 0}, ValueError, "top_p must be above 0 and at most 1: got 0"),
        ({"top_k": 3}, ValueError, "temperature must be above 0 where top_k or top_p is given"),
        ({"temperature": 1, "num_beams": 2}, ValueError, "num_beams must be 1 where temperature"),
    ],
)
def test_settings_that_cannot_be(
    changes: dict[str, Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        Generation(**changes)


def test_a_tokenizer_of_another_model() -> None:
    model, tokenizer = make_pair()
    size = len(tokenizer)
    for rows in (size, size + 1023):
        model.config.vocab_size = rows
        check_fit(model, tokenizer)
    for rows in (size - 1, size + 1024):
        model.config.vocab_size = rows
        with pytest.raises(ValueError, match=f"has {size} tokens, and the model has {rows} emb"):
            TextGenerator(model, tokenizer)
    model.config.vocab_size, model.config.eos_token_id = size, [5, 6]
    with pytest.raises(ValueError, match=r"eos_token_id is 1 of the tokenizer, and \[5, 6\]"):
        TextGenerator(model, tokenizer)
    model.config.eos_token_id = [5, 1]
    check_fit(model, tokenizer)
    model, tokenizer = make_pair()
    with pytest.raises(ValueError, match="rows must hold a number for each of the 2 prompts"):
        TextGenerator(model, tokenizer)(["a", "b"], rows=[1])


def test_folders(tmp_path: Path) -> None:
    folder = save_pair(tmp_path / "model")
    settings = Generation(max_new_tokens=6)
    expected = TextGenerator(*make_pair(), settings)(PROMPTS)
    assert load_generator(folder, settings, device="cpu")(PROMPTS) == expected
    half = load_generator(folder, settings, device="cpu", dtype="bfloat16")
    assert half.model.dtype == torch.bfloat16
    with pytest.raises(ValueError, match="dtype must be one of auto, float32"):
        load_generator(folder, dtype="int8")
    with pytest.raises(ValueError, match=r"not a model: there is no config\.json in it"):
        load_generator(tmp_path)


# Files.


def write_prompts(path: Path, count: int = 9) -> Path:
    rows = [{"id": n, "prompt": PROMPTS[n % len(PROMPTS)]} for n in range(count)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_rows_keep_what_they_hold(tmp_path: Path) -> None:
    model, tokenizer = make_pair()
    source, target = write_prompts(tmp_path / "in.jsonl"), tmp_path / "out.jsonl"
    settings = Generation(max_new_tokens=6, temperature=1.0, batch_size=2)
    summary = generate_file(model, tokenizer, source, target, generation=settings)
    rows = [json.loads(line) for line in target.read_text(encoding="utf-8").splitlines()]
    assert [row["id"] for row in rows] == list(range(9))
    prompts = [row["prompt"] for row in rows]
    answers = TextGenerator(model, tokenizer, settings)(prompts, rows=range(1, 10))
    assert [(row["generation"], row.get("truncated", [])) for row in rows] == [
        (answer.text, answer.truncated) for answer in answers
    ]
    assert (summary.rows, summary.bad_rows, summary.resumed_rows) == (9, 0, 0)
    assert summary.truncated_outputs == sum("output" in a.truncated for a in answers) > 0
    assert summary.truncated_sources == 0


def test_lines_are_rows(tmp_path: Path) -> None:
    model, tokenizer = make_pair()
    source, target = tmp_path / "in.txt", tmp_path / "out.jsonl"
    source.write_bytes("Ada\n\n大海\r\n".encode())
    generate_file(model, tokenizer, source, target, generation=Generation(max_new_tokens=2))
    rows = [json.loads(line) for line in target.read_text(encoding="utf-8").splitlines()]
    assert [row["prompt"] for row in rows] == ["Ada", "大海"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"prompt": 3}', "expected a text under 'prompt', got 3"),
        ('{"id": 1}', "expected a text under 'prompt' or 'text'"),
        ('{"text": null}', "expected a text under 'text', got None"),
        ("[]", "expected a JSON object, got a list"),
    ],
)
def test_rows_without_a_prompt(tmp_path: Path, line: str, message: str) -> None:
    model, tokenizer = make_pair()
    source, target = write_prompts(tmp_path / "in.jsonl", 3), tmp_path / "out.jsonl"
    with open(source, "a", encoding="utf-8") as file:
        file.write(f"{line}\n")
    options = {"generation": Generation(max_new_tokens=2)}
    with pytest.raises(ValueError, match=r"in\.jsonl:4: ") as caught:
        generate_file(model, tokenizer, source, target, **options)  # type: ignore[arg-type]
    assert message in str(caught.value)
    summary = generate_file(
        model, tokenizer, source, target, skip_bad_rows=True, resume=False, **options,  # type: ignore[arg-type]
    )  # fmt: skip
    assert (summary.rows, summary.bad_rows) == (3, 1)
    assert summary.listed_bad_rows == [f"{source}:4: {message}"]
