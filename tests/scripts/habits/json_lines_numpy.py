import argparse
import json
import time
from pathlib import Path

import numpy as np


class Adam:
    def __init__(self, shape):
        self.m = np.zeros(shape)
        self.v = np.zeros(shape)
        self.t = 0

    def __call__(self, grad):
        self.t += 1
        self.m += 0.1 * (grad - self.m)
        self.v += 0.001 * (grad**2 - self.v)
        return self.m / (1 - 0.9**self.t) / (np.sqrt(self.v / (1 - 0.999**self.t)) + 1e-8)


class Sgd:
    def __init__(self, shape):
        pass

    def __call__(self, grad):
        return grad


OPTIMIZERS = {"adam": Adam, "sgd": Sgd}


def unit(a: np.ndarray) -> np.ndarray:
    return a / np.linalg.norm(a, axis=-1, keepdims=True)


def faces(people: int, views: int, rotation: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    front = np.repeat(unit(rng.normal(size=(people, len(rotation)))), views, axis=0)
    return unit(front @ rotation + rng.normal(scale=0.15, size=front.shape)), front


def evaluate(w1, w2, x, y) -> dict:
    p = x + np.tanh(x @ w1) @ w2
    cosine = float((unit(p) * y).sum(axis=1).mean())
    return {"loss": float(((p - y) ** 2).sum(axis=1).mean()), "cosine": cosine}


def gradients(w1, w2, x, y, cosine_share):
    """of cosine_share · (1 - cosine) + (1 - cosine_share) · squared distance"""
    h = np.tanh(x @ w1)
    p = x + h @ w2
    n = np.linalg.norm(p, axis=1, keepdims=True)
    c = (p * y).sum(axis=1, keepdims=True) / n
    loss = cosine_share * (1 - c.mean()) + (1 - cosine_share) * ((p - y) ** 2).sum(axis=1).mean()
    dp = (cosine_share * (c * p / n**2 - y / n) + (1 - cosine_share) * 2 * (p - y)) / len(x)
    dh = (dp @ w2.T) * (1 - h**2)
    return loss, x.T @ dh, h.T @ dp


def main() -> None:
    ap = argparse.ArgumentParser(formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    ap.add_argument("--output-dir", type=Path, default=Path("runs/default"))
    ap.add_argument("--max-epochs", type=int, default=20)
    ap.add_argument("--batch-size", type=int, default=16, choices=(8, 16, 32, 64))
    ap.add_argument("--learning-rate", type=float, default=1e-3)
    ap.add_argument("--weight-decay", type=float, default=0.0)
    ap.add_argument("--cosine-share", type=float, default=1.0)
    ap.add_argument("--hidden", type=int, default=48)
    ap.add_argument("--optimizer", choices=sorted(OPTIMIZERS), default="adam")
    opt = ap.parse_args()

    data = np.random.default_rng(2024)
    rotation = np.linalg.qr(data.normal(size=(48, 48)))[0]
    train, val, test = (faces(n, 8, rotation, data) for n in (240, 40, 20))
    rng = np.random.default_rng()
    weights = [rng.normal(scale=48**-0.5, size=(48, opt.hidden)), np.zeros((opt.hidden, 48))]
    steps = [OPTIMIZERS[opt.optimizer](w.shape) for w in weights]

    opt.output_dir.mkdir(parents=True, exist_ok=True)
    config = {k: str(v) if isinstance(v, Path) else v for k, v in vars(opt).items()}
    (opt.output_dir / "config.json").write_text(json.dumps(config, indent=2))
    best = None
    with open(opt.output_dir / "log.jsonl", "w") as log:

        def emit(**entry) -> None:
            line = json.dumps(entry)
            print(line, flush=True)
            print(line, file=log, flush=True)

        for epoch in range(1, opt.max_epochs + 1):
            started = time.perf_counter()
            losses = []
            order = rng.permutation(len(train[0]))
            for batch in np.array_split(order, len(order) // opt.batch_size):
                loss, *grads = gradients(*weights, train[0][batch], train[1][batch], opt.cosine_share)
                losses.append(loss)
                for w, g, step in zip(weights, grads, steps, strict=True):
                    w -= opt.learning_rate * (step(g) + opt.weight_decay * w)
            result = evaluate(*weights, *val)
            if best is None or result["cosine"] > best:
                best = result["cosine"]
                np.savez(opt.output_dir / "weights.npz", *weights)
            seconds = round(time.perf_counter() - started, 4)
            emit(epoch=epoch, train={"loss": float(np.mean(losses))}, val=result, seconds=seconds)
        emit(event="end", best=best, test=evaluate(*weights, *test))


if __name__ == "__main__":
    main()
