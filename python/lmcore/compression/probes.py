"""What a model tells of its parts while it reads: activations, gradients of gates, influence.

Nothing is known of a model but its family's table. A map that reads heads or inner units and gives
channels is where they can be seen; channels are seen behind every norm. Gates stand at these
places, all open: the gradient of a gate at 1 is the change of the loss, to first order, when what
it lets through is scaled.

Sums are taken over rows one by one, and padding counts for nothing: so the size of batches makes no
difference, and memory does not grow with their number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lmcore._extras import optional_imports
from lmcore.compression.calibration import CalibrationBatch
from lmcore.compression.choosing import Scores
from lmcore.compression.families import Family
from lmcore.compression.families.family import HIDDEN, Axis
from lmcore.compression.magnitudes import Sums, fold
from lmcore.compression.plan import LAYERED, find_sizes, layers_of
from lmcore.cost import Shape

with optional_imports():
    import torch
    from torch import Tensor, nn
    from torch.nn import functional

Progress = Callable[[int], object]


class Place(NamedTuple):
    """Where channels, heads or inner units of a model are seen."""

    module: nn.Module
    dimension: str
    """As a plan names it."""
    stack: str
    layer: int | None
    """None of channels."""
    axis: Axis
    is_input: bool
    """Whether they go into the module, or come out of it."""


def find_places(model: Any, family: Family, shape: Shape) -> list[Place]:
    """Returns the places where each dimension of a model is seen.

    Args:
        model: of transformers, or any module whose parameters have the names of the family.
        family: of the model.
        shape: of it.

    Raises:
        ValueError: the family has no such parameter, or a layer lacks such a place.

    Example:
        >>> from lmcore.compression.families import find_family
        >>> from lmcore.cost.configs import make_shape
        >>> from transformers import T5Config, T5Model
        >>> config = T5Config(d_model=8, d_ff=6, d_kv=2, num_heads=2, num_layers=1, vocab_size=9)
        >>> places = find_places(T5Model(config), find_family("t5"), make_shape(config.to_dict()))
        >>> [place.dimension for place in places if place.stack == "encoder"]
        ['encoder_heads', 'hidden', 'encoder_ffn', 'hidden', 'hidden']
    """
    places = []
    for name, _ in model.named_parameters():
        found = family.find(name)
        if found is None:
            raise ValueError(f"{family.model_types[0]} has no tensor {name!r:.200}")
        path, _, leaf = name.rpartition(".")
        if leaf != "weight":
            continue
        axis, stack = family.find_read(found), _find_stack(name, shape)
        if axis is not None:
            dimension = f"{found.stack}_{axis.dimension}"
            module = model.get_submodule(path)
            places.append(Place(module, dimension, found.stack, found.layer, axis, True))
        elif found.axes == (HIDDEN,):
            module = model.get_submodule(path)
            places.append(Place(module, "hidden", stack, None, HIDDEN, False))
    _check_complete(places, shape)
    return places


def find_layers(model: Any, family: Family, shape: Shape) -> dict[tuple[str, int], nn.Module]:
    """Returns the layers of a model, by stack and number.

    Args:
        model: of the family.
        family: of the model.
        shape: of it.

    Raises:
        ValueError: there are others than the shape says.

    Example:
        >>> from lmcore.compression.families import find_family
        >>> from lmcore.cost.configs import make_shape
        >>> from transformers import T5Config, T5Model
        >>> config = T5Config(d_model=8, d_ff=6, d_kv=2, num_heads=2, num_layers=1, vocab_size=9)
        >>> [*find_layers(T5Model(config), find_family("t5"), make_shape(config.to_dict()))]
        [('encoder', 0), ('decoder', 0)]
    """
    paths = {}
    for name, _ in model.named_parameters():
        found = family.find(name)
        if found is not None and found.layer is not None:
            paths[found.stack, found.layer] = name[: found.span[1]]
    expected = {(stack, layer) for stack in ("encoder", "decoder")
                for layer in range(getattr(shape, f"{stack}_layers"))}  # fmt: skip
    if {*paths} != expected:
        raise ValueError(f"expected {len(expected)} layers, got {len(paths)}")
    return {key: model.get_submodule(path) for key, path in paths.items()}


def score_activations(
    model: Any, batches: Iterable[CalibrationBatch], family: Family, shape: Shape,
    progress: Progress | None = None,
) -> Scores:  # fmt: skip
    """Returns the root mean square of what goes through each channel, head and inner unit.

    Of a head all its places are added up, and those of cross-attention; channels are added up
    over all norms.

    Args:
        model: in the mode of evaluation.
        batches: of calibration text.
        family: of the model.
        shape: of it.
        progress: called with the number of tokens of each batch.

    Raises:
        ValueError: an activation is no finite number.

    Example:
        >>> from lmcore.compression.calibration import CalibrationRow, make_batch
        >>> from lmcore.compression.families import find_family
        >>> from lmcore.cost.configs import make_shape
        >>> from transformers import T5Config, T5Model
        >>> config = T5Config(d_model=8, d_ff=6, d_kv=2, num_heads=2, num_layers=1, vocab_size=9)
        >>> model, shape = T5Model(config).eval(), make_shape(config.to_dict())
        >>> model.encoder.block[0].layer[1].DenseReluDense.wi.weight.data[3] = 0
        >>> batch = make_batch([CalibrationRow((3, 4, 1), (5, 1))], "encoder-decoder")
        >>> float(score_activations(model, [batch], find_family("t5"), shape).encoder_ffn[0][3])
        0.0
    """
    places = find_places(model, family, shape)
    squares = [torch.zeros((), dtype=torch.float64) for _ in places]
    shown: dict[str, Tensor] = {}

    def look(number: int, stack: str) -> Callable[[Tensor], None]:
        def add(states: Tensor) -> None:
            # Padding may hold anything, also what is no number.
            seen = states.detach()[shown[stack].to(states.device)].double()
            squares[number] = squares[number] + seen.square().sum(0).cpu()

        return add

    with torch.no_grad(), ExitStack() as hooks:
        for number, place in enumerate(places):
            hooks.enter_context(_watch(place, look(number, place.stack)))
        counts = _run_all(model, batches, shape, shown, progress)
    sums = Sums(shape)
    for place, total in zip(places, squares, strict=True):
        mean = total.numpy() / max(1, counts[place.stack])
        _check_finite("activations", mean)
        sums.add(place.dimension, place.layer, fold(place.axis, mean, shape))
    return sums.make_scores(np.sqrt)


def score_gradients(
    model: Any, batches: Iterable[CalibrationBatch], family: Family, shape: Shape,
    progress: Progress | None = None,
) -> Scores:  # fmt: skip
    """Returns how much the loss changes with a gate on each channel, head and inner unit.

    A gate multiplies all that its index lets through: of a head all places, in self-attention and
    cross-attention alike; of a channel what every norm gives. Scores are the absolute gradient at
    1 of each row's loss, added up over rows and divided by the number of labels: nats per token.

    Source: Michel et al. 2019 (arXiv 1905.10650), equation 2; Molchanov et al. 2019, first order.

    Args:
        model: with an output layer, in the mode of evaluation.
        batches: of calibration text.
        family: of the model.
        shape: of it.
        progress: called with the number of tokens of each batch.

    Raises:
        ValueError: a loss is no finite number, no label stands anywhere, or no gradient comes to a
            gate.

    Example:
        >>> from lmcore.compression.calibration import CalibrationRow, make_batch
        >>> from lmcore.compression.families import find_family
        >>> from lmcore.cost.configs import make_shape
        >>> from transformers import T5Config, T5ForConditionalGeneration
        >>> config = T5Config(d_model=8, d_ff=6, d_kv=2, num_heads=2, num_layers=1, vocab_size=9)
        >>> model = T5ForConditionalGeneration(config).eval()
        >>> shape = make_shape(config.to_dict())
        >>> model.encoder.block[0].layer[1].DenseReluDense.wi.weight.data[3] = 0
        >>> batch = make_batch([CalibrationRow((3, 4, 1), (5, 1))], "encoder-decoder")
        >>> float(score_gradients(model, [batch], find_family("t5"), shape).encoder_ffn[0][3])
        0.0
    """
    places, sizes = find_places(model, family, shape), find_sizes(shape)
    keys = {(place.dimension, place.layer): None for place in places}
    totals = {key: np.zeros(sizes[key[0]]) for key in keys}
    gates: dict[tuple[str, int | None], Tensor] = {}
    labels, rows = 0, 0

    def gate(place: Place) -> Callable[[Tensor], Tensor]:
        def multiply(states: Tensor) -> Tensor:
            _, width = place.axis.measure(shape)
            open_gate = gates[place.dimension, place.layer].to(states.device)
            wide = open_gate.repeat_interleave(width, -1).repeat(1, 1, place.axis.blocks)
            return (states * wide).to(states.dtype)

        return multiply

    with ExitStack() as hooks:
        hooks.enter_context(_frozen(model))
        for place in places:
            hooks.enter_context(_watch(place, gate(place)))
        for batch in batches:
            count = len(batch.labels)
            gates = {key: torch.ones(count, 1, sizes[key[0]], requires_grad=True) for key in keys}
            # The loss of a row depends on no other: its gates have a gradient of their own.
            loss = sum_losses(model, batch, shape)
            if not bool(torch.isfinite(loss)):
                raise ValueError(
                    f"the loss must be a finite number: that of rows {rows + 1} to {rows + count} "
                    f"is {loss.item()}"
                )
            found = _find_gradients(loss, gates)
            for key, gradient in found.items():
                totals[key] += gradient[:, 0].abs().sum(0).double().numpy()
            labels, rows = labels + int((batch.labels != -100).sum()), rows + count
            if progress is not None:
                progress(batch.tokens)
    if not labels:
        raise ValueError("expected labels to have a loss of, got none: the text is too short")
    sums = Sums(shape)
    for (dimension, layer), total in totals.items():
        _check_finite("gradients", total)
        sums.add(dimension, layer, total / labels)
    return sums.make_scores(np.asarray)


def score_influence(
    model: Any, batches: Iterable[CalibrationBatch], family: Family, shape: Shape,
    progress: Progress | None = None,
) -> Scores:  # fmt: skip
    """Returns how far each layer turns the states: 1 less the mean cosine of input and output.

    Source: ShortGPT (arXiv 2403.03853), equation 1.

    Args:
        model: in the mode of evaluation.
        batches: of calibration text.
        family: of the model.
        shape: of it.
        progress: called with the number of tokens of each batch.

    Raises:
        ValueError: a state is no finite number.

    Example:
        >>> from lmcore.compression.calibration import CalibrationRow, make_batch
        >>> from lmcore.compression.families import find_family
        >>> from lmcore.cost.configs import make_shape
        >>> from transformers import T5Config, T5Model
        >>> config = T5Config(d_model=8, d_ff=6, d_kv=2, num_heads=2, num_layers=2, vocab_size=9)
        >>> model, shape = T5Model(config).eval(), make_shape(config.to_dict())
        >>> first = model.encoder.block[0].layer
        >>> for weight in (first[0].SelfAttention.o.weight, first[1].DenseReluDense.wo.weight):
        ...     _ = weight.data.zero_()
        >>> batch = make_batch([CalibrationRow((3, 4, 1), (5, 1))], "encoder-decoder")
        >>> scores = score_influence(model, [batch], find_family("t5"), shape).encoder_layers
        >>> float(scores[0]), bool(scores[1] > 0)
        (0.0, True)
    """
    layers = find_layers(model, family, shape)
    sums = dict.fromkeys(layers, 0.0)
    shown: dict[str, Tensor] = {}

    def look(key: tuple[str, int]) -> Callable[..., None]:
        def add(_: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            before = args[0] if args else kwargs["hidden_states"]
            after = output[0] if isinstance(output, tuple) else output
            mask = shown[key[0]].to(before.device)
            pair = [states.detach()[mask].double() for states in (before, after)]
            sums[key] += float(_turn(*pair).sum())

        return add

    with torch.no_grad(), ExitStack() as hooks:
        for key, layer in layers.items():
            handle = layer.register_forward_hook(look(key), with_kwargs=True)
            hooks.callback(handle.remove)
        counts = _run_all(model, batches, shape, shown, progress)
    found: dict[str, Any] = {}
    for stack in ("encoder", "decoder"):
        values = [sums[key] / max(1, counts[stack]) for key in sorted(sums) if key[0] == stack]
        _check_finite("states", np.array(values))
        if values:
            found[f"{stack}_layers"] = np.array(values)
    return Scores(**found)


def _turn(before: Tensor, after: Tensor) -> Tensor:
    """1 less the cosine; 0 of what does not change, exactly."""
    # |a - b|^2 / 2 of unit vectors: 1 - cos without the rounding of a difference of equal numbers.
    first, second = (functional.normalize(states, dim=-1, eps=1e-300) for states in (before, after))
    return (first - second).square().sum(-1) / 2


def sum_losses(model: Any, batch: CalibrationBatch, shape: Shape) -> Tensor:
    """Returns the loss of a batch, added up over its labels.

    Args:
        model: with an output layer, in the mode of evaluation.
        batch: of a text.
        shape: of the model.

    Example:
        >>> from lmcore.compression.calibration import CalibrationRow, make_batch
        >>> from lmcore.cost.configs import make_shape
        >>> from transformers import GPT2Config, GPT2LMHeadModel
        >>> config = GPT2Config(vocab_size=9, n_layer=1, n_embd=8, n_head=2)
        >>> batch = make_batch([CalibrationRow((), (3, 4, 5))], "decoder")
        >>> shape = make_shape(config.to_dict())
        >>> float(sum_losses(GPT2LMHeadModel(config).eval(), batch, shape)) > 0
        True
    """
    logits = _run(model, batch, shape).logits
    labels = batch.labels.to(logits.device)
    wide = logits.flatten(0, 1).float()
    return functional.cross_entropy(wide, labels.flatten(), reduction="sum", ignore_index=-100)


def _find_gradients(
    loss: Tensor, gates: Mapping[tuple[str, int | None], Tensor]
) -> dict[tuple[str, int | None], Tensor]:
    found: Iterable[Tensor | None] = [None for _ in gates]
    if loss.requires_grad:
        found = torch.autograd.grad(loss, [*gates.values()], allow_unused=True)
    made = {}
    for key, gradient in zip(gates, found, strict=True):
        if gradient is None:
            where = "" if key[1] is None else f" of layer {key[1]}"
            raise ValueError(f"no gradient of the loss comes to {key[0]}{where} of this model")
        made[key] = gradient
    return made


@contextmanager
def _watch(place: Place, see: Callable[[Tensor], Tensor | None]) -> Iterator[None]:
    """Shows the states of a place while the model computes; what is returned takes their place."""

    def before(_: nn.Module, args: Any) -> Any:
        found = see(args[0])
        return None if found is None else (found, *args[1:])

    def after(_: nn.Module, __: Any, output: Any) -> Any:
        return see(output)

    module = place.module
    handle = (module.register_forward_pre_hook(before) if place.is_input
              else module.register_forward_hook(after))  # fmt: skip
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def _frozen(model: Any) -> Iterator[None]:
    """Weights have no gradient, which would take as much memory as they do."""
    before = [(weight, weight.requires_grad) for weight in model.parameters()]
    try:
        for weight, _ in before:
            weight.requires_grad_(False)
        yield
    finally:
        for weight, flag in before:
            weight.requires_grad_(flag)


def _find_stack(name: str, shape: Shape) -> str:
    if shape.encoder_layers and shape.decoder_layers:
        return next((part for part in name.split(".") if part in ("encoder", "decoder")), "decoder")
    return "encoder" if shape.encoder_layers else "decoder"


def _run_all(
    model: Any,
    batches: Iterable[CalibrationBatch],
    shape: Shape,
    shown: dict[str, Tensor],
    progress: Progress | None,
) -> dict[str, int]:
    """Tokens of each stack; `shown` has the masks of the batch that runs, for those who watch."""
    counts = {"encoder": 0, "decoder": 0}
    for batch in batches:
        shown.clear()
        shown.update(batch.shown)
        _run(model, batch, shape)
        for stack, mask in batch.shown.items():
            counts[stack] += int(mask.sum())
        if progress is not None:
            progress(batch.tokens)
    return counts


def _run(model: Any, batch: CalibrationBatch, shape: Shape) -> Any:
    options = {"use_cache": False} if shape.decoder_layers else {}
    return model(**batch.inputs, **options)


def _check_complete(places: list[Place], shape: Shape) -> None:
    seen = {(place.dimension, place.layer) for place in places}
    for name in LAYERED:
        for layer in range(getattr(shape, layers_of(name))):
            if (name, layer) not in seen:
                raise ValueError(f"nothing is known to read {name} of layer {layer}")
    if ("hidden", None) not in seen:
        raise ValueError("no norm is known, behind which channels could be seen")


def _check_finite(what: str, values: NDArray[np.float64]) -> None:
    if not np.isfinite(values).all():
        raise ValueError(f"{what} of the model must be finite numbers: got another")
