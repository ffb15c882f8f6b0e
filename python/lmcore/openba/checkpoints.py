"""Released folders of OpenBA: names of their tensors, and what a folder must hold to be loaded.

Parameters have the names of the released code, with one exception: the embedding, which is
`shared_embedding.weight` there and belongs to the encoder here. `save_pretrained` writes the
released names; with `save_original_format=False` it writes ours. Both are read.
"""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.conversion_mapping import register_checkpoint_conversion_mapping
from transformers.core_model_loading import ConversionOps, WeightConverter
from transformers.utils.hub import cached_file

from lmcore._json import read_json
from lmcore.cost.configs import apply_swiglu_rule
from lmcore.openba.configuration_openba import OpenBAConfig

EMBEDDING = "encoder.embed_tokens.weight"
"""What the embedding is called here."""
EMBEDDING_NAMES = ("shared_embedding.weight", EMBEDDING, "decoder.embed_tokens.weight")
"""What it is called in files of the released code: one tensor under up to three names."""

# A tensor whose shape tells the size of the inner layer.
_FC_OUT = "decoder.block.0.mlp.fc_out.weight"
_DOWNLOAD = ("cache_dir", "force_download", "local_files_only", "revision", "subfolder", "token")


class SameTensor(ConversionOps):
    """Takes the embedding under whichever of its names a file has.

    Names that disagree are noted at the model: transformers would log what is raised here, and
    raise something that names nothing.
    """

    @torch.no_grad()
    def convert(
        self,
        input_dict: dict[str, Any],
        source_patterns: list[str],
        target_patterns: list[str],
        model: Any = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Returns the tensor under its target name.

        Args:
            input_dict: tensors by the names that they were found under.
            source_patterns: all names.
            target_patterns: the one to return it under, first.
            model: that is loaded or saved.
            kwargs: of transformers.
        """
        found = {name: x[0] if isinstance(x, list) else x for name, x in input_dict.items()}
        first, *others = found
        differing = [name for name in others if not torch.equal(found[first], found[name])]
        if differing:
            model.differing_names = [first, *differing]
        return {target_patterns[0]: found[first]}

    @property
    def reverse_op(self) -> SameTensor:
        """The same under the name of the released code."""
        return SameTensor()


def register_names() -> None:
    """Registers with transformers what the released files call the tensors of this model.

    Example:
        >>> register_names()
    """
    converter = WeightConverter(list(EMBEDDING_NAMES), [EMBEDDING], [SameTensor()])
    register_checkpoint_conversion_mapping("openba", [converter], overwrite=True)


class LoadingModel:
    """Loads a folder that holds each tensor of the model, and refuses others by name."""

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str] | None,
        *model_args: Any,
        config: Any = None,
        **kwargs: Any,
    ) -> Any:
        """Returns the model of a folder or of a name on the Hub, as transformers does.

        No tensor is started at random in silence: those that lack, are too many or have another
        shape are named. A configuration that does not say which rule the inner layers follow
        takes it from the shape of the weights.

        Args:
            pretrained_model_name_or_path: the folder or name.
            model_args: of transformers.
            config: a configuration in place of the folder's.
            kwargs: of transformers, such as `dtype`, `attn_implementation` and
                `distributed_config`.

        Raises:
            OSError: a file cannot be read.
            ValueError: the folder does not hold this model.
        """
        where = pretrained_model_name_or_path
        options = {name: kwargs[name] for name in _DOWNLOAD if name in kwargs}
        if isinstance(config, OpenBAConfig):
            if config.swiglu_rule is None and where is not None:
                config = copy.deepcopy(config)
                config.swiglu_rule = find_swiglu_rule(where, config, **options)
        elif config is None and where is not None and "swiglu_rule" not in kwargs:
            base = _find_base(where)
            read = OpenBAConfig.from_pretrained(base, **options)
            rule = find_swiglu_rule(base, read, **options) if read.swiglu_rule is None else None
            if rule is not None:
                kwargs["swiglu_rule"] = rule
        parent: Any = super()
        with _naming_damage(where):
            model = parent.from_pretrained(where, *model_args, config=config, **kwargs)
        _register_generate(model[0] if isinstance(model, tuple) else model)
        return model

    @classmethod
    def maybe_distribute_model(cls, model: Any, distributed_config: Any, mesh_manager: Any) -> Any:
        """Divides a model among processes, as transformers calls it before it reads tensors.

        Args:
            model: without its weights.
            distributed_config: of transformers, or None.
            mesh_manager: of transformers, or None.

        Raises:
            ValueError: the model cannot be divided so.
        """
        if distributed_config is not None and mesh_manager is not None:
            config, ways = model.config, distributed_config.tp_size
            sharded = distributed_config.dp_size > 1
            if config.num_heads % ways:
                raise ValueError(
                    f"num_heads must be a multiple of tp_size: got {config.num_heads} and {ways}"
                )
            if ways > 1 and config.add_ffn_bias:
                # transformers would divide the bias of both halves of `fc_in` as if it were one.
                raise ValueError("tp_size must be 1 where add_ffn_bias is true")
            if ways > 1 and sharded and config.tie_word_embeddings:
                raise ValueError("tp_size or fsdp_size must be 1 where tie_word_embeddings is true")
            if sharded:
                # Tied weights that are divided as two would lose the gradient of one.
                model.tie_weights()
        parent: Any = super()
        return parent.maybe_distribute_model(model, distributed_config, mesh_manager)

    @staticmethod
    def _finalize_model_loading(model: Any, load_config: Any, loading_info: Any) -> Any:
        """What transformers calls when tensors are read, and before it starts those that lack."""
        where = load_config.pretrained_model_name_or_path
        refuse_parts(where, model, loading_info, load_config.ignore_mismatched_sizes)
        found = PreTrainedModel._finalize_model_loading(model, load_config, loading_info)
        head = "lm_head.weight"
        tied = model.config.tie_word_embeddings and hasattr(model, "lm_head")
        if tied and head not in model.all_tied_weights_keys:
            raise ValueError(
                f"{where} does not hold this model: {head} differs from {EMBEDDING_NAMES[0]}, and "
                "tie_word_embeddings says that they are one"
            )
        return found


def refuse_parts(where: Any, model: Any, found: Any, ignore_mismatched_sizes: bool = False) -> None:
    """Checks that a checkpoint holds the tensors of a model and no others.

    Args:
        where: the checkpoint, for the error.
        model: that is loaded.
        found: `missing_keys`, `unexpected_keys` and `mismatched_keys` of the loading.
        ignore_mismatched_sizes: whether other shapes are wanted.

    Raises:
        ValueError: the checkpoint holds something else than the model.

    Example:
        >>> from types import SimpleNamespace
        >>> names = ("missing_keys", "unexpected_keys", "mismatched_keys")
        >>> found = SimpleNamespace(**dict.fromkeys(names, set()))
        >>> refuse_parts("folder", torch.nn.Module(), found)
    """
    missing = set(found.missing_keys)
    for pair in getattr(model, "all_tied_weights_keys", {}).items():
        if not missing.issuperset(pair):
            missing.difference_update(pair)
    ignored = getattr(model, "_keys_to_ignore_on_load_unexpected", None) or ()
    unknown = [
        name
        for name in sorted(found.unexpected_keys)
        if not any(re.search(pattern, name) for pattern in ignored)
    ]
    problems = []
    if missing:
        names = [
            f"{name} (or {EMBEDDING_NAMES[0]})" if name == EMBEDDING else name
            for name in sorted(missing)
        ]
        problems.append(f"it lacks {', '.join(names)}")
    if unknown:
        problems.append(f"the model has no {', '.join(unknown)}")
    wrong = [] if ignore_mismatched_sizes else sorted(found.mismatched_keys)
    problems += [
        f"{name} has the shape {list(shape)} where {list(wanted)} is expected"
        for name, shape, wanted in wrong
    ]
    if differing := getattr(model, "differing_names", None):
        problems.append(f"{' and '.join(differing)} are one tensor, and their values differ")
    if problems:
        raise ValueError(f"{where} does not hold this model: {'; '.join(problems)}")


def find_swiglu_rule(
    where: str | os.PathLike[str], config: OpenBAConfig, **options: Any
) -> bool | None:
    """Returns which rule the inner layers of a checkpoint follow, or None if it does not tell.

    Only headers are read, except from `.bin` files of old versions of torch.

    Args:
        where: a folder, or a name on the Hub.
        config: its sizes.
        options: of downloads, such as `revision`.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     print(find_swiglu_rule(folder, OpenBAConfig()))
        None
    """
    shape = _find_shape(where, {name: options[name] for name in _DOWNLOAD if name in options})
    size = config.ffn_hidden_size
    if shape is None or len(shape) != 2 or apply_swiglu_rule(size) == size:
        return None
    return {apply_swiglu_rule(size): True, size: False}.get(shape[1])


def _find_base(where: str | os.PathLike[str]) -> str | os.PathLike[str]:
    """The model that a folder of adapters belongs to; a folder of a model itself."""
    adapters = Path(where, "adapter_config.json")
    if not adapters.is_file() or Path(where, "config.json").exists():
        return where
    found = read_json(adapters, "a configuration of adapters")
    base = found.get("base_model_name_or_path") if isinstance(found, dict) else None
    return base if isinstance(base, str) else where


def _find_shape(where: str | os.PathLike[str], options: dict[str, Any]) -> list[int] | None:
    def find(name: str) -> str | None:
        path: str | None = cached_file(
            where, name, _raise_exceptions_for_missing_entries=False, **options
        )
        return path

    for whole in ("model.safetensors", "pytorch_model.bin"):
        path = find(whole)
        if path is None and (index := find(f"{whole}.index.json")) is not None:
            table = read_json(index, "an index of tensors")
            names = table.get("weight_map") if isinstance(table, dict) else None
            if not isinstance(names, dict):
                raise ValueError(f"{index}: not an index of tensors: it has no weight_map")
            shard = names.get(_FC_OUT)
            path = find(shard) if isinstance(shard, str) else None
        if path is not None:
            return _read_shape(path)
    return None


def _read_shape(path: str) -> list[int] | None:
    """The shape of the tensor that tells; what cannot be read is refused by the loading itself."""
    if path.endswith(".safetensors"):
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, "pt") as file:
                return list(file.get_slice(_FC_OUT).get_shape()) if _FC_OUT in file.keys() else None  # noqa: SIM118
        except SafetensorError:
            return None
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception:
        return None
    tensor = weights.get(_FC_OUT) if isinstance(weights, dict) else None
    return list(tensor.shape) if isinstance(tensor, Tensor) else None


@contextmanager
def _naming_damage(where: Any) -> Iterator[None]:
    """Errors of files of weights that are no such files name the file, or the folder at least."""
    from safetensors import SafetensorError, safe_open

    try:
        yield
    except SafetensorError as error:
        for path in sorted(Path(where).glob("*.safetensors")):
            try:
                with safe_open(path, "pt"):
                    pass
            except SafetensorError:
                where = path
                break
        raise ValueError(f"{where} is not a file of weights: {error}") from None
    except (UnpicklingError, EOFError, RuntimeError) as error:
        # Of a RuntimeError only the text tells.
        if isinstance(error, RuntimeError) and "PytorchStreamReader" not in str(error):
            raise
        problem = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{where}: a file of weights cannot be read: {problem}") from None


def _register_generate(model: Any) -> None:
    """A model in shards must gather the embedding before `generate` calls the encoder alone."""
    if getattr(model, "_is_fsdp_managed_module", False) and hasattr(model, "generate"):
        from torch.distributed.fsdp import register_fsdp_forward_method

        register_fsdp_forward_method(model, "generate")
