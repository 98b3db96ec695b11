"""A request reports its errors by field, in Python and in JSON."""

from __future__ import annotations

import base64
import pickle

import pytest
from PIL import Image

from indexer.errors import QueryError, RequestError
from retrieval import SearchOptions, SearchRequest, Weights
from retrieval.fields import Kind
from retrieval.request import fields_of

WRONG = {
    Kind.TEXT: [" ", 3, b"x"],
    Kind.TEXTS: [[""], 3, [3]],
    Kind.NAME: ["", 3],
    Kind.NAMES: [3, [3]],
    Kind.IMAGE: [3, "https://example.org/a.jpg", ""],
    Kind.IMAGES: [[3], "https://example.org/a.jpg"],
    Kind.WHOLE: [-1, 1.5, "ten", True],
    Kind.NUMBER: ["x", True, float("nan")],
    Kind.FLAG: ["yes", 1, None.__class__],
    Kind.WEIGHTS: [3, {"imgae": 1}, {"image": "x"}],
    Kind.MODEL: [""],
    Kind.PART: ["", 3],
    Kind.FILTER: [],
}


@pytest.mark.parametrize("name", list(fields_of(SearchRequest)))
def test_a_wrong_value_is_told_by_its_field(name):
    parts = {} if name == "text" else {"text": "a lamp"}
    for value in WRONG[fields_of(SearchRequest)[name].kind]:
        with pytest.raises(RequestError) as wrong:
            SearchRequest(**{name: value}, **parts)
        assert wrong.value.field == name
        assert wrong.value.exit_code == 2


def test_numbers_have_their_least():
    for name, value in (("k", 0), ("steps", 0), ("pseudo_target_count", 0), ("seed", -1), ("deadline_ms", -0.5)):
        with pytest.raises(RequestError, match=f"`{name}` is {value}; it must be"):
            SearchRequest(text="a", **{name: value})
    assert SearchRequest(text="a", deadline_ms=0, seed=0).deadline_ms == 0


def test_fields_that_do_not_go_together_are_refused():
    for parts in ({}, {"image": b"x", "like": "y"}, {"wordings": ["z"], "like": "y"}):
        with pytest.raises(QueryError):
            SearchRequest(**parts)


def test_a_request_is_a_query_and_how_to_ask_it():
    request = SearchRequest(text=" a lamp ", like="a", not_texts="b", weights={"image": 1}, modalities="image", k=3)
    query = request.query
    assert (query.text, query.like, query.not_texts, query.weights) == ("a lamp", "a", ("b",), None)
    assert (request.weights, request.modalities) == (Weights(image=1.0), ("image",))
    assert set(request.given()) == {"text", "like", "not_texts", "weights", "modalities", "k"}
    assert set(SearchOptions(method="sum").given()) == {"method"}


def test_json_has_images_in_base64(tmp_path):
    Image.new("RGB", (4, 4), "red").save(tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    text = base64.b64encode(data).decode()
    request = SearchRequest.from_json(
        {
            "text": "x",
            "image": text,
            "not_images": [f"data:image/png;base64,{text}"],
            "weights": {"text": 2},
            "like": None,
        }
    )
    assert (request.image, request.not_images, request.weights) == (data, (data,), Weights(text=2.0))


@pytest.mark.parametrize(
    ("asked", "field", "said"),
    [
        ([], "", "A request is a JSON object, not list"),
        ({"txet": "a"}, "txet", "Did you mean 'text'"),
        ({"text": "a", "k": "10"}, "k", "must be a whole number"),
        ({"text": "a", "image": "/etc/passwd"}, "image", "which is not base64"),
        ({"text": "a", "image": 3}, "image", "in base64"),
        ({"text": "a", "not_images": ["%"]}, "not_images", "which is not base64"),
        ({"text": "a", "generator": "/models/x"}, "generator", "where the service is started"),
        ({"text": "a", "rewriter": "api:x@http://inside"}, "rewriter", "where the service is started"),
        ({"text": "a", "rerank": "plugin:/a/folder"}, "rerank", "where the service is started"),
        ({"text": "a", "modalities": ["sound"]}, "modalities", "Known: text, image"),
        ({"text": "a", "center": "left"}, "center", "Known: auto, on"),
    ],
)  # fmt: skip
def test_json_that_is_wrong_names_the_field(asked, field, said):
    with pytest.raises(RequestError) as wrong:
        SearchRequest.from_json(asked)
    assert wrong.value.field == field
    assert said in str(wrong.value)
    again = pickle.loads(pickle.dumps(wrong.value))
    assert (again.field, str(again)) == (field, str(wrong.value))


def test_who_starts_the_service_may_name_models_in_json():
    assert SearchRequest.from_json({"text": "a", "generator": "x"}, local=True).generator == "x"
    assert SearchRequest.from_json({"text": "a", "rerank": "plugin:x"}, local=True).rerank == "plugin:x"
    assert SearchRequest.from_json({"text": "a", "rerank": "plugin"}).rerank == "plugin"


def test_the_schema_describes_every_field_that_may_be_sent():
    schema = SearchRequest.schema()
    assert set(schema["properties"]) == {name for name, info in fields_of(SearchRequest).items() if not info.local}
    assert set(SearchRequest.schema(local=True)["properties"]) == set(fields_of(SearchRequest))
    assert schema["properties"]["k"] == {
        "type": "integer", "description": "The number of hits.", "minimum": 1, "default": 10,
    }  # fmt: skip
    assert schema["additionalProperties"] is False
    assert all(each["description"] for each in schema["properties"].values())
