"""Models that training starts from, made or loaded, and what belongs to their tokenizer."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from lmcore._json import read_json
from lmcore._manifest import find_model
from lmcore.diffusion.configuration_text_diffusion import TextDiffusionConfig
from lmcore.diffusion.modeling_text_diffusion import TextDiffusionModel
from lmcore.diffusion.recipes import TrainConfig
from lmcore.diffusion.tokenization import TextTokenizer, load_tokenizer
from lmcore.training.checkpoint import gather_weights, no_bars

_PAPER_LENGTH = 128


def make_model(config: TrainConfig, tokenizer: TextTokenizer) -> TextDiffusionModel:
    """Returns a model with random weights, by torch's generator.

    Args:
        config: its `shape` and process count.
        tokenizer: whose tokens it knows.

    Example:
        >>> from lmcore.diffusion.recipes import tiny
        >>> from lmcore.diffusion.tokenization import make_bert_tokenizer
        >>> tokenizer = make_bert_tokenizer(["[PAD]", "[UNK]", "[CLS]", "[SEP]"])
        >>> make_model(tiny(), tokenizer).config.vocab_size
        4
    """
    shape = config.shape
    return TextDiffusionModel(
        TextDiffusionConfig(
            vocab_size=tokenizer.vocabulary_size,
            latent_size=shape.latent_size,
            hidden_size=shape.hidden_size,
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.heads,
            intermediate_size=shape.ffn_size,
            max_position_embeddings=shape.positions,
            time_size=shape.time_size,
            dropout=shape.dropout,
            attention_dropout=shape.dropout,
            diffusion_steps=config.diffusion_steps,
            noise_schedule=config.noise_schedule,
            pad_token_id=tokenizer.pad,
        )
    )


def load_model(path: str | os.PathLike[str], **options: Any) -> TextDiffusionModel:
    """Returns a model of a folder, in float32.

    Args:
        path: as `save_pretrained` writes it; of a training run, its best model.
        options: of `from_pretrained`.

    Raises:
        OSError: a file cannot be read.
        ValueError: the folder holds no model of text diffusion, or one that cannot be used.

    Example:
        >>> import tempfile
        >>> from lmcore.diffusion.recipes import tiny
        >>> from lmcore.diffusion.tokenization import make_bert_tokenizer
        >>> tokenizer = make_bert_tokenizer(["[PAD]", "[UNK]", "[CLS]", "[SEP]"])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_model(make_model(tiny(), tokenizer), tokenizer, Path(folder))
        ...     load_model(folder).config.pad_token_id
        0
    """
    folder = find_model(path)
    if not folder.is_dir():
        raise FileNotFoundError(2, "no such folder of a model", os.fspath(path))
    if not (folder / "config.json").is_file():
        raise ValueError(f"{folder}: not a model: there is no config.json in it")
    content = read_json(folder / "config.json", "a configuration")
    kind = content.get("model_type") if isinstance(content, dict) else None
    if kind != TextDiffusionConfig.model_type:
        raise ValueError(f"{folder}: expected a model of text_diffusion, got one of {kind!s:.60}")
    try:
        with no_bars():
            loaded: Any = TextDiffusionModel.from_pretrained(
                folder, dtype=torch.float32, output_loading_info=True, **options
            )
    except (MemoryError, ImportError):
        raise
    except Exception as error:  # a folder that is something else makes a loader fail in any way
        if isinstance(error, OSError) and error.errno is not None:
            raise
        reason = " ".join(str(error.__cause__ or error).split()) or type(error).__name__
        raise ValueError(f"{folder}: not a model: {reason}"[:500]) from error
    model: TextDiffusionModel = loaded[0]
    missing = sorted(loaded[1]["missing_keys"])
    if missing:  # they would be random
        raise ValueError(f"{folder}: its weights lack {missing[0]}")
    return model


def load_tokenizer_of(path: str | os.PathLike[str]) -> TextTokenizer:
    """Returns the tokenizer that lies beside a model.

    Args:
        path: a folder of a model, or of a training run: then that of its best model.

    Raises:
        OSError: a file cannot be read.
        ValueError: it is no tokenizer.

    Example:
        >>> import tempfile
        >>> from lmcore.diffusion.tokenization import make_bert_tokenizer
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     make_bert_tokenizer(["[PAD]", "[UNK]", "[CLS]", "[SEP]"]).save(folder)
        ...     load_tokenizer_of(folder).end
        3
    """
    return load_tokenizer(find_model(path))


def check_fit(model: TextDiffusionModel, tokenizer: TextTokenizer, length: int) -> None:
    """Checks that a model has an embedding for each token and each position.

    Args:
        model: of text diffusion.
        tokenizer: of the texts.
        length: positions of a row.

    Raises:
        ValueError: it has not.

    Example:
        >>> from lmcore.diffusion.recipes import tiny
        >>> from lmcore.diffusion.tokenization import make_bert_tokenizer
        >>> tokenizer = make_bert_tokenizer(["[PAD]", "[UNK]", "[CLS]", "[SEP]"])
        >>> check_fit(make_model(tiny(), tokenizer), tokenizer, 32)
    """
    config = model.config
    if tokenizer.vocabulary_size > config.vocab_size:
        raise ValueError(
            f"the tokenizer has ids up to {tokenizer.vocabulary_size - 1}, and the model knows "
            f"those below {config.vocab_size}"
        )
    if length > config.max_position_embeddings:
        raise ValueError(
            f"length must be at most the {config.max_position_embeddings} positions of the model: "
            f"got {length}"
        )


def find_row_length(config: TextDiffusionConfig) -> int:
    """Returns how many positions rows have where nothing else is asked for.

    Args:
        config: of the model: as many as it was trained with; where it does not say, the paper's
            128, or all it has if these are fewer.

    Example:
        >>> find_row_length(TextDiffusionConfig(max_position_embeddings=64))
        64
    """
    return config.row_length or min(_PAPER_LENGTH, config.max_position_embeddings)


def find_blocks(model: TextDiffusionModel) -> list[nn.Module]:
    """Returns the layers, which are sharded and recomputed one by one.

    Args:
        model: not yet sharded.

    Example:
        >>> from lmcore.diffusion.recipes import tiny
        >>> from lmcore.diffusion.tokenization import make_bert_tokenizer
        >>> tokenizer = make_bert_tokenizer(["[PAD]", "[UNK]", "[CLS]", "[SEP]"])
        >>> len(find_blocks(make_model(tiny(), tokenizer)))
        2
    """
    return [*model.input_transformers.layer]


def save_model(
    model: TextDiffusionModel, tokenizer: TextTokenizer, folder: Path, *, is_first: bool = True
) -> None:
    """Writes a model and its tokenizer, for `load_model`; every process calls it.

    Args:
        model: sharded or not.
        tokenizer: of the model.
        folder: where to.
        is_first: whether this process writes.

    Raises:
        OSError: a file cannot be written.

    Example:
        >>> import tempfile
        >>> from lmcore.diffusion.recipes import tiny
        >>> from lmcore.diffusion.tokenization import make_bert_tokenizer
        >>> tokenizer = make_bert_tokenizer(["[PAD]", "[UNK]", "[CLS]", "[SEP]"])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_model(make_model(tiny(), tokenizer), tokenizer, Path(folder))
        ...     sorted(path.name for path in Path(folder).iterdir())
        ['config.json', 'model.safetensors', 'tokenizer.json']
    """
    weights: dict[str, Tensor] = {}
    for name, value in gather_weights(model).items():
        whole = value.full_tensor() if isinstance(value, DTensor) else value
        if is_first:  # one at a time: no device has to hold all of them
            weights[name] = whole.cpu()
    if is_first:
        with no_bars():
            model.save_pretrained(folder, state_dict=weights)
        tokenizer.save(folder)
