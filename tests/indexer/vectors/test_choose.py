import pytest

from indexer.errors import CallError, UnknownNameError
from indexer.vectors.protocol import Device, IndexKind, IndexSettings
from indexer.vectors.selection import (
    CODED_ROWS,
    EXACT_ROWS,
    Codes,
    alternatives,
    choose_kind,
    estimate_bytes,
    ivf_lists,
)

GB = 10**9
AUTO = IndexSettings()


def test_bytes_follow_the_formulas():
    assert estimate_bytes(IndexKind.EXACT, 1_000, 512) == 1_000 * 512 * 4
    assert estimate_bytes(IndexKind.EXACT, 1_000, 512, Codes.SQ8) == 1_000 * 512
    assert estimate_bytes(IndexKind.HNSW, 1_000, 512) == 1_000 * (512 * 4 + 32 * 2 * 4 + 24)
    assert estimate_bytes(IndexKind.IVF, 10_000, 512) == 10_000 * (512 * 4 + 8) + 256 * 512 * 4
    assert estimate_bytes(IndexKind.IVF, 10_000, 512, Codes.SQ8) == 10_000 * (512 + 8) + 256 * 512 * 4
    with pytest.raises(UnknownNameError, match="exact, hnsw, ivf"):
        estimate_bytes(IndexKind.AUTO, 1_000, 512)


@pytest.mark.parametrize(
    ("rows", "lists"), [(0, 1), (1, 1), (77, 1), (78, 2), (5_000, 128), (10_000, 256), (1_000_000, 4_000)]
)
def test_each_ivf_list_can_be_trained(rows, lists):
    assert ivf_lists(rows) == lists


