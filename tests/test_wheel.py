"""The wheel holds what the programs need where only the wheel is: templates, prompts, models, data, types."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import underdrawing

ROOT = Path(__file__).parents[1]
PACKAGES = ("underdrawing", "indexer", "retrieval", "pipelines")


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder into which the wheel of this tree was installed, without what it stands on."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder / "dist")]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = (folder / "dist").iterdir()
    options = ["--no-deps", "--no-index", "--no-compile", "--disable-pip-version-check", "--quiet"]
    pip = [sys.executable, "-m", "pip", "install", *options, "--target", str(folder / "site"), str(wheel)]
    subprocess.run(pip, cwd=folder, check=True, capture_output=True)
    return folder / "site"


def names(folder):
    """The files of the packages below a folder, by relative path."""
    return {
        path.relative_to(folder).as_posix()
        for package in PACKAGES
        for path in (folder / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_the_wheel_has_every_file_of_the_packages_and_no_other(installed):
    assert names(installed) == names(ROOT)
    (metadata,) = installed.glob("*.dist-info")
    others = {path.name for path in installed.iterdir()} - {*PACKAGES, metadata.name, "bin"}
    assert others == set(), "tests, benchmarks and docs are not installed"


@pytest.mark.parametrize("package", PACKAGES)
def test_type_checkers_believe_every_package(installed, package):
    assert (installed / package / "py.typed").exists()


def test_the_files_that_are_not_python_are_there(installed):
    suffixes = {Path(name).suffix for name in names(installed)}
    assert {".j2", ".txt", ".json", ".parquet", ".safetensors", ".md"} <= suffixes


def test_the_licences_of_code_and_data_come_along(installed):
    (metadata,) = installed.glob("*.dist-info")
    found = {path.relative_to(metadata / "licenses").as_posix() for path in (metadata / "licenses").rglob("*.*")}
    assert "indexer/bundled/LICENSES.md" in found
    assert (metadata / "licenses" / "LICENSE").exists()
    assert f"Version: {underdrawing.__version__}" in (metadata / "METADATA").read_text(encoding="utf-8").splitlines()


def test_the_installed_package_finds_its_own_data(installed):
    code = (
        "import indexer.bundled as bundled, pipelines; "
        "assert bundled.__file__.startswith(SITE) and pipelines.__file__.startswith(SITE); "
        "print(bundled.CORPUS.stat().st_size > 0, bundled.QUERIES.stat().st_size > 0)"
    ).replace("SITE", repr(str(installed)))
    told = subprocess.run(
        [sys.executable, "-c", code], cwd=installed, env={"PYTHONPATH": str(installed)}, check=True,
        capture_output=True, text=True,
    )  # fmt: skip
    assert told.stdout.split() == ["True", "True"]
