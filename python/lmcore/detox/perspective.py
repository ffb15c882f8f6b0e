"""A client of Perspective, whose service ends on 31 December 2026.

For comparison with published numbers while it lasts; `train-scorer` makes what does without it.
The key comes from the environment, and goes into a header that no error shows.
"""

from __future__ import annotations

import json
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from lmcore._json import parse_json
from lmcore.detox.data import check_score

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

KEY_VARIABLE = "PERSPECTIVE_API_KEY"
ENDS = "2026-12-31"
URL = "https://commentanalyzer.googleapis.com/v1alpha1/comments:analyze"
_MOST_BYTES = 20480  # of a text, by the service's documents
_ANSWER_BYTES = 1 << 20
_AGAIN = {429, 500, 502, 503, 504}


class Response(NamedTuple):
    """What a server answered."""

    status: int
    """Of HTTP."""
    body: bytes


Transport = Callable[[str, Mapping[str, str], bytes], Response]
"""Posts a body with headers to an address."""


class PerspectiveScorer:
    """The score that the service gives a text for one attribute.

    Args:
        attribute: such as TOXICITY, SEVERE_TOXICITY or INSULT.
        key: of the service; what the variable PERSPECTIVE_API_KEY holds if None.
        transport: what posts; urllib's if None.
        seconds_between: least time between two requests: one in a second is what all may ask.
        attempts: for a text, where the service is busy.
        wait: what waits for so many seconds.

    Raises:
        ValueError: there is no key, or no such attribute.

    Example:
        >>> answer = b'{"attributeScores": {"TOXICITY": {"summaryScore": {"value": 0.25}}}}'
        >>> post = lambda url, headers, body: Response(200, answer)
        >>> PerspectiveScorer(key="secret", transport=post, seconds_between=0)(["a"]).tolist()
        [0.25]
    """

    def __init__(
        self,
        *,
        attribute: str = "TOXICITY",
        key: str | None = None,
        transport: Transport | None = None,
        seconds_between: float = 1.0,
        attempts: int = 5,
        wait: Callable[[float], object] = time.sleep,
    ) -> None:
        if not re.fullmatch("[A-Z][A-Z_]{0,63}", attribute):
            raise ValueError(f"an attribute is written as TOXICITY is: got {attribute!r:.60}")
        secret = os.environ.get(KEY_VARIABLE, "") if key is None else key
        if not re.fullmatch(r"[!-~]+", secret):  # nothing that ends a header
            raise ValueError(f"the environment variable {KEY_VARIABLE} must hold a key")
        self.attribute = attribute
        self.batch_size = 1  # an answer is kept as soon as it is there
        self.key = f"perspective {attribute}"
        self._secret = secret
        self._post = _post if transport is None else transport
        self._seconds_between = seconds_between
        self._attempts = attempts
        self._wait = wait
        self._is_first = True

    def __repr__(self) -> str:
        return f"PerspectiveScorer(attribute={self.attribute!r})"

    def __call__(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """Returns the service's scores, one request for each text; 0 for one without letters.

        Args:
            texts: N texts.

        Raises:
            ConnectionError: the service cannot be reached, or refuses; the text says which text.
            ValueError: a text is longer than the service takes, or what it answered is no score.
        """
        import numpy as np

        return np.array([self._score(index, text) for index, text in enumerate(texts)], np.float64)

    def _score(self, index: int, text: str) -> float:
        size = len(text.encode("utf-8", "replace"))
        if size > _MOST_BYTES:
            raise ValueError(
                f"texts[{index}] has {size} bytes: Perspective takes at most {_MOST_BYTES}"
            )
        if not text.strip():  # which the service refuses
            return 0.0
        request = {
            "comment": {"text": text}, "requestedAttributes": {self.attribute: {}},
            "doNotStore": True,
        }  # fmt: skip
        body = json.dumps(request).encode()
        return self._read(index, self._ask(index, body))

    def _ask(self, index: int, body: bytes) -> bytes:
        headers = {"Content-Type": "application/json", "X-Goog-Api-Key": self._secret}
        for attempt in range(self._attempts):
            if not self._is_first:
                self._wait(self._seconds_between * 2**attempt)
            self._is_first = False
            response = self._post(URL, headers, body)
            if response.status == 200:
                return response.body
            if response.status not in _AGAIN:
                break
        raise ConnectionError(
            f"texts[{index}]: Perspective answered with status {response.status}"
            f"{self._find_reason(response.body)}"
        )

    def _find_reason(self, body: bytes) -> str:
        try:
            message = parse_json(body.decode())["error"]["message"]
        except (ValueError, TypeError, KeyError):
            return ""
        return f": {str(message).replace(self._secret, '...')[:200]}"

    def _read(self, index: int, body: bytes) -> float:
        try:
            answer: Any = parse_json(body.decode())
            value = answer["attributeScores"][self.attribute]["summaryScore"]["value"]
        except (ValueError, TypeError, KeyError):
            raise ValueError(
                f"texts[{index}]: what Perspective answered holds no {self.attribute}"
            ) from None
        return check_score(f"texts[{index}]: the score of Perspective", value)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A key goes to the service alone."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def _post(url: str, headers: Mapping[str, str], body: bytes) -> Response:
    request = urllib.request.Request(url, body, dict(headers), method="POST")
    try:
        with urllib.request.build_opener(_NoRedirects).open(request, timeout=60) as answer:
            return Response(answer.status, answer.read(_ANSWER_BYTES))
    except urllib.error.HTTPError as error:
        with error:
            return Response(error.code, error.read(_ANSWER_BYTES))
    except OSError as error:
        reason = getattr(error, "reason", error)
        raise ConnectionError(f"Perspective cannot be reached: {reason}") from None
