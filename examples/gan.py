"""A GAN: two sharpness-aware optimizers, each on its own network.

Run: python examples/gan.py [--quick]
Pass 2 of one optimizer must not disturb the other network: its buffers
are guarded too (`model=` takes a module that holds both), and its
gradients are zeroed before its own step.
"""

import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits as bce

import fenland
from digits import arguments, load, shuffled

NOISE = 16


def main() -> None:
    args = arguments(epochs=20)
    x, y, *_ = load()
    generator = nn.Sequential(
        nn.Linear(NOISE, 128),
        nn.BatchNorm1d(128),
        nn.ReLU(),
        nn.Linear(128, 64),
        nn.Sigmoid(),
    )
    critic = nn.Sequential(
        nn.Linear(64, 128),
        nn.LeakyReLU(0.2),
        nn.Dropout(0.2),
        nn.Linear(128, 1),
    )
    both = nn.ModuleList([generator, critic])
    opt_g, opt_c = (
        fenland.SAM(
            torch.optim.Adam(each, lr=1e-3, betas=(0.5, 0.99)),
            rho=0.02,
            model=both,
        )
        for each in (generator.parameters(), critic.parameters())
    )

    for _ in range(args.epochs):
        for real, _ in shuffled(x, y):
            noise = torch.randn(len(real), NOISE)
            ones = torch.ones(len(real), 1)
            zeros = torch.zeros(len(real), 1)

            def critic_closure(real=real, z=noise, ones=ones, zeros=zeros):
                opt_c.zero_grad()
                with torch.no_grad():
                    fake = generator(z)
                loss = bce(critic(real), ones) + bce(critic(fake), zeros)
                loss.backward()
                return loss

            def generator_closure(noise=noise, ones=ones):
                opt_g.zero_grad()
                loss = bce(critic(generator(noise)), ones)
                # It leaves gradients on the critic, which zeroes them.
                loss.backward()
                return loss

            loss_c = opt_c.step(critic_closure)
            loss_g = opt_g.step(generator_closure)

    with torch.no_grad():
        fake = generator.eval()(torch.randn(1000, NOISE))
    distance = float((fake.mean(0) - x.mean(0)).abs().mean())
    print(
        f"critic {loss_c:.3f} generator {loss_g:.3f} "
        f"distance of the mean images {distance:.3f}"
    )


if __name__ == "__main__":
    main()
