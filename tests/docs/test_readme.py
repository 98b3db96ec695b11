"""The README and the pages of docs/ are true: their file list and tables are those of today, their lines run."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_models
import typer
from PIL import Image
from typer.testing import CliRunner

from indexer import Collection, Document, index_corpus
from indexer.bundled import generator_folder, inversion_folder
from indexer.errors import UnknownNameError
from pipelines.cli.app import app

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
README = "\n".join(page.read_text(encoding="utf-8") for page in PAGES if page.name != "cli.md")
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


def example(collection: str) -> str:
    """The Python example that opens a collection."""
    (found,) = [block for block in blocks("python") if f'Collection.open("{collection}"' in block]
    return found


def console_lines() -> list[list[str]]:
    """The words of every line of a console block; a line that ends with a backslash goes on in the next."""
    joined = [line for block in blocks("console") for line in block.replace("\\\n", " ").splitlines()]
    return [words for line in joined if (words := shlex.split(line, comments=True))]


@pytest.fixture
def emoji(photos: Path) -> Path:
    """`demo/collection`, as the demo makes it, of three pictures."""
    for find, name in ((inversion_folder, "emoji-inversion"), (generator_folder, "emoji-generator")):
        try:
            find(name)
        except UnknownNameError:
            pytest.skip(f"{name} is not bundled")
    with Collection.open("demo/collection", "bundled:emoji-clip") as collection:
        index_corpus("photos", collection)
    return photos


@pytest.fixture
def published(photos: Path) -> str:
    """Small models where the examples look for published ones; the name of the embedder."""
    model = f"open_clip:{tiny_models.tiny_clip(photos / 'clip')}"
    tiny_models.published_phi(photos / "SEARLE_ViT-L14.pt")
    hub = photos / "stable-diffusion-v1-5" / "stable-diffusion-v1-5"
    words = [{"model": model, "inversion": "SEARLE_ViT-L14.pt"}]
    tiny_models.save_generator(hub, "sd15", words=words)
    shutil.copytree(hub, photos / "sd15")
    (hub / "underdrawing.json").unlink()
    return model


def run_block(text: str, **names: object) -> dict[str, object]:
    exec(compile(text, "documentation", "exec"), names)
    return names


def test_the_library_example_runs_as_it_stands(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (shown,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    Collection.open("shop", "fake:16").close()  # what the lines for the shell made, of another model
    run_block(shown)
    assert capsys.readouterr().out.startswith("1 ")


def test_the_example_of_the_library_page_runs(photos: Path) -> None:
    told = run_block(example("wardrobe"))
    assert len(told["results"]) == len({hit.id for hit in told["results"]}) > 0


def test_the_lines_about_mixed_collections_run(photos: Path) -> None:
    with Collection.open("lamps", "bundled:emoji-clip") as lamps:
        index_corpus("photos", lamps)
        pictures = [Image.new("RGB", (8, 8), (20 * n, 90, 200)) for n in range(12)]
        lamps.add([Document(f"lamp {n}", image=picture) for n, picture in enumerate(pictures)])
        lamps.add([Document(f"how {n}", text=f"how to fit a lamp, step {n}") for n in range(12)])
    told = run_block(example("lamps"))
    assert len(told["found"]) == 10
    assert all(hit.image for hit in told["found"])
    lines = [words for words in console_lines() if "lamps" in words]
    assert len(lines) == 3
    for words in lines:
        result = CliRunner().invoke(app, words[1:], catch_exceptions=False)
        assert result.exit_code == 0, (words, result.output)
    assert (photos / "gap.png").exists()


def test_the_lines_about_sentences_run_with_small_models(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tiny_writers

    from retrieval.providers.language.endpoint import Endpoint

    for name, kind in (("Salesforce/blip-image-captioning-base", "blip"), ("Qwen/Qwen2-VL-2B-Instruct", "qwen2_vl")):
        tiny_writers.tiny_captioner(photos / name, kind)
    tiny_writers.tiny_chat(photos / "Qwen" / "Qwen2.5-1.5B-Instruct")
    answer = b'{"choices": [{"message": {"content": "a street at night"}}]}'
    monkeypatch.setattr(Endpoint, "_ask", lambda *_: answer)
    with Collection.open("album", "bundled:emoji-clip") as album:
        index_corpus("photos", album)
    lines = [words for words in console_lines() if "album" in words]
    assert len(lines) == 3
    for words in lines:
        result = CliRunner().invoke(app, words[1:], catch_exceptions=False)
        assert result.exit_code == 0, (words, result.output)
        assert "searched for: " in result.output
    assert "a street with cars, at night" in result.output
    run_block(example("album"))


def test_the_lines_about_one_model_for_both_run(photos: Path) -> None:
    import tiny_mllm

    model = f"mllm:{tiny_mllm.tiny_mllm(photos / 'both')}"
    for name, parts in (("joint", "image"), ("pages", "auto")):
        with Collection.open(f"demo/{name}", model, parts=parts) as collection:
            index_corpus("photos", collection)
            collection.add(
                [Document("rain", text="cloud with lightning and rain")], skip_rejected=True
            )  # of images alone
    lines = [words for words in console_lines() if {"demo/joint", "demo/pages"} & set(words)]
    assert len(lines) == 3
    for words in lines:
        result = CliRunner().invoke(app, words[1:], catch_exceptions=False)
        assert result.exit_code == 0, (words, result.output)
    assert "<html" in (photos / "found.html").read_text(encoding="utf-8")


# The schedulers of diffusers hand tensors to NumPy in a way that is going out of use.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
class TestWordsAndDrawings:
    def test_the_example_with_bundled_models_runs_as_it_stands(
        self, emoji: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        run_block(example("demo/collection"))
        first, second = capsys.readouterr().out.splitlines()
        assert first.startswith("None ['")
        assert second.startswith("{'path'") or "background" in second or "clear" in second

    def test_the_command_lines_with_bundled_models_run_as_they_stand(self, emoji: Path) -> None:
        lines = [words for words in console_lines() if "demo/collection" in words]
        assert len(lines) == 3
        for words in lines:
            result = CliRunner().invoke(app, words[1:], catch_exceptions=False)
            assert result.exit_code == 0, (words, result.output)
        assert (emoji / "found.html").exists()
        assert list((emoji / "made").glob("*.png"))

    def test_the_examples_with_published_models_run_with_small_ones(self, published: str) -> None:
        (block,) = [block for block in blocks("python") if '"street"' in block]
        assert block.count("open_clip:ViT-L-14/openai") == 1
        told = run_block(block.replace("open_clip:ViT-L-14/openai", published))
        found = told["found"]
        assert found.pseudo_target, found.notes
        [note] = found.notes
        assert note.startswith("Left out"), "the reference itself is indexed, too"
        lines = [words for words in console_lines() if "street" in words]
        assert len(lines) == 2
        for words in lines:
            result = CliRunner().invoke(app, [*words[1:], "--trust"], catch_exceptions=False)  # small ones are folders
            assert result.exit_code == 0, (words, result.output)
            assert result.output.count("note:") == result.output.count("note: Left out") == 1
        assert "pseudo-target: " in result.output

    def test_the_spec_that_the_text_shows_is_one(self) -> None:
        from json import loads

        from retrieval.providers.generation.diffusion import GeneratorSpec

        (shown,) = re.findall(r'`(\{"words".*?\})`', README)
        assert GeneratorSpec(**loads(shown)).words[0].model == "open_clip:ViT-L-14/openai"


def test_every_line_of_the_program_can_be_parsed() -> None:
    lines = [words[1:] for words in console_lines() if words[0] == "underdrawing"]
    assert len(lines) > 15
    for words in lines:
        command, context = typer.main.get_command(app), None
        while hasattr(command, "resolve_command"):
            context = command.make_context("underdrawing", list(words), parent=context, resilient_parsing=False)
            _, command, words = command.resolve_command(context, [*context._protected_args, *context.args])
        command.make_context("underdrawing", list(words), parent=context)


def test_the_command_lines_on_photos_run_as_they_stand(photos: Path) -> None:
    lines = [line for block in blocks("console") for line in block.splitlines() if " shop" in line]
    assert len(lines) == 9
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
                module = ROOT / words[2].replace(".", "/")
                assert module.with_suffix(".py").exists() or (module / "__main__.py").exists()


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


def test_every_link_of_a_page_leads_somewhere() -> None:
    broken = [
        (page.name, target)
        for page in PAGES
        for target in re.findall(r"\]\((?!https?:)([^)#]+)[^)]*\)", page.read_text(encoding="utf-8"))
        if not (page.parent / target).exists()
    ]
    assert broken == []
