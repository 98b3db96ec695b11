"""`import underdrawing as ud`: every public name of both packages, at no cost."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

import indexer
import retrieval
import underdrawing as ud

HEAVY = ["PIL", "faiss", "numpy", "open_clip", "pyarrow", "sqlalchemy", "torch", "torchvision", "transformers"]


def test_its_names_are_those_of_both_packages_and_the_version():
    assert sorted(ud.__all__) == sorted(["__version__", *indexer.__all__, *retrieval.__all__])
    assert len(set(ud.__all__)) == len(ud.__all__), "a name of both packages would hide one of them"
    assert dir(ud) == sorted(ud.__all__)


@pytest.mark.parametrize("package", [indexer, retrieval], ids=lambda package: package.__name__)
def test_each_name_is_the_very_object(package):
    assert [name for name in package.__all__ if getattr(ud, name) is not getattr(package, name)] == []


def test_the_version_is_a_version():
    assert re.fullmatch(r"\d+\.\d+\.\d+(\.dev\d+)?", ud.__version__)


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'underdrawing' has no attribute 'Index'"):
        _ = ud.Index


def test_the_import_loads_nothing_and_the_names_load_no_model_library():
    code = (
        f"import sys, underdrawing as ud; before = [name for name in {HEAVY} if name in sys.modules]; "
        f"[getattr(ud, name) for name in ud.__all__]; after = [name for name in {HEAVY} if name in sys.modules]; "
        "print(before, sorted({'torch', 'torchvision', 'transformers', 'open_clip', 'faiss'} & set(after)))"
    )
    told = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert told.strip() == "[] []"


def test_the_package_runs_as_the_command_line():
    done = subprocess.run(
        [sys.executable, "-m", "underdrawing", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"underdrawing {ud.__version__}\n"
