"""Pages as a browser shows them: Chromium without a window, asked through its own protocol."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

_MEASURE = """
<script>
window.problems = [];
window.onerror = (text) => { window.problems.push(String(text)); };
window.addEventListener("load", () => {
  const wide = [];
  const hidden = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const style = getComputedStyle(e);
      if (e.scrollWidth > e.clientWidth && style.overflowX === "auto") return true;
    }
    return false;
  };
  for (const element of document.body.querySelectorAll("*")) {
    if (element.closest("svg") && element.tagName !== "svg") continue;
    const box = element.getBoundingClientRect();
    if (box.right > window.innerWidth + 1 && box.width > 0 && !hidden(element))
      wide.push(element.tagName + " " + element.className + " " + box.right);
  }
  const places = {};
  for (const selector of SELECTORS) {
    places[selector] = [...document.querySelectorAll(selector)].map((element) => {
      const box = element.getBoundingClientRect();
      return [box.left, box.top, box.right, box.bottom];
    });
  }
  const report = document.createElement("pre");
  report.id = "measured";
  report.textContent = JSON.stringify({
    wide, places, problems: window.problems, width: window.innerWidth,
    scrolls: document.documentElement.scrollWidth > window.innerWidth,
  });
  document.body.append(report);
});
</script>
"""


def open_page(page: str, width: int, folder: Path, *selectors: str) -> dict[str, Any]:
    """What Chromium makes of a page in a window of so many pixels.

    Returns what stands beyond the right edge (`wide`) without a scroll bar of its own, the places
    of what the selectors name, script errors, and whether the page scrolls sideways.
    """
    if CHROMIUM is None:
        pytest.skip("chromium is not installed: Debian's package has it")
    head, end, rest = page.partition("</style>")
    script = _MEASURE.replace("SELECTORS", json.dumps(selectors))
    file = folder / "page.html"
    # The frame has the width that is asked for: a window of Chromium is at least 500 pixels wide.
    inner = folder / "inner.html"
    inner.write_text(head + end + script + rest, encoding="utf-8")
    file.write_text(
        f'<!doctype html><body style="margin:0"><iframe src="inner.html" style="border:0;'
        f'width:{width}px;height:4000px"></iframe><script>onload = () => {{ setTimeout(() => {{'
        "document.body.append(document.querySelector('iframe').contentDocument"
        ".getElementById('measured').cloneNode(true)) }, 50) }</script></body>",
        encoding="utf-8",
    )
    done = subprocess.run(
        [
            CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
            "--allow-file-access-from-files", f"--user-data-dir={folder / 'profile'}",
            "--virtual-time-budget=3000", f"--window-size={max(width, 500)},4000", "--dump-dom",
            file.as_uri(),
        ],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    found = re.search(r'<pre id="measured">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found, done.stderr[-2000:]
    measured: dict[str, Any] = json.loads(
        found[1].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
    )
    assert measured["width"] == width
    return measured
