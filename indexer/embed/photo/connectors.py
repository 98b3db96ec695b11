"""The trained connectors of the photo model: they map features of both frozen models to vectors of one space.

Each is a projection, a few transformer layers (pre-norm: Xiong et al. 2020, arXiv:2002.04745) and an output projection.
The image side reads the averaged feature and the places of the grid. The text side reads the states of all tokens and,
bypassing its layers, their mean, which is the vector that the text model was trained to compare.

This module does not know files, the frozen models, or how connectors are trained.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import nn

from indexer.embed.photo.image_encoder import EARLY_WIDTH, PLACES, WIDTH

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class ConnectorsConfig:
    """The shape of both connectors.

    Attributes:
        dim: Length of a vector.
        width: Length of an internal state.
        heads: Attention heads.
        hidden: Hidden width of a layer's MLP.
        image_layers: Layers of the image side.
        text_layers: Layers of the text side.
        text_width: Length of the text model's states.
    """

    dim: int = 256
    width: int = 256
    heads: int = 4
    hidden: int = 256
    image_layers: int = 2
    text_layers: int = 1
    text_width: int = 384


class Layer(nn.Module):
    """A transformer layer that is initialized as identity."""

    def __init__(self, config: ConnectorsConfig, dropout: float) -> None:
        super().__init__()
        width = config.width
        self.heads, self.dropout = config.heads, nn.Dropout(dropout)
        self.norm_mixing, self.norm_inner = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query_key_value, self.mixed = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.inner, self.outer = nn.Linear(width, config.hidden), nn.Linear(config.hidden, width)
        nn.init.zeros_(self.mixed.weight)
        nn.init.zeros_(self.outer.weight)

    def forward(self, states: Tensor, mask: Tensor | None = None) -> Tensor:
        """States (n, places, width), and which of them are attended to, (n, places) bool."""
        count, places, width = states.shape
        asked = self.query_key_value(self.norm_mixing(states)).view(count, places, 3, self.heads, width // self.heads)
        query, key, value = asked.permute(2, 0, 3, 1, 4)
        shown = None if mask is None else mask[:, None, None]
        mixed = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=shown)
        states = states + self.dropout(self.mixed(mixed.transpose(1, 2).reshape(count, places, width)))
        found: Tensor = states + self.dropout(self.outer(nn.functional.gelu(self.inner(self.norm_inner(states)))))
        return found


class ImageConnector(nn.Module):
    """Maps features of the image encoder to vectors.

    Args:
        config: The shape.
        dropout: Dropout of inputs and layers, in training.
        hidden_places: Share of the grid's places that are masked, in training.
    """

    def __init__(self, config: ConnectorsConfig, dropout: float = 0.0, hidden_places: float = 0.0) -> None:
        import torch

        super().__init__()
        self.hidden_places, self.dropout = hidden_places, nn.Dropout(dropout)
        self.late_mean, self.late_spread = nn.Buffer(torch.zeros(WIDTH)), nn.Buffer(torch.ones(WIDTH))
        self.early_mean, self.early_spread = nn.Buffer(torch.zeros(EARLY_WIDTH)), nn.Buffer(torch.ones(EARLY_WIDTH))
        self.late, self.early = nn.Linear(WIDTH, config.width), nn.Linear(EARLY_WIDTH, config.width)
        self.places = nn.Parameter(torch.randn(1 + PLACES, config.width) * 0.02)
        self.layers = nn.ModuleList(Layer(config, dropout) for _ in range(config.image_layers))
        self.norm, self.out = nn.LayerNorm(config.width), nn.Linear(config.width, config.dim)

    def forward(self, late: Tensor, early: Tensor) -> Tensor:
        """Unit vectors (n, dim) float32.

        Args:
            late: (n, 1 + 9, 1280), not negative.
            early: (n, 9, 280).
        """
        import torch

        # The activations resemble counts, many of them near zero: their square roots are spread more evenly.
        late = (late.clamp(min=0).sqrt() - self.late_mean) / self.late_spread
        early = ((early - self.early_mean) / self.early_spread).clamp(-8, 8)
        grid = self.early(early)
        states = self.late(self.dropout(late)) + self.places + torch.cat([grid.mean(1, keepdim=True), grid], 1)
        mask = torch.ones(states.shape[:2], dtype=torch.bool, device=states.device)
        if self.training and self.hidden_places:
            mask = torch.rand(states.shape[:2], device=states.device) > self.hidden_places
            mask[:, 0] = True
        for layer in self.layers:
            states = layer(states, mask)
        states = self.norm(states)
        mean = (states * mask[:, :, None]).sum(1) / mask.sum(1, keepdim=True)
        return nn.functional.normalize(self.out(states[:, 0] + mean).float(), dim=-1)


class TextConnector(nn.Module):
    """Maps states of the text model to vectors.

    Args:
        config: The shape.
        dropout: Dropout of inputs and layers, in training.
        hidden_tokens: Share of the tokens after the first that are masked, in training.
    """

    def __init__(self, config: ConnectorsConfig, dropout: float = 0.0, hidden_tokens: float = 0.0) -> None:
        super().__init__()
        self.hidden_tokens, self.dropout, self.heads = hidden_tokens, nn.Dropout(dropout), config.heads
        self.whole = nn.Linear(config.text_width, config.dim)
        self.tokens = nn.Linear(config.text_width, config.width)
        self.layers = nn.ModuleList(Layer(config, dropout) for _ in range(config.text_layers))
        self.norm, self.looked_at = nn.LayerNorm(config.width), nn.Linear(config.width, config.heads)
        self.out = nn.Linear(config.width, config.dim)

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """Unit vectors (n, dim) float32.

        Args:
            states: (n, tokens, text_width), the text model's last hidden states.
            mask: (n, tokens) bool, true for tokens of the text.
        """
        import torch

        count, places, width = states.shape
        mean = (states * mask[:, :, None]).sum(1) / mask.sum(1, keepdim=True)
        whole = nn.functional.normalize(mean.float(), dim=-1) * width**0.5
        if self.training and self.hidden_tokens:
            mask = mask & (torch.rand(mask.shape, device=mask.device) > self.hidden_tokens)
            mask[:, 0] = True
        inner = self.tokens(self.dropout(states))
        for layer in self.layers:
            inner = layer(inner, mask)
        inner = self.norm(inner)
        shares = self.looked_at(inner).masked_fill(~mask[:, :, None], -1e4).softmax(1)
        parts = inner.view(count, places, self.heads, -1)
        read = (shares[..., None] * parts).sum(1).reshape(count, -1)
        return nn.functional.normalize((self.whole(self.dropout(whole)) + self.out(read)).float(), dim=-1)


class Connectors(nn.Module):
    """Both sides."""

    def __init__(self, config: ConnectorsConfig, dropout: float = 0.0, hidden: float = 0.0) -> None:
        super().__init__()
        self.image = ImageConnector(config, dropout, hidden)
        self.text = TextConnector(config, dropout, hidden)
