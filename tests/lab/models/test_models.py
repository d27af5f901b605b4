import math

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import cross_entropy

from fenland.lab.config import RunConfig
from fenland.lab.errors import BadInput, meant
from fenland.lab.models import MODELS, build_model, check_model, pretrained
from fenland.lab.models.pyramidnet import PyramidNet
from fenland.lab.models.resnet import ResNet
from fenland.lab.models.resnext import ResNeXt
from fenland.lab.models.vgg import VGG
from fenland.lab.models.vit import ViT
from fenland.lab.models.wrn import WRN

DIGITS, MNIST, CIFAR = (1, 8, 8), (1, 28, 28), (3, 32, 32)


def parameters(model: torch.nn.Module) -> int:
    return sum(weight.numel() for weight in model.parameters())


@pytest.mark.parametrize(
    ("name", "shape", "count"),
    [
        ("resnet18", CIFAR, 11_173_962),
        ("resnet18-group", CIFAR, 11_173_962),
        ("resnet18-plain", CIFAR, 11_169_162),
        ("resnet20", CIFAR, 272_474),
        ("resnet20-identity", CIFAR, 269_722),
        ("resnet56", CIFAR, 855_770),
        ("resnet56-identity", CIFAR, 853_018),
        ("wrn16-10", CIFAR, 17_116_634),
        ("wrn28-10", CIFAR, 36_479_194),
        ("wrn10-1", CIFAR, 77_850),
        ("pyramidnet20-a48", CIFAR, 310_845),
        ("pyramidnet110-a48", CIFAR, 1_772_706),
        ("resnext29-32x4d", CIFAR, 4_775_754),
        ("vgg11", CIFAR, 9_228_362),
        ("vgg16", CIFAR, 14_724_042),
        ("vgg11-plain", CIFAR, 9_225_610),
        ("vgg16-plain", CIFAR, 14_719_818),
        ("vit", CIFAR, 2_693_578),
        ("convnet", CIFAR, 295_106),
        ("convnet", MNIST, 294_914),
        ("lenet", MNIST, 61_706),
        ("lenet", CIFAR, 62_006),
        ("lenet", DIGITS, 21_386),
        ("mlp", MNIST, 784 * 256 + 256 + 256 * 256 + 256 + 256 * 10 + 10),
        ("mlp", DIGITS, 85_002),
    ],
)
def test_parameter_counts(name: str, shape: tuple[int, int, int], count: int) -> None:
    # On the meta device nothing is drawn, so that the large models cost nothing.
    with torch.device("meta"):
        assert parameters(build_model(name, shape, 10)) == count


# One column of the last layer's weights and its bias more for each class.
WIDTHS = {
    "mlp": 256,
    "lenet": 84,
    "convnet": 128,
    "wrn16-10": 640,
    "wrn28-10": 640,
    "resnext29-32x4d": 1024,
    "vit": 192,
} | {
    "vgg11": 512,
    "vgg16": 512,
    "vgg11-plain": 512,
    "vgg16-plain": 512,
    "resnet18": 512,
    "resnet18-group": 512,
    "resnet18-plain": 512,
}


@pytest.mark.parametrize("name", MODELS)
def test_a_hundred_classes_change_the_last_layer_alone(name: str) -> None:
    with torch.device("meta"):
        ten, hundred = (build_model(name, CIFAR, classes) for classes in (10, 100))
    assert parameters(hundred) - parameters(ten) == 90 * (WIDTHS.get(name, 64) + 1)
    assert hundred.get_submodule("out").weight.shape[0] == 100


# The wide ones take a second for an image: the narrow one of the same family stands for them here.
SMALL = [name for name in MODELS if not name.startswith("wrn")] + ["wrn10-1", "wrn16-2"]


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("shape", [DIGITS, MNIST, CIFAR, (3, 17, 23)])
def test_models_take_every_shape(name: str, shape: tuple[int, int, int]) -> None:
    check(build_model(name, shape, 7), shape)


@pytest.mark.parametrize("name", ["wrn16-10", "wrn28-10"])
def test_wide_networks_run(name: str) -> None:
    check(build_model(name, (3, 8, 8), 7), (3, 8, 8))


