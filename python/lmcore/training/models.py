"""Language models that are trained: loaded from a folder, with or without LoRA, and saved."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from lmcore._auto_classes import register_systems
from lmcore._extras import optional_imports
from lmcore._manifest import check_manifest
from lmcore._text import find_reason
from lmcore.training.checkpoint import gather_weights, no_bars
from lmcore.training.lora import LoraConfig

with optional_imports():
    from tokenizers import Tokenizer, decoders, pre_tokenizers, processors, trainers
    from tokenizers.models import BPE
    from transformers import (
        AutoConfig,
        AutoModelForCausalLM,
        AutoModelForSeq2SeqLM,
        AutoTokenizer,
        PreTrainedTokenizerFast,
    )

_ADAPTER = "adapter_config.json"
_PADDING, _END, _UNKNOWN = "<pad>", "</s>", "<unk>"


def find_model(name: str | os.PathLike[str]) -> str:
    """Returns the folder of a model, or the name by which transformers finds it elsewhere.

    Args:
        name: a folder of `save_pretrained`, with a whole model or with an adapter; the folder of a
            run, whose best model it is; or a name that transformers knows.

    Raises:
        OSError: a file cannot be read.
        ValueError: a folder does not exist or holds no model, or has changed since it was written.

    Example:
        >>> find_model("google/flan-t5-small")
        'google/flan-t5-small'
    """
    text = os.fspath(name)
    path = Path(text).expanduser()
    if not text or not path.is_dir():
        if path.exists() or text.startswith((".", "~", os.sep)) or text.count("/") > 1:
            raise ValueError(f"{text or 'the empty name'}: no such folder of a model")
        return text
    if (path / "recipe.json").is_file():
        path = path / "best"
    if not any((path / file).is_file() for file in ("config.json", _ADAPTER)):
        raise ValueError(f"{path}: not a model: there is no config.json in it")
    if (path / "manifest.json").is_file():
        check_manifest(path)
    return str(path.absolute())


def load_tokenizer(name: str | os.PathLike[str]) -> Any:
    """Returns the tokenizer of a model, which pads on the right.

    A tokenizer without a token for padding takes that of unknown texts or of the end: what is
    padded is masked.

    Args:
        name: as for `find_model`.

    Raises:
        ValueError: it cannot be loaded, or has no token for padding or the end of a text.

    Example:
        >>> from transformers import GPT2Config, GPT2LMHeadModel
        >>> model = GPT2LMHeadModel(GPT2Config(n_embd=4, n_layer=1, n_head=1, vocab_size=300))
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_model(model, make_tokenizer(["Ada"], 300), Path(folder))
        ...     load_tokenizer(folder).padding_side
        'right'
    """
    source = find_model(name)
    register_systems()
    with _refusing(source, "a tokenizer"), no_bars():
        tokenizer = AutoTokenizer.from_pretrained(source, local_files_only=Path(source).is_dir())
    if tokenizer.eos_token_id is None:
        raise ValueError(f"{source}: its tokenizer has no token for the end of a text")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.unk_token or tokenizer.eos_token
    tokenizer.padding_side = "right"
    return tokenizer


def load_model(name: str | os.PathLike[str]) -> Any:
    """Returns a model with weights in float32: an encoder-decoder or a causal language model.

    Of a folder with an adapter it is the model that the adapter was trained for, with the
    adapter's matrices added in. Nothing is fetched where the name is a folder.

    Args:
        name: as for `find_model`.

    Raises:
        ImportError: there is an adapter, and peft is not installed.
        ValueError: it cannot be loaded, is no such model, or lacks weights.

    Example:
        >>> from transformers import GPT2Config, GPT2LMHeadModel
        >>> model = GPT2LMHeadModel(GPT2Config(n_embd=4, n_layer=1, n_head=1, vocab_size=300))
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_model(model, make_tokenizer(["Ada"], 300), Path(folder))
        ...     load_model(folder).config.n_embd
        4
    """
    source = find_model(name)
    register_systems()
    if (Path(source) / _ADAPTER).is_file():
        return _load_adapted(source)
    options = {"local_files_only": Path(source).is_dir()}
    with _refusing(source, "a model"), no_bars(), no_reports():
        config = AutoConfig.from_pretrained(source, **options)
        made: Any = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
        model, found = made.from_pretrained(
            source, dtype=torch.float32, output_loading_info=True, **options
        )
    missing = sorted(found["missing_keys"])
    if missing:
        raise ValueError(
            f"{source}: lacks {len(missing)} weights of a {type(model).__name__}, first "
            f"{missing[0]}"
        )
    if config.is_encoder_decoder and getattr(config, "decoder_start_token_id", None) is None:
        raise ValueError(f"{source}: config.json must hold decoder_start_token_id")
    return name_loss(model)


def name_loss(model: Any) -> Any:
    """Returns the model, which knows that its loss is that of language models.

    transformers finds the loss by the name of the class, and takes the same one with a warning
    where that says nothing, such as GPT2LMHeadModel.

    Args:
        model: of transformers.

    Example:
        >>> from transformers import GPT2Config, GPT2LMHeadModel
        >>> model = GPT2LMHeadModel(GPT2Config(n_embd=4, n_layer=1, n_head=1, vocab_size=300))
        >>> name_loss(model).loss_type
        'ForCausalLM'
    """
    if getattr(model, "loss_type", "") is None:
        model.loss_type = "ForCausalLM"
    return model


def make_tokenizer(texts: Iterable[str], vocabulary: int) -> Any:
    """Returns a tokenizer of byte pairs that are frequent in some texts; it can write any text.

    A word has the same tokens wherever it stands, so that it can be copied.

    Args:
        texts: to count in.
        vocabulary: tokens at most, at least 300.

    Example:
        >>> tokenizer = make_tokenizer(["Ada met Ada"], 300)
        >>> tokenizer.decode(tokenizer("Ada Ω").input_ids, skip_special_tokens=True).strip()
        'Ada Ω'
    """
    core = Tokenizer(BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[_PADDING, _END, _UNKNOWN],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    core.train_from_iterator(texts, trainer)
    core.post_processor = processors.TemplateProcessing(
        single=f"$A {_END}", special_tokens=[(_END, core.token_to_id(_END))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token=_PADDING,
        eos_token=_END,
        unk_token=_UNKNOWN,
        padding_side="right",
        clean_up_tokenization_spaces=False,
    )


def add_lora(model: Any, config: LoraConfig) -> Any:
    """Returns the model with low-rank matrices, which alone are trained (by peft).

    Args:
        model: of transformers; it is changed.
        config: a rank of at least 1, and the rest.

    Raises:
        ImportError: peft is not installed.
        ValueError: the model has no layer of such a name, it is no linear one, or peft knows
            none for this kind of model.

    Example:
        >>> from transformers import GPT2Config, GPT2LMHeadModel
        >>> model = GPT2LMHeadModel(GPT2Config(n_embd=4, n_layer=1, n_head=1, vocab_size=300))
        >>> model = add_lora(model, LoraConfig(rank=2, targets=("c_attn",)))
        >>> sum(p.numel() for p in model.parameters() if p.requires_grad)  # 2 * (4 + 12)
        32
    """
    with optional_imports():
        import peft

    # By name, whether its matrix is stored the other way round, as GPT-2's are.
    linear: dict[str, bool] = {}
    for name, module in model.named_modules():
        is_turned = type(module).__name__ == "Conv1D"
        if isinstance(module, nn.Linear) or is_turned:
            linear.setdefault(name.rpartition(".")[2], is_turned)
    for target in config.targets or ():
        if target not in linear:
            raise ValueError(
                f"lora.targets: {target!r:.60} is no linear layer of a {type(model).__name__}; "
                f"there are {', '.join(linear)}"
            )
    targets = None if config.targets is None else list(config.targets)
    if targets is None and model.config.model_type not in _known_targets():
        raise ValueError(
            f"lora.targets must be given for a {type(model).__name__}: its linear layers are "
            f"{', '.join(linear)}"
        )
    settings = peft.LoraConfig(
        task_type="SEQ_2_SEQ_LM" if model.config.is_encoder_decoder else "CAUSAL_LM",
        r=config.rank,
        lora_alpha=config.alpha,  # type: ignore[arg-type]  # any number does
        lora_dropout=config.dropout,
        target_modules=targets,
        fan_in_fan_out=any(linear[name] for name in targets or linear),
    )
    with _no_reminders():
        return peft.get_peft_model(model, settings)


def recompute_layers(model: Any) -> None:
    """Returns nothing, and lets layers be computed again in the backward pass rather than kept.

    It is transformers' own way, which keeps caches of attention apart; the room's is for plain
    blocks.

    Args:
        model: of transformers, or what `add_lora` returned.

    Raises:
        ValueError: it is not built for that.

    Example:
        >>> from transformers import GPT2Config, GPT2LMHeadModel
        >>> model = GPT2LMHeadModel(GPT2Config(n_embd=4, n_layer=1, n_head=1, vocab_size=300))
        >>> recompute_layers(model)
        >>> model.is_activation_checkpointing
        True
    """
    if not model.supports_gradient_checkpointing:
        raise ValueError(f"device.recompute must be false: a {type(model).__name__} cannot do it")
    with _no_reminders():
        model.gradient_checkpointing_enable({"use_reentrant": False})


def check_fit(model: Any, sequences: Iterable[Sequence[int] | NDArray[Any]], limits: str) -> None:
    """Returns nothing if a model knows all tokens and has room for the longest sequence.

    A tokenizer of another model would read outside of the table, and long texts behind it.

    Args:
        model: of transformers.
        sequences: of token ids; negative ones, of labels, are passed over.
        limits: names of the settings that bound their lengths, for the error.

    Raises:
        ValueError: it does not.

    Example:
        >>> from transformers import GPT2Config, GPT2LMHeadModel
        >>> model = GPT2LMHeadModel(GPT2Config(n_embd=4, n_layer=1, n_head=1, vocab_size=300))
        >>> check_fit(model, [[1, 299]], "max_tokens")
    """
    size = model.get_input_embeddings().num_embeddings
    most, longest = 0, 0
    for ids in sequences:
        if len(ids):
            most, longest = max(most, int(np.max(ids))), max(longest, len(ids))
    if most >= size:
        raise ValueError(
            f"the tokenizer and the model do not fit: a token has the id {most}, and the model "
            f"has {size} embeddings"
        )
    positions = getattr(model.config, "max_position_embeddings", None)
    if positions is not None and longest > positions:
        raise ValueError(
            f"{limits} must be less: a row has {longest} tokens, and the model has {positions} "
            "positions"
        )


def find_blocks(model: nn.Module) -> list[nn.Module]:
    """Returns the layers that transformers keeps together, such as those to shard.

    Args:
        model: of transformers, or what `add_lora` returned.

    Example:
        >>> from transformers import GPT2Config, GPT2LMHeadModel
        >>> model = GPT2LMHeadModel(GPT2Config(n_embd=4, n_layer=1, n_head=1, vocab_size=300))
        >>> len(find_blocks(model))
        1
    """
    base: Any = model.get_base_model() if hasattr(model, "peft_config") else model  # type: ignore[operator]
    names = set(base._no_split_modules or ())
    return [module for module in model.modules() if type(module).__name__ in names]


def save_model(
    model: Any, tokenizer: Any, folder: Path, *, save: str = "merged", is_first: bool = True
) -> None:
    """Writes a model and its tokenizer as `save_pretrained` does; every process calls it.

    Args:
        model: of transformers, or what `add_lora` returned.
        tokenizer: of the model.
        folder: where to.
        save: `merged`, a whole model, or `adapter`, the matrices of LoRA alone.
        is_first: whether this process writes.

    Raises:
        OSError: a file cannot be written.

    Example:
        >>> from transformers import GPT2Config, GPT2LMHeadModel
        >>> model = GPT2LMHeadModel(GPT2Config(n_embd=4, n_layer=1, n_head=1, vocab_size=300))
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_model(model, make_tokenizer(["Ada"], 300), Path(folder))
        ...     Path(folder, "model.safetensors").exists()
        True
    """
    weights = {
        name: value.full_tensor() if isinstance(value, DTensor) else value
        for name, value in gather_weights(model).items()
    }
    if not is_first:
        return
    with no_bars():
        if not hasattr(model, "peft_config"):
            model.save_pretrained(folder, state_dict=weights)
        elif save == "adapter":
            # Whether the embeddings grew would be asked of the hub.
            model.save_pretrained(folder, state_dict=weights, save_embedding_layers=False)
        else:
            model.get_base_model().save_pretrained(folder, state_dict=_merge(model, weights))
        tokenizer.save_pretrained(folder)


def _merge(model: Any, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a whole model: each product of matrices is added, and nothing is changed."""
    from peft.tuners.lora import LoraLayer

    layers = {
        name: module for name, module in model.named_modules() if isinstance(module, LoraLayer)
    }
    merged = {}
    for name, value in weights.items():
        owner, inside, rest = name.partition(".base_layer.")
        if inside and owner in layers:
            if rest == "weight":
                layer: Any = layers[owner]
                low, high = (weights[f"{owner}.lora_{part}.default.weight"] for part in "AB")
                product = layer.scaling["default"] * (high @ low)
                value = value + (product.T if layer.fan_in_fan_out else product)
            name = f"{owner}.{rest}"
        elif any(name.startswith(f"{layer}.lora_") for layer in _parents(name) & layers.keys()):
            continue
        merged[name.removeprefix("base_model.model.")] = value
    return merged


