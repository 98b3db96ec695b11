"""Hostile model folders run no code, prompt nobody and fetch nothing; damaged ones fail in one line."""

from __future__ import annotations

import builtins
import json
import shutil
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import tiny_bridges
import tiny_mllm
import tiny_st
from hostile import edit, with_code
from tiny_models import native_clip, tiny_clip, tiny_inversion

from indexer.embed import load_embedder
from indexer.embed.model_files import LARGEST_TEMPLATE, data_only, harmless
from indexer.embed.textual_inversion import load_inversion
from indexer.errors import ModelError, UnderdrawingError
from indexer.types import Item

CLIP = "open_clip_config.json"


@pytest.fixture(autouse=True)
def nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Nobody answers a question, and nothing is reached: both are seen. The working directory has modules of its own."""
    asked = []

    def answer(prompt: str = "") -> str:
        asked.append(prompt)
        return "y"

    def reach(*address: object) -> None:
        asked.append(str(address))
        raise OSError("no network")

    monkeypatch.setattr(builtins, "input", answer)
    monkeypatch.setattr(socket.socket, "connect", reach)
    monkeypatch.chdir(tmp_path)
    yield
    assert asked == []


@pytest.fixture
def mark(tmp_path: Path):
    yield tmp_path / "ran"
    assert not (tmp_path / "ran").exists(), (tmp_path / "ran").read_text()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A whole folder of each family, made once."""
    folder = tmp_path_factory.mktemp("whole")
    kept: dict[str, Path] = {}

    def make(family: str) -> Path:
        if family not in kept:
            match family:
                case "clip":
                    kept[family] = tiny_clip(folder / "clip")
                case "native":
                    kept[family] = native_clip(folder / "native", custom=False)
                case "mllm":
                    kept[family] = tiny_mllm.tiny_mllm(folder / "mllm")
                case "st":
                    kept[family] = tiny_st.tiny_texts(folder / "st")
                case "towers":
                    kept[family] = tiny_st.tiny_towers(folder / "towers")
                case "text":
                    kept[family] = tiny_bridges.tiny_encoder(folder / "text")
        return kept[family]

    return make


PREFIX = {"clip": "open_clip", "native": "open_clip", "mllm": "mllm", "st": "st", "towers": "st"}


def load(family: str, folder: Path):
    """A model of a folder, used once."""
    if family == "text":
        import torch

        from indexer.embed.bridge.text_model import TextModel

        model = TextModel.load(str(folder), torch.float32, "cpu")
        model.read([model.ids("a cat", 5)], None, [False])
        return model
    model = load_embedder(f"{PREFIX[family]}:{folder}")
    model.encode_document([Item(text="a red square")])
    return model


@pytest.mark.parametrize("family", [*PREFIX, "text"])
def test_code_that_lies_in_a_folder_is_not_run_and_changes_nothing(
    made, mark: Path, tmp_path: Path, family: str
) -> None:
    folder = with_code(shutil.copytree(made(family), tmp_path / "copy"), mark)
    load(family, folder)


