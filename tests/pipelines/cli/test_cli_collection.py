"""`underdrawing index`, `info`, `delete`, `check`, `compact`: a collection's life from the shell."""

from __future__ import annotations

import json

import pytest

SUMMARY = {
    "source", "documents", "added", "unchanged", "pruned", "rejected", "seconds", "waited", "generation", "reasons", "rejects",
    "found", "replaced", "replaced_from", "moved", "reused", "kept", "passed_over",
    "index",
}  # fmt: skip
REPORT = {"generation", "documents", "segments", "clean", "findings", "repaired"}
REASONS = {"truncated": 1, "not-an-image": 1, "empty": 1}


@pytest.fixture
def told(run):
    """Call a command with `--json`, and read it."""

    def call(*arguments, code=0):
        done = run(*arguments, "--json")
        assert done.exit_code == code, done.stderr
        return json.loads(done.stdout)

    return call


def test_index_lists_what_it_could_not_use_and_succeeds(run, photos, tmp_path):
    done = run("index", photos, tmp_path / "new", "--model", "fake:64", "--rejects", tmp_path / "rejects.jsonl")
    assert done.exit_code == 0
    assert "added       4" in done.stdout
    assert "rejected    3 (empty 1, not-an-image 1, truncated 1)" in done.stdout
    assert f"searchable  4 documents in {tmp_path}/new, generation 1" in done.stdout
    for reason, file in (("truncated", "broken.jpg"), ("not-an-image", "letter.jpg"), ("empty", "nothing.png")):
        line = next(line for line in done.stdout.splitlines() if file in line)
        assert line.split() == [reason, str(photos / file)]
    assert "begins with b'a letter'" in done.stdout
    rejects = [json.loads(line) for line in (tmp_path / "rejects.jsonl").read_text().splitlines()]
    assert sorted(each["reason"] for each in rejects) == sorted(REASONS)
    assert all(set(each) == {"uri", "reason", "detail"} for each in rejects)


def test_indexing_again_embeds_only_what_changed(told, run, photos, tmp_path):
    new = tmp_path / "new"
    first = told("index", photos, new, "--model", "fake:64")
    assert set(first) == SUMMARY
    assert (first["added"], first["unchanged"], first["documents"], first["reasons"]) == (4, 0, 4, REASONS)
    assert len(first["rejects"]) == first["rejected"] == 3
    assert "unchanged   4" in run("index", photos, new).stdout
    (photos / "note.txt").write_text("another text")
    (photos / "red.png").unlink()
    (photos / "red.txt").unlink()
    changed = told("index", photos, new)
    assert (changed["added"], changed["unchanged"], changed["pruned"], changed["documents"]) == (1, 2, 0, 4)
    refused = run("index", photos, new, "--prune")
    assert refused.exit_code == 2
    assert "1 of the 4 documents" in refused.stderr
    assert "--prune-most 0.25" in refused.stderr
    pruned = told("index", photos, new, "--prune", "--prune-most", 0.25)
    assert (pruned["added"], pruned["unchanged"], pruned["pruned"], pruned["documents"]) == (0, 3, 1, 3)


def test_index_takes_parts_and_shard_size(told, photos, tmp_path):
    told("index", photos, tmp_path / "new", "--model", "fake:64", "--parts", "text", "--shard-size", 2)
    known = told("info", tmp_path / "new")
    assert known["parts"] == "text"
    assert known["by_modality"] == {"text": 4}
    assert known["generation"] > 1


def test_twenty_rejects_are_shown_and_all_are_written(run, told, tmp_path):
    # More than a summary holds: the rest is read from the ledger, whose job must be closed again.
    (tmp_path / "bad.jsonl").write_text('{"id": "good", "text": "x"}\n' + "no JSON\n" * 1005)
    file = tmp_path / "rejects.jsonl"
    done = run("index", tmp_path / "bad.jsonl", tmp_path / "new", "--model", "fake:64", "--rejects", file)
    assert "rejected    1,005 (bad-json 1,005)" in done.stdout
    assert done.stdout.count("bad.jsonl#line=") == 20
    assert str(file) in done.stderr
    assert len(file.read_text().splitlines()) == 1005
    assert [job["state"] for job in told("info", tmp_path / "new")["jobs"]] == ["done"]
    assert "985 more" in run("index", tmp_path / "bad.jsonl", tmp_path / "new").stderr


@pytest.mark.parametrize("holds", [{}, {"a.cr2": b"raw", "b.CR2": b"raw", "c": b""}, {"a.jpg": b"no picture"}])
def test_a_source_with_nothing_usable_fails_and_says_what_it_saw(run, told, tmp_path, holds):
    (tmp_path / "source").mkdir()
    for name, content in holds.items():
        (tmp_path / "source" / name).write_bytes(content)
    done = run("index", tmp_path / "source", tmp_path / "new", "--model", "fake:64")
    assert done.exit_code == 1
    assert "nothing there can be used" in done.stderr
    remedy = "The reasons are listed above" if "Rejected" in done.stdout else "A source is a folder of images and texts"
    assert remedy in done.stderr
    known = told("index", tmp_path / "source", tmp_path / "new", code=1)
    assert (known["found"], sum(known["passed_over"].values()) + known["rejected"]) == (
        False,
        max(1, len(holds)),
    )  # an empty folder, too, is told
    if "a.cr2" in holds:
        assert known["passed_over"][".cr2"] == 2
        assert "passed over  2 .cr2" in done.stdout
        assert "3 passed over (.cr2 2" in run("info", tmp_path / "new").stdout


