"""Train a small network that turns a side-view face embedding into the frontal one, with a margin between people.

An example of a user's own training script for `docs/your-script.md`. It knows nothing of face3d-tune: flags in, numbers
out once an epoch, checkpoints beside them.
"""

import argparse
import json
import random
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, cross_entropy, normalize

try:
    from torch.utils.tensorboard import SummaryWriter
except ImportError:  # without TensorBoard the numbers are printed and in the checkpoint
    SummaryWriter = None


def build_parser() -> argparse.ArgumentParser:
    """Declare the flags and their defaults."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data_dir", default="faces160", help="the folder with the six files")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--weight_decay", type=float, default=1e-5)
    parser.add_argument("--hidden", type=int, default=256, help="width of the network")
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--identity_weight", type=float, default=0.3, help="share of the loss that tells people apart")
    parser.add_argument("--temperature", type=float, default=0.1, help="of the similarities in that share")
    parser.add_argument("--scheduler_type", default="none", choices=["none", "cosine"])
    parser.add_argument("--use_pose", action=argparse.BooleanOptionalAction, default=False)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save_dir", default="checkpoints")
    parser.add_argument("--log_dir", default="logs")
    parser.add_argument("--resume", default=None, metavar="CHECKPOINT")
    return parser


def load(folder: Path) -> dict[str, list[Tensor]]:
    """Read the views of every part: embeddings [N, F], poses [N, 3] in radians, frontal embeddings, people [N]."""
    files = {side: json.loads((folder / f"{side}_metadata.json").read_text("utf-8")) for side in ("front", "video")}
    names = {side: [row["person_name"] for row in file["metadata"]] for side, file in files.items()}
    front, video = (np.load(folder / f"{side}_feature.npy").astype(np.float32) for side in ("front", "video"))
    row_of = {name: row for row, name in enumerate(names["front"])}
    poses = np.deg2rad(np.asarray(files["video"]["poses"], dtype=np.float32))
    people = [name for name in row_of if name in set(names["video"])]
    random.Random(42).shuffle(people)
    first, second = int(0.6 * len(people)), int(0.6 * len(people)) + int(0.3 * len(people))
    parts = {"train": people[:first], "validation": people[first:second], "test": people[second:]}
    read = {}
    for part, members in parts.items():
        number = {name: place for place, name in enumerate(members)}
        rows = [row for row, name in enumerate(names["video"]) if name in number]
        own = [row_of[names["video"][row]] for row in rows]
        person = torch.tensor([number[names["video"][row]] for row in rows])
        read[part] = [torch.tensor(array) for array in (video[rows], poses[rows], front[own])] + [person]
    return read


class Network(nn.Module):
    """A view's embedding plus a correction, that two layers compute from it, and from its pose if wanted."""

    def __init__(self, size: int, args: argparse.Namespace) -> None:
        super().__init__()
        self.use_pose = args.use_pose
        self.layers = nn.Sequential(
            nn.Linear(size + (3 if args.use_pose else 0), args.hidden),
            nn.GELU(),
            nn.Dropout(args.dropout),
            nn.Linear(args.hidden, size),
        )

    def forward(self, view: Tensor, pose: Tensor) -> Tensor:
        """Predict the frontal embeddings [B, F] of views [B, F] with poses [B, 3]."""
        return view + self.layers(torch.cat([view, pose], dim=1) if self.use_pose else view)


def train_epoch(network: Network, optimizer: torch.optim.AdamW, views: list[Tensor], args: argparse.Namespace) -> float:
    """Train on all views once, in shuffled batches; return the mean loss."""
    network.train()
    gallery = torch.zeros(int(views[3].max()) + 1, views[2].shape[1]).index_copy(0, views[3], normalize(views[2]))
    losses = []
    for rows in torch.randperm(len(views[0])).split(args.batch_size):
        view, pose, front, person = (tensor[rows] for tensor in views)
        prediction = network(view, pose)
        distance = 1 - cosine_similarity(prediction, front).mean()
        apart = cross_entropy(normalize(prediction) @ gallery.T / args.temperature, person)
        loss = (1 - args.identity_weight) * distance + args.identity_weight * apart
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return float(np.mean(losses))


@torch.no_grad()
def measure(network: Network, views: list[Tensor]) -> tuple[float, float]:
    """Return the mean cosine, and the share of views nearest to their own person's frontal embedding."""
    network.eval()
    view, pose, front, person = views
    prediction = network(view, pose)
    gallery = torch.zeros(int(person.max()) + 1, front.shape[1]).index_copy(0, person, normalize(front))
    nearest = (normalize(prediction) @ gallery.T).argmax(dim=1)
    return cosine_similarity(prediction, front).mean().item(), (nearest == person).float().mean().item()


def main() -> None:
    """Train, and keep the checkpoint with the highest validation cosine."""
    args = build_parser().parse_args()
    torch.manual_seed(args.seed)
    parts = load(Path(args.data_dir))
    network = Network(parts["train"][0].shape[1], args)
    optimizer = torch.optim.AdamW(network.parameters(), lr=args.lr, weight_decay=args.weight_decay)
    steps = args.epochs if args.scheduler_type == "cosine" else 10**9
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)
    history: dict[str, list[float]] = {"train_loss": [], "val_cosine": [], "val_rank1": []}
    if args.resume:
        state = torch.load(args.resume, weights_only=True)
        network.load_state_dict(state["model_state_dict"])
        optimizer.load_state_dict(state["optimizer_state_dict"])
        scheduler.load_state_dict(state["scheduler_state_dict"])
        torch.set_rng_state(state["rng_state"])
        history = state["history"]
    save_dir = Path(args.save_dir)
    save_dir.mkdir(parents=True, exist_ok=True)
    writer = SummaryWriter(args.log_dir) if SummaryWriter else None
    for epoch in range(len(history["val_cosine"]), args.epochs):
        train_loss = train_epoch(network, optimizer, parts["train"], args)
        val_cosine, val_rank1 = measure(network, parts["validation"])
        scheduler.step()
        for name, value in zip(history, (train_loss, val_cosine, val_rank1), strict=True):
            history[name].append(value)
            if writer:
                writer.add_scalar(name, value, epoch + 1)
                writer.flush()
        print(
            f"Epoch {epoch + 1}/{args.epochs}: Train Loss: {train_loss:.5f}, "
            f"Val Cosine: {val_cosine:.5f}, Val Rank-1: {val_rank1:.4f}",
            flush=True,
        )
        state = {
            "model_state_dict": network.state_dict(),
            "optimizer_state_dict": optimizer.state_dict(),
            "scheduler_state_dict": scheduler.state_dict(),
            "rng_state": torch.get_rng_state(),
            "history": history,
            "args": vars(args),
        }
        torch.save(state, save_dir / "last_model.pth")
        if val_cosine == max(history["val_cosine"]):
            torch.save(state, save_dir / "best_model.pth")
    network.load_state_dict(torch.load(save_dir / "best_model.pth", weights_only=True)["model_state_dict"])
    test_cosine, test_rank1 = measure(network, parts["test"])
    print(f"Test Cosine: {test_cosine:.5f}, Test Rank-1: {test_rank1:.4f}")


if __name__ == "__main__":
    main()
