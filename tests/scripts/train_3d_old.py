"""Stand-in for the copy of `train_3d.py` that the tuning guide describes: its parser, and no training."""

import argparse


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
    parser.add_argument("--num_workers", type=int, default=4)
    parser.add_argument("--device", type=str, default="auto")
    parser.add_argument("--save_dir", type=str, default="checkpoints")
    parser.add_argument("--log_dir", type=str, default="logs")
    parser.add_argument("--resume", type=str, default=None)
    parser.add_argument("--deterministic", action="store_true")
    return parser


def main():
    raise RuntimeError("the script was run; it may only be read")


if __name__ == "__main__":
    main()