def check(model: torch.nn.Module, shape: tuple[int, int, int]) -> None:
    """Logits of the right shape, and a finite gradient that reaches every weight."""
    torch.manual_seed(0)
    logits = model(torch.randn(3, *shape))
    assert logits.shape == (3, 7)
    cross_entropy(logits, torch.tensor([0, 3, 6])).backward()
    for name, weight in model.named_parameters():
        assert weight.grad is not None, name
        assert math.isfinite(float(weight.grad.norm())), name
        assert float(weight.grad.abs().max()) > 0, name


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


def test_wide_networks_have_no_dropout_unless_asked() -> None:
    model = build_model("wrn10-1", DIGITS, 10)
    x = torch.randn(4, *DIGITS)
    assert torch.equal(model(x), model(x))
    model = WRN(DIGITS, 10, 10, 1, rate=0.3)
    assert not torch.equal(model(x), model(x))
    model.eval()
    assert torch.equal(model(x), model(x))


def test_a_wide_network_halves_twice_and_starts_as_wide_as_told() -> None:
    model = build_model("wrn16-3", CIFAR, 10)
    shapes = [tuple(x.shape[1:]) for x in outputs(model.stages, model.conv(torch.randn(1, *CIFAR)))]
    assert shapes == [(48, 32, 32)] * 2 + [(96, 16, 16)] * 2 + [(192, 8, 8)] * 2


def test_a_pyramid_widens_by_a_constant_step() -> None:
    model = PyramidNet(CIFAR, 10, depth=20, alpha=30)
    shapes = [tuple(x.shape[1:]) for x in outputs(model.stages, torch.randn(1, 16, 32, 32))]
    widths = [19, 23, 26, 29, 33, 36, 39, 43, 46]  # 16 + 30 k / 9, rounded
    assert shapes == list(zip(widths, sides := [32] * 3 + [16] * 3 + [8] * 3, sides, strict=True))


def test_a_pyramids_shortcut_averages_and_pads() -> None:
    block = PyramidNet(CIFAR, 10, depth=20, alpha=30).stages[3]
    torch.nn.init.zeros_(block.norm3.weight)
    x = torch.randn(2, 26, 6, 6)
    y = block(x)
    assert torch.allclose(y[:, :26, 1, 2], x[:, :, 2:4, 4:6].mean((2, 3)))
    assert y.shape == (2, 29, 3, 3)
    assert y[:, 26:].abs().sum() == 0


def test_a_resnexts_groups_do_not_mix() -> None:
    conv = ResNeXt(CIFAR, 10).stages[0].conv2
    x = torch.randn(1, 128, 5, 5, requires_grad=True)
    conv(x)[:, :4].sum().backward()
    assert conv.out_channels == 32 * 4
    assert (x.grad.abs().sum((0, 2, 3)) > 0).tolist() == [True] * 4 + [False] * 124


def test_vgg_ends_at_one_pixel() -> None:
    for side, pooled in ((4, 2), (8, 3), (28, 4), (31, 4), (32, 5), (64, 5)):
        assert len(VGG((3, side, side + 9), 10, 11).pooled) == pooled


def test_the_transformer_is_twice_differentiable_with_the_math_backend() -> None:
    torch.manual_seed(0)
    model = ViT(DIGITS, 10, width=12, depth=2, heads=3).double()
    # Tokens of size one: the layer norm of tiny ones bends too much for a difference.
    torch.nn.init.normal_(model.token)
    torch.nn.init.normal_(model.position)
    x, y = torch.randn(4, *DIGITS, dtype=torch.float64), torch.arange(4)
    weights = list(model.parameters())
    along = [torch.randn_like(weight) for weight in weights]

    def gradient(**options: bool) -> tuple[torch.Tensor, ...]:
        with sdpa_kernel(SDPBackend.MATH):
            return torch.autograd.grad(cross_entropy(model(x), y), weights, **options)

    slope = sum((g * v).sum() for g, v in zip(gradient(create_graph=True), along, strict=True))
    product = torch.autograd.grad(slope, weights)
    ends = []
    for step in (1e-5, -2e-5):
        torch._foreach_add_([weight.data for weight in weights], along, alpha=step)
        ends.append(gradient())
    for exact, ahead, behind in zip(product, *ends, strict=True):
        assert torch.allclose(exact, (ahead - behind) / 2e-5, rtol=1e-4, atol=1e-5)


