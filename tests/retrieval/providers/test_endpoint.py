"""A local endpoint that answers well, late, wrongly, with nonsense, or not at all."""

from __future__ import annotations

import json
import socket
import threading

import pytest
from fake_endpoint import serving

from indexer.errors import CallError, WritingError
from retrieval import CaptionRewriter, Query, Retriever
from retrieval.providers.caption_rewrite import RewriteRequest
from retrieval.providers.language import Change, endpoint, load_rewriter
from retrieval.providers.language.endpoint import Endpoint

CAT = Change("a cat", "at night")


@pytest.fixture
def server():
    with serving() as made:
        yield made


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    for name in (endpoint.KEY_VARIABLE, endpoint.URL_VARIABLE, "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def waits(monkeypatch):
    """The seconds between tries, which no test waits."""
    told = []
    monkeypatch.setattr(endpoint.time, "sleep", told.append)
    return told


@pytest.fixture
def asker(server, waits):
    def make(**options):
        return Endpoint("tiny", server.url, **options)

    return make


@pytest.mark.parametrize(
    ("url", "environment", "told"),
    [
        (None, "nonsense", r"nonsense is not the URL of an API. It is from OPENAI_BASE_URL. Write one such as"),
        (None, "http://me:secret@host/v1", r"http://host is not the URL of an API. It is from OPENAI_BASE_URL"),
        ("http://[::1", "nonsense", r"http://\[::1 is not the URL of an API. Write one"),
        ("http://host:port/v1", "nonsense", r"http://host:port/v1 is not the URL of an API"),
        ("http://host:99999/v1", "nonsense", r"http://host:99999/v1 is not the URL of an API"),
        ("http://a..b/v1", "nonsense", r"http://a..b/v1 is not the URL of an API"),
        ("http://" + "a" * 64 + "/v1", "nonsense", r"a is not the URL of an API|/v1 is not the URL of an API"),
        ("http://two words/v1", "nonsense", r"two words/v1 is not the URL of an API"),
        ("http://host\n/v1", "nonsense", r"not the URL of an API"),
        ("http://me:secret@[::1", "nonsense", r"http://\[::1 is not the URL of an API"),
        ("", "http://[::1", r"http://\[::1 is not the URL of an API. It is from OPENAI_BASE_URL"),
        ("ftp://host", "nonsense", r"ftp://host is not the URL of an API. Write one"),
    ],
)
def test_an_address_that_is_none_is_told_with_where_it_is_from(url, environment, told, monkeypatch):
    monkeypatch.setenv(endpoint.URL_VARIABLE, environment)
    with pytest.raises(CallError, match=told) as refused:
        Endpoint("tiny", url)
    assert "secret" not in str(refused.value)
    with pytest.raises(CallError, match="Name a model as the endpoint calls it: api:MODEL"):
        Endpoint("", "http://host/v1")


def test_an_endpoint_that_is_away_says_where_its_address_is_from(server, waits, monkeypatch):
    server.answers = [(404, {}, "{}")]
    [told] = Endpoint("tiny", server.url).rewrite([CAT])
    assert endpoint.URL_VARIABLE not in told.remedy
    monkeypatch.setenv(endpoint.URL_VARIABLE, server.url)
    [told] = Endpoint("tiny").rewrite([CAT])
    assert told.remedy.endswith(f"It is from {endpoint.URL_VARIABLE}.")
    monkeypatch.delenv(endpoint.URL_VARIABLE)
    monkeypatch.setattr(endpoint, "OPENAI", server.url)
    [told] = Endpoint("tiny").rewrite([CAT])
    assert "It is OpenAI's own" in told.remedy


def error(status, message="no", headers=None, **more):
    return status, headers or {}, json.dumps({"error": {"message": message, **more}})


def test_a_question_in_the_fields_protocol(asker, server, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "secret-key")
    rewriter = asker(prompt="{caption} + {text}")
    assert rewriter.rewrite([CAT]) == ["a cat at night"]
    [(path, headers, body)] = server.asked
    assert path == "/v1/chat/completions"
    assert headers["Authorization"] == "Bearer secret-key"
    assert headers["Content-Type"] == "application/json"
    assert body == {
        "model": "tiny", "messages": [{"role": "user", "content": "a cat + at night"}], "temperature": 0,
    }  # fmt: skip


def test_without_a_key_none_is_sent_and_it_is_shown_nowhere(asker, server, monkeypatch, tmp_path):
    rewriter = asker()
    rewriter.rewrite([CAT])
    assert "Authorization" not in server.asked[0][1]
    monkeypatch.setenv("OPENAI_API_KEY", "secret-key")
    server.answers = [error(401, "who are you")]
    captions = CaptionRewriter(None, rewriter, cache=tmp_path / "kept")
    told = [str(each) for each in rewriter.rewrite([CAT])]
    assert told == [f"api:tiny at {server.url} answered 401: who are you. Set OPENAI_API_KEY to a valid key."]
    server.answers = ["a cat"]
    captions.rewrite([RewriteRequest("red", caption="a cat")])
    kept = "".join(file.read_text() for file in (tmp_path / "kept").rglob("*.json"))
    assert kept
    assert "secret-key" not in "".join(told) + kept + repr(rewriter.identity()) + repr(vars(rewriter))


def test_a_name_says_model_and_address(server, monkeypatch):
    named = load_rewriter(f"api:org/tiny:7b@{server.url}/")
    assert (named.name, named.identity()["url"], named.identity()["model"]) == (
        "api:org/tiny:7b",
        server.url,
        "org/tiny:7b",
    )
    assert load_rewriter("api:tiny").identity()["url"] == "https://api.openai.com/v1"
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    assert load_rewriter("api:tiny").rewrite([CAT]) == ["a cat at night"]


@pytest.mark.parametrize(
    "name", ["api:", "api:m@ftp://x", "api:m@file:///etc/passwd", "api:m@localhost", "api:m@http://u:p@h/"]
)
def test_names_that_are_none(name):
    with pytest.raises(CallError) as raised:
        load_rewriter(name)
    assert "u:p" not in str(raised.value)


def test_questions_are_asked_together_and_answered_in_order(asker, server):
    gate = threading.Barrier(4, timeout=10)

    def together(body):
        gate.wait()
        return body["messages"][0]["content"].splitlines()[-2].removeprefix("Change: ")

    server.answers = [together]
    changes = [Change("a cat", word) for word in ("red", "blue", "green", "black")]
    assert asker(together=4).rewrite(changes) == ["red", "blue", "green", "black"]


@pytest.mark.parametrize(
    "first", [error(429), error(503), error(500), (None, {}, ""), (200, {"Content-Length": "99"}, "{}")]
)
def test_what_passes_is_tried_again(asker, server, waits, first):
    server.answers = [first, first, "a cat at night"]
    assert asker().rewrite([CAT]) == ["a cat at night"]
    assert waits == [1.0, 2.0]


def test_the_endpoint_says_how_long_to_wait(asker, server, waits):
    answers = [error(429, headers={"Retry-After": after}) for after in ("7", "100000", "soon", "-3")]
    server.answers = [*answers, "a cat"]
    assert asker(tries=5).rewrite([CAT]) == ["a cat"]
    assert waits == [7.0, endpoint.LONGEST_WAIT, 4.0, 0.0]


def test_what_does_not_pass_is_an_error_that_names_it(asker, server, waits):
    server.answers = [error(503, "too many\n cats")]
    [failed] = asker(tries=3).rewrite([CAT])
    assert isinstance(failed, WritingError)
    assert str(failed).startswith(
        f"api:tiny at {server.url} gave no answer in 3 tries; the last failure: it answered 503: too many cats."
    )
    assert len(server.asked) == 3
    assert waits == [1.0, 2.0]


def test_nobody_there(waits):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        [failed] = Endpoint("tiny", f"http://127.0.0.1:{taken.getsockname()[1]}/v1", tries=2).rewrite([CAT])
    assert "gave no answer in 2 tries" in str(failed)
    assert "Is the endpoint running" in str(failed)


def test_an_answer_that_does_not_come_in_time(asker, server):
    late = threading.Event()
    server.answers = [lambda _: late.wait(5) and "late" or "later"]
    [failed] = asker(timeout=0.05, tries=2).rewrite([CAT])
    late.set()
    assert "timed out" in str(failed)


@pytest.mark.parametrize(
    ("status", "said"),
    [(400, "answered 400: no"), (401, "OPENAI_API_KEY"), (403, "OPENAI_API_KEY"), (404, "Is the model's name right")],
)
def test_a_refusal_is_not_tried_again(asker, server, waits, status, said):
    server.answers = [error(status)]
    [failed] = asker().rewrite([CAT])
    assert said in str(failed)
    assert (len(server.asked), waits) == (1, [])


def test_a_redirection_is_not_followed(asker, server, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "secret-key")
    for status in (301, 302, 303, 307, 308):
        server.answers = [(status, {"Location": f"{server.url}/elsewhere"}, "")]
        server.asked.clear()
        [failed] = asker().rewrite([CAT])
        assert f"answered {status}" in str(failed)
        assert len(server.asked) == 1


@pytest.mark.parametrize(
    "body",
    [
        "",
        "<html>hello",
        "[]",
        "{}",
        '{"choices": []}',
        '{"choices": [{"message": {"content": null}}]}',
        '{"choices": 3}',
    ],
)
def test_something_else_than_the_protocol(asker, server, waits, body):
    server.answers = [(200, {}, body)]
    [failed] = asker().rewrite([CAT])
    assert "does not speak the chat protocol" in str(failed)
    assert len(server.asked) == 1


def test_an_error_page_that_is_no_json(asker, server):
    server.answers = [(404, {}, "<html>")]
    [failed] = asker().rewrite([CAT])
    assert "answered 404: Not Found" in str(failed)


def test_a_model_that_chooses_its_own_temperature_is_asked_without(asker, server):
    server.answers = [error(400, "Unsupported value: 'temperature' does not support 0", param="temperature"), "a cat"]
    assert asker().rewrite([CAT]) == ["a cat"]
    assert ["temperature" in body for _, _, body in server.asked] == [True, False]
    server.answers = [error(400, "temperature is wrong in any case")]
    [failed] = asker().rewrite([CAT])
    assert "answered 400" in str(failed)


def test_nonsense_is_a_note_and_the_search_goes_on(asker, server, collection, tmp_path):
    server.answers = ["?!", "red cat"]
    retriever = Retriever(collection, "caption", captions=CaptionRewriter(None, asker(), cache=tmp_path / "sentences"))
    results = retriever.search(Query(text="red", like="cat", caption="cat"), k=1)
    assert results.notes == (
        "Not rewritten: The answer has no words: '?!'. Caption and text are searched side by side.",
    )
    assert (results.written["sentence"], results.written["rewriter"]) == ("cat, red", None)
    again = retriever.search(Query(text="red", like="cat", caption="cat"), k=1)
    assert (again.written["sentence"], again.notes) == ("red cat", ())


@pytest.mark.parametrize("options", [{"timeout": 0}, {"tries": 0}, {"wait": -1}, {"together": 0}])
def test_options_out_of_range(options):
    with pytest.raises(CallError):
        Endpoint("tiny", "http://localhost/v1", **options)


@pytest.mark.parametrize("where", ["head", "body"])
def test_a_drip_of_bytes_does_not_outlast_the_time(asker, waits, where):
    """Every byte comes in time, and the answer never does."""
    listening = socket.create_server(("127.0.0.1", 0))
    leave = threading.Event()

    def drip() -> None:
        connection, _ = listening.accept()
        with connection:
            connection.recv(65536)
            if where == "body":
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
            while not leave.wait(0.02):
                try:
                    connection.sendall(b"H" if where == "head" else b" ")
                except OSError:
                    return

    thread = threading.Thread(target=drip, daemon=True)
    thread.start()
    try:
        made = Endpoint("tiny", f"http://127.0.0.1:{listening.getsockname()[1]}/v1", timeout=2, tries=1)
        [failed] = made.rewrite([CAT])
    finally:
        leave.set()
        thread.join()
        listening.close()
    assert isinstance(failed, WritingError)
    assert "no whole answer within 2 s" in str(failed)


@pytest.mark.parametrize(
    ("told", "waited"),
    [
        ("nan", 1.0), ("-nan", 1.0), ("inf", 30.0), ("1e999", 30.0), ("-5", 0.0), ("9" * 3000, 30.0), ("0.5", 0.5), ("", 1.0),
        ("soon", 1.0), ("Fri, 31 Dec 1999 23:59:59 GMT", 0.0), ("Fri, 31 Dec 2999 23:59:59 GMT", 30.0), ("Fri, 99 Foo", 1.0),
    ],
)  # fmt: skip
def test_a_time_to_wait_is_read_as_far_as_it_makes_sense(server, asker, waits, told, waited):
    server.answers = [(429, {"Retry-After": told}, "{}"), "a cat at night"]
    assert asker().rewrite([CAT]) == ["a cat at night"]
    assert waits == [waited]


@pytest.mark.parametrize("deep", ['{"choices": ' + "[" * 200_000, "[" * 200_000])
@pytest.mark.parametrize("status", [200, 400])
def test_an_answer_nested_without_end_is_a_failure_of_that_sentence(server, asker, deep, status):
    server.answers = [(status, {}, deep)]
    [failed] = asker(tries=1).rewrite([CAT])
    assert isinstance(failed, WritingError)
    assert len(str(failed)) < 600


@pytest.mark.parametrize("odd", ["a cat\0", "\ud800 a cat", "a \udc80"])
def test_what_is_no_text_is_no_answer(server, asker, odd):
    server.answers = [(200, {}, json.dumps({"choices": [{"message": {"content": odd}}]}))]
    [failed] = asker().rewrite([CAT])
    assert isinstance(failed, WritingError)
    assert "is not text" in str(failed)


@pytest.mark.parametrize("key", ["sk-se\ncret", "sk-se\r\nX: cret", "\u20ac"])
def test_a_key_that_cannot_be_sent_is_said_without_it(server, asker, monkeypatch, key):
    monkeypatch.setenv(endpoint.KEY_VARIABLE, key)
    [failed] = asker(tries=1).rewrite([CAT])
    assert isinstance(failed, WritingError)
    assert "cannot be asked" in str(failed)
    assert all(part not in str(failed) for part in (key, repr(key)[1:-1]))
    assert server.asked == []