@pytest.mark.parametrize(
    ("rows", "memory", "kind", "codes"),
    [
        (0, 0, IndexKind.EXACT, Codes.FLOAT32),
        (CODED_ROWS - 1, 16 * GB, IndexKind.EXACT, Codes.FLOAT32),
        (CODED_ROWS, 16 * GB, IndexKind.EXACT, Codes.SQ8),
        (EXACT_ROWS, 16 * GB, IndexKind.EXACT, Codes.SQ8),
        (EXACT_ROWS, GB // 8, IndexKind.EXACT, Codes.FLOAT32),
        (EXACT_ROWS + 1, 16 * GB, IndexKind.HNSW, Codes.FLOAT32),
        (10_000_000, 64 * GB, IndexKind.HNSW, Codes.FLOAT32),
        (10_000_000, 44 * GB, IndexKind.IVF, Codes.FLOAT32),
        (10_000_000, 16 * GB, IndexKind.IVF, Codes.SQ8),
        (10_000_000, 8 * GB, IndexKind.EXACT, Codes.FLOAT32),
    ],
)
def test_auto_takes_the_first_that_fits_half_the_memory(rows, memory, kind, codes):
    choice = choose_kind(rows, 512, AUTO, memory)
    assert (choice.kind, choice.codes) == (kind, codes)
    assert choice.bytes == estimate_bytes(kind, rows, 512, codes)


def test_a_named_budget_replaces_half_the_memory():
    choice = choose_kind(1_000_000, 512, IndexSettings(memory_budget=GB), 64 * GB)
    assert (choice.kind, choice.codes) == (IndexKind.IVF, Codes.SQ8)


@pytest.mark.parametrize(
    ("said", "meant"),
    [(5, 5), ("5", 5), ("4GB", 4 * GB), ("500 mb", 5 * 10**8), ("1.5GiB", 3 * 2**29), ("0", 0), ("2kB", 2_000)],
)
def test_a_budget_may_be_said_in_words(said, meant):
    assert IndexSettings(memory_budget=said).budget == meant
    assert choose_kind(10**6, 512, IndexSettings(memory_budget=said), GB).bytes <= meant or meant < 512 * 10**6


@pytest.mark.parametrize("said", [-1, "four", "4 G B", "4XB", "-4GB", ""])
def test_what_is_no_amount_is_refused(said):
    with pytest.raises(CallError, match="is not an amount of memory.*4GB"):
        IndexSettings(memory_budget=said)


@pytest.mark.parametrize("recall", [0, -1, 1.1])
def test_a_recall_is_a_share(recall):
    with pytest.raises(CallError, match="at most 1"):
        IndexSettings(recall=recall)


def test_the_chosen_one_is_among_the_alternatives_and_fits():
    settings = IndexSettings(memory_budget="2.2GB")
    others = alternatives(1_000_000, 512, settings, GB)
    assert [each.bytes for each in others] == sorted(each.bytes for each in others)
    assert [each.fits for each in others] == [True, True, True, True, False]
    chosen = choose_kind(1_000_000, 512, settings, GB)
    [same] = [each for each in others if (each.kind, each.codes) == (chosen.kind, chosen.codes)]
    assert (same.bytes, same.fits) == (chosen.bytes, True)
    assert {each.kind for each in others if each.exact} == {IndexKind.EXACT}


def test_few_searches_do_not_pay_for_a_build():
    assert choose_kind(1_000_000, 512, AUTO, 64 * GB, expected_queries=999).kind is IndexKind.EXACT
    assert choose_kind(1_000_000, 512, AUTO, 64 * GB, expected_queries=1_000).kind is IndexKind.HNSW


@pytest.mark.parametrize("kind", [IndexKind.EXACT, IndexKind.HNSW, IndexKind.IVF])
def test_settings_overrule_the_sizes(kind):
    choice = choose_kind(100, 8, IndexSettings(kind=kind), 64 * GB)
    assert (choice.kind, choice.codes) == (kind, Codes.FLOAT32)


def test_codes_are_chosen_even_where_the_kind_is_not():
    assert choose_kind(10**6, 512, IndexSettings(kind=IndexKind.IVF), 3 * GB).codes is Codes.SQ8
    assert choose_kind(10**6, 512, IndexSettings(kind=IndexKind.HNSW), 3 * GB).codes is Codes.FLOAT32


@pytest.mark.parametrize(
    ("settings", "memory", "kind", "codes"),
    [
        ({}, 42 * GB, IndexKind.EXACT, Codes.FLOAT32),
        ({}, 18 * GB, IndexKind.EXACT, Codes.FP16),
        ({"half": True}, 80 * GB, IndexKind.EXACT, Codes.FP16),
        ({}, 6 * GB, IndexKind.IVF, Codes.SQ8),
        ({"kind": IndexKind.IVF}, 80 * GB, IndexKind.IVF, Codes.FLOAT32),
        ({"kind": IndexKind.IVF}, 18 * GB, IndexKind.IVF, Codes.FP16),
        ({"kind": IndexKind.IVF, "half": True}, 80 * GB, IndexKind.IVF, Codes.FP16),
    ],
)
def test_on_a_gpu_exact_comes_first_and_half_of_it_before_an_inverted_file(settings, memory, kind, codes):
    rows = 5_000_000
    choice = choose_kind(rows, 512, IndexSettings(device=Device.CUDA, **settings), memory)
    assert (choice.kind, choice.codes) == (kind, codes)
    assert choice.bytes == estimate_bytes(kind, rows, 512, codes)


def test_on_a_gpu_nothing_is_left_to_the_disk():
    settings = IndexSettings(device=Device.CUDA)
    with pytest.raises(CallError, match=r"inverted file.* would take 5\.2 GB, and 4\.0 GB are allowed"):
        choose_kind(10_000_000, 512, settings, 8 * GB)
    with pytest.raises(CallError, match=r"no HNSW on GPUs.*'exact' or 'ivf'"):
        choose_kind(1_000, 512, IndexSettings(IndexKind.HNSW, device=Device.CUDA), 8 * GB)
    others = alternatives(1_000_000, 512, settings, GB)
    assert {each.kind for each in others} == {IndexKind.EXACT, IndexKind.IVF}
    assert {each.codes for each in others if each.exact} == {Codes.FLOAT32, Codes.FP16}


def test_the_reason_has_the_numbers():
    assert choose_kind(10_000_000, 512, AUTO, 16 * GB).reason == (
        "10,000,000 vectors of 512 dimensions: a graph would take 23.3 GB, an inverted file would take "
        "20.6 GB, an inverted file with 8 bits per dimension takes 5.2 GB of the 8.0 GB allowed."
    )
    assert choose_kind(1_000, 512, AUTO, 0).reason.startswith("1,000 vectors")
