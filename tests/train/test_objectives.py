"""What training asks for: losses whose answer is known by hand, so that a wrong sign or a dropped term is seen."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn.functional import gelu, layer_norm, linear

from indexer.embed.bridge.connector import Connector, ConnectorConfig, build_bridge
from pipelines.train.clip import text_stage as clip_text
from pipelines.train.clip.text_stage import TextStage
from pipelines.train.common.composed import ComposedBatch, composed_loss
from pipelines.train.common.contrast import contrast
from pipelines.train.common.losses import distil, match, match_many
from pipelines.train.generator.model import GeneratorRecipe
from pipelines.train.generator.train import TIMESTEPS, VARIANTS, _Trainer

E = torch.eye(4)


# -- The generator's flow


def flow_loss(oracle) -> float:
    """The loss of a denoiser that is given the mixture and its noise level; all clean latents are 0.7."""
    latents = torch.full((VARIANTS, 3, 2, 4, 4), 0.7)

    def unet(mixed, times, encoder_hidden_states):
        return SimpleNamespace(sample=oracle(mixed, times[:, None, None, None] / TIMESTEPS))

    trainer = SimpleNamespace(
        recipe=GeneratorRecipe(bf16=False), features=E, latents=latents, device=torch.device("cpu"),
        reader=SimpleNamespace(
            tokenize_pieces=lambda prompts: (torch.zeros(len(prompts), 2, dtype=torch.int64),) * 2,
            reading=lambda *_: contextlib.nullcontext(),
        ),
        encoder=lambda tokens: SimpleNamespace(last_hidden_state=torch.zeros(len(tokens), 2, 2)),
    )  # fmt: skip
    rows = np.array([0, 1, 2])
    loss = _Trainer._loss(trainer, unet, torch.nn.Identity(), rows, rows, [["", ""]] * 3, np.random.default_rng(0))
    return float(loss)


def test_the_denoiser_learns_the_flow_from_clean_to_noise() -> None:
    """mixed = (1 - s) clean + s noise, so that noise - clean = (mixed - clean) / s: rectified flow, Liu et al. 2023."""
    assert flow_loss(lambda mixed, level: (mixed - 0.7) / level) == pytest.approx(0, abs=1e-5)
    assert flow_loss(lambda mixed, level: (0.7 - mixed) / level) > 3
    # 1 for the variance of noise and 0.49 for the square of what is clean, over 96 numbers.
    assert flow_loss(lambda mixed, level: 0 * mixed) == pytest.approx(1.49, abs=0.5)


# -- Contrasts


def test_pairs_are_matched_both_ways() -> None:
    assert float(match(E, E, 10.0)) == pytest.approx(np.log(1 + 3 * np.exp(-10)), abs=1e-5)
    assert float(match(E, E.roll(1, 0), 10.0)) > 9


def test_other_right_answers_count_neither_for_nor_against() -> None:
    same = torch.zeros(2, 3, dtype=torch.bool)
    gallery = torch.stack([E[0], E[1], E[0]])
    assert float(match_many(E[:2], gallery, same, 10.0)) == pytest.approx(np.log(2) / 2, abs=1e-3)
    same[0, 2] = True
    assert float(match_many(E[:2], gallery, same, 10.0)) == pytest.approx(np.log(1 + np.exp(-10)), abs=1e-3)
    assert float(distil(3 * E, E, 0.1)) == pytest.approx(np.log(1 + 3 * np.exp(-10)), abs=1e-5)


def test_the_unified_contrast_prefers_the_right_document() -> None:
    right = torch.eye(3, dtype=torch.bool)
    assert float(contrast(E[:3], E[:3], right, 0.1)) == pytest.approx(np.log(1 + 2 * np.exp(-10)), abs=1e-5)
    assert float(contrast(E[:3], E[:3].roll(1, 0), right, 0.1)) > 9
    twin = torch.stack([E[0], E[1], E[0]])
    also = right.clone()
    also[0, 2] = also[2, 0] = True
    with_twin = [float(contrast(twin, twin, each, 0.1)) for each in (right, also)]
    assert with_twin[0] == pytest.approx(2 / 3 * np.log(2), abs=1e-3)
    assert with_twin[1] == pytest.approx(0, abs=1e-3)


# -- The share of the reference's own vector


def test_a_composed_query_has_a_share_of_its_picture() -> None:
    batch = ComposedBatch([["", ""]], np.array([0]), np.array([2]), 1)
    features, said = E, E[1:2]

    def loss(share: float) -> float:
        return float(composed_loss(said, batch, features[:1], features, share, 10.0))

    def known(share: float) -> float:
        query = share * E[0] + (1 - share) * E[1]
        answer, reference = 10 * query[2] / query.norm(), 10 * query[0] / query.norm()
        return float(torch.log(1 + torch.exp(reference - answer)))

    for share in (0.0, 0.3, 0.5):
        assert loss(share) == pytest.approx(known(share), abs=1e-5)
    assert loss(0.3) > loss(0.0) + 1


def test_half_of_the_composed_queries_of_a_text_stage_have_that_share(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def queries_of(said, batch, read, shares):
        seen.append(shares[:, 0].numpy())
        return torch.nn.functional.normalize(said, dim=-1)

    count = 400
    batch = ComposedBatch([["", ""]] * count, np.zeros(count, np.int64), np.ones(count, np.int64), count)
    monkeypatch.setattr(clip_text, "queries_of", queries_of)
    monkeypatch.setattr(clip_text, "draw_composed", lambda *_: batch)
    monkeypatch.setattr(clip_text, "encode_tokens", lambda model, tokens: E[:1].expand(len(tokens), -1))
    stage = SimpleNamespace(
        _recipe=SimpleNamespace(batch=count, identity=0, sentences=("{word} {text}",), image_share=0.4),
        _pairs=(), _rows=np.arange(4), _images=E, _gallery=E, _place=np.arange(4), _device=torch.device("cpu"),
    )  # fmt: skip
    reader = SimpleNamespace(
        tokenize_pieces=lambda texts: (torch.zeros(len(texts), 2, dtype=torch.int64),) * 2,
        reading=lambda *_: contextlib.nullcontext(),
    )
    TextStage.composed(stage, None, torch.nn.Identity(), reader, torch.tensor(10.0), np.random.default_rng(0))
    [shares] = seen
    np.testing.assert_allclose(np.unique(shares), [0, 0.4], atol=1e-6)
    assert 0.4 < (shares > 0).mean() < 0.6


# -- Connectors


def config(kind: str) -> ConnectorConfig:
    return ConnectorConfig(kind, feature_tokens=3, feature_width=6, word_width=8, text_width=8)


def test_the_mlp_is_two_matrices_with_a_gelu_between_and_the_linear_one_is_one() -> None:
    torch.manual_seed(0)
    features = 4 * torch.randn(2, 3, 6)
    level = layer_norm(features, (6,))
    mlp = build_bridge(config("mlp"))["connector"]
    one, two = (each for each in mlp.children() if isinstance(each, torch.nn.Linear))
    expected = linear(gelu(linear(level, one.weight, one.bias)), two.weight, two.bias)
    torch.testing.assert_close(mlp(features), expected)
    straight = linear(linear(level, one.weight, one.bias), two.weight, two.bias)
    assert (mlp(features) - straight).abs().max() > 0.05
    plain = build_bridge(config("linear"))["connector"]
    [matrix] = (each for each in plain.children() if isinstance(each, torch.nn.Linear))
    torch.testing.assert_close(plain(features), linear(level, matrix.weight, matrix.bias))


@pytest.mark.parametrize("kind", [Connector.LINEAR, Connector.MLP, Connector.QFORMER])
def test_a_connector_overfits_a_handful(kind: Connector) -> None:
    torch.manual_seed(0)
    made = config(kind.value)
    if kind is Connector.QFORMER:
        small = {
            "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16,
            "cross_attention_frequency": 1,
        }  # fmt: skip
        made = replace(made, queries=3, qformer=small)
    connector = build_bridge(made)["connector"].train(False)
    features, wanted = torch.randn(4, 3, 6), torch.nn.functional.normalize(torch.randn(4, 8), dim=-1)
    optimiser = torch.optim.Adam(connector.parameters(), 0.02)
    losses = []
    for _ in range(150):
        read = torch.nn.functional.normalize(connector(features).mean(1), dim=-1)
        loss = contrast(read, wanted, torch.eye(4, dtype=torch.bool), 0.1)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.05 < 0.5 < losses[0]
