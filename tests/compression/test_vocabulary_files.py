"""Folders whose tokenizer is a real SentencePiece file alone, by each class of transformers."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import transformers

from lmcore.compression import TokenizerFolder, prune_vocabulary
from lmcore.compression.pieces.folder import load_tokenizer
from tiny_vocabularies import FAMILIES, count_lines, write_lines

SMALL, LARGE = "sp_botchan_en_unigram_1000", "mistral_v3_spm_32768"
# What a class adds: sentinels behind (T5), ids one further (XLM-R), languages behind (mBART).
CASES = {
    "t5": (SMALL, "spiece.model", "T5Tokenizer"),
    "xlmr": (SMALL, "sentencepiece.bpe.model", "XLMRobertaTokenizer"),
    "deberta": (SMALL, "spm.model", "DebertaV2Tokenizer"),
    "mbart": (SMALL, "sentencepiece.bpe.model", "MBartTokenizer"),
    "llama": (LARGE, "tokenizer.model", "LlamaTokenizer"),
}


@pytest.mark.parametrize("name", CASES)
def test_classes_that_read_piece_files(data_dir: Path, tmp_path: Path, name: str) -> None:
    model, file, tokenizer_class = CASES[name]
    config, kind, _, options = FAMILIES[name]
    source = tmp_path / "old"
    source.mkdir()
    shutil.copyfile(data_dir / f"tok/{model}.model", source / file)
    settings = {"tokenizer_class": tokenizer_class}
    (source / "tokenizer_config.json").write_text(json.dumps(settings))
    made = getattr(transformers, config)
    made(vocab_size=40_000, **options).save_pretrained(source)
    rows = max(load_tokenizer(source).get_vocab().values()) + 8
    getattr(transformers, kind)(made(vocab_size=rows, **options)).save_pretrained(source)
    text = (data_dir / "corpora/en/tinyshakespeare.txt").read_text("utf-8").splitlines()
    lines = [line for line in text[:600] if line.strip()]
    write_lines(tmp_path / "text", lines)
    counts = count_lines(source, lines)
    table = TokenizerFolder(source).table
    seen = np.flatnonzero(counts.total).tolist()
    least = {*table.find_required().tolist(), *table.find_characters(seen).tolist()}
    keep = len(least) + len({*seen} - least) // 2
    proof = prune_vocabulary(
        source, tmp_path / "new", counts, keep, multiple=8, prove=[tmp_path / "text"]
    ).proof
    assert proof is not None
    assert (proof.failures, proof.lines) == ([], len(lines))
    assert 0 < proof.surviving_lines < proof.lines
    assert proof.rise > 0
    assert (tmp_path / "new" / file).stat().st_size < (source / file).stat().st_size
    assert len(load_tokenizer(tmp_path / "new")) == keep
