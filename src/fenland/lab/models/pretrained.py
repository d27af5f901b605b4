"""Pre-trained transformers that classify texts, from the Hugging Face hub or from a folder."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from fenland.lab import huggingface
from fenland.lab.config import RunConfig
from fenland.lab.errors import BadInput
from fenland.lab.store.files import feed

LOCAL = "local"  # what a model from a folder is called: the folder's own name says where it lies, not what it is
T = TypeVar("T")
# What fixes a model's numbers: its configuration, its weights, its tokenizer.
_COUNT = (".json", ".safetensors", ".bin", ".txt", ".model")


class Pretrained(nn.Module):
    """A transformer with a new head of ``classes`` outputs, drawn from torch's global generator.

    Its input is what ``TokenBatches`` gives: numbers of tokens, shape (examples, tokens), negative where a text has
    ended. Attention is computed in plain operations, so that the diagnostics can differentiate it twice; on short texts
    and one CPU core it is as fast as the fused one.

    Args:
        config: the run: ``model`` and ``model_dir`` say which, ``lora`` what of it is trained.

    Raises:
        BadInput: there is no such model, or it cannot classify.
    """

    def __init__(self, config: RunConfig, classes: int) -> None:
        super().__init__()
        from transformers import AutoModelForSequenceClassification

        def load(source: str, **more: Any) -> Any:
            return AutoModelForSequenceClassification.from_pretrained(
                source, num_labels=classes, attn_implementation="eager", dtype=torch.float32, **more
            )

        model = _loaded(config, load)
        model.train()
        self.network = _with_adapters(model, config) if config.lora else model

    def forward(self, tokens: Tensor) -> Tensor:
        """The logits, shape (examples, classes)."""
        there = tokens >= 0
        logits: Tensor = self.network(input_ids=tokens.clamp(min=0), attention_mask=there.long()).logits
        return logits


def named(model: str) -> bool:
    """Whether a model's name is one of a pre-trained one: a name on the hub, or a folder."""
    # A folder counts by what it holds: one that happens to be called lenet must not hide the network of that name.
    return model == LOCAL or os.sep in model or "/" in model or (Path(model) / "config.json").is_file()


def identify(config: RunConfig) -> RunConfig:
    """A pre-trained model's folder in its place, and ``model_id``, the hash of its files; other runs as they are.

    Raises:
        BadInput: the folder holds no model, or there are adapters without one.
    """
    if not named(config.model):
        for name, value in (("lora", config.lora), ("max_tokens", config.max_tokens)):
            if value:
                raise BadInput(name, value, f"is for pre-trained transformers, not for {config.model}; leave it out")
        return config
    path = Path(config.model_dir or config.model).expanduser()
    shaped = config.model.startswith((".", "~", os.sep)) or config.model == LOCAL
    if not (path.is_dir() or shaped):
        return config
    if not (path / "config.json").is_file() or not any(path.glob("*.safetensors")):
        problem = "holds no config.json with *.safetensors" if path.is_dir() else "no such directory"
        raise BadInput(
            "model", path, f"{problem}; give the folder that save_pretrained wrote, or a hub name owner/name"
        )
    return dataclasses.replace(config, model=LOCAL, model_dir=str(path), model_id=_identity(path))


def tokenizer(config: RunConfig) -> Callable[[Sequence[str]], Sequence[Sequence[int]]]:
    """From texts to the numbers of their tokens, cut to ``max_tokens`` and to what the model takes.

    Raises:
        BadInput: there is no such tokenizer.
    """
    from transformers import AutoConfig, AutoTokenizer

    made = _loaded(config, AutoTokenizer.from_pretrained)
    positions = getattr(_loaded(config, AutoConfig.from_pretrained), "max_position_embeddings", None)
    most = min(each for each in (config.max_tokens, made.model_max_length, positions) if each)

    def tokenize(texts: Sequence[str]) -> Sequence[Sequence[int]]:
        found: list[list[int]] = made(list(texts), truncation=True, max_length=most)["input_ids"]
        return found

    return tokenize


def _with_adapters(model: Any, config: RunConfig) -> Any:
    """LoRA (Hu et al. 2022, arXiv:2106.09685) as ``peft`` places it for this architecture, alpha = 2 rank."""
    try:
        from peft import LoraConfig, TaskType, get_peft_model
    except ImportError:
        raise BadInput("lora", config.lora, "needs peft; install fenland[text]") from None
    adapters = LoraConfig(task_type=TaskType.SEQ_CLS, r=config.lora, lora_alpha=2 * config.lora, lora_dropout=0.1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft asks transformers by a name that goes
        return get_peft_model(model, adapters)


def _loaded(config: RunConfig, load: Callable[..., T]) -> T:
    """Call a ``from_pretrained`` with the model's place, quietly; without a network it takes what is here."""
    try:
        import transformers  # noqa: F401
    except ImportError:
        raise BadInput("model", config.model, "needs transformers; install fenland[text]") from None
    name, _, revision = config.model.partition("@")
    local = config.model_dir is not None
    answers = local or huggingface.answers(name, "model")
    more = {"revision": revision} if revision else {}
    with _quiet(), contextlib.nullcontext() if answers and not local else huggingface.offline():
        try:
            return load(config.model_dir or name, **more)
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            said = (str(error).strip().splitlines() or [""])[0][:120]
            if not answers:
                said = "no network, and it is not in the hub's cache here"
            cure = f"not loaded ({said}); check name and network, or give the folder of a copy"
            raise BadInput("model", config.model_dir or name, cure) from None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the library's report of the head that is new."""
    from transformers.utils import logging as untyped

    logging: Any = untyped
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _identity(path: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted(each for each in path.iterdir() if each.suffix in _COUNT):
        digest.update(f"\0{file.name}\0".encode())
        feed(digest, file)
    return digest.hexdigest()[:16]
