"""Models whose layers, channels, heads and inner units are gated while they compute.

A gate of 1 lets through what is there, one of 0 is as if it were cut, and what lies between is a
part of it.

| gate | multiplies |
| --- | --- |
| of a head | what it gives, before it enters the map that makes channels of heads: in self-attention and cross-attention alike |
| of an inner unit | the same in the feed-forward |
| of a layer | what the layer adds to the states |
| of a channel | what every norm gives of it; and norms average over channels by their gates |

With gates of 0 and 1 a model computes what the pruned one does, but for rounding, in all families.
For channels this takes norms whose means and variances are those of open channels alone: the
states between are moved to the open channels' mean where they are shut, and scaled by the root of
how many of all channels are open. Models whose output layer divides by the root of the hidden size
divide by that of the open channels'. With all gates at 1 a model computes the very bits of the
original.

Source: Sheared-LLaMA (arXiv 2310.06694), section 2.1, which has norms over open channels as well.
"""  # noqa: E501

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from lmcore._extras import optional_imports
from lmcore.compression.families import Family
from lmcore.compression.plan import LAYERED, Kept, find_sizes, layers_of
from lmcore.compression.probes import Place, find_layers, find_places
from lmcore.cost import Shape
from lmcore.openba.stacks import FeedForward
from lmcore.ops.pruning_mask import masked_linear, masked_swiglu

with optional_imports():
    import torch
    from torch import Tensor, nn
    from torch.nn import functional

FUSED = ("auto", "on", "off")
"""Whether gated maps are computed by the kernels of `lmcore.ops.pruning_mask`."""


class _Channels(NamedTuple):
    """What norms need of the gates of channels, once for all of them."""

    gate: Tensor
    open_count: Tensor
    """How many are open."""
    root: Tensor
    """Of how many there are for each open one."""
    moved: Tensor
    """What states are multiplied by on their way into a norm."""
    scale: Tensor
    """What a norm's weights are multiplied by."""


