"""The public names and their import cost."""

from __future__ import annotations

import subprocess
import sys

import pytest

import retrieval

HEAVY = (
    "torch",
    "torchvision",
    "transformers",
    "open_clip",
    "faiss",
    "sqlalchemy",
    "pyarrow",
    "numpy",
    "PIL",
)


NAMES = [
    "CaptionRewriter",
    "GenerateOptions",
    "Hit",
    "LateFusion",
    "Merge",
    "Method",
    "PseudoTargetProvider",
    "Query",
    "Results",
    "Retriever",
    "SearchOptions",
    "SearchRequest",
    "SearchService",
    "Weights",
]


def test_the_public_names():
    assert retrieval.__all__ == NAMES
    assert {name: getattr(retrieval, name).__name__ for name in retrieval.__all__} == {
        name: name for name in retrieval.__all__
    }
    assert set(retrieval.__all__) <= set(dir(retrieval))


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Composer'"):
        _ = retrieval.Composer


def loaded(code):
    program = f"{code}\nimport sys\nprint([name for name in {HEAVY} if name in sys.modules])"
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.strip()


def test_importing_the_package_loads_nothing():
    assert loaded("import retrieval") == "[]"


def test_using_every_public_name_loads_no_model_library():
    code = f"from retrieval import {', '.join(NAMES)}"
    assert loaded(code) == "['numpy']"
