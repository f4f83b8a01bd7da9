import argparse

parser = argparse.ArgumentParser()
parser.add_argument("--epochs", type=int, default=5)
parser.add_argument("--lr", type=float, default=0.1)
args = parser.parse_args()

for epoch in range(args.epochs):
    print(f"epoch {epoch + 1} done", flush=True)
print(f"test_cosine: {1 - args.lr / (args.epochs + 1):.4f}")
