"""What scorers return is checked; lexicons, and the client of Perspective without a network."""

import json
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest

from commands import check_line, run_here
from lmcore.detox import LexiconScorer, PerspectiveScorer, check_scores, load_scorer, perspective
from lmcore.detox.perspective import KEY_VARIABLE, URL, Response
from tiny_scorers import write_jsonl


@pytest.mark.parametrize(
    ("scores", "kind", "text"),
    [
        ([0.5], ValueError, r"must return 2 numbers: got the shape \(1,\)"),
        ([[0.5, 0.5]], ValueError, r"must return 2 numbers: got the shape \(1, 2\)"),
        ([0.5, float("nan")], ValueError, r"returned nan for texts\[1\], 'b\\\\x1b'"),
        ([1.01, 0.5], ValueError, r"returned 1.01 for texts\[0\], 'a'"),
        ([0.5, -1e-9], ValueError, r"texts\[1\]"),
        (["0.5", "0.5"], TypeError, "must return numbers: got list"),
        (None, TypeError, "must return numbers: got NoneType"),
        ([[0.5], [0.5, 0.5]], TypeError, "must return numbers: got list"),
        ([None, 0.5], TypeError, "must return numbers"),
        ([0.5, 0.5j], TypeError, "must return numbers"),
        ([0.5, 10**400], TypeError, "must return numbers"),
    ],
)
def test_bad_scores(scores: Any, kind: type[Exception], text: str) -> None:
    with pytest.raises(kind, match=text):
        check_scores(scores, ["a", "b\x1b"])


def test_good_scores() -> None:
    for scores in ([0, 1], [True, False], np.array([0.5, 1], "f4")):
        assert check_scores(scores, ["a", "b"]).dtype == np.float64
    assert check_scores([], []).shape == (0,)


# Lexicons.


def test_lexicon() -> None:
    scorer = LexiconScorer(["blap", "blap blap zorg", "坏人", "zorg"])
    text = "BLAP blap zorg, x坏人 ZORGs blap"
    found = scorer.explain(text)
    assert [text[word.start : word.end] for word in found] == ["BLAP blap zorg", "坏人", "blap"]
    assert scorer(["zorgs", text, ""]).tolist() == [0, 1, 0]
    assert scorer.key == LexiconScorer(["坏人", "zorg", "blap blap zorg", "Blap"]).key
    assert scorer.key != LexiconScorer(["blap"]).key


def test_lexicon_files(tmp_path: Path) -> None:
    texts = write_jsonl(tmp_path / "texts.jsonl", [{"text": "a"}])
    for name, content in (("empty", b"\n \n"), ("bytes", b"a\n\xff"), ("long", b"a " * 99)):
        (tmp_path / name).write_bytes(content)
        check_line(run_here("detox", "score", texts, "--scorer", tmp_path / name), name)


