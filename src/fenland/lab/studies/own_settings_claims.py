"""What the study `own-settings` judges."""

from __future__ import annotations

import pandas as pd

from fenland.lab.replicas.stability_analysis import DEMO, ends
from fenland.lab.study import Claim, Finding, Interval, Measured, Source, interval, ours
from fenland.lab.study.quantities import statement
from fenland.lab.study.rows import select
from fenland.lab.study.words import above, percent, share, together

KIM = Source("Stability Analysis of Sharpness-Aware Minimization, Kim et al., ICML 2026, arXiv 2301.06308")
SHORT = Source("Stability Analysis of SAM")
PLACES = {"beale": {"saddle": (0.0, 1.0), "minimum": (3.0, 0.5)}, "saddle": {"saddle": (0.0, 0.0)}}
WITHIN = 0.1  # of the exact MSD, where a theorem counts as holding
MOST = 0.5
ERRORS = 4.0


@statement
def arrives(measured: Measured, table: str, wanted: dict[tuple[str, float], str]) -> Finding:
    """Whether trajectories (method, rho) end where they are said to: a place, "lost" or "on the way"."""
    found = {(r["method"], r["rho"]): r for _, r in ends(measured[table], PLACES[table]).iterrows()}
    rows = {_name(*key): found[key] for key in wanted}
    said = [f"{name}: {row['where']} ({row['x']:.3g}, {row['y']:.3g})" for name, row in rows.items()]
    expected = "; ".join(f"{_name(*key)}: {place}" for key, place in wanted.items())
    return Finding(expected, "; ".join(said), all(found[key]["where"] == place for key, place in wanted.items()))


def _name(method: str, rho: float) -> str:
    return "GD" if method == "SGD" else f"{method} at rho {rho:g}"


def diverges(measured: Measured) -> Finding:
    """The unnormalised ascent from Beale's start."""
    rows = measured["unnormalised"].groupby("rho")["lost"].max()
    gone, stays = rows[rows >= 0], rows[rows < 0]
    said = [f"rho {rho:g}: lost in step {int(step)}" for rho, step in gone.items()]
    said += [f"rho {rho:g}: still there after 200 steps" for rho in stays.index]
    return Finding("every radius from 0.03 on is lost within 10 steps", "; ".join(said),
                   bool(((rows >= 0) & (rows <= 10))[rows.index >= 0.03].all()))  # fmt: skip


def oscillates(measured: Measured) -> Finding:
    """cos(g, h) at the saddle."""
    values = measured["cosine"]["cosine"]
    turns = int((values.to_numpy()[1:] * values.to_numpy()[:-1] < 0).sum())
    said = f"from {values.min():.3f} to {values.max():.3f}, {turns} changes of sign in {len(values) - 1} steps"
    return Finding("below -0.9 and above 0.9, changing its sign", said,
                   bool(values.min() < -0.9 and values.max() > 0.9 and turns > 1))  # fmt: skip


def seeds(measured: Measured, method: str, rho: float, noisy: bool, where: str, start: str = "") -> Interval:
    """Share of the toy network's seeds that end somewhere."""
    rows = measured["net"]
    rows = rows[(rows["method"] == method) & (rows["rho"] == rho) & ((rows["std"] > 0) == noisy)]
    rows = rows[rows["start"] == start] if start else rows
    return share(int((rows["where"] == where).sum()), len(rows))


@statement
def most(measured: Measured, method: str, where: str) -> Finding:
    """Whether more than half of the seeds end somewhere, with full batches; at SAM's largest radius."""
    rho = max(measured.config.net_rhos) if method != "SGD" else 0.0
    full, noisy = (seeds(measured, method, rho, noise, where) for noise in (False, True))
    own = seeds(measured, method, rho, False, where, "v > 0")
    return Finding(
        "more than 50 %",
        f"{percent(full)} with full batches ({percent(own)} of the starts with v > 0), {percent(noisy)} with noise",
        above(full, MOST), "A start with v < 0 is led to the line u = 0 by plain descent too: it is a valley there, of "
        "the saddle's loss.",
    )  # fmt: skip


def loss_grows(measured: Measured) -> Finding:
    """The toy network's mean loss over rho, paired over seeds, with full batches."""
    rows = measured["net"]
    rows = rows[rows["method"].isin(("SGD", "SAM")) & (rows["std"] == 0)]
    wide = pd.DataFrame({rho: part["f"].to_numpy() for rho, part in rows.groupby("rho")})
    steps = [interval(wide[high] - wide[low]) for low, high in zip(wide, list(wide)[1:], strict=False)]
    said = ", ".join(f"{wide[rho].mean():.3g} at {rho:g}" for rho in wide)
    return Finding("each radius above the one before", said, together(above(each) for each in steps))


def noise_helps(measured: Measured) -> Finding:
    """Noise and a middle radius together."""
    rho = sorted(measured.config.net_rhos)[-2]
    sam, sgd = (seeds(measured, m, r, True, "minimum") for m, r in (("SAM", rho), ("SGD", 0.0)))
    return Finding(f"below SGD's share at rho {rho:g}", f"SAM {percent(sam)}, SGD {percent(sgd)}",
                   True if sam.high < sgd.low else False if sam.low > sgd.high else None)  # fmt: skip


