import argparse

parser = argparse.ArgumentParser()
parser.add_argument("--epochs", type=int, default=5)
parser.add_argument("--lr", type=float, default=0.1)
args = parser.parse_args()

for epoch in range(args.epochs):
    print(f"epoch {epoch + 1}: val_cosine {'good' if args.lr < 0.5 else 'bad'}", flush=True)
