"""A trained encoder-decoder of no known family, and what is cut of it; a script that measures.

The model writes molecules as SMILES that are near to a given one, so that a copy has a low loss.
Its tables of axes are all that `lmcore.compression` is told about it. The files are annalog's, of
`LMCORE_DATA`; run as a script, this prints the table of docs/papers/openba_v2.md.
"""

import csv
import json
import os
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from lmcore.compression import (
    Plan,
    Stage,
    add_stage,
    choose_stage,
    draw_scores,
    find_kept,
    prune_shape,
    prune_state,
)
from lmcore.compression.choosing import Scores, Sizes
from lmcore.compression.families import Family, Tensors
from lmcore.compression.families.family import FFN, HIDDEN, QUERIES, VOCABULARY, WHOLE
from lmcore.compression.magnitudes import score_magnitudes
from lmcore.cost import Shape

PAD, BEGIN, END, POSITIONS = 1, 2, 3, 102
TOKEN = re.compile(r"\[[^\]]+\]|Br|Cl|%\d\d|.")
SHAPE = Shape(
    encoder_layers=3, decoder_layers=3, hidden_size=256, heads=8, groups=8, head_size=32,
    inner_size=512, vocabulary_size=59, gated=False, qkv_bias=True, output_bias=True,
    inner_bias=True, norm_bias=True, head_bias=True, position_rows=2 * POSITIONS,
)  # fmt: skip
FAMILY = Family(
    model_types=("annalog",),
    fields={
        "encoder_layers": ("encoder_layers",), "decoder_layers": ("decoder_layers",),
        "hidden_size": ("hidden",), "heads": ("heads",), "head_size": ("head_size",),
        "inner_size": ("inner",), "vocabulary_size": ("vocabulary",),
    },
    tensors=tuple(
        Tensors(f"{stack}.{name}", axes)
        for stack in ("encoder", "decoder")
        for layer in [f"layers.{{{stack}}}"]
        for attention in [f"{layer}.(self_attention|encoder_attention)"]
        for name, axes in (
            ("tok_embedding.weight", (VOCABULARY, HIDDEN)),
            ("pos_embedding.weight", (WHOLE, HIDDEN)),
            (f"{layer}.(self_attn|enc_attn|ff)_layer_norm.(weight|bias)", (HIDDEN,)),
            (f"{attention}.(fc_q|fc_k|fc_v).weight", (QUERIES, HIDDEN)),
            (f"{attention}.(fc_q|fc_k|fc_v).bias", (QUERIES,)),
            (f"{attention}.fc_o.weight", (HIDDEN, QUERIES)),
            (f"{attention}.fc_o.bias", (HIDDEN,)),
            (f"{layer}.positionwise_feedforward.fc_1.weight", (FFN, HIDDEN)),
            (f"{layer}.positionwise_feedforward.fc_1.bias", (FFN,)),
            (f"{layer}.positionwise_feedforward.fc_2.weight", (HIDDEN, FFN)),
            (f"{layer}.positionwise_feedforward.fc_2.bias", (HIDDEN,)),
            ("fc_out.weight", (VOCABULARY, HIDDEN)),
            ("fc_out.bias", (VOCABULARY,)),
        )
    ),
)  # fmt: skip
PLAN = Plan(model_type="annalog", shape=SHAPE)


