"""The README is true: its file list and tables are those of today, its lines run."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
ARCHITECTURE = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    for name, colour in (("a", "red"), ("b", "blue"), ("c", "green")):
        Image.new("RGB", (80, 60), colour).save(tmp_path / "photos" / f"{name}.jpg")
        (tmp_path / "photos" / f"{name}.json").write_text('{"year": 2024}')
    for name in ("ref.png", "ref.jpg"):
        Image.new("RGB", (80, 60), "red").save(tmp_path / name)
    return tmp_path


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_generated_parts_are_those_of_today() -> None:
    checked = subprocess.run([sys.executable, "docs/generate.py", "--check"], cwd=ROOT, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr


def test_the_library_example_runs_as_it_stands(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (example,) = blocks("python")
    exec(compile(example, "README.md", "exec"), {})
    assert capsys.readouterr().out.startswith("1 ")


def test_the_command_lines_on_photos_run_as_they_stand(photos: Path) -> None:
    from pipelines.cli import app

    lines = [line for block in blocks("console") for line in block.splitlines() if " shop" in line]
    assert len(lines) == 5
    for line in lines:
        words = shlex.split(line, comments=True)
        if words[1] == "index":
            # The default model is fetched from a hub, which a test must not do.
            words += ["--model", "bundled:emoji-clip"]
        result = CliRunner().invoke(app, words[1:], catch_exceptions=False)
        assert result.exit_code == 0, (line, result.output)
    assert "<html" in (photos / "found.html").read_text(encoding="utf-8")


def test_every_command_the_readme_names_is_a_target_or_a_module() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for block in blocks("console"):
        lines = block.replace("\\\n", " ").splitlines()
        for words in (shlex.split(line, comments=True) for line in lines if line.strip()):
            if words[0] == "make":
                assert words[1] in targets
            if words[:2] == ["python", "-m"] and words[2].startswith("benchmarks."):
                assert (ROOT / f"{words[2].replace('.', '/')}.py").exists()


def test_every_file_that_the_documents_name_exists() -> None:
    pattern = r"`((?:indexer|retrieval|pipelines|benchmarks|docs|tests)/[\w./-]*)`"
    named = set(re.findall(pattern, README + ARCHITECTURE))
    assert len(named) > 30
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


def test_the_architecture_answers_at_least_ten_times_where_to_change() -> None:
    table = ARCHITECTURE.split("## Where do I change")[1].split("##")[0]
    assert len([line for line in table.splitlines() if line.startswith("| ")]) - 2 >= 10


def test_nothing_in_a_source_file_is_longer_than_it_should_be() -> None:
    long = {
        path.relative_to(ROOT).as_posix(): length
        for folder in ("indexer", "retrieval", "pipelines", "benchmarks")
        for path in (ROOT / folder).rglob("*.py")
        if (length := len(path.read_text(encoding="utf-8").splitlines())) > 400
    }
    assert long == {}
