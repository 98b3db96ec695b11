"""Connectors: trained modules that turn image features into vectors that a text model reads like words.

    linear    one matrix, a vector for each feature                      (LLaVA, Liu et al. 2023, arXiv:2304.08485)
    mlp       two matrices and a GELU between them                       (LLaVA-1.5, Liu et al. 2023, arXiv:2310.03744)
    qformer   learned queries that attend to the features in several      (BLIP-2, Li et al. 2023, arXiv:2301.12597)
              layers of cross-attention, a vector for each query

The projection is one more matrix, from the output of the text model to the vector that is compared. For an encoder
trained to compare sentences, it starts as identity. The hidden states of a language model, which was trained to predict
words, all point nearly the same way, so their projection starts as whitening.

This module does not know encoders, text models, items or training.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from indexer.errors import CallError, MissingExtraError
from indexer.types import HelpfulEnum

if TYPE_CHECKING:
    from torch import Tensor, nn


class Connector(HelpfulEnum):
    """The kinds of connector."""

    LINEAR = "linear"
    MLP = "mlp"
    QFORMER = "qformer"


@dataclass(frozen=True)
class ConnectorConfig:
    """The shape of a connector and its projection.

    Attributes:
        kind: One of `Connector`.
        feature_tokens: Feature vectors of an image.
        feature_width: Length of a feature vector.
        word_width: Length of a word's vector in the text model.
        text_width: Length of the text model's output.
        project: Whether there is a projection.
        queries: Number of queries of a Q-Former.
        qformer: Settings of a Q-Former: transformers' `Blip2QFormerConfig`, without `encoder_hidden_size`.
    """

    kind: Connector
    feature_tokens: int
    feature_width: int
    word_width: int
    text_width: int
    project: bool = True
    queries: int = 32
    qformer: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "kind", Connector(self.kind))
        counts = (self.feature_tokens, self.feature_width, self.word_width, self.text_width, self.queries)
        if any(not isinstance(each, int) or each < 1 for each in counts):
            raise CallError(f"Every size of a connector must be a whole number of at least 1: {self}.")

    @property
    def tokens(self) -> int:
        """Number of vectors per image that the text model reads."""
        return self.queries if self.kind is Connector.QFORMER else self.feature_tokens


def build_bridge(config: ConnectorConfig) -> nn.ModuleDict:
    """The trained parts of a bridge, with random weights.

    Returns:
        `connector`, (n, feature_tokens, feature_width) to (n, tokens, word_width), and, if there is a projection,
        `project`, (n, text_width) to the same.

    Raises:
        CallError: The configuration of a Q-Former is invalid.
        MissingExtraError: A Q-Former is requested, and transformers is too old.
    """
    from torch import nn

    # Encoders differ in the scale of their features by orders of magnitude; learning rates should not.
    level = nn.LayerNorm(config.feature_width, elementwise_affine=False)
    width = config.word_width
    match config.kind:
        case Connector.LINEAR:
            connector: nn.Module = nn.Sequential(level, nn.Linear(config.feature_width, width))
        case Connector.MLP:
            hidden = nn.Linear(config.feature_width, width)
            connector = nn.Sequential(level, hidden, nn.GELU(), nn.Linear(width, width))
        case Connector.QFORMER:
            connector = nn.Sequential(level, _qformer(config), nn.Linear(config.qformer.get("hidden_size", 768), width))
    parts = {"connector": connector}
    if config.project:
        parts["project"] = nn.Linear(config.text_width, config.text_width)
    return nn.ModuleDict(parts)


def start_bridge(bridge: nn.ModuleDict, table: Tensor) -> None:
    """Scale a new connector's output like word vectors, in place, and set the projection to identity.

    Args:
        bridge: The modules of `build_bridge`.
        table: (vocabulary, word_width), the vectors of all words.
    """
    import torch

    last: Any = list(bridge["connector"].children())[-1]
    with torch.no_grad():
        words = table.float()
        last.weight.normal_(std=last.in_features**-0.5).mul_(words.std(0)[:, None])
        last.bias.copy_(words.mean(0))
        if "project" in bridge:
            set_projection(bridge, torch.eye(bridge["project"].get_parameter("weight").shape[0]))


def set_projection(bridge: nn.ModuleDict, matrix: Tensor, offset: Tensor | None = None) -> None:
    """Set the projection to a matrix (width, width) and an added offset (width,), in place."""
    import torch

    with torch.no_grad():
        bridge["project"].get_parameter("weight").copy_(matrix)
        own = bridge["project"].get_parameter("bias")
        own.copy_(torch.zeros_like(own) if offset is None else offset)


def _qformer(config: ConnectorConfig) -> nn.Module:
    import torch
    from huggingface_hub.errors import StrictDataclassError
    from torch import nn

    try:
        from transformers import Blip2QFormerConfig, Blip2QFormerModel
    except ImportError:
        raise MissingExtraError("transformers 5", "bridge", "A Q-Former") from None

    class QFormer(nn.Module):
        """Image features to the outputs of the queries."""

        def __init__(self, asked: Any) -> None:
            super().__init__()
            # Not zeros, as in transformers before a checkpoint is loaded: equal queries would stay equal.
            self.queries = nn.Parameter(torch.randn(config.queries, asked.hidden_size) * asked.initializer_range)
            self.qformer = Blip2QFormerModel(asked)

        def forward(self, features: Tensor) -> Tensor:
            queries = self.queries.expand(len(features), -1, -1)
            found: Tensor = self.qformer(query_embeds=queries, encoder_hidden_states=features).last_hidden_state
            return found

    try:
        asked = Blip2QFormerConfig(**{**config.qformer, "encoder_hidden_size": config.feature_width})
        return QFormer(asked)
    except (StrictDataclassError, TypeError, ValueError, KeyError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
        raise CallError(f"A Q-Former cannot be made of {dict(config.qformer)}: {reason}") from error