def test_a_source_with_other_documents_of_it_in_the_collection_succeeds(run, tmp_path):
    file = tmp_path / "docs.jsonl"
    file.write_text('{"id": "a", "text": "cat"}\n')
    run("index", file, tmp_path / "new", "--model", "fake:64")
    file.write_text("no JSON\n")
    assert run("index", file, tmp_path / "new").exit_code == 0


def test_another_sources_documents_are_replaced_with_consent_alone(run, told, tmp_path):
    for name, text in (("one", "cat"), ("two", "dog")):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"id": "a", "text": text}) + "\n")
    told("index", tmp_path / "one.jsonl", tmp_path / "new", "--model", "fake:64")
    refused = run("index", tmp_path / "two.jsonl", tmp_path / "new")
    assert refused.exit_code == 1
    assert "other-source" in refused.stdout
    assert "--replace" in refused.stdout
    done = run("index", tmp_path / "two.jsonl", tmp_path / "new", "--replace")
    assert done.exit_code == 0
    assert f"replaced    1 of {tmp_path}/one.jsonl" in done.stdout


def test_index_says_which_model_embeds(run, photos, tmp_path):
    assert "Embedding with fake:64" in run("index", photos, tmp_path / "new", "--model", "fake:64").stderr


def test_info_explains_the_index_and_builds_nothing(run, told, call, shop):
    known = told("info", shop, "--explain", "--memory", "1kB", "--index", "ivf")
    assert (known["kind"], known["codes"], known["allowed_bytes"]) == ("ivf", "sq8", 1000)
    assert not (shop / "indexes").exists()
    shown = run("info", shop, "--explain").stdout
    assert "fast to scan" in shown
    assert shown.count("approximate") == 3
    code, _, error = call("info", shop, "--explain", "--memory", "much")
    assert code == 2
    assert "'much' is not an amount of memory" in error


def test_info_says_what_the_collection_is(run, told, shop, originals):
    known = told("info", shop)
    assert (known["documents"], known["model"], known["dim"]) == (4, "fake:64", 64)
    shown = run("info", shop).stdout
    for line in (
        "documents   4 (image+text 3, text 1)",
        "model       fake:64, 64 dimensions, float32, on cpu",
        f"sources     {originals}/photos: done, 3 rejects",
    ):
        assert f"  {line}\n" in shown


def test_delete_names_what_was_not_there(run, told, shop):
    assert told("delete", shop, "red.png", "none", "none") == {"deleted": 1, "missing": ["none"]}
    done = run("delete", shop, "blue.png", "red.png")
    assert done.exit_code == 0
    assert done.stdout == "Deleted 1 document.\n"
    assert done.stderr == "Not in the collection: red.png.\n"
    assert told("info", shop)["documents"] == 2


def test_compact_merges_and_drops_what_was_deleted(run, told, originals, tmp_path):
    new = tmp_path / "new"
    told("index", originals / "photos", new, "--model", "fake:64", "--shard-size", 4)
    told("delete", new, "red.png")
    assert told("info", new)["tombstones"] == 1
    assert "in 2 segments, 1 deleted row (compact drops them)" in run("info", new).stdout
    assert told("compact", new) == {"segments_before": 2, "segments_after": 1, "documents": 3}
    assert told("info", new)["tombstones"] == 0
    assert run("compact", new).stdout == "Compacted 1 segment into 1, with 3 documents.\n"


def test_check_of_a_sound_collection(run, told, shop):
    report = told("check", shop)
    assert set(report) == REPORT
    assert (report["clean"], report["findings"], report["documents"]) == (True, [], 4)
    assert run("check", shop).stdout == "Sound: 4 documents in 1 segment, generation 1.\n"


def test_damage_is_found_repaired_and_indexed_again(run, told, shop, damaged, originals):
    done = run("check", shop)
    assert done.exit_code == 1
    assert done.stdout.startswith(f"damaged: {damaged}: ")
    assert "--repair" in done.stderr
    report = told("check", shop, code=1)
    assert (report["clean"], report["repaired"]) == (False, [])
    assert [(each["what"], each["harmful"]) for each in report["findings"]] == [(str(damaged), True)]

    mended = run("check", shop, "--repair")
    assert mended.exit_code == 0
    assert f"damaged: {damaged}: " in mended.stdout
    assert f"repaired: dropped the damaged segment {damaged.name} with 4 documents" in mended.stdout
    assert "Sound: 0 documents" in mended.stdout
    assert told("index", originals / "photos", shop)["added"] == 4
    assert told("check", shop)["clean"]


def test_an_orphan_is_a_note_and_no_failure(run, shop):
    forgotten, foreign = (
        shop / "segments" / f"{name}.safetensors" for name in ("000000000099-0123456789ab", "foreign")
    )
    for path in (forgotten, foreign):
        path.write_bytes(b"x")
    done = run("check", shop)
    assert done.exit_code == 0
    assert done.stdout.startswith(f"note: {forgotten}: no document needs it")
    assert f"note: {foreign}: it is not named like a segment, and is left alone" in done.stdout
    assert "repaired: removed the orphan" in run("check", shop, "--repair").stdout
    assert (forgotten.exists(), foreign.exists()) == (False, True)


def test_a_database_from_the_environment_is_for_collections_that_want_one(call, photos, shop, tmp_path, monkeypatch):
    monkeypatch.setenv("UNDERDRAWING_DATABASE", "mysql://somewhere/else")
    left, _, stderr = call("index", photos, tmp_path / "new", "--model", "fake:64")
    assert left == 2
    assert "not mysql" in stderr
    for command, more in ((["index", photos, shop], "Embedding with fake:64.\n"), (["info", shop], "")):
        left, _, stderr = call(*command)
        assert (left, stderr) == (0, f"{shop} keeps its metadata in SQLite; the database URL is not used.\n{more}")
