"""Texts of sources: alone, among others, in a chain, and which timesteps make them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from torch import Tensor

from lmcore.diffusion import (
    Sampler,
    SamplingConfig,
    TextDiffusionModel,
    TextGenerator,
    choose_timesteps,
    generate_texts,
    load_generator,
    make_process,
    trace_chains,
)
from lmcore.diffusion.chains import Chain, render_chains
from lmcore.diffusion.data import encode_pairs
from lmcore.diffusion.models import make_model, save_model
from lmcore.diffusion.noise import SamplingNoise
from lmcore.diffusion.pairs import Pair, PairParser, PairReader
from lmcore.diffusion.precision import find_precision, narrow_denoiser
from lmcore.diffusion.sampling import read_tokens
from lmcore.ops.schedule import ADAPTIVE_DECAY, make_betas, space_timesteps
from tiny_diffusion import make_pairs, make_tokenizer, small

TOKENIZER = make_tokenizer()
PAIRS = make_pairs(9)
SOURCES = [pair.source for pair in PAIRS]


def make_lively_model() -> TextDiffusionModel:
    """Random weights whose texts differ: plain ones say nearly the same of any latents."""
    torch.manual_seed(3)
    model = make_model(small(), TOKENIZER)
    with torch.no_grad():
        for projection in (model.input_up_proj, model.output_down_proj):
            for layer in (projection[0], projection[2]):
                layer.weight.mul_(6)
    return model


@pytest.fixture(scope="module")
def generator() -> TextGenerator:
    return TextGenerator(
        make_lively_model(), TOKENIZER, SamplingConfig(steps=5, length=32, batch_size=4)
    )


def change(generator: TextGenerator, **changes: Any) -> TextGenerator:
    return TextGenerator(generator.model, TOKENIZER, replace(generator.sampling, **changes))


# Timesteps.


def test_schedules_by_name_are_the_authors() -> None:
    for name, spec in (("adaptive", "adp_20"), ("quadratic", "x2_20"), ("ddim", "ddim20")):
        expected = space_timesteps(2000, spec)[::-1].tolist()
        assert choose_timesteps(2000, name) == expected
        assert choose_timesteps(2000, spec) == expected
    assert choose_timesteps(2000, "uniform") == space_timesteps(2000, [20])[::-1].tolist()
    assert choose_timesteps(2000, "10,20") == space_timesteps(2000, [10, 20])[::-1].tolist()


@pytest.mark.parametrize("schedule", ["adaptive", "uniform", "quadratic"])
@pytest.mark.parametrize("steps", [1, 2, 3, 4, 7, 60])
def test_sampling_begins_with_noise(schedule: str, steps: int) -> None:
    timesteps = choose_timesteps(60, schedule, steps)
    assert timesteps[0] == 59
    assert timesteps == sorted({*timesteps}, reverse=True)
    # Of the square several may fall on one timestep.
    assert len(timesteps) == steps or (schedule == "quadratic" and steps > 4)


def test_all_steps_are_the_whole_process() -> None:
    for schedule in ("adaptive", "uniform", "quadratic", "ddim"):
        assert choose_timesteps(60, schedule, 60) == [*range(59, -1, -1)]
    config = make_model(small(), TOKENIZER).config
    process = make_process(config, choose_timesteps(60, "adaptive", 60))
    np.testing.assert_array_equal(process.betas, make_betas("sqrt", 60))
    assert (process.total_steps, process.timestep_map.tolist()) == (60, [*range(60)])


def test_proportions() -> None:
    assert choose_timesteps(2000, "adaptive", 20, ADAPTIVE_DECAY) == choose_timesteps(2000)
    few = choose_timesteps(2000, "adaptive", 10, (0.5, 0.3, 0.2))
    assert sum(step < 667 for step in few) == 5
    assert few[0] == 1999


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("adaptive", 61), "steps must be from 1 to the 60 timesteps of the model's training"),
        (("adaptive", 0), "steps must be from 1 to the 60 timesteps"),
        (("adaptive", 5, (0.5, 0.6)), "proportions"),
        (("uniform", 5, (0.5, 0.5)), "proportions go with the schedule adaptive: got 'uniform'"),
        (("adp_20", 20), "steps must not be given with the schedule 'adp_20'"),
        (("best", 5), "schedule must be one of adaptive, uniform, quadratic, ddim, or a spec"),
        (("", 5), "schedule must be one of"),
        (("-1",), "schedule must be one of"),
        (("adp_5,5",), "schedule must be one of"),
        (("adp_61",), "61"),
        (("ddim", 59), "59"),
    ],
)
def test_timesteps_that_cannot_be_had(arguments: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        choose_timesteps(60, *arguments)


# A row for itself.


def test_a_row_depends_on_neither_batch_nor_place(generator: TextGenerator) -> None:
    expected = generator(SOURCES, seed=7)
    assert len({*expected}) == len(SOURCES)
    for size in (1, 3, len(SOURCES)):
        assert change(generator, batch_size=size)(SOURCES, seed=7) == expected
    backwards = generator(SOURCES[::-1], seed=7)
    assert backwards[::-1] == expected
    assert generator(SOURCES[4:5], seed=7) == expected[4:5]
    assert generator([SOURCES[0], *SOURCES[:2]], seed=7) == [expected[0], *expected[:2]]
    assert generator(SOURCES, seed=8) != expected


def test_noise_is_another_for_each_source(generator: TextGenerator) -> None:
    rows = [question.row for question in generator.encode(PAIRS)]
    assert len({*rows}) == len(PAIRS)
    assert all(0 <= row < 1 << 31 for row in rows)


def test_no_step_waits_for_the_device(generator: TextGenerator) -> None:
    """A meta tensor has no values: reading one is an error, and waiting is reading one."""
    with torch.device("meta"):
        model = make_model(small(), TOKENIZER)
    seen: list[Tensor] = []
    tokens, finite = TextGenerator(model, TOKENIZER, generator.sampling).compute(
        generator.encode(PAIRS), 1, lambda step: seen.append(read_tokens(model, step.estimates))
    )
    assert (tokens.shape, len(seen)) == ((9, 32), 5)
    with pytest.raises(RuntimeError, match="meta"):
        bool(finite)


def test_all_tokens_of_a_row_are_its_own(generator: TextGenerator) -> None:
    """The padding behind a text, too, and for every solver."""
    questions = generator.encode(PAIRS)
    for sampler in (
        Sampler(), Sampler(clamp=False), Sampler(solver="ddim", eta=0.5),
        Sampler(solver="dpm_solver"),
    ):  # fmt: skip
        generate = change(generator, sampler=sampler)
        together = generate.answer(questions, 1)
        assert [generate.answer([one], 1)[0] for one in questions] == together
        assert {len(q.given) + len(ids) for q, ids in zip(questions, together, strict=True)} == {32}


def reference_path(generator: TextGenerator, pair: Pair, seed: int) -> list[int]:
    """The chain of one row as the specification writes it, in float64, step by step."""
    model, process = generator.model, generator.process
    [question] = generator.encode([pair])
    table = model.word_embedding.weight.detach().double()
    ids = torch.full((generator.length,), TOKENIZER.pad)
    given = len(question.given)
    ids[:given] = torch.tensor(question.given)
    noise = SamplingNoise(seed, [question.row], generator.length, table.shape[1])
    source = table[ids]
    state = noise.start()[0].double()
    betas = process.betas
    abar = np.cumprod(1 - betas)
    words = ids
    for k in reversed(range(len(betas))):
        state[:given] = source[:given]
        time = torch.tensor([process.timestep_map[k] * 1000.0 / process.total_steps])
        with torch.no_grad():
            f = model(state[None].float(), time.float())[0].double()
        distances: Tensor = (f[:, None] - table[None]).square().sum(-1)
        words = distances.argmin(-1)
        f = table[words]
        before = abar[k - 1] if k else 1.0
        mean = betas[k] * np.sqrt(before) / (1 - abar[k]) * f
        mean = mean + (1 - before) * np.sqrt(1 - betas[k]) / (1 - abar[k]) * state
        # The fixed large variance: the betas, but for the first.
        state = mean + (np.sqrt(betas[k]) * noise(k)[0].double() if k else 0)
    logits = state @ table.T + model.lm_head.bias.detach().double()
    return [int(one) for one in logits.argmax(-1)[given:]]


def test_the_chain_is_that_of_the_specification(generator: TextGenerator) -> None:
    generate = change(generator, steps=20)
    questions = generate.encode(PAIRS[:4])
    found = generate.answer(questions, 11)
    assert [reference_path(generate, pair, 11) for pair in PAIRS[:4]] == found
    assert choose_timesteps(60, "adaptive", 20) == generate.timesteps


# What the model reads.


def test_pairs_with_targets_are_shortened_as_in_training(generator: TextGenerator) -> None:
    long = [Pair("the thief " * n, "by the stone " * m) for n, m in ((1, 1), (20, 2), (2, 20),
                                                                   (20, 20))]  # fmt: skip
    questions = generator.encode(long)
    encoded = encode_pairs(long, TOKENIZER, 32)
    for question, ids, given in zip(questions, encoded.ids, encoded.source_lengths, strict=True):
        assert list(question.given) == ids[:given].tolist()
    assert sum(q.cut_source + q.cut_target for q in questions) == encoded.cut_tokens
    assert [q.truncated for q in questions] == [[], ["source"], ["target"], ["source", "target"]]
    assert questions[2].reference == tuple(TOKENIZER.encode_batch([long[2].target])[0])


def test_a_source_without_a_target_leaves_room(generator: TextGenerator) -> None:
    text = "the thief " * 20
    [half] = generator.encode([Pair(text, "")])
    [more] = change(generator, target_tokens=4).encode([Pair(text, "")])
    assert (len(half.given), len(more.given)) == (2 + 14, 2 + 25)
    assert (half.cut_source, half.cut_target, half.reference) == (41 - 14, 0, ())
    [short] = generator.encode([Pair("the thief", "")])
    assert short.truncated == []
    [known] = generator.encode([Pair("the thief", "the stone")])
    assert (known.row, known.given) == (short.row, short.given)


def test_unknown_tokens_and_texts_without_tokens(generator: TextGenerator) -> None:
    [question] = generator.encode([Pair("the xyzzy", "xyzzy")])
    assert question.unknown == 2
    with pytest.raises(ValueError, match="pair 1: its source has no tokens"):
        generator.encode([Pair("the", ""), Pair(" ", "")])
    assert generator([]) == []


def test_plain_texts_end_where_they_end(generator: TextGenerator) -> None:
    cls, sep, pad = TOKENIZER.start, TOKENIZER.end, TOKENIZER.pad
    (the,) = TOKENIZER.encode_batch(["the"])[0]
    ids = [cls, the, sep, the, pad, pad]
    assert generator.read(ids) == "[CLS] the [SEP] the"
    assert generator.read(ids, plain=True) == "the"
    assert generator.read([pad]) == ""


def test_pairs_may_lack_targets_where_that_is_asked_for(tmp_path: Path) -> None:
    forms = {
        "jsonl": '{"src": "a"}\n{"src": "b", "trg": " "}\n{"src": "c", "trg": "d"}\n',
        "tsv": "a\nb\t \nc\td\n",
        "csv": "x,mr,ref\n1,a,\n1,b, \n1,c,d\n",
    }
    for form, text in forms.items():
        file = tmp_path / f"pairs.{form}"
        file.write_text(text)
        reader = PairReader(file, needs_target=False)
        assert [*reader] == [Pair("a", ""), Pair("b", ""), Pair("c", "d")]
        with pytest.raises(ValueError, match=rf"pairs\.{form}:[12]: "):
            [*PairReader(file)]
    parser = PairParser("csv", needs_target=False)
    parser.read_names(b"src,more")
    assert parser.parse(b"a,b") == Pair("a", "")
    with pytest.raises(ValueError, match="expected columns src and trg, or mr and ref"):
        PairParser("csv").read_names(b"src,more")
    with pytest.raises(ValueError, match="src must not be empty"):
        PairParser("jsonl", needs_target=False).parse(b'{"src": ""}')


# Models and settings.


def test_rows_are_as_long_as_in_training(generator: TextGenerator, tmp_path: Path) -> None:
    model = make_model(small(), TOKENIZER)
    assert (
        TextGenerator(make_model(small(), TOKENIZER), TOKENIZER, SamplingConfig(length=9)).length
        == 9
    )
    model.config.row_length = 20
    save_model(model, TOKENIZER, tmp_path)
    loaded = load_generator(tmp_path, SamplingConfig(steps=3), device="cpu")
    assert loaded.length == 20
    with pytest.raises(ValueError, match="length must be at most the 64 positions of the model"):
        TextGenerator(generator.model, TOKENIZER, SamplingConfig(length=65))
    assert TextGenerator(generator.model, TOKENIZER).length == 64
    paper = make_model(small(**{"shape.positions": 512}), TOKENIZER)
    assert TextGenerator(paper, TOKENIZER).length == 128
    with pytest.raises(StrictDataclassError, match="row_length must be at least 1 and at most"):
        type(model.config)(row_length=513)


def test_texts_of_functions_and_folders_are_equal(generator: TextGenerator, tmp_path: Path) -> None:
    save_model(generator.model, TOKENIZER, tmp_path)
    loaded = load_generator(tmp_path, generator.sampling, device="cpu")
    given = {"seed": 4, "sampling": generator.sampling}
    assert loaded(SOURCES, seed=4) == generate_texts(generator.model, TOKENIZER, SOURCES, **given)


def test_bfloat16_leaves_words_as_they_are(generator: TextGenerator) -> None:
    model = make_lively_model()
    narrow_denoiser(model, torch.bfloat16)
    assert model.lm_head.weight is model.word_embedding.weight
    assert torch.equal(model.lm_head.weight, generator.model.lm_head.weight)
    assert model.position_embeddings.weight.dtype == torch.bfloat16
    texts = TextGenerator(model, TOKENIZER, generator.sampling)(SOURCES)
    assert all(isinstance(text, str) for text in texts)
    assert find_precision("cpu", "auto") == torch.float32
    with pytest.raises(ValueError, match="precision bfloat16: cpu lacks it here"):
        find_precision("cpu", "bfloat16")
    with pytest.raises(ValueError, match="precision must be one of auto, float32, bfloat16"):
        find_precision("cpu", "float16")


@pytest.mark.parametrize(
    ("settings", "kind", "text"),
    [
        ({"steps": 0}, ValueError, "steps must be from 1 to"),
        ({"steps": 2.0}, TypeError, "steps must be an int: got float"),
        ({"batch_size": 0}, ValueError, "batch_size must be from 1 to"),
        ({"batch_size": None}, TypeError, "batch_size must be an int: got NoneType"),
        ({"length": 7}, ValueError, "length must be from 8 to"),
        ({"target_tokens": 1 << 31}, ValueError, "target_tokens must be from 1 to"),
    ],
)
def test_settings_out_of_range(settings: Any, kind: type[Exception], text: str) -> None:
    with pytest.raises(kind, match=text):
        SamplingConfig(**settings)


# Chains.


def test_a_chain_ends_with_the_sample(generator: TextGenerator) -> None:
    questions = generator.encode(PAIRS[:3])
    chains = trace_chains(generator, questions, seed=5)
    answers = generator.answer(questions, 5)
    for chain, ids in zip(chains, answers, strict=True):
        assert chain.texts[-1] == generator.read(ids)
        assert chain.timesteps == tuple(generator.timesteps)
        assert len(chain.texts) == 5
        assert chain.texts[chain.settled - 1] == chain.texts[-1]
    assert chains[0].reference == f"[CLS] {PAIRS[0].target} [SEP]"
    assert trace_chains(generator, []) == []


def test_equal_steps_are_one_line_and_changes_are_marked() -> None:
    texts = ("a b", "a b", "a c", "a c d", "a d", "a d")
    chain = Chain(source="s", reference="a d", timesteps=(9, 7, 5, 3, 1, 0), texts=texts)
    assert chain.settled == 5
    page = render_chains([chain], title="t")
    body = page[page.index("<dl") :]
    assert "Final after 5 of 6 steps." in page
    assert "final after 5 of 6 steps, and equal to the reference" in page
    lines = [part.partition("</dd>")[0] for part in body.split("<dd>")[1:]]
    plus, minus = '<b title="new">+</b>', '<b title="gone">−</b>'
    assert lines == [
        f"<mark class=new>{plus}a b</mark>", f"a <mark class=new>{plus}c</mark>",
        f"a c <mark class=new>{plus}d</mark>",
        f"a <mark class=wrong>{minus}<del>c</del></mark> d",
    ]  # fmt: skip
    assert "<dt>steps 1 to 2<br>t = 9 to 7</dt>" in body
    assert "<dt>step 3<br>t = 5</dt>" in body


def test_pages_escape_what_comes_from_data() -> None:
    hostile = "<script>alert(1)</script>&\"'"
    chain = Chain(source=hostile, reference=hostile, timesteps=(1, 0), texts=(hostile, hostile))
    page = render_chains([chain], title=hostile, settings=[hostile])
    assert "<script" not in page
    assert "There is no row" in render_chains([], title="t")
    long = Chain(source="s", reference="", timesteps=tuple(range(99, -1, -1)),
                 texts=tuple(map(str, range(100))))  # fmt: skip
    assert "40 earlier lines" in render_chains([long], title="t")


# A model that was distilled.


def test_a_distilled_model_samples_with_its_own_timesteps(generator: TextGenerator) -> None:
    model = make_lively_model()
    with pytest.raises(ValueError, match="the model was not distilled"):
        TextGenerator(model, TOKENIZER, SamplingConfig(schedule="distilled"))
    model.config.distilled_timesteps = [29, 59]
    own = TextGenerator(model, TOKENIZER, SamplingConfig(schedule="distilled", length=32))
    assert own.timesteps == [59, 29]
    assert own.sampling.sampler == Sampler(solver="ddim", clamp=False)
    rounded = Sampler(solver="ddim")
    other = TextGenerator(model, TOKENIZER, replace(own.sampling, sampler=rounded))
    assert other.sampling.sampler == rounded
    alike = SamplingConfig(schedule="uniform", steps=2, length=32, sampler=own.sampling.sampler)
    plain = TextGenerator(model, TOKENIZER, alike)
    assert plain.timesteps == [59, 0]
    assert plain(SOURCES) != own(SOURCES)
    with pytest.raises(ValueError, match="steps and proportions must not be given"):
        TextGenerator(model, TOKENIZER, SamplingConfig(schedule="distilled", steps=2))
