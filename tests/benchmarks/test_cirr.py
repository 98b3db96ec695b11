"""CIRR in miniature, from its files to a result and to what its server takes."""

from __future__ import annotations

import json

import miniatures
import pytest

from benchmarks.harness import options as harness_options
from benchmarks.harness import run as harness
from benchmarks.harness import submission
from benchmarks.tasks import cirr
from benchmarks.tasks.cirr import BENCHMARK, Counts
from benchmarks.tasks.dataset import DataSet
from indexer.errors import CallError


@pytest.fixture
def small(monkeypatch):
    """The published counts are those of the miniatures."""
    monkeypatch.setattr(cirr, "COUNTS", {"val": Counts(20, 60, 20), "test1": Counts(20, 60, 20)})


@pytest.fixture
def run(small, tmp_path, capsys):
    def call(*arguments, data="cirr"):
        where = ["--data", str(tmp_path / data), "--cache", str(tmp_path / "cache"), "--model", "fake:64"]
        code = harness.main(BENCHMARK, [*where, *arguments])
        told = capsys.readouterr()
        return code, told

    return call


def document(told):
    return json.loads(told.out.splitlines()[-1])


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_the_twin_of_the_reference_is_found(run, tmp_path, suffix):
    miniatures.cirr(tmp_path / "cirr", "val", suffix=suffix)
    code, told = run("--method", "image", "--json", str(tmp_path / "o.json"), "--run", str(tmp_path / "o.run"))
    result = document(told)
    assert code == 0, told.err
    assert result == json.loads((tmp_path / "o.json").read_text())
    assert list(result["measures"]) == ["R@1", "R@5", "R@10", "R@50", "Rsub@1", "Rsub@2", "Rsub@3"]
    assert {name: each["value"] for name, each in result["measures"].items()} == dict.fromkeys(result["measures"], 1.0)
    assert result["protocol"]["reference"] == "removed"
    assert result["fingerprint"]["model"] == "fake:64"
    assert "reference: removed: a query cannot find its own reference" in told.out
    lines = [line.split() for line in (tmp_path / "o.run").read_text().splitlines()]
    assert len(lines) == 20 * 59


def test_a_kept_reference_ties_with_its_twin_and_goes_before_it(run, tmp_path):
    miniatures.cirr(tmp_path / "cirr", "val")
    _, told = run("--method", "image", "--reference", "kept")
    kept = document(told)
    assert (kept["measures"]["R@1"]["value"], kept["measures"]["R@5"]["value"]) == (0.0, 1.0)
    _, told = run("--method", "image", "--reference", "kept", "--asked", "picture")
    assert document(told)["measures"] == kept["measures"]
    _, told = run("--method", "image", "--reference", "kept", "--ties", "by-id")
    assert document(told)["measures"]["R@1"]["value"] == 0.5  # every second reference has the smaller id


def test_the_gallery_is_indexed_once_and_after_a_change_of_a_picture_again(run, tmp_path):
    miniatures.cirr(tmp_path / "cirr", "val")
    _, first = run("--method", "image")
    [state] = (tmp_path / "cache" / "cirr").iterdir()
    before = {path.name for path in state.rglob("*.safetensors")}
    run("--method", "text")
    assert {path.name for path in state.rglob("*.safetensors")} == before
    miniatures.paint(tmp_path / "cirr/img_raw/dev/val-1-0-img1.png", 999, (30, 30))
    _, told = run("--method", "image")
    assert document(told)["measures"]["R@1"]["value"] == 0.95
    assert document(first)["measures"]["R@1"]["value"] == 1.0


def test_searles_layout_is_read_too(run, tmp_path):
    root = tmp_path / "cirr"
    miniatures.cirr(root / "cirr", "val")
    (root / "cirr/img_raw/dev").rename(root / "dev")
    assert run("--method", "image")[0] == 0


def test_a_sweep_tells_its_curve(run, tmp_path, monkeypatch):
    miniatures.cirr(tmp_path / "cirr", "val")
    from retrieval import Weights

    points = [Weights(image=0.0, text=1.0), Weights(image=1.0, text=0.0)]
    monkeypatch.setattr(harness, "grids", lambda: {"sum": points})
    code, told = run("--sweep", "--measure", "Rsub@1")
    assert code == 0, told.err
    assert document(told)["sweep"]["best"] == {"image": 1.0, "text": 0.0}
    assert document(told)["sweep"]["curve"][1] == [{"image": 1.0, "text": 0.0}, 1.0]
    assert run("--sweep", "--method", "text")[0] == 2
    code, told = run("--sweep", "--measure", "mAP@5")
    assert (code, "Known: R@1" in told.err) == (2, True)


def test_weights_of_the_call_are_stored_with_where_they_were_tuned(run, tmp_path):
    miniatures.cirr(tmp_path / "cirr", "val")
    _, told = run("--weights", '{"image": 0.9, "text": 0.1}', "--tuned-on", "CIRR val", "--limit", "5")
    result = document(told)
    assert (result["weights"]["image"], result["limit"], result["queries"]) == (0.9, 5, 5)
    assert result["weights_source"].endswith("tuned on: CIRR val")


