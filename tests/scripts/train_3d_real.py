"""Stand-in for the copy of `train_3d.py` that the tuning guide describes; it really trains (trainer contract §2 to §4).

It lies in a folder of its own and takes the model from a package beside that, as research code does. It knows nothing
of face3d_tune.
"""

import argparse
import json
import os
import random
import sys

import numpy as np
import torch
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.utils.data import DataLoader, TensorDataset

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from models.transformer import ReferenceModel

SPLIT = "person"  # "none": the first copy, which validated on its own training pairs


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
    parser.add_argument("--use_mixed_precision", action="store_true")
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
    return parser


def load(folder):
    """src, landmarks, pose and target of every pair, and the person of each."""
    read = {}
    for side in ("front", "video"):
        features = np.load(os.path.join(folder, f"{side}_feature.npy"))
        with open(os.path.join(folder, f"{side}_metadata.json"), encoding="utf-8") as file:
            read[side] = features, json.load(file)
    (front, front_meta), (video, video_meta) = read["front"], read["video"]
    names = [row["person_name"] for row in video_meta["metadata"]]
    pairs = [
        (i, j, row["person_name"])
        for i, row in enumerate(front_meta["metadata"])
        for j, name in enumerate(names)
        if name == row["person_name"]
    ]
    points = np.asarray(video_meta["landmarks_3d_original"])
    points = (points - points.mean(axis=1, keepdims=True)) * front_meta["standard_info"]["standard_scale"]
    rows_front, rows_video = [i for i, _, _ in pairs], [j for _, j, _ in pairs]
    arrays = video[rows_video], points[rows_video], np.asarray(video_meta["poses"])[rows_video], front[rows_front]
    return [torch.tensor(array, dtype=torch.float32) for array in arrays], [person for _, _, person in pairs]


def split(people):
    """Indices of the training and of the validation pairs."""
    if SPLIT == "none":
        return list(range(len(people))), list(range(len(people)))
    names = list(dict.fromkeys(people))
    random.Random(42).shuffle(names)
    first, second = int(0.6 * len(names)), int(0.6 * len(names)) + int(0.3 * len(names))
    parts = set(names[:first]), set(names[first:second])
    return [[k for k, person in enumerate(people) if person in part] for part in parts]


def loss_of(args, prediction, target):
    mse = ((prediction - target) ** 2).mean()
    cosine = torch.nn.functional.cosine_similarity(prediction, target).mean()
    return args.mse_weight * mse + args.cosine_weight * (1 - cosine), cosine


def main():
    args = build_parser().parse_args()
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
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr, weight_decay=args.weight_decay)
    scheduler = ReduceLROnPlateau(
        optimizer,
        mode="min",
        factor=args.scheduler_factor,
        patience=args.scheduler_patience,
        min_lr=args.scheduler_min_lr,
    )
    os.makedirs(args.save_dir, exist_ok=True)
    os.makedirs(args.log_dir, exist_ok=True)
    best, waited = float("inf"), 0
    history = {"train_loss_history": [], "val_loss_history": [], "val_cosine_sim_history": []}
    for epoch in range(args.epochs):
        model.train()
        losses = []
        for *inputs, target in train_loader:
            loss, _ = loss_of(args, model(*inputs), target)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            losses.append(loss.item())
        model.eval()
        with torch.no_grad():
            scores = [(*loss_of(args, model(*inputs), target), len(target)) for *inputs, target in val_loader]
        pairs = sum(n for _, _, n in scores)
        val_loss = sum(loss.item() * n for loss, _, n in scores) / pairs
        val_cosine = sum(cosine.item() * n for _, cosine, n in scores) / pairs
        for name, value in zip(history, (np.mean(losses), val_loss, val_cosine), strict=True):
            history[name].append(value)
        print(f"Epoch {epoch + 1}/{args.epochs}")
        print(f"训练损失: {np.mean(losses):.6f}, 验证损失: {val_loss:.6f}, 验证余弦相似度: {val_cosine:.6f}")
        scheduler.step(val_loss)
        waited = 0 if val_loss < best - args.early_stopping_min_delta else waited + 1
        if val_loss < best:
            best = val_loss
            state = {
                "epoch": epoch,
                "model_state_dict": model.state_dict(),
                "optimizer_state_dict": optimizer.state_dict(),
                "best_val_loss": best,
                "args": vars(args),
                **history,
            }
            torch.save(state, os.path.join(args.save_dir, "best_model.pth"))
        if args.early_stopping_patience and waited >= args.early_stopping_patience:
            break


if __name__ == "__main__":
    main()
