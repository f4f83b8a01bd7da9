"""Stand-in for the present copy of `train_3d.py`; it really trains, and its `decoder_only` is the `pose` layout.

It counts layers by --num_decoder_layers, anneals by default, and takes data and loss from an earlier copy beside it. It
knows nothing of face3d_tune.
"""

import argparse
import os
import sys

import numpy as np
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, ReduceLROnPlateau, StepLR
from torch.utils.data import DataLoader, TensorDataset

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from models.transformer import ReferenceModel
from train_3d_first import load, loss_of, split

PLATEAU = {}  # {"verbose": True} in theirs, which torch 2.7 and later refuse


def build_parser():
    parser = argparse.ArgumentParser(description="Train the 3D transformer")
    parser.add_argument("--data_dir", type=str, default="train/datas/file", help="the six data files")
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=150)
    parser.add_argument("--lr", type=float, default=1e-2)
    parser.add_argument("--mse_weight", type=float, default=0.1)
    parser.add_argument("--cosine_weight", type=float, default=0.9)
    parser.add_argument("--loss_type", type=str, default="combined", choices=["mse", "cosine", "combined"])
    parser.add_argument("--scheduler_type", type=str, default="cosine", choices=["cosine", "plateau", "step"])
    parser.add_argument("--scheduler_factor", type=float, default=0.5)
    parser.add_argument("--scheduler_patience", type=int, default=7)
    parser.add_argument("--scheduler_min_lr", type=float, default=1e-6)
    parser.add_argument("--warmup_epochs", type=int, default=10)
    parser.add_argument("--warmup_lr", type=float, default=1e-5)
    parser.add_argument("--cosine_eta_min", type=float, default=1e-6)
    parser.add_argument("--early_stopping_patience", type=int, default=30)
    parser.add_argument("--early_stopping_min_delta", type=float, default=1e-4)
    parser.add_argument("--use_mixed_precision", action="store_true")
    parser.add_argument("--use_spatial_attention", action="store_true")
    parser.add_argument("--use_pose_attention", action="store_true")
    parser.add_argument("--model_type", type=str, default="decoder_only")
    parser.add_argument("--d_model", type=int, default=512)
    parser.add_argument("--nhead", type=int, default=8)
    parser.add_argument("--num_decoder_layers", type=int, default=4)
    parser.add_argument("--dim_feedforward", type=int, default=2048)
    parser.add_argument("--dropout", type=float, default=0.15)
    parser.add_argument("--weight_decay", type=float, default=1e-4)
    parser.add_argument("--num_workers", type=int, default=0)
    parser.add_argument("--device", type=str, default="auto")
    parser.add_argument("--save_dir", type=str, default="checkpoints")
    parser.add_argument("--log_dir", type=str, default="logs")
    parser.add_argument("--resume", type=str, default=None)
    parser.add_argument("--deterministic", action="store_true")
    return parser


def scheduler_of(args, optimizer):
    if args.scheduler_type == "plateau":
        settings = {"factor": args.scheduler_factor, "patience": args.scheduler_patience}
        return ReduceLROnPlateau(optimizer, mode="min", min_lr=args.scheduler_min_lr, **settings, **PLATEAU)
    if args.scheduler_type == "step":
        return StepLR(optimizer, step_size=30, gamma=args.scheduler_factor)
    return CosineAnnealingLR(optimizer, T_max=args.epochs, eta_min=args.cosine_eta_min)


def model_of(args):
    return ReferenceModel(
        feature_size=args.d_model,
        d_model=args.d_model,
        nhead=args.nhead,
        num_layers=args.num_decoder_layers,
        dim_feedforward=args.dim_feedforward,
        dropout=args.dropout,
        layout="pose" if args.model_type == "decoder_only" else "keypoint",
        use_spatial_attention=args.use_spatial_attention and args.model_type != "decoder_only",
        use_pose_attention=args.use_pose_attention,
    )


def main():
    args = build_parser().parse_args()
    arrays, people = load(args.data_dir)
    train, val = (TensorDataset(*(array[rows] for array in arrays)) for rows in split(people))
    model = model_of(args)
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr, weight_decay=args.weight_decay)
    scheduler = scheduler_of(args, optimizer)
    os.makedirs(args.save_dir, exist_ok=True)
    history = {"train_loss_history": [], "val_loss_history": [], "val_cosine_sim_history": []}
    for epoch in range(args.epochs):
        model.train()
        losses = []
        for *inputs, target in DataLoader(train, args.batch_size, shuffle=True, drop_last=True):
            loss, _ = loss_of(args, model(*inputs), target)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            losses.append(loss.item())
        model.eval()
        with torch.no_grad():
            scores = [loss_of(args, model(*inputs), target) for *inputs, target in DataLoader(val, args.batch_size)]
        val_loss, val_cosine = (float(np.mean([score[k].item() for score in scores])) for k in (0, 1))
        for name, value in zip(history, (float(np.mean(losses)), val_loss, val_cosine), strict=True):
            history[name].append(value)
        print(f"Epoch {epoch + 1}: Val/Loss {val_loss:.6f}, Val/CosineSimilarity {val_cosine:.6f}")
        scheduler.step(*([val_loss] if args.scheduler_type == "plateau" else []))
        if val_loss <= min(history["val_loss_history"]):
            state = {
                "epoch": epoch,
                "model_state_dict": model.state_dict(),
                "optimizer_state_dict": optimizer.state_dict(),
                "best_val_loss": val_loss,
                "args": vars(args),
                **history,
            }
            torch.save(state, os.path.join(args.save_dir, "best_model.pth"))


if __name__ == "__main__":
    main()