def test_the_weights_of_cigs_released_code_have_a_name(run, tmp_path):
    for split in ("val", "test1"):
        miniatures.cirr(tmp_path / "cirr", split)
    code, told = run("--split", "test1", "--submission", str(tmp_path / "out"), "--weights", "cig-paper")
    assert (code, "sum does not read the weight inversion" in told.err) == (2, True)
    code, told = run("--weights", "cig-papers")
    assert (code, "not a JSON object of weights" in told.err, "cig-paper" in told.err) == (2, True, True)
    options = harness_options.parser(BENCHMARK).parse_args(
        ["--split", "test1", "--submission", "x", "--method", "cig-reinvert", "--weights", "cig-paper"]
    )
    harness_options.check(BENCHMARK, options)
    assert (options.weights.inversion, options.weights.pseudo_target, options.weights.image) == (0.5, 0.5, 0.0)
    assert "ComposedImageGen" in options.tuned_on


# What its server takes


def test_both_files_for_the_server_are_written_and_valid(run, tmp_path, capsys):
    miniatures.cirr(tmp_path / "cirr", "test1")
    code, told = run("--split", "test1", "--method", "image", "--submission", str(tmp_path / "out"))
    assert code == 0, told.err
    recall = json.loads((tmp_path / "out/cirr-test1-recall.json").read_text())
    subset = json.loads((tmp_path / "out/cirr-test1-recall_subset.json").read_text())
    assert (recall["version"], recall["metric"], subset["metric"]) == ("rc2", "recall", "recall_subset")
    assert len(recall) == len(subset) == 22
    assert len(recall["12063"]) == 50
    assert recall["12063"][0] == subset["12063"][0] == "test1-1-0-img1"
    for file in told.out.splitlines():
        if file.startswith("wrote "):
            name = file.removeprefix("wrote ")
            assert submission.main(["cirr", name, "--data", str(tmp_path / "cirr")]) == 0


@pytest.mark.parametrize("method", ["image", "text", "sum", "product", "shift"])
def test_a_blank_caption_is_asked_and_named_and_the_server_gets_its_answer(run, tmp_path, method):
    root = miniatures.cirr(tmp_path / "cirr", "test1")
    file = root / "captions/cap.rc2.test1.json"
    records = json.loads(file.read_text())
    records[3]["caption"] = " "
    records[5]["caption"] = "façade \t of a ¾ view"
    file.write_text(json.dumps(records, ensure_ascii=False), encoding="utf-8")
    code, told = run("--split", "test1", "--method", method, "--submission", str(tmp_path / "out"))
    assert code == 0, told.err
    assert "1 of 20 captions are blank, replaced by 'the same image': 12066" in told.err
    assert document(told)["blank_captions"] == ["12066"]
    assert len(json.loads((tmp_path / "out/cirr-test1-recall.json").read_text())["12066"]) == 50


@pytest.fixture
def wanted(small, tmp_path):
    """What the first file must hold, and one that does."""
    root = miniatures.cirr(tmp_path / "cirr", "test1")
    task = BENCHMARK.task(DataSet("CIRR", root, "home"), "test1", BENCHMARK.choices.default)
    wanted = submission.cirr_recall(task)
    answers = {query.query_id: [n for n in task.images if n != query.query.like][:50] for query in task.queries}
    return wanted, dict(wanted.head) | answers


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"12063": None}, "1 of 20 queries are missing, such as 12063"),
        ({"99999": ["a"] * 50}, "99999 is not a query"),
        ({"version": "rc1"}, "version is 'rc1'; it must be 'rc2'"),
        ({"12063": ["test1-1-0-img1"] * 50}, "12063 answers with test1-1-0-img1 twice"),
        ({"12063": ["test1-1-0-img1"]}, "12063 answers with 1 ids; it must have 50"),
        ({"12063": "test1-1-0-img1"}, "12063 does not answer with a list"),
        ({"12063": list(range(50))}, "12063 does not answer with a list of strs"),
    ],
)
def test_a_wrong_file_is_refused(wanted, change, message):
    rules, good = wanted
    submission.check(json.dumps(good), rules)
    bad = {key: value for key, value in (good | change).items() if value is not None}
    with pytest.raises(CallError, match=message):
        submission.check(json.dumps(bad), rules)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"test1-1-0-img1"', '"test1-0-0-img0"', "answers with test1-0-0-img0, which is not among its choices"),
        ('"test1-1-0-img1"', '"nobody"', "answers with nobody, which is not among its choices"),
        ('"12064"', '"12063"', "12063 occurs twice"),
        ("{", "[", "not JSON"),
    ],
)
def test_references_strangers_and_keys_that_repeat_are_refused(wanted, tmp_path, capsys, old, new, message):
    _, good = wanted
    (tmp_path / "bad.json").write_text(json.dumps(good).replace(old, new, 1))
    assert submission.main(["cirr", str(tmp_path / "bad.json"), "--data", str(tmp_path / "cirr")]) == 2
    assert message in capsys.readouterr().err


