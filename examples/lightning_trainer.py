"""Lightning's Trainer with accumulation and clipping.

Run: python examples/lightning_trainer.py [--quick]
"""

import lightning.pytorch as pl
import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

import fenland
from digits import accuracy, arguments, load, network
from fenland.integrations.lightning import SharpnessAwareCallback


class Digits(pl.LightningModule):
    """A module like any other."""

    def __init__(self) -> None:
        super().__init__()
        self.network = network()

    def training_step(self, batch, batch_idx):
        """Runs at w, and again at w + e."""
        inputs, labels = batch
        loss = cross_entropy(self.network(inputs), labels)
        self.log("loss", loss)  # pass 1 only
        return loss

    def configure_optimizers(self):
        """The scheduler attaches to the fenland optimizer."""
        base = torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)
        opt = fenland.SSAM(base, rho=0.05, model=self)
        return [opt], [
            torch.optim.lr_scheduler.CosineAnnealingLR(
                opt, self.trainer.max_epochs
            )
        ]


def main() -> None:
    args = arguments(epochs=20)
    x, y, x_test, y_test = load()
    model = Digits()
    trainer = pl.Trainer(
        max_epochs=args.epochs,
        callbacks=[SharpnessAwareCallback()],
        accumulate_grad_batches=2,
        gradient_clip_val=5.0,
        accelerator="auto",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
    )
    trainer.fit(
        model, DataLoader(TensorDataset(x, y), batch_size=24, shuffle=True)
    )
    right = accuracy(model.network.cpu(), x_test, y_test)
    print(
        f"loss {trainer.callback_metrics['loss']:.4f} accuracy {right:.4f}"
    )


if __name__ == "__main__":
    main()
