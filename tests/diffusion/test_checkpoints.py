"""Files of the released code: sizes, two tables of words, and what is no such file."""

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lmcore.diffusion import TextDiffusionModel, convert_checkpoint, load_checkpoint
from tiny_diffusion import draw, make_model

LATENTS, TIMES = draw(2, 9, 6), torch.tensor([0.5, 999.5])


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    """As the released code saves it: with the table of positions."""
    return {**make_model().state_dict(), "position_ids": torch.arange(12)[None]}


def save(folder: Path, content: object, name: str = "ema_0.9999_000100.pt") -> Path:
    torch.save(content, folder / name)
    return folder / name


def test_a_file_becomes_a_folder(tmp_path: Path, state: dict[str, Tensor]) -> None:
    path = save(tmp_path, state)
    options: dict[str, Any] = {"num_attention_heads": 4, "dropout": 0.2, "diffusion_steps": 50}
    model = convert_checkpoint(path, tmp_path / "model", **options)
    assert {file.name for file in tmp_path.iterdir()} == {"model", path.name}
    loaded = TextDiffusionModel.from_pretrained(tmp_path / "model")
    assert loaded.lm_head.weight is loaded.word_embedding.weight
    assert loaded.config.hidden_size == model.config.hidden_size == 16
    assert (loaded.config.dropout, loaded.config.diffusion_steps) == (0.2, 50)
    with torch.no_grad():
        expected = make_model()(LATENTS, TIMES)
        assert torch.equal(model(LATENTS, TIMES), expected)
        assert torch.equal(loaded(LATENTS, TIMES), expected)
    with pytest.raises(FileExistsError, match="model: is there already"):
        convert_checkpoint(path, tmp_path / "model", **options)


def test_a_folder_is_whole_or_not_there(
    tmp_path: Path, state: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(tmp_path, state)

    def fill(model: Any, folder: Path) -> None:
        (folder / "config.json").touch()
        raise OSError("no space is left")

    monkeypatch.setattr(TextDiffusionModel, "save_pretrained", fill)
    with pytest.raises(OSError, match="no space is left"):
        convert_checkpoint(path, tmp_path / "model", num_attention_heads=4)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_what_was_loaded_trains(tmp_path: Path, state: dict[str, Tensor]) -> None:
    model = load_checkpoint(save(tmp_path, state), num_attention_heads=4)
    assert not model.training
    assert model.lm_head.weight is model.word_embedding.weight
    assert all(parameter.requires_grad for parameter in model.parameters())
    model.train()(model.embed(torch.zeros(1, 3).long()), TIMES[:1]).sum().backward()
    assert model.word_embedding.weight.grad is not None


def test_two_tables_of_words(tmp_path: Path, state: dict[str, Tensor]) -> None:
    """A file of averages: torch, as the released code calls it, is left with `lm_head`."""
    average = state["word_embedding.weight"] + 1
    path = save(tmp_path, {**state, "word_embedding.weight": average})
    theirs = make_model(seed=1)
    theirs.load_state_dict(torch.load(path), strict=False)
    with pytest.warns(UserWarning, match=r"two tables of word embeddings, and lm_head\.weight is"):
        model = load_checkpoint(path, num_attention_heads=4)
    assert torch.equal(model.word_embedding.weight, theirs.word_embedding.weight)
    assert torch.equal(model.word_embedding.weight, state["lm_head.weight"])
    with pytest.warns(UserWarning, match=r"word_embedding\.weight is taken"):
        model = load_checkpoint(path, num_attention_heads=4, table="word_embedding")
    assert torch.equal(model.lm_head.weight, average)


@pytest.mark.parametrize("name", ["word_embedding", "lm_head"])
def test_one_table_of_words(tmp_path: Path, state: dict[str, Tensor], name: str) -> None:
    del (state := dict(state))[f"{name}.weight"]
    model = load_checkpoint(save(tmp_path, state), num_attention_heads=4)
    assert torch.equal(model.word_embedding.weight, make_model().word_embedding.weight)


class Hostile:
    def __reduce__(self) -> Any:
        return (Path.touch, (Path("made-by-a-pickle"),))


def test_files_that_run_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pickled = tmp_path / "model.pt"
    pickled.write_bytes(pickle.dumps({"word_embedding.weight": Hostile()}))
    for path in (pickled, save(tmp_path, {"lm_head.weight": Hostile()})):
        with pytest.raises(ValueError, match=r"not a file of weights: torch\.load: Unpickling"):
            load_checkpoint(path)
    assert not Path("made-by-a-pickle").exists()


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"word_embedding.weight": None, "lm_head.weight": None},
         "word_embedding.weight is missing"),
        ({"position_embeddings.weight": None}, "position_embeddings.weight is missing"),
        ({"LayerNorm.bias": None}, 'Missing key(s) in state_dict: "LayerNorm.bias"'),
        ({"more": torch.ones(1)}, 'Unexpected key(s) in state_dict: "more"'),
        ({"time_embed.0.weight": torch.ones(8)}, "time_embed.0.weight must have 2 axes: got [8]"),
        ({"lm_head.weight": torch.ones(3, 6)}, "two shapes: [30, 6] and [3, 6]"),
        ({"LayerNorm.bias": torch.ones(17)}, "size mismatch for LayerNorm.bias"),
        ({"word_embedding.weight": torch.ones(1, 1).expand(2**40, 6)},
         f"has the shape [{2**40}, 6], and the file"),
        ({"word_embedding.weight": torch.ones(2, 2).to_sparse()}, "must be a plain tensor"),
        ({3: torch.ones(1)}, "a tensor must have a name: got 3"),
        ({"LayerNorm.bias": "text"}, "must hold a dict of tensors: got dict"),
    ],
)  # fmt: skip
def test_files_of_something_else(
    tmp_path: Path, state: dict[str, Tensor], change: Any, text: str
) -> None:
    content = {name: value for name, value in {**state, **change}.items() if value is not None}
    path = save(tmp_path, content)
    with pytest.raises(ValueError) as error:  # noqa: PT011
        load_checkpoint(path, num_attention_heads=4)
    assert str(path) in str(error.value)
    assert text in str(error.value)
    with pytest.raises(ValueError):  # noqa: PT011
        convert_checkpoint(path, tmp_path / "model", num_attention_heads=4)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_a_file_without_layers_and_none(tmp_path: Path, state: dict[str, Tensor]) -> None:
    bare = {name: tensor for name, tensor in state.items() if "transformers" not in name}
    with pytest.raises(ValueError, match="it has no layer"):
        load_checkpoint(save(tmp_path, bare))
    with pytest.raises(FileNotFoundError):
        load_checkpoint(tmp_path / "none.pt")
    with pytest.raises(ValueError, match="must hold a dict of tensors: got list"):
        load_checkpoint(save(tmp_path, [1]))


def test_settings_that_do_not_fit(tmp_path: Path, state: dict[str, Tensor]) -> None:
    path = save(tmp_path, state)
    with pytest.raises(ValueError, match="num_attention_heads must be given: the hidden size 16"):
        load_checkpoint(path)
    with pytest.raises(Exception, match="multiple of num_attention_heads: got 16 and 3"):
        load_checkpoint(path, num_attention_heads=3)
    with pytest.raises(ValueError, match="table must be lm_head or word_embedding: got 'head'"):
        load_checkpoint(path, table="head")  # type: ignore[arg-type]
