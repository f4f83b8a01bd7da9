"""训练一个旋转模型：把侧脸特征转回正脸。只打印结果，不保存任何文件。

Trains a rotation of side embeddings to the frontal ones. It prints its results and writes nothing.
"""

import argparse
import sys

import numpy as np

解析器 = argparse.ArgumentParser(description="旋转模型训练")
解析器.add_argument("-e", "--epochs", default=25, type=int, help="训练轮数")
解析器.add_argument("-b", "--batch_size", default=16, type=int, help="批大小")
解析器.add_argument("--lr", default=0.05, type=float, help="学习率")
解析器.add_argument("--wd", default=0.0, type=float, help="权重衰减")
解析器.add_argument("--cos_w", default=0.7, type=float, help="余弦损失权重")
解析器.add_argument("--momentum", default=0.9, type=float)
解析器.add_argument("--residual", default=True, action=argparse.BooleanOptionalAction, help="残差连接")
解析器.add_argument("--no_bias", dest="bias", action="store_false", help="不使用偏置")
解析器.add_argument("--quiet", action="store_true", help="不显示进度")
解析器.add_argument("--seed", default=3407, type=int, help="随机种子")

DIM = 48


def load_data():
    """返回 (侧脸, 正脸)：训练、验证、测试三部分。"""
    rng = np.random.default_rng(1)
    q, _ = np.linalg.qr(rng.standard_normal((DIM, DIM)))
    out = []
    for people in (200, 40, 20):
        y = np.repeat(rng.standard_normal((people, DIM)), 10, axis=0)
        y /= np.linalg.norm(y, axis=1, keepdims=True)
        out.append((y @ q + 0.12 * rng.standard_normal(y.shape), y))
    return out


class Model:
    def __init__(self, args, rng):
        self.args = args
        self.w = 0.1 * rng.standard_normal((DIM, DIM))
        self.b = np.zeros(DIM)
        self.vw, self.vb = np.zeros_like(self.w), np.zeros_like(self.b)

    def __call__(self, x):
        return (x if self.args.residual else 0) + x @ self.w + self.b

    def loss(self, x, y):
        """返回 损失、平均余弦、损失对输出的梯度。"""
        p = self(x)
        n = np.linalg.norm(p, axis=1, keepdims=True)
        cos = (p * y).sum(axis=1, keepdims=True) / n
        c = self.args.cos_w
        loss = c * (1 - cos.mean()) + (1 - c) * ((p - y) ** 2).mean()
        grad = -c * (y / n - cos * p / n**2) / len(x) + (1 - c) * 2 * (p - y) / p.size
        return loss, cos.mean(), grad

    def step(self, x, y):
        loss, _, grad = self.loss(x, y)
        a = self.args
        self.vw = a.momentum * self.vw + x.T @ grad + a.wd * self.w
        self.w -= a.lr * self.vw
        if a.bias:
            self.vb = a.momentum * self.vb + grad.sum(axis=0)
            self.b -= a.lr * self.vb
        return loss


if __name__ == "__main__":
    参数 = 解析器.parse_args()
    rng = np.random.default_rng(参数.seed)
    (x, y), (vx, vy), (tx, ty) = load_data()
    model, best = Model(参数, rng), -1.0
    print(f"训练样本: {len(x)}, 验证样本: {len(vx)}")
    for epoch in range(1, 参数.epochs + 1):
        print(f"\n轮次 [{epoch}/{参数.epochs}]")
        losses = []
        order = rng.permutation(len(x))
        for i in range(0, len(x), 参数.batch_size):
            k = order[i : i + 参数.batch_size]
            losses.append(model.step(x[k], y[k]))
            if not 参数.quiet:
                sys.stdout.write(f"\r  进度: {(i + len(k)) / len(x):4.0%}  损失={losses[-1]:.4f}")
        val_loss, val_cos, _ = model.loss(vx, vy)
        print(f"\n  训练损失: {np.mean(losses):.6f}")
        print(f"  验证损失: {val_loss:.6f}，验证余弦相似度：{val_cos:.6f}")
        if val_cos > best:
            best = val_cos
            print("  ★ 新的最佳模型")
    print(f"\n训练完成！最佳验证余弦相似度: {best:.6f}")
    print(f"测试余弦相似度: {model.loss(tx, ty)[1]:.6f}")
