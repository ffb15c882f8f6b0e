"""What pages share: their frame, which needs no other file, tables, and parts that fold."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape


def fold(content: str, summary: str, *, is_long: bool) -> str:
    """Returns HTML as it is, or folded behind a line where it is long.

    Args:
        content: the HTML.
        summary: the line.
        is_long: whether it is.

    Example:
        >>> fold("<p>a</p>", "1 word", is_long=False)
        '<p>a</p>'
    """
    if not is_long:
        return content
    return f"<details><summary>{escape(summary)}</summary>{content}</details>"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Returns a table as HTML; wide ones scroll within themselves.

    Args:
        head: names of the columns.
        rows: cells in which what comes from data is escaped already.

    Example:
        >>> table(["a"], [["1"]])
        '<div class=wide><table><tr><th>a</th></tr><tr><td>1</td></tr></table></div>'
    """
    titles = "".join(f"<th>{title}</th>" for title in head)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f"<div class=wide><table><tr>{titles}</tr>{body}</table></div>"


def render(title: str, parts: Iterable[str]) -> str:
    """Returns a page that needs no other file.

    Args:
        title: of the page.
        parts: its body as HTML.

    Example:
        >>> render("t", ["<p>a</p>"]).startswith("<!doctype html>")
        True
    """
    return _PAGE.replace("{title}", escape(title)).replace("{body}", "\n".join(parts))


_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root { color-scheme: light dark; --ink: #1c1e21; --faint: #5f666e; --line: #d9dde2;
  --ground: #fff; --panel: #f6f7f9; --right: #dcefe0; --right-sign: #1d6b36;
  --wrong: #fbe1dc; --wrong-sign: #a82315; --new: #e2ecfb; --new-sign: #1d4f9c; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8eb; --faint: #9aa1aa; --line: #383d44;
  --ground: #16181b; --panel: #1f2226; --right: #1c3a27; --right-sign: #7fd79b;
  --wrong: #4a231e; --wrong-sign: #ff9f91; --new: #1c2f4d; --new-sign: #8fbaff; } }
* { box-sizing: border-box; }
body { font: 15px/1.55 system-ui, sans-serif; color: var(--ink); background: var(--ground);
  max-width: 72rem; margin: 2.5rem auto; padding: 0 1.25rem; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; margin: 0 0 .4rem; } h2 { font-size: 1.15rem; margin: 2.2rem 0 .6rem; }
h3 { font-size: .75rem; color: var(--faint); margin: 0; font-weight: 600;
  text-transform: uppercase; letter-spacing: .05em; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .9rem; text-align: right; border-bottom: 1px solid var(--line);
  overflow-wrap: normal; white-space: nowrap; }
th { color: var(--faint); font-weight: 600; font-size: .85rem; }
th:first-child, td:first-child { text-align: left; padding-left: 0; white-space: normal;
  overflow-wrap: anywhere; min-width: 5.5rem; max-width: 24rem; }
@media (max-width: 44rem) { body { padding: 0 .9rem; margin: 1.5rem auto; }
  table { font-size: .85rem; } th, td { padding: .3rem .4rem; } }
.note { color: var(--faint); font-size: .87rem; max-width: 60rem; }
section { background: var(--panel); border: 1px solid var(--line); border-radius: .5rem;
  padding: .8rem 1rem; margin: 0 0 .9rem; }
section header { display: flex; justify-content: space-between; gap: 1rem; color: var(--faint);
  font-size: .82rem; }
.pair { display: grid; grid-template-columns: minmax(0, 1fr) minmax(0, 1fr); gap: 1.5rem;
  margin: .5rem 0; }
@media (max-width: 44rem) { .pair { grid-template-columns: minmax(0, 1fr); gap: .6rem; } }
dl.steps { margin: .6rem 0 0; display: grid; gap: 0 1rem;
  grid-template-columns: minmax(6.5rem, max-content) minmax(0, 1fr); }
.steps dt { color: var(--faint); font-size: .82rem; padding-top: .25rem;
  font-variant-numeric: tabular-nums; } .steps dd { margin: 0; line-height: 1.9; }
@media (max-width: 44rem) { dl.steps { grid-template-columns: minmax(0, 1fr); } }
section p { margin: .25rem 0; line-height: 1.9; }
.list { display: flex; flex-wrap: wrap; column-gap: 1.2rem; }
mark { color: inherit; border-radius: .3rem; padding: .1rem .3rem;
  -webkit-box-decoration-break: clone; box-decoration-break: clone; }
mark.right { background: var(--right); } mark.right b { color: var(--right-sign); }
mark.wrong { background: var(--wrong); border-bottom: 2px solid var(--wrong-sign); }
mark.wrong b { color: var(--wrong-sign); }
mark.new { background: var(--new); } mark.new b { color: var(--new-sign); }
mark b { font-size: .8em; margin-right: .2em; }
sub { font-size: .72em; color: var(--faint); vertical-align: baseline; }
del { text-decoration-color: #d1495b; } ins { text-decoration: none; font-weight: 600; }
summary { cursor: pointer; color: var(--faint); font-size: .85rem; }
.bad { font-family: ui-monospace, monospace; font-size: .85rem; }
</style>
<body>
{body}
</body>
</html>
"""