def test_lexicons_of_others(data_dir: Path) -> None:
    scorer = load_scorer(data_dir / "tox/wordlist_en.txt")
    rows = [
        json.loads(line)
        for line in (data_dir / "tox/segmentcnn_jigsaw_scored.jsonl").read_text().splitlines()
    ]
    assert 0.3 < np.mean(scorer([row["content"] for row in rows])) < 1


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["nothing"], "no scorer nothing"),
        (["detoxify"], "detoxify needs a checkpoint"),
        (["LEXICON", "--label", "toxic"], "has no labels to choose from"),
        (["LEXICON", "--checkpoint", "x"], "a checkpoint goes with the scorer detoxify"),
        (["LEXICON", "--unpickle"], "a checkpoint goes with the scorer detoxify"),
        (["LEXICON", "--device", "cpu"], "--device goes with a model"),
        (["detoxify", "--checkpoint", "x"], "a pickle, which can run code"),
        (["perspective"], KEY_VARIABLE),
    ],
)
def test_options_that_do_not_go_together(
    tmp_path: Path, arguments: list[str], text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    lexicon = tmp_path / "lexicon.txt"
    lexicon.write_text("blap\n")
    texts = write_jsonl(tmp_path / "texts.jsonl", [{"text": "a"}])
    given = [str(lexicon) if part == "LEXICON" else part for part in arguments]
    check_line(run_here("detox", "score", texts, "--scorer", *given), text)


# Perspective.


class Service:
    """What answers in the service's place."""

    def __init__(self, *answers: tuple[int, Any]) -> None:
        self.answers = [*answers]
        self.requests: list[tuple[str, Mapping[str, str], Any]] = []

    def __call__(self, url: str, headers: Mapping[str, str], body: bytes) -> Response:
        self.requests.append((url, headers, json.loads(body)))
        status, answer = self.answers.pop(0)
        return Response(
            status, answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        )


def answer(value: Any) -> tuple[int, Any]:
    return 200, {"attributeScores": {"TOXICITY": {"summaryScore": {"value": value}}}}


def make_client(service: Service, waits: list[float] | None = None) -> PerspectiveScorer:
    wait = (lambda _: None) if waits is None else waits.append
    return PerspectiveScorer(key="s3cret", transport=service, wait=wait, attempts=3)


def test_perspective_asks_once_for_each_text() -> None:
    service, waits = Service(answer(0.25), answer(1)), list[float]()
    assert make_client(service, waits)(["a", " ", "坏"]).tolist() == [0.25, 0, 1]
    assert [request["comment"]["text"] for _, _, request in service.requests] == ["a", "坏"]
    for url, headers, request in service.requests:
        assert (url, headers["X-Goog-Api-Key"]) == (URL, "s3cret")
        assert "s3cret" not in url + json.dumps(request)
        assert request["requestedAttributes"] == {"TOXICITY": {}}
        assert request["doNotStore"] is True
    assert waits == [1.0]  # one request in a second


def test_perspective_waits_where_the_service_is_busy() -> None:
    service, waits = Service((429, {}), (503, b"<html>"), answer(0.5)), list[float]()
    assert make_client(service, waits)(["a"]).tolist() == [0.5]
    assert waits == [2.0, 4.0]


@pytest.mark.parametrize(
    ("answers", "text"),
    [
        (
            [(403, {"error": {"message": "key s3cret is not known"}})],
            r"texts\[0\]: Perspective answered with status 403: key \.\.\. is not",
        ),
        ([(429, {})] * 3, "status 429"),
        ([(302, b"")], "status 302"),
        ([(200, b"\xff")], "holds no TOXICITY"),
        ([(200, b"[" * 10**5)], "holds no TOXICITY"),
        ([(200, {"attributeScores": []})], "holds no TOXICITY"),
        ([answer("high")], "must be a number from 0 to 1: got 'high'"),
        ([answer(1.5)], "must be a number from 0 to 1"),
        ([(200, b'{"attributeScores": NaN}')], "holds no TOXICITY"),
    ],
)
def test_answers_that_are_no_scores(answers: list[tuple[int, Any]], text: str) -> None:
    client = make_client(Service(*answers))
    with pytest.raises((ConnectionError, ValueError), match=text) as caught:
        client(["a"])
    assert "s3cret" not in f"{caught.value} {client!r} {client.key}"


def test_what_perspective_does_not_take(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"texts\[1\] has 20481 bytes"):
        make_client(Service(answer(0.5)))(["a", "a" * 20481])
    monkeypatch.setenv(KEY_VARIABLE, "a\r\nHost: b")
    for options in ({}, {"key": ""}, {"key": "k", "attribute": "toxicity"}):
        with pytest.raises(ValueError, match=r"PERSPECTIVE|TOXICITY"):
            PerspectiveScorer(**options)  # type: ignore[arg-type]


def test_requests_over_http(monkeypatch: pytest.MonkeyPatch) -> None:
    """Statuses come back as they are, and a key follows no redirect."""
    paths = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            paths.append(self.path)
            size = int(self.headers["Content-Length"])
            request = json.loads(self.rfile.read(size))
            is_good = request["comment"]["text"] == "a"
            self.send_response(200 if is_good else 302)
            self.send_header("Location", "/elsewhere")
            self.end_headers()
            self.wfile.write(json.dumps(answer(0.5)[1]).encode())

        def log_message(self, *_: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        monkeypatch.setattr(perspective, "URL", f"http://127.0.0.1:{server.server_port}/analyze")
        client = PerspectiveScorer(key="s3cret", seconds_between=0)
        assert client(["a"]).tolist() == [0.5]
        with pytest.raises(ConnectionError, match="status 302"):
            client(["b"])
        server.shutdown()
        thread.join()
    assert paths == ["/analyze", "/analyze"]
    with pytest.raises(ConnectionError, match="cannot be reached"):
        client(["a"])
