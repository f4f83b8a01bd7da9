"""Silent trainer: whatever there is to know is in its checkpoints."""

import argparse
import pathlib

import torch

p = argparse.ArgumentParser()
p.add_argument("--out", default="ckpt", help="folder of the checkpoints")
p.add_argument("--n_epochs", type=int, default=20)
p.add_argument("--bs", type=int, default=24)
p.add_argument("--lr", type=float, default=0.1)
p.add_argument("--l2", type=float, default=1e-4)
p.add_argument("--margin", type=float, default=0.0)
p.add_argument("--amp", action="store_true")
p.add_argument("--no_amp", dest="amp", action="store_false")
p.add_argument("--seed", type=int, default=0)
p.add_argument("--resume", default="", metavar="CKPT")


class Trainer:
    def __init__(self, hparams):
        self.hp = hparams
        torch.manual_seed(hparams.seed)
        self.weight = (0.2 * torch.randn(32, 32)).requires_grad_()
        self.velocity = torch.zeros(32, 32)
        self.done = 0
        self.history = {"train_loss": [], "val_loss": [], "val_cos": []}
        self.data()

    def data(self):
        g = torch.Generator().manual_seed(5)
        q = torch.linalg.qr(torch.randn(32, 32, generator=g))[0]
        y = torch.nn.functional.normalize(torch.randn(96, 32, generator=g)).repeat_interleave(6, 0)
        x = y @ q + 0.12 * torch.randn(y.shape, generator=g)
        self.x, self.y, self.vx, self.vy = x[:384], y[:384], x[384:], y[384:]

    def losses(self, x, y):
        cos = torch.cosine_similarity(x @ self.weight, y)
        return torch.relu(1 - self.hp.margin - cos).mean(), cos.mean()

    def epoch(self):
        total = 0.0
        for rows in torch.randperm(len(self.x)).split(self.hp.bs):
            loss, _ = self.losses(self.x[rows], self.y[rows])
            (grad,) = torch.autograd.grad(loss, self.weight)
            self.velocity = 0.9 * self.velocity + grad + self.hp.l2 * self.weight.detach()
            with torch.no_grad():
                self.weight -= self.hp.lr * self.velocity
            total += loss.item() * len(rows)
        with torch.no_grad():
            val, cos = self.losses(self.vx, self.vy)
        for key, value in zip(self.history, (total / len(self.x), val.item(), cos.item()), strict=True):
            self.history[key].append(value)
        self.done += 1

    def state(self):
        return {
            "weight": self.weight.detach(),
            "velocity": self.velocity,
            "done": self.done,
            "history": self.history,
            "rng": torch.get_rng_state(),
            "hparams": self.hp,
        }

    def load(self, file):
        s = torch.load(file, weights_only=False)
        self.weight, self.velocity = s["weight"].requires_grad_(), s["velocity"]
        self.done, self.history = s["done"], s["history"]
        torch.set_rng_state(s["rng"])


def run(hparams):
    out = pathlib.Path(hparams.out)
    out.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(hparams)
    if hparams.resume:
        trainer.load(hparams.resume)
    while trainer.done < hparams.n_epochs:
        trainer.epoch()
        torch.save(trainer.state(), out / "last.ckpt")
        if trainer.history["val_loss"][-1] == min(trainer.history["val_loss"]):
            torch.save(trainer.state(), out / "best.ckpt")


if __name__ == "__main__":
    run(p.parse_args())
