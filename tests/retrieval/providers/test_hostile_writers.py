"""Hostile folders of captioners, chat models and generators run no code and fetch nothing; no template hangs."""

from __future__ import annotations

import builtins
import json
import shutil
import socket
from pathlib import Path

import pytest
import tiny_models
import tiny_writers
from hostile import edit, with_code
from test_chat import gguf_file

from indexer.errors import ModelError, WritingError
from retrieval.providers.generation.diffusion import PseudoTargetGenerator
from retrieval.providers.language import Change, load_captioner, load_chat, load_rewriter
from retrieval.providers.language import templates as templates_module
from retrieval.providers.language.protocol import Question


@pytest.fixture(autouse=True)
def nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Nobody answers a question, and nothing is reached."""
    asked = []

    def reach(*address: object) -> None:
        asked.append(str(address))
        raise OSError("no network")

    monkeypatch.setattr(builtins, "input", lambda prompt="": asked.append(prompt) or "y")
    monkeypatch.setattr(socket.socket, "connect", reach)
    monkeypatch.chdir(tmp_path)
    yield
    assert asked == []


@pytest.fixture
def mark(tmp_path: Path):
    yield tmp_path / "ran"
    assert not (tmp_path / "ran").exists(), (tmp_path / "ran").read_text()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("whole")
    return {
        "chat": tiny_writers.tiny_chat(folder / "chat"),
        "qwen2_vl": tiny_writers.tiny_captioner(folder / "qwen2_vl", "qwen2_vl"),
        "blip": tiny_writers.tiny_captioner(folder / "blip", "blip"),
        "generator": tiny_models.save_generator(folder / "sd", "sd15"),
    }


def load(kind: str, folder: Path) -> object:
    if kind == "chat":
        return load_rewriter(folder).rewrite([Change("a cat", "at night")])
    if kind == "generator":
        return PseudoTargetGenerator.load(folder)
    return load_captioner(folder).caption(tiny_models.pictures(1))


@pytest.mark.parametrize("kind", ["chat", "qwen2_vl", "blip", "generator"])
def test_code_that_lies_in_a_folder_is_not_run(whole, mark: Path, tmp_path: Path, kind: str) -> None:
    load(kind, with_code(shutil.copytree(whole[kind], tmp_path / "copy"), mark))


def test_code_beside_a_gguf_file_is_not_run_and_its_configurations_are_not_read(mark: Path, tmp_path: Path) -> None:
    folder = tmp_path / "gguf"
    folder.mkdir()
    gguf_file(folder)
    edit(folder / "tokenizer_config.json", tokenizer_class="Own", chat_template="{{ own }}")
    edit(folder / "adapter_config.json", base_model_name_or_path="someone/model")
    with_code(folder, mark)
    answers = load_chat(folder).ask([Question(("a cat",))], tokens=4)
    assert answers[0]


@pytest.mark.parametrize("kind", ["chat", "qwen2_vl"])
@pytest.mark.parametrize(
    ("file", "values", "told"),
    [
        ("config.json", {"quantization_config": {"quant_method": "own"}}, "'quantization_config'"),
        ("tokenizer_config.json", {"tokenizer_class": "own.Own"}, "tokenizer_class"),
        ("adapter_config.json", {"base_model_name_or_path": "someone/model"}, "holds an adapter"),
    ],
)
def test_what_points_elsewhere_is_refused(whole, tmp_path, kind, file, values, told) -> None:
    folder = shutil.copytree(whole[kind], tmp_path / "copy")
    edit(folder / file, **values)
    with pytest.raises(ModelError, match=told):
        load(kind, folder)


@pytest.mark.parametrize(
    "index",
    [
        {"_class_name": ["own", "OwnPipeline"]},
        {"_class_name": "own.OwnPipeline"},
        {"_class_name": "Own"},
        {"unet": ["own", "Own"]},
        {"unet": ["os.path", "join"]},
        {"vae": ["diffusers.own", "Own"]},
        {"scheduler": ["diffusers", "own.Own"]},
        {"text_encoder": ["sentence_transformers", "SentenceTransformer"]},
        {"tokenizer": ["transformers"]},
    ],
)
def test_parts_of_a_pipeline_are_the_libraries_own(whole, mark, tmp_path, index) -> None:
    folder = with_code(shutil.copytree(whole["generator"], tmp_path / "copy"), mark)
    (tmp_path / "own.py").write_text(f"open({str(mark)!r}, 'w')\nclass Own: pass")
    edit(folder / "model_index.json", **index)
    with pytest.raises(ModelError, match="are loaded"):
        load("generator", folder)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"a": ' + "[" * 200_000, "\xff"])
@pytest.mark.parametrize(
    ("kind", "file"),
    [
        ("chat", "config.json"), ("chat", "tokenizer.json"), ("chat", "tokenizer_config.json"),
        ("qwen2_vl", "config.json"), ("blip", "config.json"), ("generator", "model_index.json"),
        ("generator", "underdrawing.json"), ("generator", "unet/config.json"), ("generator", "vae/config.json"),
        ("generator", "scheduler/scheduler_config.json"), ("generator", "text_encoder/config.json"),
    ],
)  # fmt: skip
def test_a_damaged_configuration_is_a_model_error_in_one_line(whole, tmp_path, kind, file, content) -> None:
    folder = shutil.copytree(whole[kind], tmp_path / "copy")
    (folder / file).write_bytes(content.encode("latin-1"))
    with pytest.raises(ModelError) as refused:
        load(kind, folder)
    assert "\n" not in refused.value.message


@pytest.mark.parametrize("content", [b"", b"\2\0\0\0\0\0\0\0{}", b"\0" * 64])
@pytest.mark.parametrize(
    ("kind", "file"),
    [
        ("chat", "model.safetensors"), ("qwen2_vl", "model.safetensors"), ("blip", "model.safetensors"),
        ("generator", "unet/diffusion_pytorch_model.safetensors"), ("generator", "text_encoder/model.safetensors"),
        ("generator", "vae/diffusion_pytorch_model.safetensors"),
    ],
)  # fmt: skip
def test_damaged_or_empty_weights_are_a_model_error_in_one_line(whole, tmp_path, kind, file, content) -> None:
    folder = shutil.copytree(whole[kind], tmp_path / "copy")
    (folder / file).write_bytes(content)
    with pytest.raises(ModelError) as refused:
        load(kind, folder)
    assert "\n" not in refused.value.message


TEMPLATES = {
    "endless": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "a text of gigabytes": "{{ 'x' * 9999999999 }}",
    "doubling": "{% set n = namespace(x='x') %}{% for i in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}{{ n.x }}",
    "wide": "{{ '%999999999d' | format(1) }}",
    "calling itself": "{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}",
    "nested": "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "wrong": "{% for %}",
    "leaving": "{{ messages.__class__.__mro__[1].__subclasses__() }}",
    "refusing": "{{ raise_exception('no') }}",
    "long": "{{ 'long ' * 900000 }}",
}


@pytest.mark.parametrize("kind", ["chat", "qwen2_vl"])
@pytest.mark.parametrize("template", TEMPLATES)
def test_a_template_that_hangs_or_swells_is_a_model_error(whole, tmp_path, monkeypatch, kind, template) -> None:
    monkeypatch.setattr(templates_module, "SECONDS", 2)
    folder = shutil.copytree(whole[kind], tmp_path / "copy")
    for file in folder.glob("*.jinja"):
        file.unlink()
    edit(folder / "tokenizer_config.json", chat_template=TEMPLATES[template])
    if (folder / "processor_config.json").exists():
        edit(folder / "processor_config.json", chat_template=TEMPLATES[template])
    edit(folder / "chat_template.json", chat_template=TEMPLATES[template])
    if kind == "chat":
        (folder / "chat_template.json").unlink()
    with pytest.raises(ModelError, match="chat template") as refused:
        load(kind, folder)
    assert "\n" not in refused.value.message


def test_a_template_that_hangs_on_some_words_alone_costs_their_sentences(whole, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(templates_module, "SECONDS", 2)
    folder = shutil.copytree(whole["chat"], tmp_path / "copy")
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    hangs = "{% if 'night' in messages[0].content %}" + TEMPLATES["endless"] + "{% endif %}" + tiny_writers.CHATML
    edit(folder / "tokenizer_config.json", chat_template=hangs)
    model = load_rewriter(folder)
    answers = model.rewrite([Change("a cat", "at night")])
    assert isinstance(answers[0], WritingError)
    assert "does not finish" in answers[0].message


def test_chats_are_rendered_as_transformers_renders_them(whole) -> None:
    from transformers import AutoTokenizer

    words = AutoTokenizer.from_pretrained(whole["chat"])
    for template in (
        tiny_writers.CHATML,
        "{% for m in messages %}{{ m.role }}: {{ m.content | tojson }}{{ eos_token }}\n  {%- endfor %}",
        "{{ bos_token is defined }} {{ tools }} {{ documents is none }} {{ enable_thinking }} {{ add_generation_prompt }}",
        "{% generation %}{{ messages[0]['content'] | trim }}{% endgeneration %}{% set n = namespace(a=1) %}{{ n.a }}",
    ):
        for asks in (True, False):
            said = [{"role": "user", "content": " é <b> 'x' \n"}, {"role": "assistant", "content": "{{ y }}"}]
            options = {**words.special_tokens_map, "add_generation_prompt": asks, "enable_thinking": False}
            ours = templates_module.render_chats("m", template, [said, said[:1]], options)
            theirs = words.apply_chat_template(
                [said, said[:1]],
                chat_template=template,
                tokenize=False,
                add_generation_prompt=asks,
                enable_thinking=False,
            )
            assert ours == theirs
    assert json.loads(json.dumps(ours)) == ours
