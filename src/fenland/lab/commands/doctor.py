"""``fenland doctor``."""

from __future__ import annotations

import inspect
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import Positional

from fenland.lab import logs
from fenland.lab.commands import output
from fenland.lab.commands.option import option
from fenland.lab.errors import BadInput

if TYPE_CHECKING:
    from fenland.lab.config import RunConfig

# model, loss_fn, batches, and an optimizer or None
Patient = tuple[Any, Any, Any, Any]


@dataclass(frozen=True)
class Doctor:
    """Say whether a model's training is stable: curvature, gamma, saddle, learning rates allowed, advice.

    It looks at a stored run with weights (--run), or at what a function of yours returns: model, loss_fn(model, batch),
    batches and, if you like, the optimizer. A stored run is judged at the highest learning rate of its schedule.

    Example: fenland doctor out/demo --run 3f2a
    """

    target: Annotated[Positional[str], option(metavar="DIR|MODULE:FUNCTION")]
    """The --out of a comparison that kept weights, or module:function from here or an installed package."""
    run_hash: Annotated[str, option(name="run", metavar="HASH")] = ""
    """The stored run: the first letters of its hash are enough. Not needed where there is one with weights."""
    examples: int = 512
    """Examples of a stored run's train set that are looked at, stratified."""
    lr: Annotated[float | None, option(metavar="NUMBER")] = None
    """Judge this learning rate instead."""
    rho: Annotated[float | None, option(metavar="NUMBER")] = None
    """Judge this radius instead."""
    mode: Literal["train", "eval", "keep"] = "train"
    """How the model runs: train is what the optimizer sees."""
    hvp: Literal["autograd", "difference"] = "autograd"
    """Products with the Hessian: exact, or from gradients only, for models that cannot be differentiated twice."""
    strict: bool = False
    """End with exit code 1 where the verdict is unstable."""
    json: bool = False
    """Print one JSON document instead of the report."""

    def run(self, arguments: list[str]) -> int:
        """Print the report."""
        with logs.waiting("torch"):
            from fenland.diagnostics.doctor import diagnose

        with logs.waiting("model and data"):
            model, loss_fn, batches, optimizer = self._patient()
        for name, value in (("lr", self.lr), ("rho", self.rho)):
            self._set(optimizer, name, value)
        try:
            with logs.waiting("the measurements"):
                report = diagnose(model, loss_fn, batches, optimizer, mode=self.mode, hvp=self.hvp)
        except (ValueError, TypeError, RuntimeError) as error:
            raise BadInput("DIR", self.target, str(error)) from error
        if self.json:
            output.print_json(report.as_dict())
        else:
            print(report)
        return output.FAILED if self.strict and report.verdict == "unstable" else output.OK

    def _patient(self) -> Patient:
        if ":" in self.target:
            for name, value, default in (("run", self.run_hash, ""), ("examples", self.examples, 512)):
                if value != default:
                    raise BadInput(name, value, "is for a stored run; the function chooses its own batches")
            return _called(self.target)
        if self.examples < 1:
            raise BadInput("examples", self.examples, "give a whole number >= 1")
        if not Path(self.target).is_dir():
            cure = "no such directory; give the --out of an earlier comparison, or MODULE:FUNCTION of your own program"
            raise BadInput("DIR", self.target, cure)
        return _stored(self.target, self.run_hash, self.examples)

    @staticmethod
    def _set(optimizer: Any, name: str, value: float | None) -> None:
        if value is None:
            return
        if not value >= 0:
            raise BadInput(name, value, "give a number >= 0")
        if optimizer is None or any(name not in group for group in optimizer.param_groups):
            raise BadInput(name, value, f"there is no optimizer with a {name}")
        for group in optimizer.param_groups:
            group[name] = value


def _called(target: str) -> Patient:
    """What the function of ``module:function`` returns."""
    from importlib import import_module

    module, _, name = target.partition(":")
    sys.path.insert(0, "")  # as ``python -m`` has it: modules that lie here, those that the function imports as well
    try:
        try:
            function = getattr(import_module(module), name)
        except (ImportError, AttributeError, ValueError) as error:
            raise BadInput("DIR", target, f"{error}; give MODULE:FUNCTION, or the directory of stored runs") from error
        try:
            inspect.signature(function).bind()
        except (TypeError, ValueError) as error:
            raise BadInput("DIR", target, f"cannot be called without arguments ({error})") from error
        found = function()
    finally:
        sys.path.remove("")
    if not isinstance(found, tuple) or len(found) not in (3, 4):
        raise BadInput(
            "DIR", target, "the function must return model, loss_fn, batches and, if you like, the optimizer"
        )
    return (*found, None)[:4]


def _stored(folder: str, run: str, examples: int) -> Patient:
    """The model and optimizer of a stored run, and the first examples of its train set."""
    import torch

    from fenland.lab.store.listing import find
    from fenland.lab.store.runs import Store
    from fenland.lab.training.optimizers import build_optimizer
    from fenland.lab.training.task import load_examples, make_batches, make_model

    store = Store(output.existing_store(folder))
    names = [each.folder.name for each in store.runs() if store.finished(each.folder.name, weights=True)]
    if not run and len(names) != 1:
        cure = f"choose one of {', '.join(names)}" if names else "no run has its weights; compare with --weights on"
        raise BadInput("run", run or "(none)", cure)
    try:
        chosen = find(store, run or names[0])
    except BadInput as error:
        raise BadInput("run", run, error.cure) from error
    if chosen.folder.name not in names:
        raise BadInput("run", run, "was stored without its weights; run it again with --weights on")
    config = chosen.placed
    found = load_examples(config)
    dtype = torch.float64 if config.precision == "64-true" else torch.float32
    model = make_model(config, found).to(dtype)
    model.load_state_dict(torch.load(chosen.folder / "weights.pt", weights_only=True))
    size = min(config.batch_size, len(found.train))
    batches = make_batches(found, config, torch.device("cpu"), dtype)
    seen = list(batches.evaluation("train", limit=examples, size=size))
    return model, _loss(config), seen, build_optimizer(config, model)


def _loss(config: RunConfig) -> Any:
    """The run's training loss as ``loss_fn(model, batch)``."""
    from torch.nn.functional import cross_entropy

    def loss_fn(model: Any, batch: Any) -> Any:
        return cross_entropy(model(batch[0]), batch[1], label_smoothing=config.label_smoothing)

    return loss_fn
