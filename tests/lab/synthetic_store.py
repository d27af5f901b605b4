"""A store of invented runs: TEST DATA, drawn from formulas and a seeded generator; nothing was trained."""

import json
from pathlib import Path
from zlib import crc32

import numpy as np
import pandas as pd

from fenland.lab.store.seal import seal

# optimizer -> (final test accuracy, final test loss, sharpness, gamma, gradient evaluations a step)
INVENTED = {
    "sgd": (0.950, 0.200, np.nan, np.nan, 1),
    "sam": (0.965, 0.150, 0.030, 0.70, 2),
    "usam": (0.958, 0.170, 0.020, 0.80, 2),
    "ssam": (0.967, 0.145, 0.028, 0.72, 2),
}
STEPS = 20  # an epoch


def write_store(out, optimizers=("sgd", "sam", "ssam"), seeds=3, epochs=12, diverged=(), spread=0.002, command=True):
    """Write an invented store; ``diverged`` holds (optimizer, seed) pairs whose run breaks off half-way."""
    for optimizer in optimizers:
        for seed in range(seeds):
            stopped = (optimizer, seed) in diverged
            write_run(Path(out), optimizer, seed, epochs, stopped=stopped, spread=spread)
    if command:
        content = {
            "command": f"fenland compare --data invented --optimizers {' '.join(optimizers)} --seeds {seeds}",
            "optimizers": list(optimizers),
            "baseline": optimizers[0],
        }
        (Path(out) / "compare.json").write_text(json.dumps(content))
    return Path(out)


def write_run(out, optimizer, seed, epochs=12, stopped=False, spread=0.002, **settings):
    accuracy, loss, sharpness, gamma, evaluations = INVENTED[optimizer]
    shared = np.random.default_rng(seed).normal(scale=spread)
    own = np.random.default_rng([seed, *optimizer.encode()]).normal(scale=spread / 3, size=epochs)
    epoch = np.arange(1, epochs + 1)
    approach = np.exp(-5 * epoch / epochs)
    metrics = pd.DataFrame(
        {
            "epoch": epoch,
            "lr": 0.1 * (1 + np.cos(np.pi * epoch / epochs)) / 2,
            "train_loss": 2.3 * approach + loss / 5,
            "train_accuracy": 0.995 - 0.8 * approach,
            "train_eval_loss": 2.2 * approach + loss / 6,
            "test_loss": 2.1 * approach + loss - 4 * (shared + own),
            "test_accuracy": accuracy - 0.7 * approach + shared + own,
            "gamma": gamma + 0.2 * approach + 5 * own,
            "sharpness": sharpness * (1 + 3 * approach) + own,
            "grad_norm": 0.1 + approach,
            "ascent_grad_norm": (0.1 + approach) / gamma,
            "radius": 0.05 if evaluations > 1 else np.nan,
            "gradient_evaluations": STEPS * evaluations * epoch,
            "seconds": 0.4 * evaluations * epoch * (1 + 0.05 * seed),
        }
    )
    if stopped:
        metrics = metrics.head(epochs // 2).copy()
        metrics.loc[metrics.index[-1], ["train_loss", "test_loss"]] = np.nan
    last = metrics.iloc[-1]
    config = {
        "data": "invented", "data_dir": None, "model": "mlp", "optimizer": optimizer,
        "rho": 0.05 if evaluations > 1 else None, "lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4, "batch_size": 64,
        "epochs": epochs, "schedule": "cosine", "seed": seed, "limit": None, "augment": False,
    } | settings  # fmt: skip
    result = {
        "status": "diverged" if stopped else "finished", "epochs": len(metrics), "train_loss": last.train_eval_loss,
        "train_accuracy": last.train_accuracy, "test_loss": last.test_loss, "test_accuracy": last.test_accuracy,
        "loss_gap": last.test_loss - last.train_eval_loss, "accuracy_gap": last.train_accuracy - last.test_accuracy,
        "seconds": last.seconds, "gradient_evaluations": int(last.gradient_evaluations), "parameters": 4810,
    }  # fmt: skip
    environment = {"python": "3.11", "torch": "2.13.0", "platform": "invented", "cpu": "invented", "threads": 2}
    mark = crc32(json.dumps(settings).encode()) if settings else ""
    folder = out / "runs" / f"{optimizer}{seed:04d}{mark}"
    folder.mkdir(parents=True)
    metrics.to_parquet(folder / "metrics.parquet")
    for name, content in (("config", config), ("result", result), ("environment", environment)):
        (folder / f"{name}.json").write_text(json.dumps(content))
    seal(folder)
    return folder
