"""Draws the pictures of docs/kernels.md: which blocks a kernel computes, and what one program has.

Each is a matrix that never stands in memory.  `python docs/site/pictures.py` writes them all.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from pathlib import Path

OUT = Path(__file__).parents[1] / "pictures"
CELL, LEFT, TOP, LEGEND = 26, 118, 46, 350
# The colour of a letter.
COLOURS = {"o": "#9ec5e8", "#": "#1f6fb2", ".": "#f2f2f2", "v": "#e8a33d"}
FONT = "font-family='system-ui, sans-serif' font-size='13'"


@dataclass(kw_only=True, slots=True, frozen=True)
class Picture:
    """A matrix in blocks.

    Args:
        rows: what its rows are.
        columns: what its columns are.
        cells: a letter for each block.
        legend: what letters mean.
        notes: lines below the legend.
    """

    rows: str
    columns: str
    cells: tuple[str, ...]
    legend: dict[str, str]
    notes: tuple[str, ...] = ()


PICTURES = {
    "attention": Picture(
        rows="queries", columns="keys",
        cells=("o.........", "oo........", "ooo.......", "####......", "ooooo.....",
               "oooooo....", "oooooo....", "..........", ".........."),
        legend={"o": "a block of scores, made and used at once", "#": "what one program has now",
                ".": "after its time, or padding: not read"},
        notes=("The row ends after six blocks of keys", "and seven of queries, in causal order."),
    ),
    "cross_entropy": Picture(
        rows="positions", columns="entries of the vocabulary",
        cells=("oo.oo.o..o", "oo.oo.o..o", "##.##.#..#", "oo.oo.o..o", "oo.oo.o..o", "oo.oo.o..o"),
        legend={"o": "logits of a block, never written", "#": "what one program goes through",
                ".": "entries that are not kept"},
        notes=("Of each position the maximum, the sum", "of exponentials and the logit of the",
               "target remain."),
    ),
    "nearest_embedding": Picture(
        rows="positions", columns="words",
        cells=("..........", "..........", "oooooooooo", "oooo####oo", "oooooooooo", "oooooooooo"),
        legend={"o": "distances of a block, never written", "#": "the share of one program",
                ".": "positions that are left out"},
        notes=("Of each position the least distance and", "its word remain, in one integer."),
    ),
    "pruning_mask": Picture(
        rows="inputs", columns="outputs",
        cells=("ooo.oo..oo", "ooo.oo..oo", "..........", "ooo.o#..oo", "ooo.oo..oo", ".........."),
        legend={"o": "a block of the weight that is multiplied", "#": "what one program has now",
                ".": "of a group that is shut: not read"},
        notes=("A soft gate multiplies where a block is", "made; there is no gated copy."),
    ),
    "sampled_logits": Picture(
        rows="positions", columns="items of the catalogue",
        cells=("v.o...o.o.", "..o.o.v.o.", ".#.##...v#", "o.o..ov...", "o...v.o..o"),
        legend={"o": "logit of a sampled item", "v": "of the positive", "#": "what one program has",
                ".": "not computed"},
        notes=("Rows of the table are read where they", "lie, and not copied."),
    ),
}  # fmt: skip


def draw(picture: Picture) -> str:
    """Returns a picture as SVG, the same text each time."""
    width = LEFT + CELL * len(picture.cells[0]) + LEGEND
    lines = len(picture.legend) + len(picture.notes)
    height = TOP + max(CELL * len(picture.cells), 24 * lines + 12) + 14
    parts = [
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width} {height}' {FONT}>",
        f"<rect width='{width}' height='{height}' fill='white'/>",
        _write(LEFT, TOP - 16, f"{picture.columns} →"),
        _write(10, TOP + 18, f"{picture.rows} ↓"),
    ]
    for row, letters in enumerate(picture.cells):
        parts += [
            _fill(LEFT + CELL * column, TOP + CELL * row, letter)
            for column, letter in enumerate(letters)
        ]
    left = width - LEGEND + 24
    for line, (letter, text) in enumerate(picture.legend.items()):
        parts += [
            _fill(left, TOP + 24 * line, letter, 16),
            _write(left + 24, TOP + 24 * line + 13, text),
        ]
    for line, text in enumerate(picture.notes, start=len(picture.legend)):
        parts.append(_write(left, TOP + 24 * line + 17, text))
    return "\n".join([*parts, "</svg>"]) + "\n"


def main() -> None:
    """Writes all pictures."""
    OUT.mkdir(exist_ok=True)
    for name, picture in PICTURES.items():
        (OUT / f"{name}.svg").write_text(draw(picture), encoding="utf-8")


def _fill(x: int, y: int, letter: str, size: int = CELL - 2) -> str:
    return f"<rect x='{x}' y='{y}' width='{size}' height='{size}' fill='{COLOURS[letter]}'/>"


def _write(x: int, y: int, text: str) -> str:
    return f"<text x='{x}' y='{y}' fill='#222'>{escape(text)}</text>"


if __name__ == "__main__":
    main()
