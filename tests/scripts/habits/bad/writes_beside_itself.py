import argparse
import pathlib

parser = argparse.ArgumentParser()
parser.add_argument("--epochs", type=int, default=5)
parser.add_argument("--lr", type=float, default=0.1)
parser.add_argument("--save_dir", default="checkpoints")
args = parser.parse_args()

results = pathlib.Path(__file__).parent / "results"
results.mkdir(exist_ok=True)
for epoch in range(args.epochs):
    line = f"epoch {epoch + 1}: val_cosine {1 - args.lr / (epoch + 2):.4f}"
    print(line, flush=True)
    with open(results / "all_runs.txt", "a") as file:
        file.write(line + "\n")
