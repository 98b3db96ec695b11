"""Sentences by an endpoint that speaks OpenAI's chat protocol: OpenAI, vLLM, llama.cpp, Ollama and others.

Several questions are asked at a time. After a failure that may be temporary (no connection, no answer in time, 408,
429, 5xx), a question is tried again, after growing waits or when the endpoint says. Any other failure costs that
sentence at once. The key is read from the usual environment variable when a question is asked. It is not stored, shown
or sent elsewhere: redirections are not followed.

What this module does not know: local models, caches, how sentences are used.
"""

from __future__ import annotations

import http.client
import json
import math
import os
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import SplitResult, urlsplit

from indexer.errors import CallError, WriterAwayError, WritingError
from indexer.types import JsonValue
from retrieval.providers.language.answers import filled, read_prompt, sentence_in
from retrieval.providers.language.protocol import Answer, Change, Question

KEY_VARIABLE = "OPENAI_API_KEY"
URL_VARIABLE = "OPENAI_BASE_URL"
OPENAI = "https://api.openai.com/v1"
UNTOLD = f" It is OpenAI's own URL, since neither api:MODEL@URL nor {URL_VARIABLE} names another."
LARGEST = 1 << 20
"""The most bytes of an answer that are read."""
LONGEST_WAIT = 30.0
"""The longest wait between two tries in seconds, whatever the endpoint asks for."""
PASSING = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})


