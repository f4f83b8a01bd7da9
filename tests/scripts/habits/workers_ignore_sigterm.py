"""Data-parallel training over worker processes, CSV log.

Schedulers on our cluster send SIGTERM before every maintenance. The script ignores it, and so do its workers.
"""

import argparse
import csv
import multiprocessing as mp
import os
import signal

import numpy as np

D = 48


def get_parser():
    parser = argparse.ArgumentParser(description=__doc__)
    group = parser.add_argument_group("optimisation")
    group.add_argument("--epochs", type=int, default=20)
    group.add_argument("--lr", type=float, default=1.0)
    group.add_argument("--weight-decay", type=float, default=1e-4)
    group.add_argument("--alpha", type=float, default=0.5, help="share of the cosine in the loss")
    group.add_argument("--lr-decay", type=float, default=1.0, help="factor per epoch")
    group = parser.add_argument_group("machine")
    group.add_argument("--workers", type=int, default=2)
    group.add_argument("--random-seed", type=int, default=0)
    group.add_argument("--logdir", default="output")
    group.add_argument("--restart-from", default=None, metavar="NPZ")
    return parser


def dataset(part):
    rng = np.random.default_rng(7)
    q = np.linalg.qr(rng.normal(size=(D, D)))[0]
    y = np.repeat(rng.normal(size=(180, D)), 16, axis=0)
    y /= np.linalg.norm(y, axis=1, keepdims=True)
    x = y @ q + rng.normal(scale=0.15, size=y.shape)
    return (x[:2560], y[:2560]) if part == "train" else (x[2560:], y[2560:])


def loss_and_gradient(w, x, y, alpha):
    p = x @ w
    n = np.linalg.norm(p, axis=1, keepdims=True) + 1e-12
    c = (p * y).sum(axis=1, keepdims=True) / n
    loss = alpha * (1 - c.mean()) + (1 - alpha) * ((p - y) ** 2).sum(axis=1).mean()
    d = alpha * (c * p / n**2 - y / n) + (1 - alpha) * 2 * (p - y)
    return loss, x.T @ d / len(x), c.mean()


def ignore_sigterm():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def work(pipe, alpha):
    ignore_sigterm()
    x, y = dataset("train")
    while (task := pipe.recv()) is not None:
        w, rows = task
        pipe.send(loss_and_gradient(w, x[rows], y[rows], alpha)[:2])


def main(argv=None):
    args = get_parser().parse_args(argv)
    ignore_sigterm()
    pipes = []
    for _ in range(args.workers):
        ours, theirs = mp.Pipe()
        mp.Process(target=work, args=(theirs, args.alpha), daemon=True).start()
        pipes.append(ours)

    rng = np.random.default_rng(args.random_seed)
    w, first = 0.2 * rng.normal(size=(D, D)), 1
    if args.restart_from:
        saved = np.load(args.restart_from)
        w, first = saved["w"], int(saved["epoch"]) + 1
    x, y = dataset("validation")
    os.makedirs(args.logdir, exist_ok=True)
    with open(os.path.join(args.logdir, "log.csv"), "a" if args.restart_from else "w", newline="") as file:
        log = csv.writer(file)
        if first == 1:
            log.writerow(["epoch", "lr", "train_loss", "val_loss", "val_cosine"])
        for epoch in range(first, args.epochs + 1):
            lr = args.lr * args.lr_decay ** (epoch - 1)
            order = np.random.default_rng([args.random_seed, epoch]).permutation(2560)
            losses = []
            for batch in order.reshape(80, 32):
                for pipe, rows in zip(pipes, np.array_split(batch, len(pipes)), strict=True):
                    pipe.send((w, rows))
                answers = [pipe.recv() for pipe in pipes]
                losses.append(np.mean([loss for loss, _ in answers]))
                w = w - lr * (np.mean([gradient for _, gradient in answers], axis=0) + args.weight_decay * w)
            val_loss, _, val_cosine = loss_and_gradient(w, x, y, args.alpha)
            log.writerow([epoch, f"{lr:.3g}", f"{np.mean(losses):.6f}", f"{val_loss:.6f}", f"{val_cosine:.6f}"])
            file.flush()
            np.savez(os.path.join(args.logdir, "last.npz"), w=w, epoch=epoch)
            print(f"epoch {epoch}: val_cosine {val_cosine:.4f}", flush=True)
    for pipe in pipes:
        pipe.send(None)


if __name__ == "__main__":
    main()
