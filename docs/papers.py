"""What the papers show, item by item: what it takes to repeat it, what was run, and whether that is the same thing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

SSAM = "Tan et al. 2025 (SSAM)"
REPORT = "Wong, Yao, Huang (Investigations on SAM)"
STABILITY = "Kim et al. 2023 (Stability Analysis of SAM)"
NEURON = "Dai, Ahn, Sra 2023 (Normalization in SAM)"
GPU = "one GPU, training for 200 epochs"
CAPTION = "its caption leaves settings open; they are listed on the study's page"


@dataclass(frozen=True)
class Item:
    """A figure, a table or a statement of a paper."""

    paper: str  # its short name
    item: str  # figure, table, theorem
    study: str  # that repeats it
    needs: str  # what a faithful repetition takes
    differs: str = ""  # in what the study's preset ``paper`` is not the paper, or may not be; empty where it is
    anyway: str = ""  # whether it is faithful and why, where that does not depend on the preset; empty where it does


@dataclass(frozen=True)
class Ran:
    """What was run of a study."""

    study: str  # its name
    words: str  # preset, data and fields that were set
    published: bool  # whether it is the preset ``paper``


def faithful(item: Item, ran: Sequence[Ran]) -> tuple[str, str]:
    """What was run for an item, and whether that is faithful: yes, in part, no; and why."""
    own = [each for each in ran if each.study == item.study]
    if not own:
        return "nothing yet", "no: not run"
    words = "; ".join(dict.fromkeys(each.words for each in own))
    if item.anyway:
        return words, item.anyway
    if any(each.published for each in own):
        return words, f"in part: {item.differs}" if item.differs else "yes"
    return words, "no: at a smaller scale" + (f", and {item.differs}" if item.differs else "")


ITEMS = (
    Item(SSAM, "Fig. 1", "saddle-escape", "two cores, minutes", CAPTION),
    Item(SSAM, "Fig. 2", "quartic", "two cores, an hour", CAPTION),
    Item(SSAM, "convergence on quadratics", "quadratic", "two cores, minutes", "spectrum and radii are ours"),
    Item(SSAM, "Fig. 3", "gamma", f"two networks, {GPU}", "networks and data are not named in the caption"),
    Item(SSAM, "Figs. 4, 5", "uniform-stability", "pairs of MNIST-FC and of LeNet on CIFAR-10, full training sets",
         "learning rate, radius, batch and epochs are chosen here"),
    Item(SSAM, "Hessian spectra", "spectrum", f"ResNet-20 on CIFAR-10, {GPU}", "networks and radii are chosen here"),
    Item(SSAM, "tables of accuracies", "classification", f"five networks on CIFAR-10 and CIFAR-100, {GPU}",
         "radii are not known"),
    Item(REPORT, "Fig. 1, Table I", "radius", f"WideResNet on CIFAR-10, {GPU}", "the width of the network is a guess"),
    Item(REPORT, "Fig. 3", "ball-metric", f"WideResNet on CIFAR-10, {GPU}", "the width of the network is a guess"),
    Item(REPORT, "Fig. 4, Table II", "architectures", f"five networks on CIFAR-10, {GPU}", "sizes are guesses"),
    Item(REPORT, "Fig. 5, Table III", "matrix-sensing", "two cores, minutes",
         "one draw is published, without its seed; factor and shape of the loss are read off its numbers"),
    Item(REPORT, "future work: other norms", "landscapes", "two cores, minutes",
         anyway="no: the report has no experiment that could be repeated"),
    Item(STABILITY, "Theorem 1", "attractor", "two cores, minutes", "the functions are ours"),
    Item(STABILITY, "Theorem 2, Corollary 1", "diffusion", "two cores, minutes", "known from a published summary"),
    Item(STABILITY, "Theorem 3", "own-settings", "two cores, seconds",
         anyway="in part: known from a published summary, with one constant that is inverted there"),
    Item(STABILITY, "Beale, x² − y², toy network", "own-settings", "two cores, an hour",
         "the learning rate on Beale is the summary's, not the code's; the toy network's data are not known"),
    Item(STABILITY, "momentum and batch", "momentum-batch", f"ResNet-18 without batch norm on CIFAR-10, {GPU}",
         "learning rates, schedule, weight decay and epochs are not known"),
    Item(NEURON, "the single neuron", "single-neuron", "two cores, minutes", "one loss of the paper's class"),
    Item("Long, Bartlett 2024", "edge of stability", "edge-of-stability", "MNIST, CIFAR-10 and a text, larger networks",
         "a tanh network on digits"),
    Item("Park et al. 2025", "hallucinated minimisers", "hallucinated", "two cores, minutes",
         "one weight instead of two; the remedy on a network of one layer"),
    Item("Zhou et al. 2025", "SAM late in training", "late-sam", f"WRN-16-8 on CIFAR-10, {GPU}",
         "SGD's schedule is not known"),
)  # fmt: skip