class Endpoint:
    """A rewriter at a URL.

    Args:
        model: The endpoint's name for the model.
        url: The URL of its API, such as `http://localhost:8000/v1`; None for `OPENAI_BASE_URL`, or OpenAI's own.
        prompt: A prompt with `{caption}` and `{text}`; None for `prompts/rewrite.txt`.
        timeout: Seconds for one answer, from the connection to its last byte.
        tries: How often a question is asked at most.
        wait: Seconds before the second try; each further wait is twice as long.
        together: How many questions are under way at once.

    Raises:
        CallError: The URL is not valid, or a number is out of range.
    """

    def __init__(
        self,
        model: str,
        url: str | None = None,
        *,
        prompt: str | None = None,
        timeout: float = 60.0,
        tries: int = 4,
        wait: float = 1.0,
        together: int = 8,
    ) -> None:
        settled = (url or os.environ.get(URL_VARIABLE) or OPENAI).rstrip("/")
        parts = _address(settled)
        # A user who gave no URL must learn where the one in use comes from.
        self._whence = "" if url else f" It is from {URL_VARIABLE}." if os.environ.get(URL_VARIABLE) else UNTOLD
        if parts is None or parts.username is not None:
            # The part before an @ may be a password.
            host = settled.rpartition("@")[2].partition("/")[0]
            shown = f"{settled.partition(':')[0][:10]}://{host[:200]}" if "@" in settled else settled[:200]
            raise CallError(
                f"{shown} is not the URL of an API.{self._whence}",
                "Write one such as http://localhost:8000/v1, without a user or a key in it.",
            )
        if not model or timeout <= 0 or tries < 1 or wait < 0 or together < 1:
            raise CallError(
                f"An endpoint needs a model, a time-out and a try; got {model!r}, {timeout} s, {tries} tries.",
                "Name a model as the endpoint calls it: api:MODEL or api:MODEL@URL.",
            )
        self.name = f"api:{model}"
        self._model, self._url = model, settled
        self._prompt = read_prompt("rewrite.txt") if prompt is None else prompt
        self._timeout, self._tries, self._wait, self._together = timeout, tries, wait, together

    @classmethod
    def named(cls, name: str) -> Endpoint:
        """An endpoint by `MODEL` or `MODEL@URL`.

        Raises:
            CallError: The name does not parse.
        """
        model, _, url = name.partition("@")
        return cls(model, url or None)

    def identity(self) -> Mapping[str, JsonValue]:
        """URL, model and prompt. A provider may change the model behind a name; this cannot show it."""
        return {"rewriter": "api", "url": self._url, "model": self._model, "prompt": self._prompt, "temperature": 0}

    def rewrite(self, changes: Sequence[Change]) -> list[Answer]:
        """See `Rewriter.rewrite`."""
        asked = [Question((filled(self._prompt, caption=each.caption, text=each.text),)) for each in changes]
        return [told if isinstance(told, WritingError) else sentence_in(told) for told in self._answers(asked)]

    def chat_identity(self) -> Mapping[str, JsonValue]:
        """URL and model; see `identity`."""
        return {"chat": "api", "url": self._url, "model": self._model, "temperature": 0}

    def ask(self, questions: Sequence[Question], *, tokens: int) -> list[str | WritingError]:
        """See `Chat.ask`. `tokens` is not passed on: endpoints differ in what they call it.

        If the endpoint cannot be reached, questions that were not asked yet get that error as their answer.
        """
        answers: list[str | WritingError] = []
        for start in range(0, len(questions), self._together):
            answers += self._answers(questions[start : start + self._together])
            away = next((each for each in answers if isinstance(each, WriterAwayError)), None)
            if away is not None:
                return [*answers, *[away] * (len(questions) - len(answers))]
        return answers

    def _answers(self, questions: Sequence[Question]) -> list[str | WritingError]:
        with ThreadPoolExecutor(self._together, "underdrawing-ask") as pool:
            return list(pool.map(self._one, questions))

    def _one(self, question: Question) -> str | WritingError:
        asked: dict[str, Any] = {
            "model": self._model,
            "messages": [
                {"role": ("user", "assistant")[place % 2], "content": turn} for place, turn in enumerate(question.turns)
            ],
            "temperature": 0,
        }
        try:
            return self._content(self._ask(asked))
        except WritingError as error:
            return error

    def _ask(self, asked: dict[str, Any]) -> bytes:
        """The endpoint's answer, after as many tries as it takes.

        Raises:
            WriterAwayError: There is none.
            WritingError: The endpoint refuses this question.
        """
        for left in reversed(range(self._tries)):
            wait = min(self._wait * 2 ** (self._tries - 1 - left), LONGEST_WAIT)
            try:
                return self._body(asked)
            except urllib.error.HTTPError as error:
                told = _told(error)
                if error.code == 400 and "temperature" in told and asked.pop("temperature", None) is not None:
                    continue  # some models that think accept no temperature
                if error.code not in PASSING:
                    raise self._refused(error.code, told) from error
                failure, wait = f"it answered {error.code}: {told}", _asked_wait(error, wait)
            except (OSError, http.client.HTTPException) as error:  # no connection, no answer in time, half an answer
                failure = f"{getattr(error, 'reason', None) or error or type(error).__name__}"
            except (
                ValueError
            ):  # a key or a host that cannot be written in a request; the exception's text may contain the key
                raise WriterAwayError(
                    f"{self.name} at {self._url} cannot be asked: the key or the URL cannot be written in a request.",
                    f"Check the URL and {KEY_VARIABLE}: both must be plain characters on one line.",
                ) from None
            if left:
                time.sleep(wait)
        raise WriterAwayError(
            f"{self.name} at {self._url} gave no answer in {self._tries} tries; the last failure: {failure}.",
            f"Is the endpoint running, and is its URL right?{self._whence}",
        )

    def _body(self, asked: dict[str, Any]) -> bytes:
        """The endpoint's whole answer. The time-out covers all of it, so that a trickle of bytes cannot outlast it."""
        sockets: list[socket.socket] = []
        late = threading.Event()

        def hang_up() -> None:
            late.set()
            for each in sockets:
                with suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)

        watch = threading.Timer(self._timeout, hang_up)
        watch.daemon = True
        watch.start()
        try:
            with _opener(sockets).open(self._request(asked), timeout=self._timeout) as response:
                body = bytes(response.read(LARGEST))
                if late.is_set() or (response.length and len(body) < LARGEST):
                    raise http.client.IncompleteRead(body, response.length)
                return body
        except (OSError, http.client.HTTPException) as error:
            if late.is_set():
                raise TimeoutError(f"timed out, with no whole answer within {self._timeout:g} s") from error
            raise
        finally:
            watch.cancel()

    def _request(self, asked: Mapping[str, Any]) -> urllib.request.Request:
        headers = {"Content-Type": "application/json", "User-Agent": "underdrawing"}
        if key := os.environ.get(KEY_VARIABLE):
            headers["Authorization"] = f"Bearer {key}"
        # The scheme was checked when the endpoint was made.
        return urllib.request.Request(f"{self._url}/chat/completions", json.dumps(asked).encode(), headers)  # noqa: S310

    def _refused(self, code: int, told: str) -> WritingError:
        remedies = {
            401: f"Set {KEY_VARIABLE} to a valid key.",
            403: f"Set {KEY_VARIABLE} to a key that may use this model.",
            404: f"Is the model's name right, and does the URL end where /chat/completions begins?{self._whence}",
        }
        kind = WriterAwayError if code in remedies else WritingError  # the key, the model or the URL is wrong
        return kind(f"{self.name} at {self._url} answered {code}: {told}.", remedies.get(code))

    def _content(self, body: bytes) -> str:
        """The model's text in the protocol's response.

        Raises:
            WritingError: It is something else.
        """
        try:
            content = json.loads(body)["choices"][0]["message"]["content"]
            if isinstance(content, str):
                return self._sound(content)
        except (ValueError, KeyError, IndexError, TypeError, RecursionError):
            pass
        raise WritingError(
            f"{self.name} at {self._url} does not speak the chat protocol; it answered {body[:80]!r}.",
            f"Does the URL end where /chat/completions begins, such as http://localhost:8000/v1?{self._whence}",
        )

    def _sound(self, content: str) -> str:
        """The answer, if it is valid text.

        Raises:
            WritingError: It has NULs or lone surrogates.
        """
        odd = next((each for each in content if each == "\0" or "\ud800" <= each <= "\udfff"), None)
        if odd is not None:
            raise WritingError(f"{self.name} answered with the character U+{ord(odd):04X}, which is not text.")
        return content


