import argparse

parser = argparse.ArgumentParser()
parser.add_argument("--epochs", type=int, default=5)
parser.add_argument("--lr", type=float, default=0.1)
args = parser.parse_args()


def main():
    for epoch in range(args.epochs):
        print(f"epoch {epoch + 1}: val_cosine {1 - args.lr / (epoch + 2):.4f}")


if __name__ == "__mian__":  # the typing error of every third script
    main()
