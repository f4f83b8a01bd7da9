import argparse

parser = argparse.ArgumentParser()
parser.add_argument("--epochs", type=int, default=5)
parser.add_argument("--lr", type=float, default=0.1)
args = parser.parse_args()

if input("The folder checkpoints exists. Overwrite it? [y/N] ").lower() != "y":
    raise SystemExit("nothing done")
for epoch in range(args.epochs):
    print(f"epoch {epoch + 1}: val_cosine {1 - 1 / (epoch + 2):.4f}")