class _Stay(urllib.request.HTTPRedirectHandler):
    """Treats a redirection as any other answer, so that the key goes nowhere else."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def _opener(sockets: list[socket.socket]) -> urllib.request.OpenerDirector:
    """An opener that remembers its connections, so that they can be closed from another thread."""

    def kept(kind: type[http.client.HTTPConnection]) -> Any:
        class Kept(kind):  # type: ignore[misc, valid-type]  # one of two classes of the library
            def connect(self) -> None:
                super().connect()
                sockets.append(self.sock)

        return Kept

    class Http(urllib.request.HTTPHandler):
        def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
            return self.do_open(kept(http.client.HTTPConnection), req)

    class Https(urllib.request.HTTPSHandler):
        def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
            return self.do_open(kept(http.client.HTTPSConnection), req)

    return urllib.request.build_opener(_Stay, Http, Https)


def _told(error: urllib.error.HTTPError) -> str:
    """An endpoint's explanation of a failure, on one line."""
    try:
        body = error.read(LARGEST)
        found = json.loads(body)
        inner = found.get("error", found) if isinstance(found, dict) else found
        said = inner.get("message") if isinstance(inner, dict) else inner
    except (OSError, ValueError, http.client.HTTPException, RecursionError):
        said = None
    return " ".join(str(said or error.reason).split()).rstrip(".")[:200]


def _asked_wait(error: urllib.error.HTTPError, otherwise: float) -> float:
    """The seconds that an endpoint asks to wait, within limits."""
    told = str(error.headers.get("Retry-After", "")).strip()
    try:
        seconds = float(told)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(told).timestamp() - time.time()
        except (ValueError, TypeError, OverflowError, AttributeError):
            return otherwise
    return otherwise if math.isnan(seconds) else min(max(seconds, 0.0), LONGEST_WAIT)


def _address(url: str) -> SplitResult | None:
    """The parts of the URL of an API, or None if it is not usable."""
    try:
        parts = urlsplit(url)
        _ = parts.port
        (parts.hostname or "").encode("idna")
    except ValueError:  # an open bracket, an invalid port, an impossible host name
        return None
    if parts.scheme not in ("http", "https") or not parts.hostname or not url.isprintable() or " " in url:
        return None
    return parts
