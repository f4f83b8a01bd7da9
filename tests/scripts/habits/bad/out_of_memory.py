import argparse

parser = argparse.ArgumentParser()
parser.add_argument("--epochs", type=int, default=5)
parser.add_argument("--lr", type=float, default=0.1)
parser.add_argument("--batch_size", type=int, default=4096)
args = parser.parse_args()


class OutOfMemoryError(RuntimeError):
    pass


for epoch in range(args.epochs):
    if args.batch_size > 64 and epoch == 1:
        raise OutOfMemoryError(
            "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 7.79 GiB."
        )
    print(f"epoch {epoch + 1}: val_cosine {1 - args.lr / (epoch + 2):.4f}", flush=True)