@pytest.mark.parametrize(
    ("path", "values", "told"),
    [
        (("model_cfg", "text_cfg"), {"tokenizer_kwargs": {"trust_remote_code": True}}, "'trust_remote_code'"),
        (("model_cfg", "text_cfg"), {"tokenizer_kwargs": {"tokenizer_type": "x"}}, "'tokenizer_type'"),
        (("model_cfg", "text_cfg"), {"tokenizer_kwargs": {"clean": "../own"}}, "clean = '../own'"),
        (("model_cfg", "text_cfg"), {"tokenizer_kwargs": [1]}, "tokenizer_kwargs is"),
        (("model_cfg", "text_cfg"), {"hf_model_name": "."}, "'hf_model_name', which is not read"),
        (("model_cfg", "text_cfg"), {"hf_model_name": "someone/model"}, "'hf_model_name', which is not read"),
        (("model_cfg", "text_cfg"), {"tokenizer_mode": "own"}, "tokenizer_mode is 'own'"),
        (("model_cfg", "text_cfg"), {"hf_tokenizer_name": ["."]}, "hf_tokenizer_name"),
        (("model_cfg", "text_cfg"), {"context_length": 10**9}, "context_length = 1000000000"),
        (("model_cfg", "text_cfg"), {"width": -1}, "width = -1"),
        (("model_cfg", "text_cfg"), {"layers": "3"}, "layers = '3'"),
        (("model_cfg", "text_cfg"), {"norm_kwargs": {"device": "meta"}}, "norm_kwargs"),
        (("model_cfg", "vision_cfg"), {"timm_model_name": "hf-hub:someone/model"}, "timm_model_name"),
        (("model_cfg", "vision_cfg"), {"timm_model_name": "local-dir:."}, "timm_model_name"),
        (("model_cfg", "vision_cfg"), {"image_size": 10**6}, "image_size"),
        (("model_cfg", "vision_cfg"), {"act_kwargs": {"inplace": True}}, "act_kwargs"),
        (("model_cfg",), {"multimodal_cfg": {}}, "'multimodal_cfg', which is not read"),
        (("model_cfg",), {"embed_dim": True}, "embed_dim = True"),
        (("preprocess_cfg",), {"mean": [0, 0]}, "mean"),
        (("preprocess_cfg",), {"std": [0, 1, 1]}, "std"),
        (("preprocess_cfg",), {"transform": "own.Own"}, "'transform'"),
    ],
)
@pytest.mark.parametrize("family", ["clip", "native"])
def test_a_clip_folder_says_no_more_than_the_shape_of_its_model(
    made, mark: Path, tmp_path: Path, family: str, path: tuple[str, ...], values: dict[str, object], told: str
) -> None:
    folder = shutil.copytree(made(family), tmp_path / "copy")
    edit(folder / CLIP, *path, **values)
    (folder / "own.py").write_text(f"open({str(mark)!r}, 'w')")
    with pytest.raises(ModelError, match=told) as refused:
        load(family, folder)
    assert CLIP in refused.value.message
    assert "\n" not in refused.value.message


def test_a_size_that_the_weights_do_not_have_takes_no_memory(made, tmp_path: Path) -> None:
    folder = shutil.copytree(made("clip"), tmp_path / "copy")
    edit(folder / CLIP, "model_cfg", "text_cfg", vocab_size=1 << 23, width=1 << 14)
    with pytest.raises(ModelError, match="have another shape"):
        load("clip", folder)
    edit(folder / CLIP, "model_cfg", "text_cfg", qk_norm=True)  # which open_clip builds
    with pytest.raises(ModelError, match="asks for [0-9,]+ numbers"):
        load("clip", folder)


def test_a_tokenizer_that_is_missing_is_named_and_none_is_fetched(made, tmp_path: Path) -> None:
    folder = shutil.copytree(made("native"), tmp_path / "copy")
    edit(folder / CLIP, "model_cfg", "text_cfg", hf_tokenizer_name="timm/ViT-B-16-SigLIP2")
    with pytest.raises(ModelError, match="has no tokenizer: neither tokenizer.json nor"):
        load("native", folder)