def test_a_file_longer_than_the_server_takes_is_refused(run, tmp_path, capsys, monkeypatch):
    miniatures.cirr(tmp_path / "cirr", "test1")
    monkeypatch.setattr(submission, "CIRR_BYTES", 1000)
    code, told = run("--split", "test1", "--method", "image", "--submission", str(tmp_path / "out"))
    assert (code, "the server takes 1,000" in told.err) == (2, True)
    assert not (tmp_path / "out").exists()


# What is not as it should be


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--split", "test1"), "split test1 are not public"),
        (("--split", "test1", "--submission", "x", "--limit", "3"), "answers every query once"),
        (("--submission", "x"), "--submission is for the split test1"),
        (("--limit", "0"), "--limit is 0"),
        (("--weights", '{"alpha": 1}'), "sum does not read the weight alpha"),
        (("--weights", "0.5"), "not a JSON object of weights"),
        (("--gallery", "val"), "cannot be run with gallery val"),
        (("--ties", "random"), "ties 'random' is not known"),
        (("--method", "inversion"), "No inversion comes with"),
        (("--preprocessing", "target-pad"), "target-pad is for models of the CLIP family"),
    ],
)
def test_a_wrong_call_is_told_before_anything_is_done(run, tmp_path, arguments, message):
    for split in ("val", "test1"):
        miniatures.cirr(tmp_path / "cirr", split)
    code, told = run(*arguments)
    assert (code, told.out) == (2, "")
    assert message in told.err
    assert not (tmp_path / "cache").exists()


def test_a_choice_that_is_none_is_told_without_a_traceback(run, capsys):
    for wrong in (("--asked", "guess"), ("--dtype", "int8"), ("--method", "magic")):
        with pytest.raises(SystemExit, match="2"):
            run(*wrong)
        assert "invalid choice" in capsys.readouterr().err


def test_missing_files_are_named_with_where_to_get_them(run, tmp_path):
    code, told = run()
    assert code == 2
    assert "captions/cap.rc2.val.json does not exist" in told.err
    assert "github.com/Cuberick-Orion/CIRR" in told.err


def test_a_split_without_pictures_is_refused(run, tmp_path):
    miniatures.cirr(tmp_path / "cirr", "val", draw=False)
    code, told = run()
    assert code == 2
    assert "60 of 60 images are not below" in told.err
    assert "the first: ./dev/val-0-0-img0.png" in told.err
    assert "nlvr" in told.err


def test_a_picture_that_cannot_be_read_is_named(run, tmp_path):
    miniatures.cirr(tmp_path / "cirr", "val")
    bad = tmp_path / "cirr/img_raw/dev/val-7-0-img1.png"
    bad.write_bytes(bad.read_bytes()[:60])
    for _ in range(2):  # a second run does not forget it
        code, told = run("--method", "image")
        assert code == 2
        assert "1 of 60 documents cannot be read" in told.err
        assert "val-7-0-img1.png" in told.err
    miniatures.paint(bad, 3)
    assert run("--method", "image")[0] == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda records: records.append(records[0]), "21 queries in captions/cap.rc2.val.json, and 20 are published"),
        (lambda records: records[1].update(pairid=12063), "the query 12063 occurs 2 times"),
        (lambda records: records[1].update(target_hard="nobody"), "the target nobody of the query 12064 is not in"),
        (lambda records: records[1].update(reference="nobody"), "the reference nobody of the query 12064"),
        (lambda records: records[1]["img_set"]["members"].append("nobody"), "the group member nobody of the query"),
        (lambda records: records[1].pop("caption"), "entry 1 of"),
        (lambda records: records[1].update(caption=7), "the query 12064 is invalid: `text` is int"),
        (lambda records: records[1].update(caption=3), "the query 12064 is invalid: `text` is int"),
        (lambda records: records[1].update(img_set=3), "the annotations of val do not have the published structure"),
        (
            lambda records: records[1]["img_set"].pop("members"),
            "not have the published structure (KeyError: 'members')",
        ),
        (lambda records: records[1].update(reference=records[0]["reference"]), "19 references"),
    ],
)
def test_wrong_annotations_are_refused(run, tmp_path, change, message):
    root = miniatures.cirr(tmp_path / "cirr", "val")
    file = root / "captions/cap.rc2.val.json"
    records = json.loads(file.read_text())
    change(records)
    file.write_text(json.dumps(records))
    code, told = run()
    assert code == 2
    assert message in told.err


@pytest.mark.parametrize("split", ["val", "test1"])
def test_annotations_of_the_published_shape_have_the_published_counts(tmp_path, split):
    known = cirr.COUNTS[split]
    root = miniatures.cirr(tmp_path, split, **vars(known), draw=False)
    task = BENCHMARK.task(DataSet("CIRR", root, "home"), split, BENCHMARK.choices.default)
    assert (len(task.queries), len(task.images)) == (known.queries, known.images)
    assert {len(query.subset) for query in task.queries} == {5}
    miniatures.cirr(tmp_path, split, **vars(known) | {"images": known.images - 1}, draw=False)
    with pytest.raises(CallError, match=f"{known.images - 1:,} images in .*{known.images:,} are published"):
        BENCHMARK.task(DataSet("CIRR", root, "home"), split, BENCHMARK.choices.default)