def test_the_transformer_sees_the_last_pixels_of_an_odd_image() -> None:
    model = ViT((1, 9, 10), 10)
    x = torch.randn(1, 1, 9, 10, requires_grad=True)
    model(x)[0, 3].backward()
    assert float(x.grad[0, 0, 8, 9].abs()) > 0


def outputs(blocks: torch.nn.Sequential, x: torch.Tensor) -> list[torch.Tensor]:
    found = []
    for block in blocks:
        x = block(x)
        found.append(x)
    return found


@pytest.mark.parametrize("name", [name for name in MODELS if name != "mlp"])
def test_too_small_images_are_refused(name: str) -> None:
    with pytest.raises(BadInput, match=rf"^model={name}: needs images of at least 4x4; these are 3x9$"):
        build_model(name, (1, 3, 9), 10)


def test_wrong_names_are_refused_with_those_that_exist() -> None:
    for name in ("vgg", "wrn28", "wrn28x10", "wrn028-10", "wrn28-0", "wrn-28-10", " vit"):
        known = f"{', '.join(MODELS)}, any wrnD-K, or for texts a hub name or a folder{meant(name.strip(), MODELS)}"
        with pytest.raises(BadInput, match=rf"^model={name.strip()}: choose one of {known}$"):
            check_model(name)
    for name in ("wrn17-10", "wrn4-1", "wrn11-1"):
        with pytest.raises(BadInput, match=rf"^model={name}: the depth of a wrnD-K is 6n\+4, such as 10, 16"):
            check_model(name)
    check_model("wrn40-4")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ResNet(CIFAR, 10, depth=21), r"^depth=21: give 6n\+2"),
        (lambda: ResNet(CIFAR, 10, shortcut="none"), "^shortcut=none: choose one of"),
        (lambda: WRN(CIFAR, 10, depth=20), r"^depth=20: give 6n\+4"),
        (lambda: WRN(CIFAR, 10, depth=10, widen=0), "^widen=0: give a whole number"),
        (lambda: PyramidNet(CIFAR, 10, depth=21), r"^depth=21: give 6n\+2"),
        (lambda: PyramidNet(CIFAR, 10, alpha=-1), "^alpha=-1: give a whole number"),
        (lambda: ResNeXt(CIFAR, 10, depth=30), r"^depth=30: give 9n\+2"),
        (lambda: ResNeXt(CIFAR, 10, groups=0), "^groups x width=0x4: give whole numbers"),
        (lambda: VGG(CIFAR, 10, depth=13), "^depth=13: choose one of 11, 16"),
        (lambda: ViT(CIFAR, 10, heads=5), "^heads=5: give a divisor of the width 192"),
    ],
)
def test_wrong_sizes_are_refused(make: object, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        make()


@pytest.mark.parametrize("name", ["resnet18", "resnet18-group", "resnet18-plain"])
def test_the_switch_is_the_norm_of_every_convolution(name: str) -> None:
    with torch.device("meta"):
        model = build_model(name, CIFAR, 10)
    kinds = {"resnet18": torch.nn.BatchNorm2d, "resnet18-group": torch.nn.GroupNorm}
    norms = [layer for layer in model.modules() if isinstance(layer, (torch.nn.BatchNorm2d, torch.nn.GroupNorm))]
    convolutions = [layer for layer in model.modules() if isinstance(layer, torch.nn.Conv2d)]
    assert len(convolutions) == 20
    assert [type(each) for each in norms] == [kinds[name]] * 20 if name in kinds else norms == []
    assert {each.bias is None for each in convolutions} == {name in kinds}


def test_a_folder_of_the_same_name_does_not_hide_a_network(tmp_path, monkeypatch):
    (tmp_path / "lenet").mkdir()
    monkeypatch.chdir(tmp_path)
    assert not pretrained.named("lenet")
    check_model("lenet")
    assert pretrained.identify(RunConfig("digits", "lenet", "sgd")).model == "lenet"
