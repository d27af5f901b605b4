"""A small vision transformer (Dosovitskiy et al. 2021, arXiv:2010.11929, equations 1 to 4)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, pad, scaled_dot_product_attention

from fenland.lab.errors import BadInput
from fenland.lab.models.parts import at_least


class ViT(nn.Module):
    """Patches of 4x4, a class token, learned positions, pre-norm encoder layers, the classes from the class token.

    Attention is ``torch.nn.functional.scaled_dot_product_attention``. Its fused backends have no second derivative: for
    curvature, run the forward pass inside ``torch.nn.attention.sdpa_kernel(SDPBackend.MATH)``. Images whose sides are
    no multiple of the patch get zeros on the right and below. With the defaults: 2,693,578 parameters for CIFAR-10.

    Args:
        shape: channels, height and width of an image; both sides at least one patch.
        patch: side of a patch in pixels.
        width: of a token.
        depth: encoder layers.
        heads: of the attention; they divide the width.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        classes: int,
        patch: int = 4,
        width: int = 192,
        depth: int = 6,
        heads: int = 3,
    ) -> None:
        super().__init__()
        at_least(patch, shape, "vit")
        if width % heads:
            raise BadInput("heads", heads, f"give a divisor of the width {width}")
        channels, height, across = shape
        self.frame = (0, -across % patch, 0, -height % patch)
        tokens = -(-height // patch) * -(-across // patch) + 1
        self.embed = nn.Conv2d(channels, width, patch, stride=patch)
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.position = nn.Parameter(torch.empty(1, tokens, width))
        self.layers = nn.Sequential(*(_Layer(width, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, classes)
        nn.init.normal_(self.position, std=0.02)
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)

    def forward(self, images: Tensor) -> Tensor:
        patches = self.embed(pad(images, self.frame)).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(images), -1, -1), patches], 1) + self.position
        logits: Tensor = self.out(self.norm(self.layers(x)[:, 0]))
        return logits


class _Layer(nn.Module):
    """Attention and a perceptron of four times the width with GELU, each after a layer norm and added (eq. 2, 3)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self._attend(self.norm1(x))
        summed: Tensor = x + self.down(gelu(self.up(self.norm2(x))))
        return summed

    def _attend(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        # (batch, tokens, 3 * width) -> three times (batch, heads, tokens, width / heads)
        query, key, value = self.qkv(x).view(batch, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = scaled_dot_product_attention(query, key, value)
        attended: Tensor = self.project(mixed.transpose(1, 2).reshape(batch, tokens, width))
        return attended
