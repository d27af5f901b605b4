"""The recipes. A new one is an entry here; its task and method stand in ``benchmarks.gains.tasks``."""

from __future__ import annotations

from fenland.lab.recipes.recipe import Recipe

_IMAGES = """
import torch
import fenland
from torch.nn.functional import cross_entropy

# yours: model, epochs, loader (batches of images and class numbers)
weights, steps = model.parameters(), epochs * len(loader)
base = torch.optim.SGD(weights, lr={lr}, momentum=0.9, weight_decay=5e-4)
opt = fenland.SAM(base, rho={rho}, model=model)
rates = torch.optim.lr_scheduler.OneCycleLR(
    opt, {lr}, steps, cycle_momentum=False)
for _ in range(epochs):
    for images, labels in loader:
        def closure():
            opt.zero_grad()
            loss = cross_entropy(model(images), labels)
            loss.backward()
            return loss
        opt.step(closure)
        rates.step()
"""

_LATE = _IMAGES.replace(
    "opt = fenland.SAM(base, rho={rho}, model=model)",
    "late = fenland.Window(start=steps * 3 // 4)\nopt = fenland.SAM(base, rho={rho}, model=model, when=late)",
)

_TEXTS = """
import torch
import fenland

# yours: model (AutoModelForSequenceClassification.from_pretrained),
# epochs, loader (batches of the model's inputs, with labels)
weights, steps = model.parameters(), epochs * len(loader)
base = torch.optim.AdamW(weights, lr={lr}, weight_decay=0.01)
opt = fenland.SAM(base, rho={rho}, model=model)
rates = torch.optim.lr_scheduler.OneCycleLR(
    opt, {lr}, steps, cycle_momentum=False)
for _ in range(epochs):
    for batch in loader:
        def closure():
            opt.zero_grad()
            loss = model(**batch).loss
            loss.backward()
            return loss
        opt.step(closure)
        rates.step()
"""

_ADAPTERS = _TEXTS.replace("import fenland\n", "import fenland\nfrom peft import LoraConfig, get_peft_model\n").replace(
    "weights, steps = model.parameters(), epochs * len(loader)\n",
    'lora = LoraConfig(\n    task_type="SEQ_CLS", r=8, lora_alpha=16, lora_dropout=0.1)\n'
    "model = get_peft_model(model, lora)\n"
    "weights = [w for w in model.parameters() if w.requires_grad]\n"
    "steps = epochs * len(loader)\n",
)

_EVERY, _TWO = "every step", "2 gradients a step"
_ONE_CYCLE = "one cycle: rises over 30 % of the steps, then falls to 0"
_OF_IMAGES = {"model": "convnet", "schedule": "one-cycle", "data": "cifar10"}
_SMALL = {**_OF_IMAGES, "limit": "5000", "epochs": "40"}
_OF_TEXTS = {
    "base": "adamw", "data": "DIR", "model": "sentence-transformers/all-MiniLM-L6-v2", "schedule": "one-cycle",
    "epochs": "3", "batch_size": "32", "weight_decay": "0.01",
}  # fmt: skip
_SEARCHED = "one of the points that the plan searches, not chosen by a run yet"

_ALL = (
    Recipe(
        "images",
        "Images from scratch, with SGD",
        "Train long enough first: a network that has not settled is better served by more epochs of SGD.",
        task="cifar10", method="SAM", preset="SAM", start=(0.2, 0.1, _SEARCHED),
        cost=_TWO, when=_EVERY, schedule=_ONE_CYCLE, code=_IMAGES,
        fields={**_OF_IMAGES, "epochs": "12", "batch_size": "256"},
    ),
    Recipe(
        "late",
        "Images from scratch, cheaper: SAM in the last quarter of the training",
        "For those who cannot pay two gradients a step. Set start= from your own number of steps.",
        task="cifar10-5k", method="late SAM", preset="WindowSAM", start=(0.2, 0.1, _SEARCHED),
        cost="1.25 gradients a step on average", when="the last quarter of the steps", schedule=_ONE_CYCLE, code=_LATE,
        fields={**_SMALL, "options": "windowsam:start=1170"},
    ),
    Recipe(
        "noisy-labels",
        "Images with wrong labels among them",
        "A base that trains on learns the wrong labels by heart; compare with a base that is stopped early, too.",
        task="cifar10-5k-noise40", method="SAM", preset="SAM", start=(0.2, 0.3, _SEARCHED),
        cost=_TWO, when=_EVERY, schedule=_ONE_CYCLE, code=_IMAGES, fields={**_SMALL, "label_noise": "0.4"},
    ),
    Recipe(
        "small-data",
        "Few images, many epochs: the network fits all of them",
        "Judge by test loss and calibration beside accuracy, and against a base with the same seconds.",
        task="cifar10-5k", method="SAM", preset="SAM", start=(0.2, 0.1, _SEARCHED),
        cost=_TWO, when=_EVERY, schedule=_ONE_CYCLE, code=_IMAGES, fields=_SMALL,
    ),
    Recipe(
        "transformer",
        "Fine-tuning a transformer, with AdamW",
        "Search rho around the value here: published radii of fine-tuning lie from 1e-4 to 0.1.",
        task="reviews-2k", method="SAM", preset="SAM", start=(1e-4, 0.05, _SEARCHED),
        cost=_TWO, when=_EVERY, schedule=_ONE_CYCLE, code=_TEXTS, fields={**_OF_TEXTS, "limit": "2000"},
    ),
    Recipe(
        "lora",
        "Fine-tuning adapters (LoRA) in a transformer",
        "Only the adapters and the head are trained, so only they are moved by the ascent; the base gets no others.",
        task="reviews-2k-lora", method="SAM", preset="SAM", start=(1e-3, 0.05, _SEARCHED),
        cost=_TWO, when=_EVERY, schedule=_ONE_CYCLE, code=_ADAPTERS,
        fields={**_OF_TEXTS, "limit": "2000", "lora": "8"},
    ),
)  # fmt: skip

RECIPES: dict[str, Recipe] = {recipe.name: recipe for recipe in _ALL}