@statement
def is_theorem_2(measured: Measured, models: tuple[str, ...]) -> Finding:
    """Whether the MSD of these dynamics is Theorem 2's at every radius."""
    rows = select(measured["diffusion"], model=models)
    ratio, error = rows["measured"] / rows["printed"], rows["error"] / rows["printed"]
    near = (ratio - 1).abs() < ERRORS * error + 0.02  # 2 %: steps are not infinitely small
    said = "; ".join(
        f"{model} " + ", ".join(f"{r:.2f} at {rho:g}" for r, rho in zip(ratio[own], rows["rho"][own], strict=True))
        for model in models
        for own in [rows["model"] == model]
    )
    return Finding("measured / printed = 1 at every rho*|l|", said, bool(near.all()))


def returns(measured: Measured) -> Finding:
    """Theorem 2 against Theorem 1 past the threshold: from there on does the MSD grow with rho, or not?"""
    rows = measured["diffusion"]
    past = rows[rows["rho"] == rows["rho"].max()].set_index("model")
    sgd = 0.25 * 0.01 * (2.718281828**2 - 1) / 2  # eta/(2B) * (exp(2*|l|*t) - 1) at |l|*t = 1
    printed, sam = float(past["printed"].iloc[0]) / sgd, past["measured"] / sgd
    said = f"printed {printed:.2f} of SGD's; SAM {sam['shared']:.2f} (shared), {sam['descent']:.2f} (descent)"
    return Finding("below a half of SGD's, as it is drawn back", said, printed < 0.5, "The full gradient's drift "
                   "l*(1+rho*l)^2 has the sign of l whatever rho is. SAM's l*(1+rho*l) changes it.")  # fmt: skip


@statement
def over_the_map(measured: Measured, sure: bool) -> Finding:
    """Whether Theorem 3 is within 10 % of the exact MSD, everywhere or where its conditions hold."""
    rows = measured["momentum"]
    if sure:
        rows = rows[(rows["scaled"] <= 0.01) & (rows["reach"] >= 25)]
    good = (rows["ratio"] - 1).abs() < WITHIN
    said = f"{int(good.sum())} of {len(rows)} cells, ratios {rows['ratio'].min():.3g} to {rows['ratio'].max():.3g}"
    return Finding(f"within {100 * WITHIN:g} % in every cell", said, bool(good.all()))


def claims(measured: Measured) -> list[Claim]:
    """All of them."""
    low, high = min(measured.config.rhos), [rho for rho in measured.config.rhos if rho >= 0.5]
    held = {method: {(method, rho): "saddle" for rho in high} for method in ("SAM", "SSAM")}
    return [
        Claim("On Beale's function gradient descent from (1, 2) reaches the minimum.", SHORT,
              arrives("beale", {("SGD", 0.0): "minimum"}), "beale"),
        Claim("From there SAM, normalised, is held at the saddle (0, 1).", SHORT,
              arrives("beale", held["SAM"]), "beale"),
        Claim("At the smallest radius SAM reaches the minimum as gradient descent does.",
              ours("the code has that radius too"), arrives("beale", {("SAM", low): "minimum"}), "beale"),
        Claim("SSAM is held at the saddle where SAM is.", ours("renormalising turns no direction"),
              arrives("beale", held["SSAM"]), "beale"),
        Claim("The ascent that the theory is about, unnormalised, diverges from the same start.",
              ours("||g|| is in the hundreds there"), diverges, "beale"),
        Claim("At the saddle the cosine of g and h oscillates between -1 and 1.", SHORT, oscillates, "cosine"),
        Claim("On x^2 - y^2 gradient descent leaves and SAM, rho 0.5, ends at the saddle.", SHORT,
              arrives("saddle", {("SGD", 0.0): "lost", ("SAM", 0.5): "saddle"}), "saddle"),
        Claim("The demo's step g + h escapes at rho 0.1, where SAM's own h is held.",
              ours("the code adds both gradients"),
              arrives("saddle", {(DEMO, 0.1): "lost", ("SAM", 0.1): "saddle"}), "saddle"),
        Claim("Most seeds of gradient descent reach the global minimum of the toy network.", SHORT,
              most("SGD", "minimum"), "net"),
        Claim("Most seeds of SAM stay at its saddle.", SHORT, most("SAM", "saddle"), "net"),
        Claim("The mean loss of the toy network grows with rho.", SHORT, loss_grows, "net"),
        Claim("With noisy gradients, too, SAM at a middle radius reaches the minimum from fewer seeds than SGD.",
              ours("the paper's claim about SAM and escape, taken to mini-batches"), noise_helps, "net"),
        Claim("Theorem 2 is the mean squared displacement of SAM at a saddle.", SHORT.at("Theorem 2"),
              is_theorem_2(("shared", "independent", "descent")), "theorem-2"),
        Claim("Theorem 2 is that of the full gradient of L(w + rho*grad L(w)), Jacobian included, with noise that the "
              "ascent leaves alone.", ours("derived"), is_theorem_2(("full",)), "theorem-2"),
        Claim("Past Theorem 1's threshold, at rho*|l| = 2, Theorem 2 has the MSD of what is drawn to the saddle.",
              ours("Theorems 1 and 2 of Stability Analysis of SAM, taken together"), returns, "theorem-2"),
        Claim("Theorem 3 is the mean squared displacement of heavy ball.", SHORT.at("Theorem 3, with C2 = t/eta"),
              over_the_map(False), "theorem-3-saddle"),
        Claim("It is where eta*|l| <= 0.01*(1-m)^2 and (1-m)*steps >= 25.", ours("derived"), over_the_map(True),
              "theorem-3-saddle"),
    ]  # fmt: skip
