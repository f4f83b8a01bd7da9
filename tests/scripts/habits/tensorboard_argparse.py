#!/usr/bin/env python
"""Rotate embeddings back to the front. TensorBoard logs, best and last checkpoint, --resume."""

import argparse
import os
import random

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from event_writer import SummaryWriter
from torch.utils.data import DataLoader, TensorDataset


def parse_args():
    parser = argparse.ArgumentParser(description="Train the rotation model")
    # training
    parser.add_argument("--epochs", type=int, default=30, help="number of epochs")
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--lr", type=float, default=3e-4, help="learning rate")
    parser.add_argument("--weight_decay", type=float, default=1e-5)
    parser.add_argument("--mse_weight", type=float, default=0.5)
    parser.add_argument("--cosine_weight", type=float, default=0.5)
    parser.add_argument("--scheduler_type", type=str, default="plateau", choices=["plateau", "cosine", "none"])
    parser.add_argument("--scheduler_factor", type=float, default=0.5)
    parser.add_argument("--scheduler_patience", type=int, default=5)
    parser.add_argument("--early_stopping_patience", type=int, default=0, help="0 = off")
    # model
    parser.add_argument("--d_model", type=int, default=64)
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--use_layer_norm", action="store_true")
    # misc
    parser.add_argument("--device", type=str, default="cpu")
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--num_workers", type=int, default=0)
    parser.add_argument("--save_dir", type=str, default="checkpoints")
    parser.add_argument("--log_dir", type=str, default="logs")
    parser.add_argument("--resume", type=str, default=None, help="path to a checkpoint")
    parser.add_argument("--flush_every_epoch", action="store_true")
    return parser.parse_args()


class RotationModel(nn.Module):
    def __init__(self, size, args):
        super().__init__()
        norm = nn.LayerNorm(args.d_model) if args.use_layer_norm else nn.Identity()
        self.net = nn.Sequential(
            nn.Linear(size, args.d_model), norm, nn.ReLU(), nn.Dropout(args.dropout), nn.Linear(args.d_model, size)
        )

    def forward(self, x):
        return x + self.net(x)


def make_data(size=32):
    """People of the training and of the validation part, 8 noisy views each; the same in every run."""
    rng = np.random.default_rng(0)
    rotation = np.linalg.qr(rng.normal(size=(size, size)))[0]
    parts = []
    for people in (48, 16):
        front = rng.normal(size=(people, size)).repeat(8, axis=0)
        front /= np.linalg.norm(front, axis=1, keepdims=True)
        side = front @ rotation + rng.normal(scale=0.1, size=front.shape)
        parts.append(TensorDataset(torch.tensor(side, dtype=torch.float32), torch.tensor(front, dtype=torch.float32)))
    return parts


def combined_loss(pred, target, args):
    cosine = F.cosine_similarity(pred, target).mean()
    return args.mse_weight * F.mse_loss(pred, target) + args.cosine_weight * (1 - cosine), cosine


def train_epoch(model, loader, optimizer, args):
    model.train()
    total = 0.0
    for x, y in loader:
        loss, _ = combined_loss(model(x.to(args.device)), y.to(args.device), args)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        total += loss.item()
    return total / len(loader)


@torch.no_grad()
def validate(model, loader, args):
    model.eval()
    losses, cosines = [], []
    for x, y in loader:
        loss, cosine = combined_loss(model(x.to(args.device)), y.to(args.device), args)
        losses.append(loss.item())
        cosines.append(cosine.item())
    return float(np.mean(losses)), float(np.mean(cosines))


def main():
    args = parse_args()
    random.seed(args.seed)
    np.random.seed(args.seed)
    torch.manual_seed(args.seed)

    train_set, val_set = make_data()
    train_loader = DataLoader(train_set, args.batch_size, shuffle=True, drop_last=True, num_workers=args.num_workers)
    val_loader = DataLoader(val_set, args.batch_size)
    model = RotationModel(32, args).to(args.device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr, weight_decay=args.weight_decay)
    scheduler = None
    if args.scheduler_type == "plateau":
        scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
            optimizer, factor=args.scheduler_factor, patience=args.scheduler_patience
        )
    elif args.scheduler_type == "cosine":
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=args.epochs)

    start_epoch, best_val_loss, bad_epochs = 0, float("inf"), 0
    history = {"train_loss_history": [], "val_loss_history": [], "val_cosine_sim_history": []}
    if args.resume:
        print(f"=> loading checkpoint '{args.resume}'")
        checkpoint = torch.load(args.resume, map_location=args.device, weights_only=False)
        model.load_state_dict(checkpoint["model_state_dict"])
        optimizer.load_state_dict(checkpoint["optimizer_state_dict"])
        if scheduler is not None:
            scheduler.load_state_dict(checkpoint["scheduler_state_dict"])
        torch.set_rng_state(checkpoint["rng_state"])
        start_epoch, best_val_loss = checkpoint["epoch"] + 1, checkpoint["best_val_loss"]
        bad_epochs = checkpoint["bad_epochs"]
        history = {name: checkpoint[name] for name in history}

    os.makedirs(args.save_dir, exist_ok=True)
    writer = SummaryWriter(args.log_dir)
    for epoch in range(start_epoch, args.epochs):
        train_loss = train_epoch(model, train_loader, optimizer, args)
        val_loss, val_cosine = validate(model, val_loader, args)
        history["train_loss_history"].append(train_loss)
        history["val_loss_history"].append(val_loss)
        history["val_cosine_sim_history"].append(val_cosine)
        writer.add_scalar("Train/Loss", train_loss, epoch)
        writer.add_scalar("Val/Loss", val_loss, epoch)
        writer.add_scalar("Val/CosineSimilarity", val_cosine, epoch)
        writer.add_scalar("LR", optimizer.param_groups[0]["lr"], epoch)
        if args.flush_every_epoch:
            writer.flush()
        print(f"Epoch {epoch + 1}/{args.epochs} | Train Loss: {train_loss:.4f} | Val Loss: {val_loss:.4f}")

        if args.scheduler_type == "plateau":
            scheduler.step(val_loss)
        elif scheduler is not None:
            scheduler.step()
        is_best = val_loss < best_val_loss
        best_val_loss = min(val_loss, best_val_loss)
        bad_epochs = 0 if is_best else bad_epochs + 1
        checkpoint = {
            "epoch": epoch,
            "model_state_dict": model.state_dict(),
            "optimizer_state_dict": optimizer.state_dict(),
            "scheduler_state_dict": scheduler.state_dict() if scheduler is not None else None,
            "rng_state": torch.get_rng_state(),
            "best_val_loss": best_val_loss,
            "bad_epochs": bad_epochs,
            "args": vars(args),
            **history,
        }
        torch.save(checkpoint, os.path.join(args.save_dir, "last_model.pth"))
        if is_best:
            torch.save(checkpoint, os.path.join(args.save_dir, "best_model.pth"))
        if args.early_stopping_patience and bad_epochs >= args.early_stopping_patience:
            print("Early stopping!")
            break
    writer.close()


if __name__ == "__main__":
    main()
