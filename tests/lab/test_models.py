import pytest
import torch

from fenland.lab.errors import BadInput
from fenland.lab.models import MODELS, build_model
from fenland.lab.models.resnet import ResNet

DIGITS, MNIST, CIFAR = (1, 8, 8), (1, 28, 28), (3, 32, 32)


def parameters(model: torch.nn.Module) -> int:
    return sum(weight.numel() for weight in model.parameters())


@pytest.mark.parametrize(
    ("name", "shape", "count"),
    [
        ("resnet20", CIFAR, 272_474),
        ("resnet20-identity", CIFAR, 269_722),
        ("resnet56", CIFAR, 855_770),
        ("resnet56-identity", CIFAR, 853_018),
        ("lenet", MNIST, 61_706),
        ("lenet", CIFAR, 62_006),
        ("lenet", DIGITS, 21_386),
        ("mlp", MNIST, 784 * 256 + 256 + 256 * 256 + 256 + 256 * 10 + 10),
        ("mlp", DIGITS, 85_002),
    ],
)
def test_parameter_counts(name: str, shape: tuple[int, int, int], count: int) -> None:
    assert parameters(build_model(name, shape, 10)) == count


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("shape", [DIGITS, MNIST, CIFAR, (3, 17, 23)])
def test_models_take_every_shape(name: str, shape: tuple[int, int, int]) -> None:
    model = build_model(name, shape, 7)
    logits = model(torch.randn(2, *shape))
    assert logits.shape == (2, 7)
    logits.sum().backward()
    assert all(weight.grad is not None for weight in model.parameters())


def test_a_seed_fixes_the_initial_weights() -> None:
    models = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        models.append(build_model("resnet20", CIFAR, 10).state_dict())
    assert all(torch.equal(models[0][key], models[1][key]) for key in models[0])
    assert not torch.equal(models[0]["conv.weight"], models[2]["conv.weight"])


def test_identity_shortcut_keeps_every_second_pixel_and_pads_channels() -> None:
    block = ResNet(CIFAR, 10, shortcut="identity").stages[3]
    x = torch.randn(2, 16, 8, 8)
    y = block.shortcut(x)
    assert y.shape == (2, 32, 4, 4)
    assert torch.equal(y[:, 8:24], x[:, :, ::2, ::2])
    assert y[:, :8].abs().sum() == y[:, 24:].abs().sum() == 0


def test_wrong_names_and_sizes_are_refused() -> None:
    with pytest.raises(BadInput, match=r"^model=vgg: choose one of mlp, lenet, resnet20"):
        build_model("vgg", CIFAR, 10)
    with pytest.raises(BadInput, match=r"^model=lenet: needs images of at least 4x4; these are 3x9"):
        build_model("lenet", (1, 3, 9), 10)
    with pytest.raises(BadInput, match=r"^depth=21: give 6n\+2"):
        ResNet(CIFAR, 10, depth=21)
    with pytest.raises(BadInput, match=r"^shortcut=none: choose one of"):
        ResNet(CIFAR, 10, shortcut="none")