class GatedModel:
    """A model with gates, all open at first.

    The model itself is changed: its modules look at the gates until `remove` is called.

    Args:
        model: of transformers, or any module whose parameters have the names of the family.
        family: of the model.
        shape: of it.
        fused: `auto` takes kernels on a CUDA device and torch elsewhere; `on` asks for kernels;
            `off` multiplies what goes into the maps.

    Raises:
        ValueError: the family has no such parameter, or a layer lacks a place for gates, or there
            is no CUDA device for kernels that are asked for.

    Example:
        >>> from lmcore.compression.families import find_family
        >>> from lmcore.cost.configs import make_shape
        >>> from transformers import T5Config, T5Model
        >>> config = T5Config(d_model=8, d_ff=6, d_kv=2, num_heads=2, num_layers=2, vocab_size=9)
        >>> model, ids = T5Model(config).eval(), torch.tensor([[3, 4]])
        >>> before = model(input_ids=ids, decoder_input_ids=ids)[0]
        >>> gated = GatedModel(model, find_family("t5"), make_shape(config.to_dict()))
        >>> gated.set({"hidden": torch.ones(8), "encoder_layers": torch.ones(2)})
        >>> bool((model(input_ids=ids, decoder_input_ids=ids)[0] == before).all())
        True
        >>> gated.set({"hidden": torch.tensor([1.0] * 4 + [0.0] * 4)})
        >>> model(input_ids=ids, decoder_input_ids=ids)[0][0, 0, 4:].abs().tolist()
        [0.0, 0.0, 0.0, 0.0]
        >>> gated.remove()
    """

    def __init__(self, model: Any, family: Family, shape: Shape, *, fused: str = "auto") -> None:
        check_fused(fused, model)
        self.model, self.shape, self.fused = model, shape, fused
        self._tables: dict[str, Tensor] = {}
        self._rows: dict[str, tuple[Tensor, ...]] = {}
        self._channels: _Channels | None = None
        self._undo: list[Callable[[], object]] = []
        places = find_places(model, family, shape)
        parents = _find_feed_forwards(model)
        last = _find_scaled(model)
        for place in places:
            if not place.is_input:
                self._replace(place.module, self._norm(place.module, place.module is last))
            elif place.module in parents:
                whole = parents[place.module]
                self._replace(whole, self._feed_forward(whole, place))
            else:
                self._replace(place.module, self._map(place))
        for (stack, layer), module in find_layers(model, family, shape).items():
            hook = module.register_forward_hook(
                self._layer(f"{stack}_layers", layer), with_kwargs=True
            )
            self._undo.append(hook.remove)

    def set(self, tables: Mapping[str, Tensor]) -> None:
        """Takes other gates, for all that the model computes from now on.

        Args:
            tables: from 0 to 1, as `lmcore.compression.gates.Gates.split` gives them; what is not
                there is open, without a multiplication.
        """
        self._tables = dict(tables)
        # A row of each layer: taking it apart once is cheaper than in every module.
        self._rows = {name: table.unbind(0) for name, table in tables.items() if name != "hidden"}
        gate = self._tables.get("hidden")
        self._channels = None
        if gate is not None:
            count = gate.sum().clamp_min(1)
            root = (len(gate) / count).sqrt()
            self._channels = _Channels(gate, count, root, gate * root, gate / root)

    def remove(self) -> None:
        """Leaves the model as it was."""
        while self._undo:
            self._undo.pop()()

    def _replace(self, module: nn.Module, forward: Callable[..., Any]) -> None:
        module.forward = forward
        self._undo.append(lambda: module.__dict__.pop("forward", None))

    def _row(self, place: Place) -> Tensor | None:
        rows = self._rows.get(place.dimension)
        return None if rows is None or place.layer is None else rows[place.layer]

    def _map(self, place: Place) -> Callable[..., Any]:
        """A map of heads or inner units to channels."""
        module, plain = place.module, place.module.forward
        width = place.axis.measure(self.shape)[1]
        # Maps of another kind, such as GPT-2's, keep their weights the other way round.
        linear = module if isinstance(module, nn.Linear) and self.fused != "off" else None

        def forward(states: Tensor) -> Any:
            gate = self._row(place)
            if gate is None:
                return plain(states)
            if linear is not None:
                return masked_linear(states, linear.weight, linear.bias, input_gate=gate)
            wide = gate if width == 1 else gate.repeat_interleave(width)
            return plain(states * wide.to(states.dtype))

        return forward

    def _feed_forward(self, module: FeedForward, place: Place) -> Callable[..., Any]:
        """OpenBA's, whose two maps are one op."""
        plain = module.forward
        first, second = module.fc_in, module.fc_out

        def forward(states: Tensor) -> Any:
            gate = self._row(place)
            if gate is None:
                return plain(states)
            if self.fused == "off":
                opened, up = first(states).chunk(2, -1)
                return second(functional.silu(opened) * up * gate.to(up.dtype))
            return masked_swiglu(
                states, first.weight, second.weight, first.bias, second.bias, inner_gate=gate
            )

        return forward

    def _norm(self, module: nn.Module, is_scaled: bool) -> Callable[..., Any]:
        plain = module.forward
        if not isinstance(module, nn.LayerNorm):  # a root mean square, with no mean and no bias

            def normalise(states: Tensor) -> Any:
                channels = self._channels
                if channels is None:
                    return plain(states)
                scale = channels.gate if is_scaled else channels.scale
                normed = plain((states * channels.moved).to(states.dtype))
                return (normed * scale).to(normed.dtype)

            return normalise
        norm = module

        def forward(states: Tensor) -> Any:
            channels = self._channels
            if channels is None:
                return plain(states)
            mean = _average(states, channels.gate) / channels.open_count
            spread = torch.lerp(mean, states.to(mean.dtype), channels.moved)
            weight = norm.weight * (channels.gate if is_scaled else channels.scale)
            bias: Tensor | None = norm.bias
            if bias is not None:
                bias = bias * channels.gate
                bias = bias * channels.root if is_scaled else bias
            return functional.layer_norm(spread, norm.normalized_shape, weight, bias, norm.eps)

        return forward

    def _layer(self, name: str, layer: int) -> Callable[..., Any]:
        def gate_added(_: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
            rows = self._rows.get(name)
            if rows is None:
                return None
            before = args[0] if args else kwargs["hidden_states"]
            after = output[0] if isinstance(output, tuple) else output
            gated = torch.lerp(before.to(after.dtype), after, rows[layer].to(after.dtype))
            return (gated, *output[1:]) if isinstance(output, tuple) else gated

        return gate_added


def make_tables(kept: Kept, shape: Shape) -> dict[str, Tensor]:
    """Returns gates of 0 and 1 that shut what a plan cuts, for `GatedModel.set`.

    Args:
        kept: by the plan.
        shape: of the original.

    Example:
        >>> from lmcore.compression.plan import Plan, Stage, find_kept
        >>> shape = Shape(
        ...     encoder_layers=0, decoder_layers=3, hidden_size=4, heads=2, groups=2, head_size=2,
        ...     inner_size=6, vocabulary_size=9)
        >>> stage = Stage(decoder_layers=[0, 2], hidden=[1, 2])
        >>> tables = make_tables(find_kept(Plan(model_type="llama", shape=shape, stages=[stage])),
        ...     shape)
        >>> tables["decoder_layers"].tolist(), tables["hidden"].tolist()
        ([1.0, 0.0, 1.0], [0.0, 1.0, 1.0, 0.0])
        >>> [*tables]
        ['decoder_layers', 'hidden']
    """
    tables, sizes = {}, find_sizes(shape)
    for name in ("encoder_layers", "decoder_layers", "hidden"):
        if len(getattr(kept, name)) < sizes[name]:
            tables[name] = torch.zeros(sizes[name])
            tables[name][[*getattr(kept, name)]] = 1
    for name in LAYERED:
        layers = getattr(kept, name)
        if all(len(indices) == sizes[name] for indices in layers.values()):
            continue
        tables[name] = torch.zeros(sizes[layers_of(name)], sizes[name])
        for layer, indices in layers.items():
            tables[name][layer, [*indices]] = 1
    return tables


def check_fused(fused: str, model: Any) -> None:
    """Checks that a model can be computed in a way.

    Args:
        fused: one of `FUSED`.
        model: with parameters.

    Raises:
        ValueError: there is no such way, or none on the model's device.

    Example:
        >>> check_fused("on", nn.Linear(1, 1))
        Traceback (most recent call last):
        ValueError: fused must be auto or off where there is no CUDA device: got on
    """
    if fused not in FUSED:
        raise ValueError(f"fused must be one of {', '.join(FUSED)}: got {fused!r:.60}")
    if fused == "on" and next(iter(model.parameters())).device.type != "cuda":
        raise ValueError("fused must be auto or off where there is no CUDA device: got on")


def _average(states: Tensor, gate: Tensor) -> Tensor:
    """The sum of gated channels, `[..., 1]`, in the type of the gate."""
    if states.device.type == "cpu" and states.dtype == gate.dtype:
        return torch.mv(states.flatten(0, -2), gate).view(*states.shape[:-1], 1)
    return (states * gate).sum(-1, keepdim=True)


def _find_feed_forwards(model: Any) -> dict[nn.Module, FeedForward]:
    """Those of OpenBA, by their second maps."""
    return {one.fc_out: one for one in model.modules() if isinstance(one, FeedForward)}


def _find_scaled(model: Any) -> nn.Module | None:
    """The decoder's last norm where logits are divided by the root of the hidden size."""
    config = model.config
    is_scaled = getattr(config, "scale_decoder_outputs", False)
    if config.model_type == "openba":
        is_scaled = config.tie_word_embeddings
    elif config.model_type == "mt5":
        is_scaled = False
    if not is_scaled or model.get_output_embeddings() is None:
        return None
    decoder = model.get_decoder()
    name = "final_layernorm" if config.model_type == "openba" else "final_layer_norm"
    found: nn.Module = getattr(decoder, name)
    return found
