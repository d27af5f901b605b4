"""Hugging Face's Trainer trains a small vision transformer.

The transformer is built from a config. Run:
python examples/hf_trainer.py [--quick]
"""

import tempfile

import torch
from transformers import (
    TrainingArguments,
    ViTConfig,
    ViTForImageClassification,
)

import fenland
from digits import arguments, load
from fenland.integrations.transformers import SharpnessAwareTrainer


def rows(images: torch.Tensor, labels: torch.Tensor) -> list[dict]:
    pairs = zip(images, labels, strict=True)
    return [{"pixel_values": x, "labels": y} for x, y in pairs]


def main() -> None:
    args = arguments(epochs=15)
    x, y, x_test, y_test = load(image=True)
    config = ViTConfig(
        image_size=8,
        patch_size=4,
        num_channels=1,
        num_labels=10,
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
        initializer_range=0.1,  # for training from scratch
        hidden_dropout_prob=0.1,
    )
    model = ViTForImageClassification(config)
    with tempfile.TemporaryDirectory() as folder:
        settings = TrainingArguments(
            folder,
            num_train_epochs=args.epochs,
            per_device_train_batch_size=24,
            gradient_accumulation_steps=2,  # e is that of both
            learning_rate=4e-3,
            warmup_steps=10,
            lr_scheduler_type="cosine",
            logging_steps=30,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        trainer = SharpnessAwareTrainer(
            model,
            settings,
            train_dataset=rows(x, y),
            eval_dataset=rows(x_test, y_test),
            compute_metrics=lambda p: {
                "accuracy": float(
                    (p.predictions.argmax(1) == p.label_ids).mean()
                )
            },
            sharpness_aware=lambda base, model: fenland.SSAM(
                base, rho=0.05, model=model
            ),
        )
        trainer.train()
        logged = trainer.state.log_history
        last = [row["loss"] for row in logged if "loss" in row][-1]
        accuracy = trainer.evaluate()["eval_accuracy"]
        print(f"loss {float(last):.4f} accuracy {accuracy:.4f}")


if __name__ == "__main__":
    main()
