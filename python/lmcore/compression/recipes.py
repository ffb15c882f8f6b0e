"""Plans of the paper, and settings of the training that follows pruning."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from lmcore.compression.choosing import Sizes, choose_stage, draw_scores
from lmcore.compression.composition import add_stage
from lmcore.compression.plan import Plan, Stage
from lmcore.cost import Shape

if TYPE_CHECKING:
    from lmcore.compression.mask_config import MaskConfig
    from lmcore.compression.path import PathConfig
    from lmcore.compression.recovery_config import RecoveryConfig

OPENBA_V1 = Shape(
    encoder_layers=12, decoder_layers=36, hidden_size=4096, heads=40, groups=40, head_size=128,
    inner_size=11008, vocabulary_size=250368, fused_qkv=True, qkv_bias=True, output_bias=True,
    norm_bias=True, head_bias=True,
)  # fmt: skip
"""The 15B, of which the paper starts."""

_CUT_LAYERS = (
    ("1", 12_300_000_000, (4, 8), (7, 11, 18, 20, 22, 30)),
    ("2", 11_000_000_000, (6, 10), (4, 16, 27)),
    ("3", 9_900_000_000, (), (10, 24, 33)),
)
# What the piece file has behind its pieces, 100 sentinels, three prefixes, and rows that fill up.
_SPECIAL = range(250000, 250240)


def openba_v2(seed: int = 0, vocabulary: Sequence[int] | None = None) -> Plan:
    """Returns the authors' plan, from OpenBA's 15B to 3.4B in six stages.

    Layers are those of the table of section 3, whose numbers are taken to count from 0 in the
    original. Of heads, inner units and channels the paper says how many and that they were drawn:
    here they are drawn by the seed. Stage 4 also leaves out 128 rows that fill up V1's embedding,
    which is what the released V2 has; stage 5 trains on and cuts nothing.

    Source: OpenBA-V2 (arXiv 2405.05957), sections 3 to 5, and the table of its repository.

    Args:
        seed: of what is drawn, below 2**64.
        vocabulary: ids kept in the end, in the numbering of V1. The paper says neither which nor
            how many: its 3.4B parameters are about 100,000, and by default so many are kept, the
            first pieces, which are the most frequent ones, and all special ones.

    Raises:
        IndexError: an id is not below 250,368.
        ValueError: ids do not rise, or the seed is out of its range.

    Example:
        >>> from lmcore.compression.plan import prune_shape
        >>> small = prune_shape(openba_v2())
        >>> small.encoder_layers, small.decoder_layers, small.hidden_size, small.vocabulary_size
        (8, 24, 2560, 100000)
    """
    plan = Plan(model_type="openba", shape=OPENBA_V1, published_parameters=15_000_000_000)
    for name, published, encoder, decoder in _CUT_LAYERS:
        stage = Stage(name=name, method="published", published_parameters=published)
        plan = add_stage(plan, stage, cut_encoder=encoder, cut_decoder=decoder)
    sizes = Sizes(hidden=2560, heads=20, ffn=6912, vocabulary=range(250240))
    stages = [
        choose_stage(
            plan, sizes, draw_scores(plan.shape, seed),
            name="4", method="random", seed=seed, published_parameters=3_800_000_000,
        ),
        Stage(name="5", published_parameters=3_800_000_000),
        Stage(
            name="vocabulary",
            vocabulary=(*range(100_000 - len(_SPECIAL)), *_SPECIAL)
            if vocabulary is None
            else tuple(vocabulary),
            published_parameters=3_400_000_000,
        ),
    ]  # fmt: skip
    for stage in stages:
        plan = add_stage(plan, stage)
    return plan


def d_ul2() -> RecoveryConfig:
    """Returns the paper's training of a pruned OpenBA: weights of denoisers follow validation.

    The numbers are those of the script for stage 4, whose 22,500 steps are 13 of its 65 B tokens.
    Targets are the losses of the model before pruning.

    Source: OpenBA-V2 (arXiv 2405.05957), algorithm 1; `prune_model.sh` of its code.

    Example:
        >>> d_ul2().proportions_rule
        'paper'
    """
    return _recover({"objective": "d_ul2", **_LARGE})


def d_ul2_as_shipped() -> RecoveryConfig:
    """Returns the same by the rule and with the targets of the authors' code.

    Source: OpenBA-V2 (arXiv 2405.05957), `update_proportion` of its code.

    Example:
        >>> d_ul2_as_shipped().targets[0]
        1.154
    """
    from lmcore.compression.proportions import SHIPPED_TARGETS

    changes = {"proportions_rule": "shipped", "targets": SHIPPED_TARGETS}
    return _recover({"objective": "d_ul2", **_LARGE, **changes})


def ul2_uniform() -> RecoveryConfig:
    """Returns the same with all denoisers of one weight, as before pruning.

    Example:
        >>> ul2_uniform().objective
        'ul2'
    """
    return _recover({"objective": "ul2", **_LARGE})


def o_ul2() -> RecoveryConfig:
    """Returns the paper's long training of stage 5: texts of 2,048 tokens, half of them noise.

    Step sizes are those of the script; steps are as many as make the paper's 700 B tokens, 1,024
    texts a step, which is ours.

    Source: OpenBA-V2 (arXiv 2405.05957), O-UL2; `train_o_ul2.sh` of its code.

    Example:
        >>> o_ul2().text_tokens
        2048
    """
    changes = {
        "objective": "o_ul2",
        "text_tokens": 2048,
        "micro_batch_size": 4,
        "validation_batch_size": 4,
        "optimizer.lr": 1e-5,
        "schedule.warmup_steps": 0,
        "schedule.decay_steps": None,
        "loop.steps": 333_787,
    }
    return _recover({**_LARGE, **changes})


def causal() -> RecoveryConfig:
    """Returns the training of a pruned decoder: each token from those before it. It is ours.

    Example:
        >>> causal().text_tokens
        2048
    """
    changes = {
        "objective": "causal",
        "text_tokens": 2048,
        "batch_size": 256,
        "micro_batch_size": 4,
        "validation_batch_size": 4,
        "optimizer.lr": 1e-4,
        "schedule.warmup_steps": 100,
        "schedule.decay_steps": None,
        "schedule.final_share": 0.1,
        "loop.steps": 10_000,
    }
    return _recover({**_LARGE, **changes})


def tiny() -> RecoveryConfig:
    """Returns the training of a small pruned model of any kind: ours, minutes on two cores.

    Its texts have 126 tokens: `lmcore openba pack --length 126`.

    Example:
        >>> tiny().text_tokens
        126
    """
    changes = {
        "text_tokens": 126,
        "batch_size": 32,
        "micro_batch_size": 8,
        "validation_batch_size": 32,
        "validation_texts": 64,
        "update_every_steps": 50,
        "optimizer.lr": 1e-3,
        "schedule.warmup_steps": 20,
        "schedule.decay_steps": None,
        "schedule.final_share": 0.1,
        "loop.steps": 300,
        "loop.validate_every_steps": 50,
    }
    return _recover(changes)


# What changes memory and time alone is ours: blocks that are computed again in the backward pass,
# and bfloat16 where a GPU has it.
_LARGE = {"device.precision": "bfloat16", "device.recompute": True}


def _recover(changes: dict[str, Any]) -> RecoveryConfig:
    # Plans need none of this: recipes of plans are there without packages for training.
    from lmcore.compression.recovery_config import RecoveryConfig
    from lmcore.training.config import change

    return change(RecoveryConfig(), changes)


#: The plans by name.
RECIPES: dict[str, Callable[..., Plan]] = {recipe.__name__: recipe for recipe in (openba_v2,)}
#: The settings of recovery by name.
RECOVERY_RECIPES: dict[str, Callable[[], RecoveryConfig]] = {
    recipe.__name__: recipe
    for recipe in (d_ul2, d_ul2_as_shipped, ul2_uniform, o_ul2, causal, tiny)
}


def learned_masks() -> MaskConfig:
    """Returns the learning of gates of a large model: ours, after Sheared-LLaMA's.

    Sheared-LLaMA has 3,200 steps, and the target in a fifth of them.

    Source: Sheared-LLaMA (arXiv 2310.06694), section 2.1 and appendix B.

    Example:
        >>> learned_masks().loop.steps
        3200
    """
    # As for recovery: plans need no packages for training.
    from lmcore.compression.mask_config import MaskConfig

    return MaskConfig()


def tiny_masks() -> MaskConfig:
    """Returns the learning of gates of a small model: ours, minutes on two cores.

    Example:
        >>> tiny_masks().loop.steps
        300
    """
    from lmcore.training.config import change

    changes = {
        "warmup_steps": 100,
        "tokens": 262_144,
        "valid_tokens": 16_384,
        "batch_size": 16,
        "multiplier_optimizer.lr": 0.3,
        "schedule.warmup_steps": 10,
        "optimizer.lr": 1e-3,
        "loop.steps": 300,
        "loop.validate_every_steps": 50,
    }
    return change(learned_masks(), changes)


#: The settings of learning masks by name.
MASK_RECIPES: dict[str, Callable[[], MaskConfig]] = {
    recipe.__name__: recipe for recipe in (learned_masks, tiny_masks)
}


def openba_v2_path(seed: int = 0) -> PathConfig:
    """Returns the paper's whole path: the stages of `openba_v2`, each with its training.

    Tokens are those of the table: 10, 10, 15 and 65 B by D-UL2, and 700 B by O-UL2. A step has
    1,024 texts, of 568 tokens or of 2,048, and each token of a text is counted once, whether the
    encoder reads it or the decoder writes it. So the stages have 17,194, 17,194, 25,790, 111,755
    and 333,787 steps; the 22,500 of the script for stage 4 would be 13 B tokens, or 22 B with all
    that is padded, not 65. Step sizes fall along a cosine, from 2e-5 to 1e-5 after 1,000 steps of
    warm-up, and in the long stage from 1e-5 to 5e-6 without one.

    The vocabulary is counted in the texts, and loses no training: 100,000 tokens, as `openba_v2`.

    Source: OpenBA-V2 (arXiv 2405.05957), sections 3 to 6; the table and scripts of its repository.

    Args:
        seed: of what is drawn of widths, below 2**64.

    Example:
        >>> [stage.recover and stage.recover.loop.steps for stage in openba_v2_path().stages]
        [17194, 17194, 25790, 111755, 333787, None]
    """
    from lmcore.compression.path import PathConfig, PathStage, SizesCut, VocabularyCut
    from lmcore.training.config import change

    def train(billions: int) -> RecoveryConfig:
        own = d_ul2()
        steps = -(-billions * 10**9 // (own.batch_size * own.text_tokens))
        return change(own, {"loop.steps": steps, "schedule.decay_steps": None})

    kept = tuple(range(_SPECIAL.stop))
    widths = SizesCut(hidden=2560, heads=20, ffn=6912, vocabulary=kept, seed=seed)
    cuts: list[Any] = [*openba_v2().stages[:3], widths]
    named = zip(("12.3B", "11.0B", "9.9B", "3.8B"), cuts, (10, 10, 15, 65), strict=True)
    stages = [PathStage(name=name, cut=cut, recover=train(tokens)) for name, cut, tokens in named]
    stages[3] = replace(stages[3], published_parameters=3_800_000_000)
    long = PathStage(name="o_ul2", recover=o_ul2(), published_parameters=3_800_000_000)
    tokens = PathStage(
        name="3.4B", cut=VocabularyCut(keep=100_000), published_parameters=3_400_000_000
    )
    return PathConfig(stages=(*stages, long, tokens))


def tiny_path(seed: int = 0) -> PathConfig:
    """Returns a path for the model of `lmcore openba train tiny`: ours, minutes on two cores.

    Layers are cut in two stages, widths in a third, a fourth trains on, and the last cuts the
    vocabulary: of its 1,094 tokens, of which a generated world's texts have a third, 1,024 stay,
    and nothing is trained behind that. Texts have 126 tokens, as `tiny` takes them.

    Args:
        seed: of what is drawn of widths, below 2**64.

    Example:
        >>> [stage.name for stage in tiny_path().stages]
        ['layer', 'layers', 'widths', 'o_ul2', 'tokens']
    """
    from lmcore.compression.path import PathConfig, PathStage, SizesCut, VocabularyCut
    from lmcore.training.config import change

    def train(steps: int, **more: Any) -> RecoveryConfig:
        changes = {"loop.steps": steps, "loop.validate_every_steps": steps // 2}
        return change(tiny(), {"objective": "d_ul2", **changes, **more})

    widths = SizesCut(hidden=96, heads=3, ffn=256, seed=seed)
    return PathConfig(
        stages=(
            PathStage(name="layer", cut=SizesCut(decoder_layers=3), recover=train(60)),
            PathStage(name="layers", cut=SizesCut(decoder_layers=2), recover=train(60)),
            PathStage(name="widths", cut=widths, recover=train(120)),
            PathStage(name="o_ul2", recover=train(60, objective="o_ul2")),
            PathStage(name="tokens", cut=VocabularyCut(keep=1024)),
        )
    )


#: The paths by name.
PATHS: dict[str, Callable[..., PathConfig]] = {
    recipe.__name__: recipe for recipe in (openba_v2_path, tiny_path)
}
