"""Stand-in for the documented `train_3d.py` with a seed and a last checkpoint: what a search of it is compared with.

It trains as trainer contract §2 to §4 says, like the copy beside it, from which it takes the data. It knows
nothing of face3d_tune.
"""

import argparse
import os
import random
import sys

import numpy as np
import torch
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.utils.data import DataLoader, TensorDataset

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from models.transformer import ReferenceModel
from train_3d_first import load, split


def build_parser():
    parser = argparse.ArgumentParser(description="Train the 3D transformer")
    parser.add_argument("--data_dir", type=str, default="train/datas/file", help="the six data files")
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--lr", type=float, default=1e-4)
    parser.add_argument("--mse_weight", type=float, default=0.5)
    parser.add_argument("--cosine_weight", type=float, default=0.5)
    parser.add_argument("--loss_type", type=str, default="combined", choices=["mse", "cosine", "combined"])
    parser.add_argument("--scheduler_factor", type=float, default=0.5)
    parser.add_argument("--scheduler_patience", type=int, default=5)
    parser.add_argument("--scheduler_min_lr", type=float, default=0.0)
    parser.add_argument("--early_stopping_patience", type=int, default=0)
    parser.add_argument("--early_stopping_min_delta", type=float, default=0.0)
    parser.add_argument("--use_mixed_precision", action="store_true", help="on a GPU")
    parser.add_argument("--use_spatial_attention", action="store_true")
    parser.add_argument("--use_pose_attention", action="store_true")
    parser.add_argument("--d_model", type=int, default=512)
    parser.add_argument("--nhead", type=int, default=8)
    parser.add_argument("--num_layers", type=int, default=4)
    parser.add_argument("--dim_feedforward", type=int, default=2048)
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--weight_decay", type=float, default=1e-5)
    parser.add_argument("--num_workers", type=int, default=0)
    parser.add_argument("--device", type=str, default="auto")
    parser.add_argument("--save_dir", type=str, default="checkpoints")
    parser.add_argument("--log_dir", type=str, default="logs")
    parser.add_argument("--resume", type=str, default=None)
    parser.add_argument("--deterministic", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    return parser


def loss_of(args, prediction, target):
    """The loss that --loss_type names, and the mean cosine."""
    mse = ((prediction - target) ** 2).mean()
    cosine = torch.nn.functional.cosine_similarity(prediction, target).mean()
    combined = args.mse_weight * mse + args.cosine_weight * (1 - cosine)
    return {"mse": mse, "cosine": 1 - cosine, "combined": combined}[args.loss_type], cosine


def train_epoch(args, model, loader, optimizer, scaler, device):
    """The mean loss over the batches. On a GPU a batch whose loss is not finite is skipped."""
    model.train()
    losses = []
    for batch in loader:
        *inputs, target = (tensor.to(device) for tensor in batch)
        with torch.autocast(device.type, enabled=scaler.is_enabled()):
            prediction = model(*inputs)
        loss, _ = loss_of(args, prediction.float(), target)
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()
        losses.append(loss.item())
    return float(np.mean(losses))


@torch.no_grad()
def validate(args, model, loader, device):
    """Loss and cosine over all validation pairs."""
    model.eval()
    total_loss = total_cosine = pairs = 0
    for batch in loader:
        *inputs, target = (tensor.to(device) for tensor in batch)
        loss, cosine = loss_of(args, model(*inputs), target)
        total_loss += loss.item() * len(target)
        total_cosine += cosine.item() * len(target)
        pairs += len(target)
    return total_loss / pairs, total_cosine / pairs


def main():
    args = build_parser().parse_args()
    random.seed(args.seed)
    np.random.seed(args.seed)
    torch.manual_seed(args.seed)
    auto = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(auto if args.device == "auto" else args.device)
    torch.use_deterministic_algorithms(args.deterministic)
    arrays, people = load(args.data_dir)
    train, val = (TensorDataset(*(array[rows] for array in arrays)) for rows in split(people))
    train_loader = DataLoader(train, args.batch_size, shuffle=True, drop_last=True, num_workers=args.num_workers)
    val_loader = DataLoader(val, args.batch_size)
    model = ReferenceModel(
        feature_size=args.d_model,
        d_model=args.d_model,
        nhead=args.nhead,
        num_layers=args.num_layers,
        dim_feedforward=args.dim_feedforward,
        dropout=args.dropout,
        layout="keypoint",
        use_spatial_attention=args.use_spatial_attention,
        use_pose_attention=args.use_pose_attention,
    ).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr, weight_decay=args.weight_decay)
    scheduler = ReduceLROnPlateau(
        optimizer,
        mode="min",
        factor=args.scheduler_factor,
        patience=args.scheduler_patience,
        min_lr=args.scheduler_min_lr,
    )
    scaler = torch.amp.GradScaler(device.type, enabled=args.use_mixed_precision and device.type == "cuda")
    os.makedirs(args.save_dir, exist_ok=True)
    os.makedirs(args.log_dir, exist_ok=True)
    first, best, progress, waited = 0, float("inf"), float("inf"), 0
    history = {"train_loss_history": [], "val_loss_history": [], "val_cosine_sim_history": []}
    if args.resume:
        state = torch.load(args.resume, map_location=device, weights_only=True)
        model.load_state_dict(state["model_state_dict"])
        optimizer.load_state_dict(state["optimizer_state_dict"])
        scheduler.load_state_dict(state["scheduler_state_dict"])
        torch.set_rng_state(state["rng_state"].cpu())
        first, best = state["epoch"] + 1, state["best_val_loss"]
        progress, waited = state["progress"], state["waited"]
        history = {name: state[name] for name in history}
    for epoch in range(first, args.epochs):
        train_loss = train_epoch(args, model, train_loader, optimizer, scaler, device)
        val_loss, val_cosine = validate(args, model, val_loader, device)
        for name, value in zip(history, (train_loss, val_loss, val_cosine), strict=True):
            history[name].append(value)
        print(
            f"Epoch {epoch + 1}/{args.epochs}: Train/Loss: {train_loss:.6f}, Val/Loss: {val_loss:.6f}, "
            f"Val/CosineSimilarity: {val_cosine:.6f}",
            flush=True,
        )
        scheduler.step(val_loss)
        waited += 1
        if val_loss < progress - args.early_stopping_min_delta:
            progress, waited = val_loss, 0
        lowest = val_loss < best
        best = min(val_loss, best)
        state = {
            "epoch": epoch,
            "model_state_dict": model.state_dict(),
            "optimizer_state_dict": optimizer.state_dict(),
            "scheduler_state_dict": scheduler.state_dict(),
            "rng_state": torch.get_rng_state(),
            "best_val_loss": best,
            "progress": progress,
            "waited": waited,
            "args": vars(args),
            **history,
        }
        torch.save(state, os.path.join(args.save_dir, "last_model.pth"))
        if lowest:
            torch.save(state, os.path.join(args.save_dir, "best_model.pth"))
        if args.early_stopping_patience and waited >= args.early_stopping_patience:
            break


if __name__ == "__main__":
    main()
