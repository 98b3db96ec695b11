"""Training data from passages: filters, every reason to drop, resuming, provenance, the sheet, the command."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from fake_endpoint import serving
from markupsafe import escape
from PIL import Image
from synthesis_world import COLOURS, THINGS, Colours, Writer, corpus_file
from typer.testing import CliRunner

from indexer import embed
from indexer.collection import Collection
from indexer.corpus.readers import open_corpus
from indexer.errors import CallError, CorruptionError, LockedError, ModelError, WriterAwayError, WritingError
from indexer.files.lock import WriterLock
from indexer.types import Item
from indexer.vectors.unit import unit_rows
from pipelines.cli.app import app
from pipelines.synthesis import questions
from pipelines.synthesis.job import synthesize
from pipelines.synthesis.ledger import Ledger
from pipelines.synthesis.likeness import corrected, cosines
from pipelines.synthesis.passages import Part, chosen, read_passages
from pipelines.synthesis.questions import Asked, Pointing, Prompts
from pipelines.synthesis.recipe import PROMPTS, Drop, Pictures, SynthesisRecipe
from pipelines.synthesis.sheet import MEANINGS
from pipelines.train.unified.synthesised import Finds, read_records
from retrieval.providers.language import endpoint
from retrieval.providers.pseudo_target import PseudoTargetOutcome, Reference

RECIPE = SynthesisRecipe(
    passage="{text}: {keywords}", split_field="split", model="fake:colours", top=3, tokens=32, least=0.3
)
FILES = ("records.jsonl", "dropped.jsonl", "summary.json", "sheet.html")


@pytest.fixture(autouse=True)
def colours(monkeypatch):
    real = embed.load_embedder
    monkeypatch.setattr(
        embed, "load_embedder", lambda name, **options: Colours() if name == "fake:colours" else real(name, **options)
    )


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return corpus_file(tmp_path_factory.mktemp("world") / "corpus")


@pytest.fixture
def make(source, tmp_path):
    def one(writer=None, name="made", recipe=RECIPE, **options):
        return synthesize(
            open_corpus(str(source)), writer or Writer(), replace(recipe, **options), tmp_path / name
        )  # fmt: skip

    return one


def lines(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


# -- What is kept


def test_a_record_is_a_picture_with_a_question_about_it_and_the_passage_that_answers(make, tmp_path):
    found = make()
    records = {record.made["thing"]: record for record in found.kept}
    assert len(records) == len(found.kept) == 12
    assert found.dropped == {"unlike": 1}  # of the note there is no image
    record = records["blue heart"]
    assert record.finds is Finds.TEXT
    assert record.text == "What does this one mean?"
    assert record.picture == "blue-heart-a"
    assert record.document == "blue-heart-a"
    assert record.passage == "blue heart: heart, blueish"
    assert found.kept == read_records(tmp_path / "made" / "records.jsonl")


def test_a_record_tells_where_it_comes_from(make, tmp_path):
    found = make(seed=5)
    made = found.kept[0].made
    assert made["writer"] == "scripted"
    assert made["prompts"] == Prompts.read(PROMPTS).digest == found.about["prompts"]
    assert (made["model"], made["retriever"], made["generator"], made["seed"]) == (
        "fake:colours",
        "fake:colours",
        None,
        5,
    )
    assert re.fullmatch(r"What does a .* mean\?", made["question"])
    assert made["reply"] == "love"
    assert made["rank"] == 1
    assert made["similarity"] >= RECIPE.least
    assert made["corrected"] < made["similarity"]
    assert made["passage_of"] == found.kept[0].document
    summary = json.loads((tmp_path / "made" / "summary.json").read_text())
    assert summary["recipe"]["seed"] == 5
    assert summary["writer"] == {"name": "scripted", "chat": "scripted"}
    assert summary["model"]["digest"] == Colours().fingerprint().digest


def test_other_prompts_have_another_digest(make, tmp_path):
    own = tmp_path / "own"
    own.mkdir()
    for file in PROMPTS.iterdir():
        (own / file.name).write_text(file.read_text().replace("A text tells", "Some text tells"))
    first, second = make(), make(name="other", prompts=own)
    assert first.about["prompts"] != second.about["prompts"]
    assert {record.text for record in first.kept} == {record.text for record in second.kept}


def test_a_picture_that_is_found_is_another_than_the_querys(make):
    found = make(finds=(Finds.FUSED,))
    assert found.kept
    assert all(record.document != record.picture for record in found.kept)
    dropped = {each.passage.text.partition(":")[0] for each in found.outcomes if each.drop is Drop.NO_PICTURE}
    assert dropped == {"black circle"}  # its other drawing is for validation


def test_each_record_finds_one_of_what_is_asked(make):
    kinds = Counter(record.finds for record in make(finds=(Finds.TEXT, Finds.FUSED)).kept)
    assert min(kinds[Finds.TEXT], kinds[Finds.FUSED]) >= 2


def test_only_a_part_is_used_and_each_text_once(make, source):
    passages = read_passages(
        Part(open_corpus(str(source)), "split", "train"), "{text}: {keywords}", skipped := Counter()
    )
    assert len(passages) == 13
    assert skipped == {"lacks-keywords": 1}
    assert next(each for each in passages if each.text.startswith("black circle")).illustrated == ("black-circle-a",)
    assert next(each for each in passages if each.text.startswith("red heart")).illustrated == (
        "red-heart-a",
        "red-heart-b",
    )
    found = make()
    assert found.skipped == {"lacks-keywords": 1}
    assert "black-circle-b" not in {record.picture for record in found.kept}


def test_a_larger_limit_has_all_of_a_smaller_one(source):
    passages = read_passages(open_corpus(str(source)), "{text}", Counter())
    few, many = (set(chosen(passages, replace(RECIPE, limit=limit))) for limit in (4, 9))
    assert few < many
    assert few != set(chosen(passages, replace(RECIPE, limit=4, seed=1)))


# -- What is dropped


AMISS = {
    "Text: red heart": (WritingError("too long"), Drop.UNWRITTEN),
    "Text: red square": ("I like squares.", Drop.UNREADABLE_QUESTION),
    "Text: red circle": ("What does an umbrella keep off?\nrain", Drop.PARROTED),
    "Text: green heart": ("Who is the king of Spain?\nnobody knows", Drop.PASSAGE_NOT_FOUND),
    "a green square": ("green square", Drop.UNREADABLE_REWRITE),
    "a green circle": ("blue circle\nWhat does this one mean?", Drop.THING_NOT_IN_QUESTION),
    "a blue heart": ("blue heart\nWhat does this blue heart mean?", Drop.THING_STILL_NAMED),
    "a blue square": ("blue square\nWhat does a shape mean?", Drop.NOT_DEICTIC),
    "a blue circle": ("blue circle\nWhy would anybody ever wish to buy this?", Drop.STRAYED),
    "Text: black heart": ("What does love mean in a black heart?\nlove", Drop.UNLIKE),
    "love mean": ("love\nWhat does this one mean in a black heart?", Drop.UNLIKE),
    "Text: black circle": ("What does a black square mean to a black circle?\nlove", Drop.REPEATED),
    "mean to a": ("black square\nWhat does this one mean?", Drop.REPEATED),
}


def test_every_reason_to_drop_is_counted(make, tmp_path):
    amiss = {part: answer for part, (answer, _) in AMISS.items()}
    found = make(Writer(amiss))
    expected = dict.fromkeys((reason.value for _, reason in AMISS.values()), 1) | {"unlike": 2}  # the note is the other
    assert found.dropped == expected
    assert len(found.kept) + sum(found.dropped.values()) == len(found.outcomes) == 13
    dropped = lines(tmp_path / "made" / "dropped.jsonl")
    assert Counter(each["reason"] for each in dropped) == expected
    assert next(each for each in dropped if each["reason"] == "unwritten")["said"] == "too long"
    unlike = next(each for each in dropped if each["thing"] == "love")
    assert unlike["similarity"] < RECIPE.least
    assert (unlike["reason"], unlike["rank"]) == ("unlike", 1)


def test_what_is_like_everything_is_dropped_as_generic(make):
    found = make(least_corrected=10.0)
    assert found.dropped == {"unlike": 1, "generic": 12}


def test_every_reason_has_words():
    assert set(MEANINGS) == set(Drop)


@pytest.mark.parametrize(
    ("said", "read"),
    [
        ("What is it for?\nlove", Asked("What is it for?", "love")),
        ("Question: What is it for?\nAnswer: love", Asked("What is it for?", "love")),
        ('Sure:\n```json\n{"query": "What is it for?", "answer": "love"}\n```', Asked("What is it for?", "love")),
        ('<think>hm? {"query"\n</think>What is it for?\n"love"', Asked("What is it for?", "love")),
        ("What is it for?", Drop.UNREADABLE_QUESTION),
        ("What is it for?\nlove\nand more", Drop.UNREADABLE_QUESTION),
        ("It is for love.\nlove", Drop.UNREADABLE_QUESTION),
        ('{"query": "What is it for?", "answer": 3}', Drop.UNREADABLE_QUESTION),
        ('{"query": "What is it for?"', Drop.UNREADABLE_QUESTION),
        ("{}", Drop.UNREADABLE_QUESTION),
        ("\x00", Drop.UNREADABLE_QUESTION),
        ("", Drop.UNREADABLE_QUESTION),
        (f"What {'is ' * 300}it?\nlove", Drop.UNREADABLE_QUESTION),
    ],
)
def test_answers_are_read_strictly(said, read):
    assert Prompts.read(PROMPTS).asked(said) == read


@pytest.mark.parametrize(
    ("said", "read"),
    [
        ("a guide dog\nWhom does this one help?", Pointing("guide dog", "Whom does this one help?")),
        ('{"entity": "guide dog", "query": "Whom does this animal help?"}', Pointing("guide dog", "Whom does this animal help?")),
        ("dog\nWhom does this guide dog help?", Drop.THING_STILL_NAMED),
        ("guide\nWhom does it help?", Pointing("guide", "Whom does it help?")),
        ("uide do\nWhom does it help?", Drop.THING_NOT_IN_QUESTION),
    ],
)  # fmt: skip
def test_a_thing_is_whole_words_of_the_question(said, read):
    assert Prompts.read(PROMPTS).pointing(said, Asked("Whom does a guide dog help?", "the blind")) == read


def test_the_correction_takes_off_what_a_pair_has_in_common_with_anything():
    # All texts share a direction, and one image and one text lie just there: "a photo of food".
    rng = np.random.default_rng(0)
    middle = np.eye(1, 16, dtype=np.float32)
    texts = unit_rows(middle + 1.5 * unit_rows(rng.standard_normal((40, 16)).astype(np.float32)))
    own = unit_rows(texts + 0.8 * unit_rows(rng.standard_normal((40, 16)).astype(np.float32)))
    pictures, about = np.concatenate([own[:1], middle]), np.concatenate([texts[:1], middle])
    raw, less = cosines(pictures, about), corrected(pictures, about, own, texts, 0.05)
    assert raw[1] > raw[0]  # a generic pair looks better
    assert less[1] - less[0] < raw[1] - raw[0] - 0.05  # and is less so
    by_hand = raw - 0.025 * (
        np.log(np.exp(pictures @ texts.T / 0.05).mean(1)) + np.log(np.exp(about @ own.T / 0.05).mean(1))
    )
    assert less == pytest.approx(by_hand, abs=1e-5)


# -- Resuming


class Dies(Exception):
    """A kill."""


def test_a_run_that_broke_off_ends_as_one_that_did_not(make, tmp_path, monkeypatch):
    monkeypatch.setattr(questions, "BATCH", 4)
    monkeypatch.setattr("pipelines.synthesis.job.BATCH", 4)
    amiss = {part: answer for part, (answer, _) in AMISS.items()}
    whole = Writer(amiss)
    make(whole, "whole")
    steps = 0
    for dies_at in (1, 2, 5, 7):
        writer, calls = Writer(amiss), 0
        real = writer.ask

        def ask(batch, *, tokens, real=real, dies_at=dies_at):
            nonlocal calls
            calls += 1
            if calls == dies_at:
                raise Dies
            return real(batch, tokens=tokens)

        writer.ask = ask
        name = f"broken-{dies_at}"
        with pytest.raises(Dies):
            make(writer, name)
        assert not (tmp_path / name / "records.jsonl").exists()
        with (tmp_path / name / "asked.jsonl").open("a") as file:
            file.write('{"key": "ab')  # half a line, as a kill leaves it
        writer.ask = real
        make(writer, name)
        assert Counter(writer.asked) == Counter(whole.asked)  # nothing twice
        for file in FILES:
            assert (tmp_path / name / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()
        assert len(Ledger(tmp_path / name / "asked.jsonl")) == len(set(whole.asked))  # and no line is damaged
        steps += 1
    assert steps == 4


def test_a_second_run_asks_nothing_and_a_larger_one_only_what_is_new(make):
    first = Writer()
    make(first, limit=5)
    second = Writer()
    make(second, limit=5)
    assert second.asked == []
    third = Writer()
    make(third, limit=9)
    assert len(third.asked) == 8
    assert not {*third.asked} & {*first.asked}


def test_a_damaged_ledger_is_named(tmp_path):
    file = tmp_path / "asked.jsonl"
    file.write_text('{"key": "a", "answer": "b"}\nnonsense\n')
    with pytest.raises(CorruptionError, match="Line 2"):
        Ledger(file)


def test_a_ledger_outlives_a_full_disk(tmp_path, monkeypatch):
    file, real = tmp_path / "new" / "asked.jsonl", os.fsync
    synced = []
    monkeypatch.setattr(os, "fsync", lambda handle: (synced.append(os.fstat(handle).st_ino), real(handle)))
    ledger = Ledger(file)
    ledger.add({"a": "one"})
    own, folder = file.stat().st_ino, file.parent.stat().st_ino
    assert synced[-2:] == [own, folder], "a new file's name is in its folder"
    ledger.add({"b": "two"})
    assert synced[-2:] == [folder, own], "and is there already"
    with file.open("a") as half:
        half.write('{"key": "c", "ans')  # what a disk took before it was full
    ledger.add({"d": "four"})
    assert [json.loads(line)["key"] for line in file.read_text().splitlines()] == ["a", "b", "d"]
    file.write_text("half")  # of the very first line
    ledger = Ledger(file)
    assert len(ledger) == 0
    ledger.add({"d": WritingError("none")})
    assert Ledger(file)["d"].message == "none"


def test_nothing_stays_open_where_a_run_cannot_begin(tmp_path, monkeypatch):
    closed = []
    real = Collection.close
    monkeypatch.setattr(Collection, "close", lambda self: (closed.append(self.path.parent.name), real(self)))
    (tmp_path / "corpus.jsonl").write_text('{"id": "a", "text": "red heart", "image": "none.png"}\n')
    with pytest.raises(CallError, match="usable image"):
        synthesize(open_corpus(tmp_path / "corpus.jsonl"), Writer(), SynthesisRecipe(model="fake:colours"), tmp_path)
    assert closed == ["pictures", "passages"]


def test_two_runs_do_not_write_to_one_folder(make, tmp_path):
    with WriterLock(tmp_path / "made" / "lock"), pytest.raises(LockedError):
        make()


# -- PseudoTarget


def test_pictures_may_be_drawn(source, tmp_path):
    class Painter:
        """Draws what a text says, but nothing in green or white."""

        def inversion(self, _):
            pass

        def generator(self, _):
            return type("Named", (), {"name": "painter"})

        def generate(self, embedder, texts, references):
            assert all(reference.images[0].is_file() for reference in references)
            targets = []
            for number, text in enumerate(texts):
                colour, thing = text.split()
                if colour in ("green", "white"):
                    targets.append(PseudoTargetOutcome(None))
                    continue
                file = tmp_path / f"{number}.png"
                Image.new("RGB", (8 + THINGS.index(thing), 5), COLOURS[colour]).save(file)
                targets.append(PseudoTargetOutcome(Reference((file,), embedder.encode_query([Item(image=file)])[0])))
            return targets

    found = synthesize(
        open_corpus(str(source)),
        Writer(),
        replace(RECIPE, pictures=Pictures.DRAWN),
        tmp_path / "made",
        pseudo_targets=Painter(),
    )
    assert found.dropped == {"no-picture": 4}
    record = found.kept[0]
    assert record.drawn.startswith("drawn/")
    assert (tmp_path / "made" / record.drawn).is_file()
    assert record.made["generator"] == "painter"


def test_a_provider_is_there_where_pictures_are_drawn(make):
    with pytest.raises(CallError, match="A provider of pseudo-targets is needed"):
        make(pictures=Pictures.DRAWN)


# -- Endpoints


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(endpoint.time, "sleep", lambda _: None)
    for name in (endpoint.KEY_VARIABLE, endpoint.URL_VARIABLE, "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with serving() as made:
        yield made


def rule(body):
    said = Writer.rule(body["messages"][-1]["content"])
    return 200, {}, json.dumps({"choices": [{"message": {"content": said}}]})


def run(source, tmp_path, *options):
    call = [
        "synthesize", str(source), "--out", str(tmp_path / "run"), "--passage", "{text}: {keywords}", "--split-field",
        "split", "--model", "fake:colours", "--top", "3", "--least", "0.3", *options,
    ]  # fmt: skip
    return CliRunner().invoke(app, call)


def test_the_command_makes_records_by_an_endpoint(source, tmp_path, server):
    server.answers = [rule]
    done = run(source, tmp_path, "--writer", f"api:tiny@{server.url}")
    assert done.exit_code == 0, done.output
    assert "12 records from 13 passages" in done.output
    assert len(lines(tmp_path / "run" / "records.jsonl")) == 12
    roles = [message["role"] for message in server.asked[0][2]["messages"]]
    assert roles == ["user", "assistant"] * 4 + ["user"]
    again = run(source, tmp_path, "--writer", f"api:tiny@{server.url}", "--json")
    assert json.loads(again.stdout)["kept"] == 12
    assert len(server.asked) == 26


def test_nonsense_costs_its_own_record(source, tmp_path, server):
    def answer(body):
        if "Text: blue heart" in body["messages"][-1]["content"]:
            return 200, {}, "<html>"
        return rule(body)

    server.answers = [answer]
    done = run(source, tmp_path, "--writer", f"api:tiny@{server.url}", "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert (found["kept"], found["dropped"]) == (11, {"unwritten": 1, "unlike": 1})


@pytest.mark.parametrize("away", [(503, {}, "{}"), (401, {}, "{}"), (None, {}, "")])
def test_an_endpoint_that_is_away_is_an_error_and_the_run_goes_on_later(source, tmp_path, server, away):
    server.answers = [*[rule] * 13, away]
    done = run(source, tmp_path, "--writer", f"api:tiny@{server.url}")
    assert done.exit_code == 1
    assert "13 answers are stored" in done.stderr
    assert "continues where it stopped" in done.stderr
    assert "Traceback" not in done.output
    server.answers, before = [rule], len(server.asked)
    done = run(source, tmp_path, "--writer", f"api:tiny@{server.url}")
    assert done.exit_code == 0
    assert len(server.asked) == before + 13


def test_where_the_endpoint_is_away_the_rest_is_not_asked(server, make):
    server.answers = [(401, {}, "{}")]
    with pytest.raises(WriterAwayError, match="401"):
        make(endpoint.Endpoint("tiny", server.url, together=4))
    assert len(server.asked) == 4


# -- Calls that are wrong


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--finds", "sound"), "Known: text, image, fused"),
        (("--pictures", "stolen"), "Known: found, drawn"),
        (("--generator", "x"), "--pictures drawn"),
        (("--limit", "0"), "limit is 0"),
        (("--least", "nan"), "least is nan; it must be a finite number"),
        (("--least-corrected", "-inf"), "least_corrected is -inf"),
        (("--prompts", "nowhere"), "cannot be read"),
        (("--passage", "{poem}"), "lacks-poem"),
        (("--part", "none"), "no passage of the form '{text}: {keywords}'.\n  Use fields that its documents have"),
    ],
)
def test_what_is_wrong_is_said_with_a_remedy(source, tmp_path, server, options, message):
    done = run(source, tmp_path, "--writer", f"api:tiny@{server.url}", *options)
    assert done.exit_code in (1, 2)
    assert message in done.stderr
    assert "Traceback" not in done.output
    assert server.asked == []


def test_a_file_is_no_folder_of_a_run(source, tmp_path, server):
    (tmp_path / "run").write_text("")
    done = run(source, tmp_path, "--writer", f"api:tiny@{server.url}")
    assert (done.exit_code, done.exception.__class__) == (2, SystemExit)
    assert f"{tmp_path / 'run'} cannot be the folder of a run: File exists.\n  Name a new folder" in done.stderr


def test_a_temperature_is_a_number():
    with pytest.raises(CallError, match="temperature is nan"):
        SynthesisRecipe(temperature=float("nan"))


def test_where_nothing_is_kept_nothing_is_said_to_be(source, tmp_path, server):
    server.answers = [(401, {}, "{}")]
    done = run(source, tmp_path, "--writer", f"api:tiny@{server.url}")
    assert done.exit_code == 1
    assert "answered 401" in done.stderr
    assert "kept" not in done.stderr
    assert "continues" not in done.stderr


def test_a_writer_that_is_not_there_is_an_error(source, tmp_path):
    done = run(source, tmp_path, "--writer", str(tmp_path / "none.gguf"))
    assert done.exit_code == 1
    assert "none.gguf" in done.stderr


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("question.txt", "a\n---\nb\n---\nno place", "lacks {passage}"),
        ("question.txt", "a\n---\nb", "2 turns"),
        ("rewrite.txt", "{query}\n---\n\n---\n{query}", "empty one"),
        ("deictic.txt", None, "cannot be read"),
    ],
)
def test_prompts_that_cannot_be_used_are_named(tmp_path, file, content, message):
    for each in PROMPTS.iterdir():
        if each.name != file:
            (tmp_path / each.name).write_text(each.read_text())
    if content is not None:
        (tmp_path / file).write_text(content)
    with pytest.raises(ModelError, match=re.escape(message)):
        Prompts.read(tmp_path)


# -- The sheet


def test_the_sheet_shows_kept_and_dropped_ones_and_needs_nothing_else(make, tmp_path):
    amiss = {part: answer for part, (answer, _) in AMISS.items()}
    found = make(Writer({**amiss, "Text: black square": "<script>alert(1)</script>?\nno"}))
    page = (tmp_path / "made" / "sheet.html").read_text()
    assert "What does this one mean?" in page
    for reason in found.dropped:
        assert f"<code>{reason}</code>" in page
        assert str(escape(MEANINGS[Drop(reason)])) in page
    assert "corrected" in page
    assert page.count("data:image/webp;base64,") >= len(found.kept)
    assert not re.findall(r"(?:src|href)=\"(?!data:)", page)
    assert "<script>alert" not in page


def test_nothing_kept_is_a_sheet_too(make, tmp_path):
    found = make(Writer({"Text": "no"}))
    assert found.kept == []
    assert "Nothing was kept." in (tmp_path / "made" / "sheet.html").read_text()


def test_help_names_no_model_library():
    code = "import sys; from pipelines.cli.app import app; from typer.testing import CliRunner; CliRunner().invoke(app, ['synthesize', '--help']); print([m for m in ('torch', 'transformers', 'pyarrow') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ, check=True)
    assert done.stdout.strip() == "[]"
