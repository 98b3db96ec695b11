"""Threads that load and use models at once get complete ones, share what they can, and cache no failures."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tiny_mllm
import tiny_models
import tiny_st
import tiny_writers

from indexer import Collection, Document
from indexer.embed import load_embedder
from indexer.embed.textual_inversion import load_inversion
from indexer.errors import ModelError
from indexer.lazy_embedder import LazyEmbedder
from indexer.types import Item
from retrieval import Query, Retriever
from retrieval.providers.caption_rewrite import CaptionRewriter, RewriteRequest
from retrieval.providers.generation.diffusion import PseudoTargetGenerator
from retrieval.providers.generation.protocol import GenerateOptions, PseudoTargetRequest
from retrieval.providers.language import Change, load_captioner, load_rewriter
from retrieval.providers.pseudo_target import PseudoTargetProvider

THREADS = 8


def at_once(*work: Callable[[], object]) -> list[object]:
    """What the calls return, or raise, in threads that all begin together."""
    barrier = threading.Barrier(len(work))

    def run(call: Callable[[], object]) -> object:
        barrier.wait()
        return call()

    with ThreadPoolExecutor(len(work)) as pool:
        asked = [pool.submit(run, call) for call in work]
        return [each.exception() or each.result() for each in asked]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("whole")
    tiny_models.tiny_inversion().save(folder / "phi")
    return {
        "clip": tiny_models.tiny_clip(folder / "clip"),
        "native": tiny_models.native_clip(folder / "native", custom=True, no_causal_mask=True),  # by open_clip
        "mllm": tiny_mllm.tiny_mllm(folder / "mllm"),
        "st": tiny_st.tiny_texts(folder / "st"),
        "chat": tiny_writers.tiny_chat(folder / "chat"),
        "blip": tiny_writers.tiny_captioner(folder / "blip", "blip"),
        "generator": tiny_models.save_generator(folder / "sd", "sd15"),
        "phi": folder / "phi",
    }


def used(kind: str, folder: Path) -> object:
    """A model of that kind, loaded and used."""
    match kind:
        case "clip" | "native" | "mllm" | "st":
            prefix = {"clip": "open_clip", "native": "open_clip"}.get(kind, kind)
            return load_embedder(f"{prefix}:{folder}").encode_document([Item(text="a red square")]).tolist()
        case "chat":
            return [str(each) for each in load_rewriter(folder).rewrite([Change("a cat", "at night")])]
        case "blip":
            return [str(each) for each in load_captioner(folder).caption(tiny_models.pictures(2))]
        case "generator":
            made = PseudoTargetGenerator.load(folder)
            feature = np.ones(tiny_models.DIM, np.float32)
            [drawing] = made.generate([PseudoTargetRequest("a cat", (feature,))], GenerateOptions(steps=1))
            return [np.asarray(image).sum() for image in drawing.images]
        case "phi":
            return load_inversion(folder).words(np.ones((1, tiny_models.DIM), np.float32)).tolist()
    raise AssertionError(kind)


def test_models_of_all_libraries_are_loaded_and_used_at_once(whole: dict[str, Path]) -> None:
    alone = {kind: used(kind, folder) for kind, folder in whole.items()}
    for _ in range(3):
        together = at_once(*(lambda k=kind, f=folder: used(k, f) for kind, folder in whole.items()))
        for kind, answer in zip(whole, together, strict=True):
            if isinstance(answer, Exception):
                raise answer
            if kind in ("chat", "blip", "generator"):
                assert answer == alone[kind]
            else:
                np.testing.assert_allclose(answer, alone[kind], atol=1e-5)


@pytest.mark.parametrize("kind", ["clip", "native", "st", "mllm"])
def test_one_embedder_is_shared_by_threads(whole: dict[str, Path], kind: str) -> None:
    prefix = {"clip": "open_clip", "native": "open_clip"}.get(kind, kind)
    embedder = load_embedder(f"{prefix}:{whole[kind]}")
    texts = [
        [Item(text=" ".join(["red", "square", "at", "night"][: 1 + (n + i) % 4])) for i in range(9)]
        for n in range(THREADS)
    ]
    alone = [embedder.encode_query(each) for each in texts]
    for _ in range(5):
        for found, wanted in zip(
            at_once(*(lambda e=each: embedder.encode_query(e) for each in texts)), alone, strict=True
        ):
            np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_threads_that_ask_at_once_get_one_model(whole: dict[str, Path], monkeypatch, tmp_path) -> None:
    lazy = LazyEmbedder(f"open_clip:{whole['clip']}", "float32", "cpu")
    assert len(set(map(id, at_once(*[lazy.get] * THREADS)))) == 1
    loads = []
    load = PseudoTargetGenerator.load
    monkeypatch.setattr(PseudoTargetGenerator, "load", lambda *a, **k: loads.append(a) or load(*a, **k))
    pseudo_targets = PseudoTargetProvider(
        generator=whole["generator"], inversion=whole["phi"], cache=tmp_path, device="cpu"
    )
    embedder = lazy.get()
    assert len(set(map(id, at_once(*[lambda: pseudo_targets.generator(embedder)] * THREADS)))) == 1
    assert len(set(map(id, at_once(*[lambda: pseudo_targets.inversion(embedder)] * THREADS)))) == 1
    assert len(set(map(id, at_once(*[lambda: pseudo_targets._pool] * THREADS)))) == 1
    assert len(loads) == 1
    captions = CaptionRewriter(whole["blip"], whole["chat"], cache=tmp_path, device="cpu")
    assert len(set(map(id, at_once(*[captions.captioner] * THREADS)))) == 1
    assert len(set(map(id, at_once(*[captions.rewriter] * THREADS)))) == 1
    wanted = [[RewriteRequest(f"in {n}", picture)] for n, picture in enumerate(tiny_models.pictures(THREADS))]
    answers = at_once(*(lambda w=each: captions.rewrite(w) for each in wanted))
    assert [each[0].text for each in answers] == [captions.rewrite(each)[0].text for each in wanted]


def test_what_cannot_be_loaded_is_not_kept(whole: dict[str, Path], tmp_path: Path) -> None:
    """It fails for all who ask at once, and loads for all once it is mended."""
    embedder = load_embedder(f"open_clip:{whole['clip']}")
    broken = {kind: shutil.copytree(whole[kind], tmp_path / kind) for kind in ("clip", "generator", "chat", "phi")}
    weights = {
        "clip": "open_clip_model.safetensors", "generator": "unet/diffusion_pytorch_model.safetensors",
        "chat": "model.safetensors", "phi": "inversion.safetensors",
    }  # fmt: skip
    for kind, name in weights.items():
        (broken[kind] / name).write_bytes(b"")
    lazy = LazyEmbedder(f"open_clip:{broken['clip']}", "float32", "cpu")
    pseudo_targets = PseudoTargetProvider(
        generator=broken["generator"], inversion=broken["phi"], cache=tmp_path, device="cpu"
    )
    captions = CaptionRewriter(None, broken["chat"], cache=tmp_path, device="cpu")
    asks = [
        lazy.get,
        lambda: pseudo_targets.generator(embedder),
        lambda: pseudo_targets.inversion(embedder),
        captions.rewriter,
    ]
    for answer in at_once(*asks * 2):
        assert isinstance(answer, ModelError)
    for kind, name in weights.items():
        (broken[kind] / name).write_bytes((whole[kind] / name).read_bytes())
    for answer in at_once(*asks * 2):
        if isinstance(answer, Exception):
            raise answer


def test_retrievers_of_one_collection_answer_in_threads(whole: dict[str, Path], tmp_path: Path) -> None:
    with Collection.open(tmp_path / "c", model=f"open_clip:{whole['clip']}") as opened:
        opened.add([Document(f"{n}", image=picture) for n, picture in enumerate(tiny_models.pictures(12))])
    asked = Query(text="at night", image=tiny_models.pictures(1)[0])
    with Collection.open(tmp_path / "c", trust=True) as opened:

        def ask() -> list[str]:
            pseudo_targets = PseudoTargetProvider(
                inversion=whole["phi"], generator=whole["generator"], cache=tmp_path / "drawn", device="cpu"
            )
            results = Retriever(opened, "cig", pseudo_targets=pseudo_targets).search(asked, k=3)
            return [hit.id for hit in results]

        answers = at_once(*[ask] * 4)
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        assert answers == [answers[0]] * 4
