"""Batches of rows: the authors' forms of prompt and labels, limits, and bad rows."""

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tiny_models
from lmcore.ner.collator import IGNORED, GNERCollator, write_prompt
from lmcore.ner.pairs import find_pair, find_words, read_pairs


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return tiny_models.make_tokenizer()


def test_prompts_are_those_of_the_released_checkpoints(golden_dir: Path) -> None:
    for case in json.loads((golden_dir / "gner_data/prompts.json").read_text()):
        assert write_prompt(case["instruction"]) == case["decoder_only_prompt"]


# What a model reads and learns.


def test_an_encoder_decoder_reads_the_instruction_and_learns_the_target(tokenizer: Any) -> None:
    rows = tiny_models.make_rows(3)
    rows[1]["target"] += " Ada(B-person)"
    batch = GNERCollator(tokenizer, is_encoder_decoder=True)(rows)
    assert set(batch) == {"input_ids", "attention_mask", "labels"}
    for place, row in enumerate(rows):
        source = tokenizer(row["instruction"]).input_ids
        target = tokenizer(row["target"]).input_ids
        assert target[-1] == tokenizer.eos_token_id
        assert batch["input_ids"][place, : len(source)].tolist() == source
        assert batch["attention_mask"][place].sum() == len(source)
        labels = batch["labels"][place].tolist()
        assert labels == target + [IGNORED] * (len(labels) - len(target))
    assert batch["labels"].shape == (3, 5)
    assert {value.dtype for value in batch.values()} == {torch.int64}


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_decoder_learns_what_stands_behind_the_prompt(tokenizer: Any, side: str) -> None:
    rows = tiny_models.make_rows(2)
    rows[1]["instruction"] += " Ada Ada"
    tokenizer = tiny_models.make_tokenizer()
    tokenizer.padding_side = side
    batch = GNERCollator(tokenizer, is_encoder_decoder=False)(rows)
    for place, row in enumerate(rows):
        held = batch["attention_mask"][place].bool()
        ids, labels = batch["input_ids"][place][held], batch["labels"][place]
        text = write_prompt(row["instruction"]) + " " + row["target"]
        assert ids.tolist() == tokenizer(text).input_ids  # which ends with the end
        assert labels[~held].eq(IGNORED).all()
        learnt = labels[held]
        count = len(tokenizer(write_prompt(row["instruction"])).input_ids) - 1
        assert learnt[:count].eq(IGNORED).all()
        assert learnt[count:].equal(ids[count:])
        assert ids[-1] == tokenizer.eos_token_id
    assert batch["attention_mask"][0, 0 if side == "left" else -1] == 0


def test_decoder_inputs_come_from_the_model(tokenizer: Any) -> None:
    model = tiny_models.make_t5(tokenizer)
    collator = GNERCollator(tokenizer, model=model)
    batch = collator(tiny_models.make_rows(2))
    assert batch["decoder_input_ids"][:, 1:].equal(batch["labels"][:, :-1])
    assert batch["decoder_input_ids"][:, 0].eq(0).all()
    given = model(**batch).loss
    del batch["decoder_input_ids"]
    assert torch.equal(model(**batch).loss, given)
    llama = GNERCollator(tokenizer, model=tiny_models.make_llama(tokenizer))
    assert not llama.is_encoder_decoder
    assert "decoder_input_ids" not in llama(tiny_models.make_rows(2))


@pytest.mark.parametrize("is_encoder_decoder", [True, False])
def test_prompts_for_generation_hold_no_target(tokenizer: Any, is_encoder_decoder: bool) -> None:
    collator = GNERCollator(tokenizer, is_encoder_decoder=is_encoder_decoder)
    rows = tiny_models.make_rows(2)
    rows[0]["instruction"] += " Ada"
    prompts = collator.encode_prompts([{"instruction": row["instruction"]} for row in rows])
    encoded = collator.encode(rows)
    for prompt, item in zip(prompts, encoded, strict=True):
        if is_encoder_decoder:
            assert np.array_equal(prompt, item.input_ids)
        else:
            assert np.array_equal(prompt, item.input_ids[item.labels == IGNORED])
    mask = collator.pad_prompts(prompts)["attention_mask"]
    assert mask[1, -1 if is_encoder_decoder else 0] == 0


def test_rows_of_the_authors_are_read(tokenizer: Any) -> None:
    row = tiny_models.make_rows(1)[0]
    theirs = {
        "dataset": "names", "split": "train", "label_list": row["types"],
        "instance": {
            "id": "0", "words": row["words"], "labels": row["labels"],
            "instruction_inputs": row["instruction"], "prompt_labels": row["target"],
        },
    }  # fmt: skip
    assert find_pair(theirs) == find_pair(row)
    assert find_words(theirs) == find_words(row)
    collator = GNERCollator(tokenizer, is_encoder_decoder=True)
    one, two = collator([row]), collator([theirs])
    assert all(one[name].equal(two[name]) for name in one)


# Limits.


