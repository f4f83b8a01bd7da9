import argparse

parser = argparse.ArgumentParser()
parser.add_argument("--epochs", type=int, default=5)
parser.add_argument("--lr", type=float, default=0.1)
args = parser.parse_args()

for epoch in range(args.epochs):
    cosine = 1 - args.lr / (epoch + 2) if epoch < 3 else float("nan")
    print(f"epoch {epoch + 1}: val_cosine {cosine:.4f}", flush=True)
