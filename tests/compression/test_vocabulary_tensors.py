"""Which tensors follow the vocabulary, and which ids settings name, for models of many families."""

from typing import Any

import numpy as np
import pytest
import torch
import transformers
from transformers import GPT2Config, PreTrainedConfig

from lmcore.compression.token_ids import find_missing, list_token_ids, renumber_settings
from lmcore.compression.vocabulary_tensors import (
    VocabularyTensors,
    find_vocabulary_tensors,
    list_size_settings,
    make_vocabulary_cuts,
)
from tiny_vocabularies import FAMILIES

EXPECTED = {
    "t5": {"shared.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight",
           "lm_head.weight"},
    "mt5": {"shared.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight",
            "lm_head.weight"},
    "mbart": {"model.shared.weight", "model.encoder.embed_tokens.weight", "lm_head.weight",
              "model.decoder.embed_tokens.weight", "final_logits_bias"},
    "deberta": {"deberta.embeddings.word_embeddings.weight", "cls.predictions.bias",
                "cls.predictions.decoder.weight", "cls.predictions.decoder.bias"},
    "xlmr": {"roberta.embeddings.word_embeddings.weight", "lm_head.bias", "lm_head.decoder.weight",
             "lm_head.decoder.bias"},
    "gpt2": {"transformer.wte.weight", "lm_head.weight"},
    "llama": {"model.embed_tokens.weight", "lm_head.weight"},
    "bert": {"bert.embeddings.word_embeddings.weight", "cls.predictions.bias",
             "cls.predictions.decoder.weight", "cls.predictions.decoder.bias"},
}  # fmt: skip


def make_config(name: str, **more: Any) -> Any:
    config, kind, _, options = FAMILIES[name]
    found = getattr(transformers, config)(vocab_size=331, **{**options, **more})
    found.architectures = [kind]
    return found


@pytest.mark.parametrize("name", EXPECTED)
def test_tensors_of_families(name: str) -> None:
    found = find_vocabulary_tensors(make_config(name))
    assert set(found.axes) == EXPECTED[name]
    assert found.rows == 331
    assert {axis for name, axis in found.axes.items() if name != "final_logits_bias"} == {0}
    assert found.axes.get("final_logits_bias", 1) == 1


def test_a_tensor_of_the_same_size_does_not_follow() -> None:
    """Sizes tell nothing: here the inner layer has as many units as there are tokens."""
    found = find_vocabulary_tensors(make_config("gpt2", n_inner=331, n_positions=331))
    assert set(found.axes) == EXPECTED["gpt2"]
    shapes = {"transformer.wte.weight": (331, 16), "transformer.wpe.weight": (331, 16)}
    cuts = make_vocabulary_cuts(found, shapes, np.array([3, 0, -1]), 330)
    assert [len(cut.keep) for cut in cuts] == [2, 0]


def test_a_model_of_the_base_class_and_other_heads() -> None:
    for kind, expected in [
        (None, {"embeddings.word_embeddings.weight"}),
        ("BertForSequenceClassification", {"bert.embeddings.word_embeddings.weight"}),
    ]:
        config = make_config("bert")
        config.architectures = None if kind is None else [kind]
        assert set(find_vocabulary_tensors(config).axes) == expected


def test_names_with_and_without_the_prefix_and_names_of_before() -> None:
    found = find_vocabulary_tensors(make_config("bert"))
    shapes = {
        "embeddings.word_embeddings.weight": (331, 16),
        "bert.embeddings.position_embeddings.weight": (128, 16),
        "cls.predictions.old_bias": (331,),
        "cls.old": (16,),
    }
    cuts = make_vocabulary_cuts(found, shapes, np.array([3, 0, -1]), 330)
    kept = {cut.source: [None if k is None else k.tolist() for k in cut.keep] for cut in cuts}
    assert kept == {
        "embeddings.word_embeddings.weight": [[3, 0, 330], None],
        "bert.embeddings.position_embeddings.weight": [],
        "cls.predictions.old_bias": [[3, 0, 330]],
        "cls.old": [],
    }


def test_checkpoints_that_do_not_fit() -> None:
    found = find_vocabulary_tensors(make_config("gpt2"))
    with pytest.raises(ValueError, match=r"^transformer\.wte\.weight has the shape \[330, 16\], "):
        make_vocabulary_cuts(found, {"transformer.wte.weight": (330, 16)}, np.arange(3), 0)
    with pytest.raises(ValueError, match=r"^lm_head\.weight has the shape \[\], and the conf"):
        make_vocabulary_cuts(found, {"lm_head.weight": ()}, np.arange(3), 0)
    with pytest.raises(ValueError, match=r"^the checkpoint holds no embedding of 331 tokens"):
        make_vocabulary_cuts(found, {"transformer.h.0.ln_1.weight": (16,)}, np.arange(3), 0)