def test_what_is_cut_is_counted_and_said_once(tokenizer: Any) -> None:
    collator = GNERCollator(
        tokenizer, is_encoder_decoder=True, max_source_tokens=6, max_target_tokens=3
    )
    rows = tiny_models.make_rows(2)
    with pytest.warns(
        RuntimeWarning, match=r"2 instructions and 2 targets of 2 rows are cut, 8 tokens"
    ):
        batch = collator(rows)
    assert batch["input_ids"].shape == (2, 6)
    assert batch["labels"].shape == (2, 3)
    # The tokenizer cuts, and keeps the end of the text.
    assert batch["labels"][:, -1].eq(tokenizer.eos_token_id).all()
    collator(rows)
    assert (collator.truncation.rows, collator.truncation.tokens) == (4, 16)


def test_a_decoder_has_one_limit_for_prompt_and_target(tokenizer: Any) -> None:
    rows = tiny_models.make_rows(1)  # 10 tokens of prompt, 3 of target, the end
    fits = GNERCollator(
        tokenizer, is_encoder_decoder=False, max_source_tokens=2, max_target_tokens=12
    )
    assert len(fits.encode(rows)[0].input_ids) == 14
    assert fits.truncation.tokens == 0
    cut = GNERCollator(
        tokenizer, is_encoder_decoder=False, max_source_tokens=2, max_target_tokens=10
    )
    (item,) = cut.encode(rows)
    assert (item.label_count, cut.truncation.targets, cut.truncation.tokens) == (2, 1, 2)
    # A cut text does not teach that it ends there.
    assert tokenizer.eos_token_id not in item.labels
    none = GNERCollator(
        tokenizer, is_encoder_decoder=False, max_source_tokens=2, max_target_tokens=8
    )
    message = "row 5: nothing is left of its target: its prompt has 10 tokens, and both together"
    with pytest.raises(ValueError, match=message):
        none.encode(rows, first=5)
    assert len(none.encode_prompts(rows)[0]) == 9
    assert none.truncation.sources == 1


def test_an_empty_target_teaches_the_end(tokenizer: Any) -> None:
    row = {"instruction": "Ada met", "target": ""}
    for is_encoder_decoder in (True, False):
        collator = GNERCollator(tokenizer, is_encoder_decoder=is_encoder_decoder)
        labels = collator([row])["labels"]
        assert labels[labels != IGNORED].tolist() == [tokenizer.eos_token_id]
    endless = tiny_models.make_tokenizer()
    endless.backend_tokenizer.post_processor = None
    with pytest.raises(ValueError, match="row 3: its target is empty, and the tokenizer adds no"):
        GNERCollator(endless, is_encoder_decoder=True).encode([row], first=3)


def test_no_rows_are_no_batch(tokenizer: Any) -> None:
    assert GNERCollator(tokenizer, is_encoder_decoder=True).encode([]) == []


# Bad input.


@pytest.mark.parametrize(
    ("row", "error", "message"),
    [
        ({"target": "a"}, ValueError, "row 0: instruction is missing"),
        ({"instruction": "a"}, ValueError, r"row 0: target is missing \(or prompt_labels in"),
        ({"instruction": " ", "target": "a"}, ValueError, "row 0: instruction must not be empty"),
        ({"instruction": "a", "target": None}, ValueError, "row 0: target is missing"),
        (
            {"instruction": 3, "target": "a"},
            TypeError,
            "row 0: instruction must be a text: got int",
        ),
        ({"instance": {"instruction_inputs": []}}, TypeError, "row 0: instruction_inputs must be"),
        ({"instance": 3}, ValueError, "row 0: instruction is missing"),
    ],
)
def test_bad_rows(
    tokenizer: Any, row: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        GNERCollator(tokenizer, is_encoder_decoder=True)([row])


def test_what_a_collator_needs(tokenizer: Any) -> None:
    with pytest.raises(ValueError, match="model or is_encoder_decoder must be given"):
        GNERCollator(tokenizer)
    with pytest.raises(ValueError, match="max_source_tokens must be at least 2: got 1"):
        GNERCollator(tokenizer, is_encoder_decoder=True, max_source_tokens=1)
    with pytest.raises(ValueError, match="no token for padding"):
        GNERCollator(tiny_models.make_tokenizer(pad=False), is_encoder_decoder=True)
    endless = tiny_models.make_tokenizer()
    endless.eos_token = None
    with pytest.raises(ValueError, match="no token for the end"):
        GNERCollator(endless, is_encoder_decoder=False)


def test_files_are_read_row_by_row(tmp_path: Path) -> None:
    rows = tiny_models.make_rows(3)
    lines = [*map(json.dumps, rows), "", '{"instruction": "a"}', "[]"]
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(gzip.compress("\n".join(lines).encode()))
    with pytest.raises(ValueError, match=r"rows\.jsonl\.gz:5: target is missing"):
        read_pairs(path)
    found = read_pairs(path, skip_bad_rows=True)
    assert found.rows == rows
    assert found.bad_rows == 2
    assert [text.rpartition("gz:")[2][:2] for text in found.listed_bad_rows] == ["5:", "6:"]
    bare = tmp_path / "bare.jsonl"
    bare.write_text('{"instruction": "a", "target": "b"}\n')
    assert len(read_pairs(bare).rows) == 1
    with pytest.raises(ValueError, match=r"bare.jsonl:1: words is missing, which validation"):
        read_pairs(bare, scored=True)
    with pytest.raises(ValueError, match="none of 1 rows can be used; the first: "):
        read_pairs(bare, scored=True, skip_bad_rows=True)
