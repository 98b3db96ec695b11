"""`underdrawing search` with `inversion` and `cig`: options reach the generator, pseudo-targets are shown."""

from __future__ import annotations

import json
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import drawing_models
import pytest
from PIL import Image

from indexer.errors import GeneratorError
from pipelines.terminal.console import hushed_models
from retrieval.providers.generation import diffusion

TEXT = "now at Night, please!"
KEYS = {"path", "paths", "seed", "steps", "guidance", "cached"}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return drawing_models.make(tmp_path_factory.mktemp("drawing"))


@pytest.fixture
def asked(made, tmp_path, monkeypatch):
    """What the generator was loaded as, and what it was told to draw."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    painter = drawing_models.Painter(made[1])
    loaded = []

    def load(source, *_, device):
        loaded.append((source, device))
        return painter

    monkeypatch.setattr(diffusion.PseudoTargetGenerator, "load", load)
    return SimpleNamespace(painter=painter, loaded=loaded)


@pytest.fixture
def search(run, made, asked):
    """Search with the inversion made for the shop."""
    shop, _ = made

    def one(*arguments, models=("--inversion", shop.parent / "inversion", "--generator", "the-generator")):
        done = run("search", shop, "--trust", *arguments, *models)
        assert done.exit_code == 0, done.output
        return done

    return one


def answer(done):
    return json.loads(done.stdout)


def test_options_of_drawing_choose_cig_and_reach_the_generator(search, asked):
    how = ("--steps", 3, "--guidance", 2, "--images", 2, "--seed", 7, "--device", "cpu:0")
    told = answer(search(TEXT, "--like", "red.png", *how, "--json"))
    assert told["method"] == "cig"
    assert asked.loaded == [("the-generator", "cpu:0")]
    [(texts, options)] = asked.painter.calls
    assert texts == [TEXT]
    assert (options.steps, options.guidance, options.images, options.seed) == (3, 2.0, 2, 7)
    drawn = told["pseudo_target"]
    assert set(drawn) == KEYS
    assert told["artifacts"] == {"pseudo_target": drawn}
    assert (drawn["seed"], drawn["steps"], drawn["guidance"], drawn["cached"]) == (7, 3, 2.0, False)
    assert len(drawn["paths"]) == 2
    assert drawn["path"] == drawn["paths"][0]
    assert "pseudo_target" in told["hits"][0]["branches"]
    assert told["took_ms"]["draw"] > 0


def test_what_is_not_told_is_as_the_generator_has_it(search, asked):
    drawn = answer(search(TEXT, "--like", "red.png", "--json"))["pseudo_target"]
    assert (drawn["seed"], drawn["steps"], drawn["guidance"]) == (0, 2, 1.5)
    assert asked.painter.calls[0][1].images == 1


def test_an_inversion_alone_chooses_inversion_and_loads_no_generator(search, asked, made):
    models = ("--inversion", made[0].parent / "inversion")
    told = answer(search(TEXT, "--like", "red.png", "--json", models=models))
    assert (told["method"], told["pseudo_target"]) == ("inversion", None)
    assert set(told["hits"][0]["branches"]) == {"inversion"}
    assert asked.loaded == []


def test_merges_differ_and_embed_is_the_first_choice(search):
    scores = {}
    for merge in ("embed", "reinvert", "product"):
        told = answer(search(TEXT, "--like", "red.png", "--merge", merge, "--json"))
        scores[merge] = [hit["score"] for hit in told["hits"]]
    assert len({tuple(each) for each in scores.values()}) == 3
    assert scores["embed"] == [hit["score"] for hit in answer(search(TEXT, "--like", "red.png", "--json"))["hits"]]


def test_a_drawing_is_kept_until_it_is_drawn_again(search, asked):
    query = (TEXT, "--like", "red.png", "--json")
    assert [answer(search(*query))["pseudo_target"]["cached"] for _ in range(2)] == [False, True]
    assert len(asked.painter.calls) == 1
    assert answer(search(*query, "--regenerate"))["pseudo_target"]["cached"] is False
    assert len(asked.painter.calls) == 2


def test_the_table_says_what_was_drawn(search):
    query = (TEXT, "--like", "red.png", "--images", 2)
    shown = search(*query).stdout
    assert re.search(
        r"pseudo-target: generated in \d+ ms, seed 0, 2 steps, guidance 1.5: \S+\.png and 1 more\n", shown
    ), shown
    assert "pseudo-target: from the cache, seed 0" in search(*query).stdout
    assert "pseudo-target:" not in search(TEXT, "--like", "red.png", "--method", "sum", models=()).stdout


def test_drawings_are_saved_under_the_sentence(search, tmp_path):
    folder = tmp_path / "new" / "drawn"
    done = search(TEXT, "--like", "red.png", "--images", 2, "--seed", 9, "--pseudo-targets", folder)
    search(TEXT, "--like", "blue.png", "--drawings", folder)
    names = sorted(path.name for path in folder.iterdir())
    assert len(names) == 3
    assert all(re.fullmatch(r"now-at-night-please-[0-9a-f]{8}-[01]\.png", name) for name in names)
    saved = [folder / name for name in names if str(folder / name) in done.stderr]
    assert [Image.open(path).getpixel((0, 0)) for path in saved] == [(29, 20, 200), (29, 21, 200)]


def test_the_page_shows_reference_and_drawings(search, tmp_path):
    page = tmp_path / "page.html"
    search(TEXT, "--like", "red.png", "-k", 1, "--images", 2, "--html", page)
    content = page.read_text()
    assert content.count('alt="the reference"') == 1
    assert content.count('alt="the pseudo-target"') == 2
    assert content.count("data:image/webp;base64,") == 1 + 2 + 1
    assert "seed 0, 2 steps, guidance 1.5" in content


def test_a_gate_draws_only_in_doubt(search, asked):
    clear = answer(search(TEXT, "--like", "red.png", "--gate", 0, "--json"))
    assert clear["pseudo_target"] is None
    assert "none was generated" in clear["notes"][0]
    assert asked.painter.calls == []
    assert answer(search(TEXT, "--like", "red.png", "--gate", 2, "--json"))["pseudo_target"] is not None


def test_a_deadline_answers_without_and_the_drawing_is_there_the_next_time(search, asked, monkeypatch):
    pools = []

    def pool(*rest):
        pools.append(ThreadPoolExecutor(*rest))
        return pools[-1]

    monkeypatch.setattr("retrieval.providers.pseudo_target.ThreadPoolExecutor", pool)
    query = (TEXT, "--like", "red.png", "--json")
    late = answer(search(*query, "--deadline-ms", 0))
    assert late["pseudo_target"] is None
    assert "in the background" in late["notes"][0]
    assert late["hits"]
    pools[0].shutdown()
    assert answer(search(*query))["pseudo_target"]["cached"] is True


def test_what_cannot_be_drawn_is_a_note_and_no_failure(search, asked, made):
    asked.painter.broken = GeneratorError("The memory is full.")
    done = search(TEXT, "--image", made[0].parent / "photos" / "red.png")
    assert "note: No pseudo-target: The memory is full." in done.stdout
    assert "3 hits" in done.stdout  # the reference itself is left out
    assert "\npseudo-target: " not in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["x", "--method", "cig"], ["needs a text and a reference; this query has no reference", "Add --image or --like"]),
        (["x", "--method", "inversion"], ["no reference", "--method text"]),
        (["--like", "red.png", "--method", "cig"], ["this query has no text", "--method image"]),
        (["--like", "red.png", "--method", "inversion"], ["The method inversion needs", "no text"]),
        (["x", "--like", "red.png", "--method", "sum", "--steps", "3"], ["sum does not read --steps", "--method cig"]),
        (["x", "--like", "red.png", "--method", "inversion", "--deadline-ms", "3"], ["--deadline-ms", "--method cig"]),
        (["x", "--like", "red.png", "--method", "sum", "--regenerate"], ["--regenerate"]),
        (["x", "--like", "red.png", "--method", "sum", "--inversion", "y"], ["--method inversion or --method cig"]),
        (["x", "--like", "red.png", "--method", "inversion"], ["No inversion comes with open_clip:", "--inversion"]),
        (["x", "--like", "red.png", "--method", "cig", "--inversion", "GOOD"], ["No generator comes with", "--generator"]),
        (["x", "--like", "red.png", "--steps", "0"], ["--steps is 0"]),
        (["x", "--like", "red.png", "--deadline-ms", "-1"], ["--deadline-ms is -1"]),
        (["x", "--like", "red.png", "--merge", "blend"], ["'blend'", "reinvert"]),
    ],
)  # fmt: skip
def test_a_call_in_vain_is_refused_with_the_remedy(call, made, arguments, said):
    shop, _ = made
    left, stdout, stderr = call(
        "search", shop, "--trust", *[str(shop.parent / "inversion") if a == "GOOD" else a for a in arguments]
    )
    assert (left, stdout) == (2, "")
    for each in said:
        assert each in stderr


def test_models_that_cannot_be_loaded_are_errors(call, made, tmp_path):
    shop, _ = made
    query = ("search", shop, "--trust", "x", "--like", "red.png", "--inversion")
    left, _, stderr = call(*query, tmp_path / "none.pt")
    assert left == 1
    assert "There is no inversion at" in stderr
    assert "train inversion" in stderr
    (tmp_path / "empty").mkdir()
    left, _, stderr = call(*query, shop.parent / "inversion", "--generator", tmp_path / "empty")
    assert left == 1
    assert "has no underdrawing.json" in stderr


def test_without_diffusers_the_pip_line_is_told(call, made, monkeypatch):
    shop, _ = made
    monkeypatch.setitem(sys.modules, "diffusers", None)
    models = ("--inversion", shop.parent / "inversion", "--generator", "x")
    left, stdout, stderr = call("search", shop, "--trust", "x", "--like", "red.png", *models)
    assert (left, stdout) == (1, "")
    assert "pip install 'underdrawing[generate]'" in stderr
    assert call("search", shop, "--trust", "x", "--like", "red.png", *models[:2])[0] == 0


def test_libraries_are_hushed_while_models_load_and_then_as_before():
    from diffusers.utils import logging as diffusers
    from transformers.utils import logging as transformers

    transformers.enable_progress_bar()
    diffusers.set_verbosity_warning()
    before = diffusers.WARNING, True
    with hushed_models():
        assert diffusers.get_verbosity() == diffusers.ERROR
        assert not transformers.is_progress_bar_enabled()
        assert not diffusers.is_progress_bar_enabled()
    assert (diffusers.get_verbosity(), transformers.is_progress_bar_enabled()) == before
    assert diffusers.is_progress_bar_enabled()