def test_a_tokenizer_of_transformers_is_read_from_the_folders_data_alone(made, mark: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(made("clip"), tmp_path / "copy")
    (folder / "own.py").write_text(f"open({str(mark)!r}, 'w')")
    for told in ({"tokenizer_class": "CLIPTokenizer"}, {"add_eos_token": True}):
        edit(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": ["own.Own", "own.Own"]}, **told)
        with suppress(ModelError):  # the file is no CLIP tokenizer's
            load("clip", folder)
    edit(folder / "tokenizer_config.json", tokenizer_class="RagTokenizer")
    with pytest.raises(ModelError, match="names 'RagTokenizer' as its tokenizer_class"):
        load("clip", folder)


@pytest.mark.parametrize("kind", ["own.Own", "os.path.join", "sentence_transformers.util.misc.Own", "Own", 7, None])
@pytest.mark.parametrize("within", [True, False])
def test_modules_of_sentence_transformers_are_the_librarys_own(made, mark, tmp_path, kind, within) -> None:
    folder = shutil.copytree(made("st"), tmp_path / "copy")
    for place in (folder, tmp_path):  # in the folder, and where the program was started
        (place / "own.py").write_text(f"open({str(mark)!r}, 'w')\nclass Own: pass")
    if within:
        (folder / "inner").mkdir()
        edit(folder / "inner" / "router_config.json", types={"a": kind}, structure={}, parameters={})
    else:
        modules = json.loads((folder / "modules.json").read_text())
        modules[1]["type"] = kind
        (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(ModelError, match="not a known one"):
        load("st", folder)


@pytest.mark.parametrize(
    ("file", "values", "told"),
    [
        ("sentence_bert_config.json", {"model_kwargs": {"cache_dir": "."}}, "model_kwargs has cache_dir"),
        ("sentence_bert_config.json", {"config_args": {"name_or_path": "a/b"}}, "config_args has name_or_path"),
        ("sentence_bert_config.json", {"processor_kwargs": {"padding_side": {}}}, "padding_side"),
        ("sentence_bert_config.json", {"tokenizer_args": [1]}, "tokenizer_args"),
        ("2_Dense/config.json", {"activation_function": "own.Own"}, "not a torch activation"),
        ("2_Dense/config.json", {"activation_function": "torch.hub.load"}, "not a torch activation"),
        ("config.json", {"quantization_config": {"quant_method": "own"}}, "'quantization_config'"),
        ("config.json", {"model_type": "timm_backbone", "backbone": "hf-hub:a/b"}, "'backbone'"),
        ("tokenizer_config.json", {"tokenizer_class": "own.Own"}, "tokenizer_class"),
        ("tokenizer_config.json", {"chat_template": "x" * (LARGEST_TEMPLATE + 1)}, "chat template of more than"),
    ],
)
def test_what_a_folder_would_hand_on_to_a_library_is_refused(made, mark, tmp_path, file, values, told) -> None:
    folder = shutil.copytree(made("st"), tmp_path / "copy")
    (tmp_path / "own.py").write_text(f"open({str(mark)!r}, 'w')\nclass Own: pass")
    edit(folder / file, **values)
    with pytest.raises(ModelError, match=told):
        load("st", folder)


def test_an_adapter_beside_a_text_model_is_not_followed(made, tmp_path: Path) -> None:
    folder = shutil.copytree(made("text"), tmp_path / "copy")
    edit(folder / "adapter_config.json", base_model_name_or_path="someone/model", peft_type="LORA")
    with pytest.raises(ModelError, match="holds an adapter"):
        load("text", folder)


@pytest.mark.parametrize(
    "values",
    [
        {"megatron_config": {"a": 1}, "megatron_core": "own"},
        {"auto_mapping": {"base_model_class": "Own", "parent_library": "own"}, "modules_to_save": ["x"]},
        {"peft_type": "IA3"},
        {"r": "8"},
        {"r": -1},
        {"rank_pattern": {"x": "y"}},
        {"lora_alpha": {"a": 1}},
    ],
)
def test_an_adapter_is_read_for_its_numbers_alone(made, mark: Path, tmp_path: Path, values: dict[str, object]) -> None:
    pytest.importorskip("peft", reason="needs peft, of the extra mllm")
    (tmp_path / "own.py").write_text(f"open({str(mark)!r}, 'w')\nclass Own: pass")
    base = made("mllm")
    lora = tmp_path / "lora"
    told = {"base_model_name_or_path": str(base), "peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["x"]}
    edit(lora / "adapter_config.json", **told | values)
    shutil.copy(base / "underdrawing.json", lora)
    with pytest.raises(ModelError, match="adapter|cannot have"):
        load("mllm", lora)


def test_kernels_named_by_a_configuration_are_left_out(made, tmp_path: Path) -> None:
    for family in ("mllm", "text", "st"):
        folder = shutil.copytree(made(family), tmp_path / family)
        edit(folder / "config.json", attn_implementation="someone/kernel", _attn_implementation="someone/kernel")
        load(family, folder)
    told = {"text_config": {"attn_implementation": "a/b", "width": 3, "parts": [{"auto_map": {}, "x": 1}]}}
    assert harmless(told, Path("config.json")) == {"text_config": {"width": 3, "parts": [{"x": 1}]}}


def test_a_copy_for_a_library_holds_data_alone(made, mark: Path, tmp_path: Path) -> None:
    folder = with_code(shutil.copytree(made("st"), tmp_path / "copy"), mark)
    for name in ("pytorch_model.bin", "own.pt", "own.pkl", "own.so", ".hidden.json", "adapter_config.json", "x.onnx"):
        (folder / name).write_bytes(b"\x80\x04.")
    (folder / "link.json").symlink_to("/etc/hostname")
    with data_only(folder) as copy:
        held = {file.relative_to(copy).as_posix() for file in copy.rglob("*") if file.is_file()}
        assert {"config.json", "modules.json", "model.safetensors", "tokenizer.json"} <= held
        assert {Path(name).suffix for name in held} <= {".json", ".safetensors", ".txt", ".model", ".jinja"}
        assert "adapter_config.json" not in held
        assert "auto_map" not in json.loads((copy / "config.json").read_text())
    assert not copy.exists()


def damages(folder: Path) -> dict[str, Callable[[Path], object]]:
    """What can happen to files, by a name; each takes the file."""
    deep = "[" * 200_000
    return {
        "empty": lambda file: file.write_bytes(b""),
        "torn": lambda file: file.write_bytes(file.read_bytes()[: file.stat().st_size // 2]),
        "deep": lambda file: file.write_text('{"a": ' + deep),
        "list": lambda file: file.write_text("[1, 2]"),
        "not utf-8": lambda file: file.write_bytes(b'{"a": "\xff\xfe"}'),
        "nothing in it": lambda file: file.write_text("{}"),
    }


@pytest.mark.parametrize("damage", list(damages(Path())))
@pytest.mark.parametrize(
    ("family", "file"),
    [
        ("clip", CLIP), ("clip", "tokenizer.json"), ("clip", "tokenizer_config.json"), ("native", CLIP),
        ("mllm", "config.json"), ("mllm", "tokenizer.json"), ("mllm", "preprocessor_config.json"),
        ("mllm", "underdrawing.json"), ("st", "config.json"), ("st", "modules.json"), ("st", "tokenizer.json"),
        ("st", "1_Pooling/config.json"), ("st", "2_Dense/config.json"), ("text", "config.json"),
        ("text", "tokenizer.json"),
    ],
)  # fmt: skip
def test_a_damaged_configuration_is_a_model_error_in_one_line(made, tmp_path, family, file, damage) -> None:
    folder = shutil.copytree(made(family), tmp_path / "copy")
    damages(folder)[damage](folder / file)
    if damage == "nothing in it":  # of some files, nothing is enough
        with suppress(ModelError):
            load(family, folder)
        return
    with pytest.raises(ModelError) as refused:
        load(family, folder)
    assert "\n" not in refused.value.message
    assert len(refused.value.message) < 800


@pytest.mark.parametrize(
    "content", [b"", b"\0" * 8, struct.pack("<Q", 2) + b"{}", struct.pack("<Q", 1 << 60) + b"{}", b"PK\x03\x04" * 9]
)
@pytest.mark.parametrize(
    ("family", "file"),
    [
        ("clip", "open_clip_model.safetensors"), ("mllm", "model.safetensors"), ("st", "model.safetensors"),
        ("st", "2_Dense/model.safetensors"), ("text", "model.safetensors"),
    ],
)  # fmt: skip
def test_damaged_or_empty_weights_are_a_model_error_in_one_line(made, tmp_path, family, file, content) -> None:
    folder = shutil.copytree(made(family), tmp_path / "copy")
    (folder / file).unlink()
    (folder / file).write_bytes(content)
    with pytest.raises(ModelError) as refused:
        load(family, folder)
    assert "\n" not in refused.value.message
    assert len(refused.value.message) < 800


@pytest.mark.parametrize(
    "values", [{"feature_dim": 1 << 40}, {"hidden_dim": "64"}, {"word_dim": True}, {"own": 1}, {"template": "x"}]
)
def test_an_inversion_is_made_of_its_weights_sizes_alone(tmp_path: Path, values: dict[str, object]) -> None:
    tiny_inversion().save(tmp_path / "phi")
    load_inversion(tmp_path / "phi")
    edit(tmp_path / "phi" / "inversion.json", **values)
    with pytest.raises(ModelError, match="do not fit their configuration|is not an inversion"):
        load_inversion(tmp_path / "phi")


def test_a_bridge_names_models_and_runs_nothing(made, mark: Path, tmp_path: Path) -> None:
    folder = tiny_bridges.tiny_bridge(
        tmp_path / "bridge", "mlp", made("text"), made("clip")
    )  # whose tower and text model are folders, too
    with_code(folder, mark)
    edit(folder / "bridge.json", "connector", feature_width=1 << 20, word_width=1 << 20)
    with pytest.raises(ModelError, match="does not fit bridge.json"):
        load_embedder(f"bridge:{folder}")
    edit(folder / "bridge.json", tower=f"open_clip:{made('clip')}", text="someone-else/model")
    with pytest.raises(UnderdrawingError):
        load_embedder(f"bridge:{folder}")
