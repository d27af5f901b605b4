"""What a run is about: images and a network, or texts and a pre-trained transformer."""

from __future__ import annotations

from typing import TypeAlias

import torch
from torch import nn

from fenland.lab import data
from fenland.lab.config import RunConfig
from fenland.lab.models import build_model, pretrained

Examples: TypeAlias = "data.Images | data.Tokens"


def load_examples(config: RunConfig) -> Examples:
    """The decoded images of a run, or its texts in the tokens of its model."""
    if pretrained.named(config.model):
        return data.load_texts(config, pretrained.tokenizer(config))
    return data.load(config)


def make_batches(
    examples: Examples, config: RunConfig, device: torch.device, dtype: torch.dtype, rank: int = 0, world: int = 1
) -> data.Batches | data.TokenBatches:
    """The batches of a run; see there."""
    if isinstance(examples, data.Tokens):
        return data.TokenBatches(examples, device, config.batch_size, config.seed, rank=rank, world=world)
    return data.Batches(
        examples,
        device,
        config.batch_size,
        config.seed,
        augment=config.augment,
        dtype=dtype,
        cutout=config.cutout,
        cutout_share=config.cutout_share,
        rank=rank,
        world=world,
    )


def make_model(config: RunConfig, examples: Examples) -> nn.Module:
    """The model of a run with its first weights, drawn from torch's global generator."""
    if isinstance(examples, data.Tokens):
        return pretrained.Pretrained(config, len(examples.classes))
    return build_model(config.model, examples.shape, len(examples.classes))
