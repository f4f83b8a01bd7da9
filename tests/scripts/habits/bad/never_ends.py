import argparse
import threading

parser = argparse.ArgumentParser()
parser.add_argument("--epochs", type=int, default=5)
parser.add_argument("--lr", type=float, default=0.1)
parser.add_argument("--wait_for_ever", action="store_true", help="before the first epoch")
args = parser.parse_args()

if args.wait_for_ever:
    threading.Event().wait()
for epoch in range(args.epochs):
    print(f"epoch {epoch + 1}: val_cosine {1 - args.lr / (epoch + 2):.4f}", flush=True)
threading.Event().wait()  # for a logger thread that never ends