def _parents(name: str) -> set[str]:
    parts = name.split(".")
    return {".".join(parts[:count]) for count in range(1, len(parts))}


def _load_adapted(folder: str) -> Any:
    with optional_imports():
        import peft
    with _refusing(folder, "an adapter"):
        base = peft.PeftConfig.from_pretrained(folder).base_model_name_or_path
    if not base:
        raise ValueError(f"{folder}: {_ADAPTER} does not name a model")
    model = load_model(base)
    with _refusing(folder, "an adapter"), no_bars(), _no_reminders():
        return peft.PeftModel.from_pretrained(model, folder).merge_and_unload()


def _known_targets() -> dict[str, Any]:
    from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as KNOWN

    return dict(KNOWN)


@contextmanager
def _refusing(source: str, what: str) -> Iterator[None]:
    """A folder that is something else makes a loader fail in any way."""
    try:
        yield
    except (MemoryError, ImportError):
        raise
    except Exception as error:
        reason = find_reason(error)
        raise ValueError(f"{source}: not {what} that can be loaded: {reason}") from error


@contextmanager
def _no_reminders() -> Iterator[None]:
    """What peft calls of transformers may bear another name since."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield


@contextmanager
def no_reports() -> Iterator[None]:
    """Yields while transformers reports errors alone.

    What weights a model lacks is said by our error, and not by a table before it; and a row that
    has ended is filled up with padding, which a step of generation takes for a missing mask.

    Example:
        >>> with no_reports():
        ...     pass
    """
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)
