"""The strict room: one thread, fixed seeds, and nothing that a test changes outlives it."""

import gc
import os
import random
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings

from selection import pytest_addoption as pytest_addoption
from selection import pytest_keep_one_case as pytest_keep_one_case
from selection import pytest_mark_what_pairs_do_not_need as pytest_mark_what_pairs_do_not_need
from sharing import pytest_xdist_make_scheduler as pytest_xdist_make_scheduler

gc.disable()  # until all is collected: it would look through everything that is imported again and again
torch.set_num_threads(1)
# For a device that is not there torch notes each seed with the stack of its caller: 0.8 ms, four times a test.
for _device in (torch.cuda, torch.xpu, torch.mtia):
    if not _device.is_available():
        _device.manual_seed_all = lambda seed: None
settings.register_profile(
    "room", deadline=None, derandomize=True, max_examples=40, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("room")

# Set by libraries on import or by the runner; a test may not be blamed for them.
NOT_OURS = (
    "PYTEST_",
    "KMP_",
    "OMP_",
    "MKL_",
    "TORCHINDUCTOR_",
    "TOKENIZERS_",
    "PYTORCH_NVML_",
    "COLUMNS",
    "LINES",
    "HF_",
    "RAY_",
)


def pytest_collection_finish() -> None:
    """What is there before the first test stays: a collection in a test need not look through thousands of items."""
    gc.collect()
    gc.freeze()
    gc.enable()


def _environment() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if not key.startswith(NOT_OURS)}


@pytest.fixture(autouse=True)
def strict_room() -> Iterator[None]:
    """Seed every generator before a test; afterwards put the world back and fail the test that changed it."""
    before, dtype, grad = _environment(), torch.get_default_dtype(), torch.is_grad_enabled()
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()  # noqa: NPY002 - the global one is guarded
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    yield
    torch.set_rng_state(states[0])
    random.setstate(states[1])
    np.random.set_state(states[2])  # noqa: NPY002
    torch.set_num_threads(1)
    leaks = []
    if torch.get_default_dtype() != dtype:
        leaks.append(f"default dtype {torch.get_default_dtype()}")
        torch.set_default_dtype(dtype)
    if torch.is_grad_enabled() != grad:
        leaks.append("grad mode")
        torch.set_grad_enabled(grad)
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        leaks.append("process group")
        torch.distributed.destroy_process_group()
    after = _environment()
    if after != before:
        leaks.append(f"environment {sorted(set(before.items()) ^ set(after.items()))}")
        for key in set(after) - set(before):
            del os.environ[key]
        os.environ.update(before)
    if leaks:
        pytest.fail(f"the test leaked: {', '.join(leaks)}", pytrace=False)