def test_configurations_without_one_vocabulary() -> None:
    config = make_config("gpt2")
    config.decoder_vocab_size = 300
    with pytest.raises(ValueError, match=r"one vocabulary: its sizes are 300, 331$"):
        find_vocabulary_tensors(config)
    with pytest.raises(ValueError, match=r"one vocabulary: its sizes are none$"):
        find_vocabulary_tensors(PreTrainedConfig())
    config = make_config("gpt2")
    config.architectures = ["EvilModel"]
    with pytest.raises(ValueError, match=r"^its architecture is 'EvilModel', which transformers"):
        find_vocabulary_tensors(config)
    with pytest.raises(ValueError, match=r"^its configuration makes no GPT2LMHeadModel: "):
        find_vocabulary_tensors(make_config("gpt2", n_head=3))


def test_making_models_takes_no_memory() -> None:
    config = GPT2Config(vocab_size=2**31, n_embd=2**14, n_layer=1, n_head=2)
    config.architectures = ["GPT2LMHeadModel"]
    assert find_vocabulary_tensors(config).width == 2**14
    assert torch.get_default_device() == torch.device("cpu")


def test_sizes_of_parts() -> None:
    settings = {
        "vocab_size": 7, "type_vocab_size": 2, "text": {"src_vocab_size": 9, "n": 1},
        "vocab_size_per_layer": 5, "vocab_sizes": 3, "old_vocab_size": True, 1: {"a": 2},
    }  # fmt: skip
    assert dict(list_size_settings(settings)) == {  # type: ignore[arg-type]
        ("vocab_size",): 7, ("text", "src_vocab_size"): 9, ("vocab_size_per_layer",): 5,
    }  # fmt: skip


# Ids in settings.

SETTINGS = {
    "pad_token_id": 0, "eos_token_id": [1, 7], "image_token_index": 5, "sep_token_id": None,
    "unk_token_id": -1, "mask_token_id": 99, "vocab_size": 9, "num_layers": 7,
    "text_config": {"bos_token_id": 5, "d_model": 1}, "lang_to_id": {"en": 5, "zh": 7},
    "bad_words_ids": [[2], [5, 7], [5, 2]], "suppress_tokens": [7, 2, 5],
    "forced_decoder_ids": [[1, 7], [2, None]], "sequence_bias": [[[5], 0.5], [[2, 5], 1.0]],
    "force_words_ids": [[5], [[7], [1]]], "id2label": {0: "a", 1: "b"}, "tie_word_embeddings": True,
}  # fmt: skip


def test_all_ids_of_settings() -> None:
    # A word that is never generated needs no token; 99 is none that the embedding has.
    assert list_token_ids(SETTINGS) == {0, 1, 5, 7, 99}
    new = renumber_settings(SETTINGS, {0: 0, 1: 1, 5: 2, 7: 3}, 9)
    assert new == {
        "pad_token_id": 0, "eos_token_id": [1, 3], "image_token_index": 2, "sep_token_id": None,
        "unk_token_id": -1, "mask_token_id": None, "vocab_size": 9, "num_layers": 7,
        "text_config": {"bos_token_id": 2, "d_model": 1}, "lang_to_id": {"en": 2, "zh": 3},
        "bad_words_ids": [[2, 3]], "suppress_tokens": [3, 2],
        "forced_decoder_ids": [[1, 3], [2, None]], "sequence_bias": [[[2], 0.5]],
        "force_words_ids": [[2], [[3], [1]]], "id2label": {0: "a", 1: "b"},
        "tie_word_embeddings": True,
    }  # fmt: skip
    with pytest.raises(ValueError, match=r"name the token 7, which goes$"):
        renumber_settings(SETTINGS, {0: 0, 1: 1, 5: 2}, 9)


def test_ids_that_a_file_leaves_out() -> None:
    complete = {"a": 1, "eos_token_id": 9, "pad_token_id": 0, "text": {"bos_token_id": 9, "b": 2}}
    changed = {"a": 1, "eos_token_id": 3, "pad_token_id": 0, "text": {"bos_token_id": 3, "b": 2}}
    assert find_missing({}, complete, changed) == {"eos_token_id": 3, "text": {"bos_token_id": 3}}
    stated = {"eos_token_id": 3, "text": {"b": 2}}
    expected = {"eos_token_id": 3, "text": {"b": 2, "bos_token_id": 3}}
    assert find_missing(stated, complete, changed) == expected


def test_tensors_that_are_shared_are_named_once_each() -> None:
    tensors = VocabularyTensors(
        rows=4, axes={"a.weight": 0, "final_bias": 1}, known=frozenset({"a.weight", "final_bias"}),
        prefix="model", width=2,
    )  # fmt: skip
    shapes = {"model.a.weight": (4, 2), "final_bias": (1, 4), "other": (4,), "scalar": ()}
    cuts = make_vocabulary_cuts(tensors, shapes, np.array([1, -1]), 3)
    kept = [[None if k is None else k.tolist() for k in cut.keep] for cut in cuts]
    assert kept == [[[1, 3], None], [None, [1, 3]], [[1, 3]], []]