class Attention(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        for name in ("fc_q", "fc_k", "fc_v"):
            setattr(self, name, nn.Linear(shape.hidden_size, shape.heads_size))
        self.fc_o = nn.Linear(shape.heads_size, shape.hidden_size)

    def forward(self, x: Tensor, memory: Tensor, mask: Tensor) -> Tensor:
        parts = (self.fc_q(x), self.fc_k(memory), self.fc_v(memory))
        split = [part.unflatten(2, (self.shape.heads, -1)).transpose(1, 2) for part in parts]
        mixed = nn.functional.scaled_dot_product_attention(*split, attn_mask=mask)
        return self.fc_o(mixed.transpose(1, 2).flatten(2))


class Layer(nn.Module):
    def __init__(self, shape: Shape, decoder: bool) -> None:
        super().__init__()
        for name in ("self_attn", "ff", "enc_attn")[: 2 + decoder]:
            setattr(self, f"{name}_layer_norm", nn.LayerNorm(shape.hidden_size))
        self.self_attention = Attention(shape)
        if decoder:
            self.encoder_attention = Attention(shape)
        self.positionwise_feedforward = nn.ModuleDict(
            {
                "fc_1": nn.Linear(shape.hidden_size, shape.inner_size),
                "fc_2": nn.Linear(shape.inner_size, shape.hidden_size),
            }
        )

    def forward(self, x: Tensor, mask: Tensor, *source: Tensor) -> Tensor:
        x = self.self_attn_layer_norm(x + self.self_attention(x, x, mask))
        if source:
            x = self.enc_attn_layer_norm(x + self.encoder_attention(x, *source))
        inner = self.positionwise_feedforward["fc_1"](x).relu()
        return self.ff_layer_norm(x + self.positionwise_feedforward["fc_2"](inner))


class Stack(nn.Module):
    def __init__(self, shape: Shape, decoder: bool) -> None:
        super().__init__()
        self.tok_embedding = nn.Embedding(shape.vocabulary_size, shape.hidden_size)
        self.pos_embedding = nn.Embedding(POSITIONS, shape.hidden_size)
        count = shape.decoder_layers if decoder else shape.encoder_layers
        self.layers = nn.ModuleList(Layer(shape, decoder) for _ in range(count))
        if decoder:
            self.fc_out = nn.Linear(shape.hidden_size, shape.vocabulary_size)

    def forward(self, ids: Tensor, mask: Tensor, *source: Tensor) -> Tensor:
        scale = self.tok_embedding.embedding_dim**0.5
        x = self.tok_embedding(ids) * scale + self.pos_embedding(torch.arange(ids.shape[1]))
        for layer in self.layers:
            x = layer(x, mask, *source)
        return x


class Annalog(nn.Module):
    def __init__(self, shape: Shape = SHAPE) -> None:
        super().__init__()
        self.encoder, self.decoder = Stack(shape, False), Stack(shape, True)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        """Logits `[rows, target length, vocabulary]`."""
        mask = (source != PAD)[:, None, None]
        memory = self.encoder(source, mask)
        causal = torch.ones(target.shape[1], target.shape[1]).tril().bool()
        states = self.decoder(target, causal & (target != PAD)[:, None, None], memory, mask)
        return self.decoder.fc_out(states)


def read_state(folder: Path) -> dict[str, Tensor]:
    return torch.load(folder / "Lev_extended.pt", map_location="cpu", weights_only=True)


def read_tokens(folder: Path) -> list[str]:
    return json.loads((folder / "vocab.json").read_text())["itos"]


def read_molecules(folder: Path, rows: int) -> list[list[int]]:
    """Ids of the first molecules whose tokens are all known."""
    ids = {token: number for number, token in enumerate(read_tokens(folder))}
    with open(folder / "delaney-processed.csv", encoding="utf-8", newline="") as file:
        split = [TOKEN.findall(row["smiles"].strip()) for row in csv.DictReader(file)]
    known = [t for t in split if len(t) <= POSITIONS - 4 and all(token in ids for token in t)]
    return [[BEGIN, *(ids[token] for token in tokens), END] for tokens in known[:rows]]


def pad(molecules: Sequence[Sequence[int]]) -> Tensor:
    length = max(map(len, molecules))
    return torch.tensor([[*ids, *[PAD] * (length - len(ids))] for ids in molecules])


def build(state: dict[str, Tensor], shape: Shape = SHAPE) -> Annalog:
    model = Annalog(shape)
    model.load_state_dict(state)
    return model.eval()


def prune(state: dict[str, Tensor], plan: Plan) -> Annalog:
    return build(prune_state(state, plan, FAMILY), prune_shape(plan))


@torch.no_grad()
def compute_loss(model: Annalog, ids: Tensor, source: Tensor | None = None) -> float:
    """Nats per token of a copy, or of molecules behind other ones."""
    logits = model(ids if source is None else source, ids[:, :-1]).transpose(1, 2)
    return nn.functional.cross_entropy(logits, ids[:, 1:], ignore_index=PAD).item()


@torch.no_grad()
def compute_distance(
    model: Annalog, original: Annalog, ids: Tensor, old: Tensor, kept: Sequence[int]
) -> float:
    """Kullback-Leibler divergence of the next token from the original's, in nats per token.

    Both choose among the kept tokens, so that a cut of the vocabulary alone has none.
    """
    of = original(old, old[:, :-1])[..., kept].log_softmax(-1)
    to = model(ids, ids[:, :-1]).log_softmax(-1)
    return (of.exp() * (of - to)).sum(-1)[old[:, 1:] != PAD].mean().item()


@torch.no_grad()
def write(model: Annalog, ids: Tensor, tokens: Sequence[str], most: int = 32) -> list[str]:
    """What the model writes greedily for each source."""
    mask = (ids != PAD)[:, None, None]
    memory = model.encoder(ids, mask)
    written = torch.full((len(ids), 1), BEGIN)
    while written.shape[1] < most and not (written == END).any(1).all():
        causal = torch.ones(written.shape[1], written.shape[1]).tril().bool()
        states = model.decoder(written, causal, memory, mask)
        written = torch.cat([written, model.decoder.fc_out(states[:, -1:]).argmax(-1)], 1)
    rows = [row[1 : row.index(END) if END in row else None] for row in written.tolist()]
    return ["".join(tokens[i] for i in row) for row in rows]


def is_closed(smiles: str) -> bool:
    """Whether all branches and rings of a SMILES are closed, and each bond leads to an atom.

    That is its syntax; the valences of atoms are not looked at.
    """
    depth, rings, last = 0, set[str](), "("
    for token in TOKEN.findall(smiles):
        if token in ")(=#-/\\." and last in "(=#-/\\.":
            if token in "()." or last != "(":
                return False
        elif token.isdigit() or token[0] == "%":
            rings ^= {token.lstrip("%")}
        depth += (token == "(") - (token == ")")
        if depth < 0 or token[0] == "<":
            return False
        last = token
    return bool(smiles) and not depth and not rings and last not in "(=#-/\\."


def cut(sizes: Sizes, seed: int = 0, scores: Scores | None = None, layout: str = "spread") -> Plan:
    found = draw_scores(SHAPE, seed) if scores is None else scores
    return add_stage(PLAN, choose_stage(PLAN, sizes, found, layout=layout, family=FAMILY))


def lay_out(folder: Path, target: Path) -> Path:
    """A folder of the model as its weights would lie in one of transformers."""
    target.mkdir()
    (target / "pytorch_model.bin").symlink_to(folder / "Lev_extended.pt")
    return target


def list_plans(scores: Scores, kept_ids: Sequence[int]) -> dict[str, list[Plan]]:
    """What the table compares: one plan, or one for each of three seeds."""
    plans = {"none": [PLAN]}
    for stack in ("encoder", "decoder"):
        for layer in range(3):
            plan = add_stage(PLAN, Stage(), **{f"cut_{stack}": [layer]})
            plans[f"{stack} layer {layer}"] = [plan]
    sizes = {"ffn": (384, 256, 128), "heads": (7, 6, 4), "hidden": (248, 224, 192)}
    for name, left in sizes.items():
        for size in left:
            asked = Sizes(**{name: size})
            plans[f"{name} to {size}, random"] = [cut(asked, seed) for seed in range(3)]
            plans[f"{name} to {size}, magnitude"] = [cut(asked, scores=scores)]
    plans[f"vocabulary to {len(kept_ids)}"] = [cut(Sizes(vocabulary=kept_ids))]
    return plans


def measure(
    plan: Plan, state: dict[str, Tensor], old: Tensor, tokens: list[str], before: list[str]
) -> list[float]:
    """Parameters, loss of a copy, distance, and percent that is closed and written as before."""
    model, kept = prune(state, plan), find_kept(plan).vocabulary
    new = torch.full((SHAPE.vocabulary_size,), -1)
    new[list(kept)] = torch.arange(len(kept))
    ids = new[old]
    after = write(model, ids[is_short(old)], [tokens[i] for i in kept])
    return [
        sum(p.numel() for p in model.parameters()),
        compute_loss(model, ids),
        compute_distance(model, build(state), ids, old, kept),
        100 * float(np.mean([is_closed(text) for text in after])),
        100 * float(np.mean([a == b for a, b in zip(after, before, strict=True)])),
    ]


def is_short(ids: Tensor) -> Tensor:
    """Those that are written out, at most 32; the others are only read."""
    short = (ids != PAD).sum(1) <= 18
    return short & (short.cumsum(0) <= 32)


def main() -> None:
    """Prints the table, with means of three seeds where parts are drawn."""
    torch.set_num_threads(1)
    folder = Path(os.environ["LMCORE_DATA"], "models/annalog")
    state, tokens = read_state(folder), read_tokens(folder)
    molecules = [ids for ids in read_molecules(folder, 150) if len(ids) <= 40][:100]
    with tempfile.TemporaryDirectory() as name:
        scores = score_magnitudes(lay_out(folder, Path(name, "model")), PLAN, family=FAMILY)
    ids = pad(molecules)
    before = write(build(state), ids[is_short(ids)], tokens)
    kept = sorted({*range(4), *ids.unique().tolist()})
    print("| cut | parameters | copy | distance | closed | as before |\n| --- |" + " --- |" * 5)
    for name, plans in list_plans(scores, kept).items():
        rows = np.array([measure(plan, state, ids, tokens, before) for plan in plans])
        count, *others = rows.mean(0)
        cells = [f"{mean:.{digits}f}" for mean, digits in zip(others, (2, 2, 0, 0), strict=True)]
        if len(plans) > 1:
            spreads = rows.std(0, ddof=1)[1:3]
            cells[:2] = [f"{c} ± {s:.2f}" for c, s in zip(cells[:2], spreads, strict=True)]
        print(f"| {name} | {count:,.0f} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
