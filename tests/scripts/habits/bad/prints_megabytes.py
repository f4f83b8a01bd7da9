import argparse

parser = argparse.ArgumentParser()
parser.add_argument("--epochs", type=int, default=5)
parser.add_argument("--lr", type=float, default=0.1)
parser.add_argument("--megabytes", type=int, default=4, help="printed every epoch")
args = parser.parse_args()

for epoch in range(args.epochs):
    for _ in range(args.megabytes):
        print("debug: tensor([[" + "0.1234, " * 60_000 + "]])")  # half a megabyte without a line end
        print("batch loss: 0.5000\r" * 29_000, end="")
    print(f"\nepoch {epoch + 1}: val_cosine {1 - args.lr / (epoch + 2):.4f}", flush=True)
