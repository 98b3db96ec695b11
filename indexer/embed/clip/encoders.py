"""The encoders of most CLIP folders in plain torch, so that a search starts without importing several libraries.

open_clip imports torchvision, timm and transformers, which takes several seconds. These are its text transformer, its
vision transformer and timm's `resnet10t`, with the same weight names. `build` returns None for any other configuration,
and open_clip builds it. Tests compare the vectors of both.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

RESNET = "resnet10t"
_BOTH = frozenset({"width", "layers", "mlp_ratio", "ls_init_value"})
_VISION = _BOTH | {"head_width", "patch_size", "image_size"}
_RESNET = frozenset({"timm_model_name", "timm_pool", "timm_proj", "image_size"})
_TEXT = _BOTH | {"heads", "context_length", "vocab_size", "pool_type", "pad_id", "eos_id"}
_TOP = frozenset({
    "embed_dim", "quick_gelu", "init_logit_scale", "init_logit_bias", "nonscalar_logit_scale", "vision_cfg", "text_cfg",
})  # fmt: skip
_SILENT = frozenset({None, False, ""})
"""Values of other keys that equal the defaults."""


def can_build(config: Mapping[str, Any]) -> bool:
    """Whether a model of that configuration, from `clip_config.read_config`, can be built here."""
    vision, text = config["vision_cfg"], config["text_cfg"]
    if not _only(config, _TOP) or not _only(text, _TEXT) or text.get("pool_type", "argmax") != "argmax":
        return False
    if vision.get("timm_model_name"):
        of_timm = (vision["timm_model_name"], vision.get("timm_pool", "avg"), vision.get("timm_proj", "linear"))
        return _only(vision, _RESNET) and of_timm == (RESNET, "avg", "linear")
    return _only(vision, _VISION) and isinstance(vision.get("layers", 12), int)


def _only(values: Mapping[str, Any], known: frozenset[str]) -> bool:
    plain = {key: value for key, value in values.items() if key not in known}
    return all(not isinstance(value, list | dict) and value in _SILENT for value in plain.values())


def build(config: Mapping[str, Any], custom_text: bool) -> Any:
    """The model without weights: its parameters have only shapes until a state dict is assigned to them.

    Args:
        config: A configuration that `can_build` accepts.
        custom_text: Whether the names of the text encoder's weights begin with `text.`.

    Returns:
        A module with open_clip's `visual`, `encode_image`, `encode_text` and `logit_scale`.
    """
    import torch

    with torch.device("meta"):
        return _classes()["clip"](config, custom_text)


def settle(model: Any) -> Any:
    """The model with its computed buffers, in evaluation mode; call it once the weights are loaded."""
    text = getattr(model, "text", model)
    text.attn_mask = causal_mask(text.context_length)
    return model.eval()


def causal_mask(length: int) -> Tensor:
    """(length, length) float32: 0 where a token may attend, minus infinity at later tokens."""
    import torch

    return torch.full((length, length), float("-inf")).triu_(1)


_made: dict[str, Any] = {}


def _classes() -> dict[str, Any]:
    """The classes, created when torch is first needed."""
    if not _made:
        _made.update(_define())
    return _made


def _define() -> dict[str, Any]:  # noqa: C901  # classes, each simple; torch is not imported before they are needed
    import torch
    from torch import nn
    from torch.nn import functional

    class QuickGELU(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * torch.sigmoid(1.702 * x)

    class LayerScale(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.gamma = nn.Parameter(torch.empty(width))

        def forward(self, x: Tensor) -> Tensor:
            return x * self.gamma

    class Block(nn.Module):
        """Attention and a two-layer MLP, both with residual connections."""

        def __init__(self, cfg: Mapping[str, Any], width: int, heads: int, quick: bool) -> None:
            super().__init__()
            scaled, wide = cfg.get("ls_init_value") is not None, int(width * cfg.get("mlp_ratio", 4.0))
            self.ln_1 = nn.LayerNorm(width)
            self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
            self.ls_1 = LayerScale(width) if scaled else nn.Identity()
            self.ln_2 = nn.LayerNorm(width)
            self.mlp = nn.Sequential(
                OrderedDict(
                    c_fc=nn.Linear(width, wide), gelu=QuickGELU() if quick else nn.GELU(), c_proj=nn.Linear(wide, width)
                )
            )
            self.ls_2 = LayerScale(width) if scaled else nn.Identity()

        def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
            own = self.ln_1(x)
            mask = None if mask is None else mask.to(x.dtype)
            x = x + self.ls_1(self.attn(own, own, own, need_weights=False, attn_mask=mask)[0])
            result: Tensor = x + self.ls_2(self.mlp(self.ln_2(x)))
            return result

    class Transformer(nn.Module):
        def __init__(self, cfg: Mapping[str, Any], width: int, heads: int, quick: bool) -> None:
            super().__init__()
            self.width, self.layers = width, int(cfg.get("layers", 12))
            self.resblocks = nn.ModuleList([Block(cfg, width, heads, quick) for _ in range(self.layers)])

        def forward(self, x: Tensor, mask: Tensor | None = None, upto: int | None = None) -> Tensor:
            for block in self.resblocks if upto is None else self.resblocks[: upto + 1]:
                x = block(x, mask)
            return x

    class TextPart(nn.Module):
        """open_clip's text transformer: a separate module, or the base of the model if its weights have no prefix."""

        def add_text(self, cfg: Mapping[str, Any], dim: int, quick: bool) -> None:
            width = int(cfg.get("width", 512))
            self.context_length, self.vocab_size = int(cfg.get("context_length", 77)), int(cfg.get("vocab_size", 49408))
            self.pool_type = "argmax"
            # The default initialization would make torch import a compiler, two seconds, for numbers that are not used.
            self.token_embedding = nn.Embedding(self.vocab_size, width, _weight=torch.empty(self.vocab_size, width))
            self.positional_embedding = nn.Parameter(torch.empty(self.context_length, width))
            self.transformer = Transformer(cfg, width, int(cfg.get("heads", 8)), quick)
            self.ln_final = nn.LayerNorm(width)
            self.text_projection = nn.Parameter(torch.empty(width, dim))
            self.register_buffer("attn_mask", None, persistent=False)

        def read(self, tokens: Tensor) -> Tensor:
            """(n, length) token ids to (n, dim) features, read at each text's token of the largest id."""
            x = self.token_embedding(tokens) + self.positional_embedding[: tokens.shape[1]]
            x = self.ln_final(self.transformer(x, self.attn_mask))
            pooled: Tensor = x[torch.arange(len(x), device=x.device), tokens.argmax(dim=-1)] @ self.text_projection
            return pooled

    class Text(TextPart):
        def __init__(self, cfg: Mapping[str, Any], dim: int, quick: bool) -> None:
            super().__init__()
            self.add_text(cfg, dim, quick)

        def forward(self, tokens: Tensor) -> Tensor:
            return self.read(tokens)

    class Shown(nn.Module):
        """An image encoder that exposes its layers through open_clip's method."""

        depth: int

        def forward_intermediates(
            self, x: Tensor, indices: Sequence[int], stop_early: bool = True, intermediates_only: bool = True,
            output_fmt: str = "NCHW",
        ) -> dict[str, list[Tensor]]:  # fmt: skip
            """The output of each requested layer, (n, channels, height, width), as from open_clip's method."""
            if not all(-self.depth <= index < self.depth for index in indices):
                raise AssertionError(f"The encoder has {self.depth} layers.")
            return {"image_intermediates": [self.grid(x, index % self.depth) for index in indices]}

        def grid(self, x: Tensor, layer: int) -> Tensor:
            raise NotImplementedError

    class Vision(Shown):
        """open_clip's vision transformer, with a class token."""

        def __init__(self, cfg: Mapping[str, Any], dim: int, quick: bool) -> None:
            super().__init__()
            width, patch = int(cfg.get("width", 768)), _two(cfg.get("patch_size", 16))
            self.image_size = _two(cfg.get("image_size", 224))
            self.places = (self.image_size[0] // patch[0], self.image_size[1] // patch[1])
            self.conv1 = nn.Conv2d(3, width, patch, stride=patch, bias=False)
            self.class_embedding = nn.Parameter(torch.empty(width))
            self.positional_embedding = nn.Parameter(torch.empty(math.prod(self.places) + 1, width))
            self.ln_pre = nn.LayerNorm(width)
            self.transformer = Transformer(cfg, width, width // int(cfg.get("head_width", 64)), quick)
            self.depth = self.transformer.layers
            self.ln_post = nn.LayerNorm(width)
            self.proj = nn.Parameter(torch.empty(width, dim))

        def embedded(self, x: Tensor) -> Tensor:
            x = self.conv1(x).flatten(2).permute(0, 2, 1)
            first = self.class_embedding.view(1, 1, -1).expand(len(x), -1, -1).to(x.dtype)
            result: Tensor = self.ln_pre(torch.cat([first, x], dim=1) + self.positional_embedding.to(x.dtype))
            return result

        def grid(self, x: Tensor, layer: int) -> Tensor:
            x = self.transformer(self.embedded(x), upto=layer)[:, 1:]
            return x.reshape(len(x), *self.places, -1).permute(0, 3, 1, 2).contiguous()

        def forward(self, x: Tensor) -> Tensor:
            pooled: Tensor = self.ln_post(self.transformer(self.embedded(x)))[:, 0] @ self.proj
            return pooled

    class Basic(nn.Module):
        """Two convolutions with a residual connection."""

        def __init__(self, inner: int, outer: int) -> None:
            super().__init__()
            stride = 1 if inner == outer else 2
            self.conv1 = nn.Conv2d(inner, outer, 3, stride, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(outer)
            self.conv2 = nn.Conv2d(outer, outer, 3, 1, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(outer)
            self.downsample = None
            if stride == 2:
                self.downsample = nn.Sequential(
                    nn.AvgPool2d(2, 2, ceil_mode=True, count_include_pad=False),
                    nn.Conv2d(inner, outer, 1, bias=False),
                    nn.BatchNorm2d(outer),
                )

        def forward(self, x: Tensor) -> Tensor:
            own = x if self.downsample is None else self.downsample(x)
            y = functional.relu(self.bn1(self.conv1(x)), inplace=True)
            return functional.relu(self.bn2(self.conv2(y)) + own, inplace=True)

    class Trunk(nn.Module):
        """timm's resnet10t."""

        def __init__(self) -> None:
            super().__init__()
            self.conv1 = nn.Sequential(
                nn.Conv2d(3, 24, 3, 2, 1, bias=False), nn.BatchNorm2d(24), nn.ReLU(inplace=True),
                nn.Conv2d(24, 32, 3, 1, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU(inplace=True),
                nn.Conv2d(32, 64, 3, 1, 1, bias=False),
            )  # fmt: skip
            self.bn1 = nn.BatchNorm2d(64)
            for number, (inner, outer) in enumerate(((64, 64), (64, 128), (128, 256), (256, 512)), 1):
                setattr(self, f"layer{number}", nn.Sequential(Basic(inner, outer)))

        def forward(self, x: Tensor, upto: int = 4) -> Tensor:
            x = functional.relu(self.bn1(self.conv1(x)), inplace=True)
            for number in range(1, upto + 1):
                x = functional.max_pool2d(x, 3, 2, 1) if number == 1 else x
                x = getattr(self, f"layer{number}")(x)
            return x

    class ResNet(Shown):
        depth = 5

        def __init__(self, cfg: Mapping[str, Any], dim: int) -> None:
            super().__init__()
            self.image_size = _two(cfg.get("image_size", 224))
            self.trunk = Trunk()
            self.head = nn.Sequential(OrderedDict(drop=nn.Dropout(0.0), proj=nn.Linear(512, dim, bias=False)))

        def grid(self, x: Tensor, layer: int) -> Tensor:
            found: Tensor = self.trunk(x, layer)
            return found

        def forward(self, x: Tensor) -> Tensor:
            pooled: Tensor = self.head(self.trunk(x).mean((2, 3)))
            return pooled

    class Clip(TextPart):
        def __init__(self, config: Mapping[str, Any], custom_text: bool) -> None:
            super().__init__()
            vision, dim, quick = config["vision_cfg"], int(config["embed_dim"]), bool(config.get("quick_gelu", False))
            self.visual = ResNet(vision, dim) if vision.get("timm_model_name") else Vision(vision, dim, quick)
            if custom_text:
                self.text = Text(config["text_cfg"], dim, quick)
                self.context_length, self.vocab_size = self.text.context_length, self.text.vocab_size
            else:
                self.add_text(config["text_cfg"], dim, quick)
            shape = [1] if config.get("nonscalar_logit_scale") else []
            self.logit_scale = nn.Parameter(torch.empty(shape))
            biased = config.get("init_logit_bias") is not None
            self.logit_bias = nn.Parameter(torch.empty(shape)) if biased else None

        def encode_image(self, image: Tensor, normalize: bool = False) -> Tensor:
            features = self.visual(image)
            return functional.normalize(features, dim=-1) if normalize else features

        def encode_text(self, tokens: Tensor, normalize: bool = False) -> Tensor:
            features = self.text(tokens) if hasattr(self, "text") else self.read(tokens)
            return functional.normalize(features, dim=-1) if normalize else features

    return {"clip": Clip}


def _two(size: int | Sequence[int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size[0], size[1])
