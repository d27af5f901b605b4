"""Everything that a run carries from step to step, as tensors and plain values, and back."""

from __future__ import annotations

from typing import Any

import torch

from fenland.lab.training.engine import Engine


def snapshot(engine: Engine) -> dict[str, Any]:
    """Model, optimizer, scaler, random generators. All processes call it; the result is the first one's to keep."""
    model, optimizer = _states(engine)
    return {
        "model": model,
        "optimizer": optimizer,
        "scaler": None if engine.scaler is None else engine.scaler.state_dict(),
        "random": engine.world.gather(_random(engine.device)),
        "evaluations": engine.evaluations,
    }


def restore(engine: Engine, content: dict[str, Any]) -> None:
    """Bring the engine to where ``snapshot`` was taken, bit by bit."""
    if engine.config.strategy == "fsdp" and engine.world.size > 1:
        from torch.distributed.checkpoint.state_dict import StateDictOptions, set_state_dict

        options = StateDictOptions(full_state_dict=True)
        set_state_dict(
            engine.inner,
            engine.optimizer,
            model_state_dict=content["model"],
            optim_state_dict=content["optimizer"],
            options=options,
        )
    else:
        engine.model.load_state_dict(content["model"])
        engine.optimizer.load_state_dict(content["optimizer"])
    if engine.scaler is not None:
        engine.scaler.load_state_dict(content["scaler"])
    engine.evaluations = content["evaluations"]
    _set_random(engine.device, content["random"][engine.world.rank])


def _states(engine: Engine) -> tuple[dict[str, Any], dict[str, Any]]:
    if engine.config.strategy == "fsdp" and engine.world.size > 1:
        from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict

        return get_state_dict(engine.inner, engine.optimizer, options=StateDictOptions(full_state_dict=True))
    return engine.model.state_dict(), engine.optimizer.state_dict()


def _random(device: torch.device) -> dict[str, Any]:
    found = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        found["cuda"] = torch.cuda.get_rng_state(device)
    if device.type == "mps":
        found["mps"] = torch.mps.get_rng_state()
    return found


def _set_random(device: torch.device, found: dict[str, Any]) -> None:
    torch.set_rng_state(found["cpu"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(found["cuda"], device)
    if device.type == "mps":
        torch.mps.set_rng_state(found["mps"])
