"""Every number that a script gives is found, under a name that stays, at the epoch that it belongs to."""

import csv
import json
import math
import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import test_event_file as tensorboard
import torch

from face3d_tune.script.running import result_files
from face3d_tune.script.running.numbers import SOURCES, Numbers
from face3d_tune.training import checkpoint_file


@pytest.fixture
def numbers(tmp_path):
    return Numbers(tmp_path)


def curves(numbers, source):
    """The curve of each name of a source, as lists."""
    found = {name: curve for (given, name), curve in numbers.curves().items() if given == source}
    assert all(list(curve) == list(range(1, len(curve) + 1)) for curve in found.values())
    return {name: list(curve.values()) for name, curve in found.items()}


def heard(tmp_path, text):
    numbers = Numbers(tmp_path)
    numbers.hear(text)
    numbers.look(ended=True)
    return curves(numbers, "printed")


def looked(numbers, source):
    numbers.look()
    numbers.look()
    return curves(numbers, source)


PRINTED = {
    "the owners' trainer": (
        "Epoch 1/3\n训练损失: 0.500000, 验证损失: 0.400000, 验证余弦相似度: 0.600000\n"
        "Epoch 2/3\n训练损失: 0.300000, 验证损失: 0.200000, 验证余弦相似度: -0.700000\n",
        {"训练损失": [0.5, 0.3], "验证损失": [0.4, 0.2], "验证余弦相似度": [0.6, -0.7]},
    ),
    "names with slashes": (
        "Epoch 1: Val/Loss 0.123456, Val/CosineSimilarity -0.654321\nEpoch 2: Val/Loss 0.1, Val/CosineSimilarity 0.7\n",
        {"Val/Loss": [0.123456, 0.1], "Val/CosineSimilarity": [-0.654321, 0.7]},
    ),
    "the tutorial of PyTorch": (
        "Epoch 0/1\n----------\ntrain Loss: 0.6 Acc: 0.7\nval Loss: 0.4 Acc: 0.9\n\n"
        "Epoch 1/1\n----------\ntrain Loss: 0.5 Acc: 0.75\nval Loss: 0.3 Acc: 0.95\n\n"
        "Training complete in 1m 4s\nBest val Acc: 0.950000\n",
        {
            "train Loss": [0.6, 0.5],
            "train Acc": [0.7, 0.75],
            "val Loss": [0.4, 0.3],
            "val Acc": [0.9, 0.95],
            "Best val Acc": [0.95],
        },
    ),
    "phases in one line": (
        "Train - Loss: 0.5 Acc: 0.8 | Val - Loss: 0.4 Acc: 0.9\nTrain - Loss: 0.4 Acc: 0.85 | Val - Loss: 0.3 Acc: 1\n",
        {"Train Loss": [0.5, 0.4], "Train Acc": [0.8, 0.85], "Val Loss": [0.4, 0.3], "Val Acc": [0.9, 1.0]},
    ),
    "phases in brackets": (
        "[Epoch 1] [Train] loss: 0.5 [Val] loss: 0.4\nEpoch: 2 | Train | loss: 0.1 | Val | loss: 0.15\n",
        {"Train loss": [0.5, 0.1], "Val loss": [0.4, 0.15]},
    ),
    "phases as headings": (
        "Epoch 1\nTraining:\n  Loss: 0.5\nValidation:\n  Loss: 0.4\nEpoch 2\nTraining:\n  Loss: 0.3\nValidation:\n"
        "  Loss: 0.2\n",
        {"Training Loss": [0.5, 0.3], "Validation Loss": [0.4, 0.2]},
    ),
    "phases in Chinese": (
        "轮次 1/2 | 训练: 损失=0.5 准确率=80.1% | 验证: 损失=0.4 准确率=81.1%\n"
        "轮次 2/2 | 训练: 损失=0.4 准确率=80.2% | 验证: 损失=0.3 准确率=82%\n",
        {"训练损失": [0.5, 0.4], "训练准确率": [80.1, 80.2], "验证损失": [0.4, 0.3], "验证准确率": [81.1, 82.0]},
    ),
    "a second name after a comma": (
        "Train Loss: 0.5, Acc: 0.8\nVal Loss: 0.4, Acc: 0.9\n",
        {"Train Loss": [0.5], "Train Acc": [0.8], "Val Loss": [0.4], "Val Acc": [0.9]},
    ),
    "Chinese punctuation": (
        "第 1 轮：训练损失=0.5，准确率：85.3%，学习率：1e-4\n第 2/10 轮：训练损失=0.4；准确率 86.3%；学习率 1e-4\n"
        "第3轮：训练损失 0.3、准确率：87％\n轮次：4\n📊 验证损失：0.2\n用时：3.2秒\n"
        "最终损失为0.25。余弦0.75\n完成！最佳: 0.2\n",
        {
            "训练损失": [0.5, 0.4, 0.3],
            "训练准确率": [85.3, 86.3, 87.0],
            "学习率": [1e-4, 1e-4],
            "验证损失": [0.2],
            "用时": [3.2],
            "最终损失": [0.25],
            "余弦": [0.75],
            "最佳": [0.2],
        },
    ),
    "a bar of tqdm": (
        "\rEpoch 1/2:  45%|####5     | 45/100 [00:10<00:12,  4.5it/s, loss=0.5, acc=0.9]"
        "\rEpoch 1/2: 100%|####| 100/100 [00:20<00:00,  4.5it/s, loss=0.4, acc=0.8]\nVal loss: 0.3\n"
        "\rEpoch 2/2: 100%|██████████| 100/100 [00:20<00:00,  4.5it/s, loss=0.3, acc=0.85]\nVal loss: 0.2\n",
        {"loss": [0.4, 0.3], "acc": [0.8, 0.85], "Val loss": [0.3, 0.2]},
    ),
    "Keras 3": (
        "Epoch 1/2\n\r\x1b[1m 50/100\x1b[0m \x1b[32m━━━━━━━━━━\x1b[0m\x1b[37m━━━━━━━━━━\x1b[0m \x1b[1m0s\x1b[0m "
        "5ms/step - accuracy: 0.7 - loss: 0.6\r\x1b[1m100/100\x1b[0m \x1b[32m━━━━━━━━━━━━━━━━━━━━\x1b[0m "
        "\x1b[1m1s\x1b[0m 5ms/step - accuracy: 0.8 - loss: 0.5 - val_accuracy: 0.75 - val_loss: 0.55\nEpoch 2/2\n\r"
        "100/100 ━━━━━━━━━━━━━━━━━━━━ 1s 5ms/step - accuracy: 0.9 - loss: 0.4 - val_accuracy: 0.85 - val_loss: 0.45\n",
        {"accuracy": [0.8, 0.9], "loss": [0.5, 0.4], "val_accuracy": [0.75, 0.85], "val_loss": [0.55, 0.45]},
    ),
    "Keras 2": (
        "Epoch 1/2\n100/100 [==============================] - 1s 5ms/step - loss: 0.5 - val_loss: 0.55\n"
        "Epoch 00001: val_loss improved from inf to 0.55000, saving model to x.h5\nEpoch 2/2\n"
        "100/100 [==============================] - ETA: 0s - loss: 0.4 - val_loss: 0.45\n",
        {"loss": [0.5, 0.4], "val_loss": [0.55, 0.45]},
    ),
    "timm": (
        "Train: 0 [   0/100 (  0%)]  Loss: 6.9 (6.95)  Time: 1.2s,  100.0/s  (1.2s,  100/s)  LR: 1.000e-04\n"
        "Test: [   0/10]  Loss:   6.90 ( 6.95)  Acc@1:   0.10 (  0.2)\n"
        "Test: [  10/10]  Loss:   6.80 ( 6.85)  Acc@1:   0.20 (  0.3)\n"
        "Current checkpoints:\n ('./out/checkpoint-0.pth.tar', 0.3)\n"
        "Train: 1 [   0/100 (  0%)]  Loss: 6.5 (6.5)  Time: 1.1s,  100.0/s  LR: 1.000e-04\n"
        "Test: [  10/10]  Loss:   6.70 ( 6.85)  Acc@1:   0.40 (  0.3)\n",
        {"Loss": [6.9, 6.5], "Time": [1.2, 1.1], "LR": [1e-4, 1e-4], "Test Loss": [6.8, 6.7], "Test Acc@1": [0.2, 0.4]},
    ),
    "the ImageNet example of PyTorch": (
        "Epoch: [0][ 10/100]\tTime  0.1 ( 0.2)\tLoss 6.9e+00 (6.8e+00)\tAcc@1   0.10 (  0.2)\n"
        " *   Acc@1 71.332 Acc@5 90.2\n"
        "Epoch: [1][ 10/100]\tTime  0.1 ( 0.2)\tLoss 5.9e+00 (6.8e+00)\n * Acc@1 73.0 Acc@5 91.0\n",
        {"Time": [0.1, 0.1], "Loss": [6.9, 5.9], "Acc@1": [71.332, 73.0], "Acc@5": [90.2, 91.0]},
    ),
    "Lightning": (
        "Epoch 0: 100%|██████████| 10/10 [00:01<00:00,  8.5it/s, v_num=0, train_loss=0.5, val_loss=0.4]\n"
        "Epoch 1: 100%|██████████| 10/10 [00:01<00:00,  8.5it/s, v_num=0, train_loss=0.4, val_loss=0.3]\n",
        {"v_num": [0.0, 0.0], "train_loss": [0.5, 0.4], "val_loss": [0.4, 0.3]},
    ),
    "the rich bar of Lightning": (
        "Epoch 0/1 ━━━━━━━━━━━━━━━━ 10/10 0:00:01 • 0:00:00 8.50it/s v_num: 0.000 train_loss: 0.5\n"
        "Epoch 1/1 ━━━━━━━━━━━━━━━━ 10/10 0:00:01 • 0:00:00 8.50it/s v_num: 0.000 train_loss: 0.4 val_loss: 0.3\n",
        {"v_num": [0.0, 0.0], "train_loss": [0.5, 0.4], "val_loss": [0.3]},
    ),
    "a dict after a word": (
        "Epoch 1: {'loss': 0.5, 'val_acc': 0.8}\nEpoch 2: {'loss': 0.4, 'val_acc': 0.9}\n",
        {"loss": [0.5, 0.4], "val_acc": [0.8, 0.9]},
    ),
    "a table with names of rows": (
        "| split | loss | acc |\n|-------|------|-----|\n| train | 0.5 | 0.8 |\n| val | 0.4 | 0.9 |\n",
        {"train loss": [0.5], "train acc": [0.8], "val loss": [0.4], "val acc": [0.9]},
    ),
    "the MNIST example of PyTorch": (
        "Train Epoch: 1 [0/60000 (0%)]\tLoss: 2.300039\nTrain Epoch: 1 [640/60000 (1%)]\tLoss: 1.2\n\n"
        "Test set: Average loss: 0.0475, Accuracy: 9847/10000 (98.5%)\n",
        {"Train Loss": [1.2], "Test set Average loss": [0.0475], "Test set Accuracy": [98.5]},
    ),
    "the training tutorial of PyTorch": (
        "EPOCH 1:\n  batch 1000 loss: 1.5\nLOSS train 0.5 valid 0.4\nEPOCH 2:\nLOSS train 0.3 valid 0.2\n",
        {"loss": [1.5], "LOSS train": [0.5, 0.3], "LOSS valid": [0.4, 0.2]},
    ),
    "the language model of PyTorch": (
        "| epoch   1 |   200/ 2983 batches | lr 20.00 | ms/batch 7.2 | loss  7.63 | ppl  2061.1\n"
        "| end of epoch   1 | time: 30.00s | valid loss  5.00 | valid ppl   150.0\n",
        {
            "lr": [20.0],
            "ms/batch": [7.2],
            "loss": [7.63],
            "ppl": [2061.1],
            "time": [30.0],
            "valid loss": [5.0],
            "valid ppl": [150.0],
        },
    ),
    "brackets after a name": (
        "Loss (mean): 0.5 ± 0.1, 余弦相似度（平均）：0.65, Acc (%): 85, (best 0.7)\n",
        {"Loss mean": [0.5], "余弦相似度 平均": [0.65], "Acc %": [85.0], "best": [0.7]},
    ),
    "logging": (
        "2026-01-01 12:00:00,123 - root - INFO - Epoch [1/10] Train Loss: 0.5, Val Loss: 0.4, LR: 1.00e-04\n"
        "2026-01-01 12:01:00 INFO - Epoch [2/10] Train Loss: 0.4, Val Loss: 0.3, LR: 1.00e-04\n"
        "INFO:root:Epoch [3/10] Train Loss: 0.3, Val Loss: 0.2, LR: 1e-4\n"
        "2026-01-01 12:00:00.123 | INFO     | __main__:main:12 - "
        "Epoch [4/10] Train Loss: 0.2, Val Loss: 0.1, LR: 1e-4\n"
        "[2026-01-01 12:00:00] [INFO] Epoch [5/10] Train Loss: 0.1, Val Loss: 0.05, LR: 1e-4\n"
        "INFO 01-06 12:00:00 [train.py:12] epoch 6 Train Loss 0.05 Val Loss 0.04 LR 1e-4\n",
        {"Train Loss": [0.5, 0.4, 0.3, 0.2, 0.1, 0.05], "Val Loss": [0.4, 0.3, 0.2, 0.1, 0.05, 0.04], "LR": [1e-4] * 6},
    ),
    "the prefix of mmengine": (
        "2026/01/01 12:00:00 - mmengine - INFO - Epoch(train) [1][100/200]  lr: 1.0e-02  eta: 0:01:00  loss: 0.5\n"
        "2026/01/01 12:00:00 - mmengine - INFO - Epoch(val) [1][10/10]    accuracy/top1: 85.3\n",
        {"lr": [0.01], "loss": [0.5], "accuracy/top1": [85.3]},
    ),
    "key=value, tensors, units": (
        "epoch=1 loss=0.5 val_acc=tensor(0.9000, device='cuda:0') lr=1e-4 time=3.2s\n"
        "epoch=2 loss=nan val_acc=np.float64(0.8) lr=1e-4 time=3.1s\n",
        {"loss": [0.5, math.nan], "val_acc": [0.9, 0.8], "lr": [1e-4, 1e-4], "time": [3.2, 3.1]},
    ),
    "an epoch in brackets alone": (
        "[1/2] loss: 0.5\n[2/2] loss: 0.4\n",
        {"loss": [0.5, 0.4]},
    ),
    "the epoch said after its numbers": (
        "Train loss 0.5\nVal loss 0.4\nEpoch 1 done in 3.2s\nTrain loss 0.4\nVal loss 0.3\nEpoch 2 done in 3.1s\n",
        {"Train loss": [0.5, 0.4], "Val loss": [0.4, 0.3]},
    ),
    "steps without epochs": (
        "step 0: train loss 4.2, val loss 4.1\nstep 250: train loss 3.2, val loss 3.1\n",
        {"train loss": [4.2, 3.2], "val loss": [4.1, 3.1]},
    ),
    "epochs of other things": (
        "Total epochs: 10\nEpoch 1\nVal acc: 85.3%\nEpoch 2\nVal acc: 80.0%\n"
        "No improvement (best epoch: 1, patience 1/5)\n"
        "Val acc: 81%\n",
        {"Total epochs": [10.0], "Val acc": [85.3, 81.0]},
    ),
    "names with digits": (
        "Epoch 1 mAP@0.5: 0.6 Top 5 acc: 0.9 cos sim = 0.65 (best 0.66)\n",
        {"mAP@0.5": [0.6], "Top 5 acc": [0.9], "cos sim": [0.65], "best": [0.66]},
    ),
    "prose without measurements": (
        "Loading /tmp/run_3/model_0.5.pth\nUsing 2 GPUs\nPyTorch 2.5.1+cu121\nStarted 2026-01-01 12:00:00\n10% done\n",
        {},
    ),
    "CSV": (
        "epoch,train_loss,val_loss\n1,0.5,0.4\n2,0.4,nan\n",
        {"train_loss": [0.5, 0.4], "val_loss": [0.4, math.nan]},
    ),
    "the table of fastai": (
        "epoch     train_loss  valid_loss  accuracy  time    \n0         0.500000    0.400000    0.900000  00:12     \n"
        "1         0.300000    0.200000    0.950000  00:12     \n",
        {"train_loss": [0.5, 0.3], "valid_loss": [0.4, 0.2], "accuracy": [0.9, 0.95]},
    ),
    "the table of skorch": (
        "  epoch    train_loss    valid_acc     dur\n-------  ------------  -----------  ------\n"
        "      1        \x1b[36m0.6868\x1b[0m       \x1b[32m0.6000\x1b[0m  0.0300\n"
        "      2        0.6706       0.6350  0.0281\n",
        {"train_loss": [0.6868, 0.6706], "valid_acc": [0.6, 0.635], "dur": [0.03, 0.0281]},
    ),
    "the tables of YOLO": (
        "\n      Epoch    GPU_mem   box_loss  Instances       Size\n"
        "\r        1/2      0.77G      1.155         44        640:   0%|          | 0/4 [00:00<?, ?it/s]"
        "\r        1/2      0.77G      1.100         44        640: 100%|##########| 4/4 [00:01<00:00,  2.93it/s]\n"
        "\r                 Class     Images  Precision      mAP50   mAP50-95: 100%|####| 2/2 [00:00<00:00,  5.0it/s]\n"
        "                   all        128       0.64       0.60       0.44\n"
        "\n      Epoch    GPU_mem   box_loss  Instances       Size\n"
        "        2/2      0.77G      1.000         44        640: 100%|##########| 4/4 [00:01<00:00,  2.93it/s]\n"
        "                 Class     Images  Precision      mAP50   mAP50-95: 100%|####| 2/2 [00:00<00:00,  5.0it/s]\n"
        "                   all        128       0.65       0.61       0.45\n",
        {
            "GPU_mem": [0.77, 0.77],
            "box_loss": [1.1, 1.0],
            "Instances": [44.0, 44.0],
            "Size": [640.0, 640.0],
            "Images": [128.0, 128.0],
            "Precision": [0.64, 0.65],
            "mAP50": [0.6, 0.61],
            "mAP50-95": [0.44, 0.45],
        },
    ),
}


@pytest.mark.parametrize("style", PRINTED)
def test_output_in_the_style_of(style, tmp_path):
    text, expected = PRINTED[style]
    found = heard(tmp_path, text)
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert found[name] == pytest.approx(values, nan_ok=True), name


@pytest.mark.parametrize("size", [1, 2, 7, 64])
def test_pieces_of_any_length_give_the_same(size, tmp_path):
    text = PRINTED["a bar of tqdm"][0] + PRINTED["the owners' trainer"][0]
    numbers = Numbers(tmp_path)
    for begin in range(0, len(text), size):
        numbers.hear(text[begin : begin + size])
    assert curves(numbers, "printed") == heard(tmp_path, text)


def test_a_line_counts_once_it_has_ended(numbers):
    numbers.hear("Epoch 1 loss: 0.5")
    numbers.look()
    assert curves(numbers, "printed") == {}  # it may go on: 0.51
    numbers.look(ended=True)
    assert curves(numbers, "printed") == {"loss": [0.5]}


def test_without_an_epoch_every_appearance_counts_and_with_one_the_last(tmp_path):
    assert heard(tmp_path, "loss: 3\nloss: 2\nloss: 1\n") == {"loss": [3.0, 2.0, 1.0]}
    assert heard(tmp_path, "Epoch 4\nloss: 3\nloss: 2\nEpoch 9\nloss: 1\n") == {"loss": [2.0, 1.0]}
    assert heard(tmp_path, "Epoch 1\nloss: 3\nEpoch 2\nloss: 2\nEpoch 1\nloss: 1\n") == {"loss": [1.0, 2.0]}


def test_numbers_that_come_several_times_an_epoch_are_known(numbers, tmp_path):
    numbers.hear("Epoch 1\nloss: 3\nVal: 0.5\n")
    for losses in ([0.5], [0.5, 0.4]):  # the file repeats its first value, which is none of a new measurement
        (tmp_path / "log.json").write_text(json.dumps({"loss": losses}))
        looked(numbers, "json")
    assert numbers.repeated() == set()
    numbers.hear("loss: 2\nEpoch 2\nloss: 1\nVal: 0.4\n")
    assert numbers.repeated() == {("printed", "loss")}


def test_a_line_of_megabytes_and_a_name_of_every_batch_cost_no_memory(numbers, monkeypatch):
    monkeypatch.setattr("face3d_tune.script.running.numbers._MOST_VALUES", 10)
    numbers.hear("x" * 3_000_000)
    numbers.hear(" loss: 1.5" * 10_000)
    numbers.hear("\n" + "loss: 0.5\n" * 50 + "Val Loss: 0.4\n")
    assert curves(numbers, "printed") == {"Val Loss": [0.4]}
    assert sum(len(series.values) for by_file in numbers._series.values() for series in by_file.values()) <= 12
    monkeypatch.setattr("face3d_tune.script.running.numbers._MOST_NAMES", 2)
    numbers.hear("{'loss of batch 1': 1}\n{'loss of batch 2': 1}\n")
    numbers.hear("Val Loss: 0.3\n")
    assert curves(numbers, "json") == {}
    assert curves(numbers, "printed") == {"Val Loss": [0.4, 0.3]}


JSON_LINES = """\
{"epoch": 1, "train": {"loss": 0.5}, "val": {"cosine": 0.6, "by_yaw": [0.1, 0.2]}, "name": "run", "best": true}
{"epoch": 2, "train": {"loss": 0.4}, "val": {"cosine": NaN}}
"""


def test_json_lines_that_are_printed_join_nested_keys(numbers):
    numbers.hear(JSON_LINES)
    found = curves(numbers, "json")
    assert found.keys() == {"train.loss", "val.cosine"}
    assert found["train.loss"] == [0.5, 0.4]
    assert found["val.cosine"][0] == 0.6
    assert math.isnan(found["val.cosine"][1])
    assert curves(numbers, "printed") == {}


def test_a_record_without_an_epoch_after_ones_with_it_is_of_none(numbers):
    numbers.hear('{"epoch": 1, "loss": 0.5}\n{"epoch": 2, "loss": 0.4}\n{"loss": 0.9}\n')
    assert curves(numbers, "json") == {"loss": [0.5, 0.4]}


@pytest.mark.parametrize("line", ["{{}}", "{{'loss': 0.5}}", "{[1]: 2}", "{1 +}", "{" * 300 + "}" * 300])
def test_a_line_in_braces_that_python_cannot_read_gives_nothing_and_ends_nothing(numbers, line):
    numbers.hear(f"{line}\n{{'epoch': 1, 'loss': 0.4}}\n")
    assert curves(numbers, "json") == {"loss": [0.4]}


def test_a_line_in_braces_that_is_no_dict_is_printed_text(numbers):
    numbers.hear("{loss: 0.5}\n{loss: 0.4}\n")
    assert curves(numbers, "printed") == {"loss": [0.5, 0.4]}


def test_dicts_of_the_trainer_of_hugging_face_count_as_json(numbers):
    numbers.hear(
        "{'loss': 0.9, 'grad_norm': np.float64(1.2), 'epoch': 0.5}\n{'loss': 0.7, 'epoch': 1.0}\n"
        "{'eval_loss': 0.5, 'eval_accuracy': nan, 'epoch': 1.0}\n{'eval_loss': 0.4, 'other': None, 'epoch': 2.0}\n"
    )
    found = curves(numbers, "json")
    assert math.isnan(found.pop("eval_accuracy")[0])
    assert found == {"loss": [0.7], "grad_norm": [1.2], "eval_loss": [0.5, 0.4]}


def test_the_epoch_of_a_record_goes_before_its_step(numbers):
    numbers.hear('{"step": 100, "epoch": 1, "loss": 1}\n{"step": 200, "epoch": 1, "loss": 2}\n{"step": 300, "a": 3}\n')
    numbers.hear('{"step": 400, "a": 4}\n')
    assert curves(numbers, "json") == {"loss": [2.0], "a": [3.0, 4.0]}


def test_json_lines_that_go_to_output_and_file_count_once(numbers, tmp_path):
    lines = '{"epoch": 1, "loss": 0.5}\n{"epoch": 2, "loss": 0.4}\n'
    (tmp_path / "log.jsonl").write_text(lines)
    assert looked(numbers, "json") == {"loss": [0.5, 0.4]}
    numbers.hear(lines)
    assert curves(numbers, "json") == {"loss": [0.5, 0.4]}
    (tmp_path / "log.jsonl").write_text(lines + '{"epoch": 3, "loss": 0.3}\n')
    assert looked(numbers, "json") == {"loss": [0.5, 0.4]}  # the file is an epoch ahead of the output
    numbers.hear('{"epoch": 3, "loss": 0.2}\n')
    assert curves(numbers, "json") == {"loss": [0.5, 0.4, 0.2], "log/loss": [0.5, 0.4, 0.3]}


@pytest.mark.parametrize("name", ["train.log", "results.txt"])
def test_a_log_that_a_script_writes_by_itself_counts_as_printed(numbers, tmp_path, name):
    line = "2026-01-01 10:00:0{0},123 - trainer - INFO - epoch {0}/3 - loss: 0.{0} - val_cosine: 0.1{0}\n"
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / name).write_text(line.format(1) + line.format(2))
    assert looked(numbers, "printed") == {"loss": [0.1, 0.2], "val_cosine": [0.11, 0.12]}
    numbers.hear(line.format(1))  # also printed: the same number, whichever comes first
    assert curves(numbers, "printed") == {"loss": [0.1], "val_cosine": [0.11]}


def test_a_growing_jsonl_file_gives_its_whole_lines(numbers, tmp_path):
    path = tmp_path / "logs" / "metrics.jsonl"
    path.parent.mkdir()
    first, second = JSON_LINES.splitlines(keepends=True)
    path.write_text(first + second[:20], encoding="utf-8")
    assert looked(numbers, "json")["train.loss"] == [0.5]
    path.write_text(JSON_LINES, encoding="utf-8")
    assert looked(numbers, "json")["train.loss"] == [0.5, 0.4]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"val_loss": [0.5, 0.4], "history": {"acc": [0.8, 0.9]}}, {"val_loss": [0.5, 0.4], "history.acc": [0.8, 0.9]}),
        ([{"epoch": 1, "loss": 2}, {"epoch": 2, "loss": 1}], {"loss": [2.0, 1.0]}),
        ([{"loss": 2}, {"loss": 1}], {"loss": [2.0, 1.0]}),
        ({"every_second": [None, 2, None, 1], "words": ["a", 1]}, {"every_second": [2.0, 1.0]}),
        ({"log": [{"epoch": 1.0, "eval_loss": 2}, {"epoch": 2.0, "eval_loss": 1}]}, {"log.eval_loss": [2, 1]}),
        ({"epoch": 3, "best": 0.4, "name": "x"}, {"best": [0.4]}),
        ({"a": {"b": {"c": {"d": {"loss": [2, 1]}}}}}, {"a.b.c.d.loss": [2.0, 1.0]}),
        ({"a": {"b": {"c": {"d": {"e": {"loss": [2, 1], "best": 1}}}}}}, {}),
        ("text", {}),
    ],
)  # fmt: skip
def test_a_json_file_holds_histories_or_records(numbers, tmp_path, content, expected):
    (tmp_path / "results.json").write_text(json.dumps(content), encoding="utf-8")
    assert looked(numbers, "json") == expected


def test_a_json_file_that_is_half_written_is_read_later(numbers, tmp_path):
    path = tmp_path / "history.json"
    path.write_text('{"loss": [0.5, 0.', encoding="utf-8")
    assert looked(numbers, "json") == {}
    path.write_text('{"loss": [0.5, 0.4]}', encoding="utf-8")
    assert looked(numbers, "json") == {"loss": [0.5, 0.4]}


def test_a_csv_file_names_its_columns_and_its_epochs(numbers, tmp_path):
    path = tmp_path / "log.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["epoch", " val/cosine", "note, of a person"])
        rows.writerows([[0, 0.5, "x"], [1, "", "y"], [2, "nan", "1"]])
        file.flush()
        found = looked(numbers, "csv")
        assert found["val/cosine"] == pytest.approx([0.5, math.nan], nan_ok=True)
        rows.writerow([3, 0.75, ""])
    assert looked(numbers, "csv")["val/cosine"] == pytest.approx([0.5, math.nan, 0.75], nan_ok=True)


def test_a_csv_file_that_is_written_again_each_epoch_gives_each_row_once(numbers, tmp_path):
    path = tmp_path / "log.csv"
    for epochs in range(1, 4):
        path.write_text("loss;acc\n" + "".join(f"{1 / each};{each}\n" for each in range(1, epochs + 1)))
        assert looked(numbers, "csv") == {"loss": [1, 0.5, 1 / 3][:epochs], "acc": [1, 2, 3][:epochs]}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (" \nloss,acc\n0.5,1\n\n \n0.4,2\n", {"loss": [0.5, 0.4], "acc": [1, 2]}),
        ("0.9,3\n0.5,1\n0.4,2\n", {}),  # a value of the first row is no name
    ],
)
def test_the_first_line_of_a_csv_file_with_words_names_its_columns(numbers, tmp_path, text, expected):
    (tmp_path / "log.csv").write_text(text)
    assert looked(numbers, "csv") == expected


def test_a_long_file_is_read_a_share_at_each_look(numbers, tmp_path, monkeypatch):
    monkeypatch.setattr(result_files, "_PIECE", 8)
    monkeypatch.setattr(result_files, "_MOST_PIECES", 2)
    (tmp_path / "log.csv").write_text("loss\n" + "".join(f"0.{row}\n" for row in range(1, 9)))
    found = []
    for _ in range(4):
        numbers.look()
        found.append(len(curves(numbers, "csv").get("loss", [])))
    assert found == [2, 6, 8, 8]


def test_files_with_the_same_columns_are_told_apart(numbers, tmp_path):
    (tmp_path / "train.csv").write_text("epoch,loss\n1,0.5\n")
    os.utime(tmp_path / "train.csv", (1, 1))
    (tmp_path / "val.csv").write_text("epoch,loss\n1,0.4\n")
    assert looked(numbers, "csv") == {"train/loss": [0.5], "val/loss": [0.4]}


def test_a_file_with_a_new_date_continues_the_one_before_it(numbers, tmp_path):
    (tmp_path / "log_2026-01-01.csv").write_text("epoch,loss\n1,0.5\n")
    looked(numbers, "csv")
    (tmp_path / "log_2026-01-02.csv").write_text("epoch,loss\n2,0.4\n")
    assert looked(numbers, "csv") == {"loss": [0.5, 0.4]}


def test_a_csv_file_that_gets_a_column_is_read_again(numbers, tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text("epoch,step,train_loss\n0,9,0.5\n")
    assert looked(numbers, "csv") == {"train_loss": [0.5]}
    path.write_text("epoch,step,val_loss,train_loss\n0,9,,0.5\n0,9,0.4,\n1,19,,0.3\n")
    assert looked(numbers, "csv") == {"train_loss": [0.5, 0.3], "val_loss": [0.4]}


def test_event_files_count_the_steps_of_each_tag(numbers, tmp_path):
    (tmp_path / "log" / "Loss_all_val").mkdir(parents=True)
    (tmp_path / "log" / "validation").mkdir()
    (tmp_path / "log" / "events.out.tfevents.1.host").write_bytes(tensorboard.WRITTEN)
    (tmp_path / "log" / "Loss_all_val" / "events.out.tfevents.1.host").write_bytes(tensorboard.OF_ADD_SCALARS)
    keras = tensorboard.event("epoch_loss", 0, tensorboard.simple(0.5))
    (tmp_path / "log" / "validation" / "events.out.tfevents.1.host").write_bytes(keras)
    numbers.look()
    found = curves(numbers, "tensorboard")
    assert math.isnan(found.pop("unstable")[0])
    assert found == {
        "Val/CosineSimilarity": [0.125, 0.25],
        "tensor": [0.25, 0.5],
        "double": [0.1, 0.2],
        "Loss/all/val": [2.0, 1.0],
        "validation/epoch_loss": [0.5],
    }


def test_a_resumed_script_repeats_steps_in_a_second_event_file(numbers, tmp_path):
    def write(name, steps, value):
        events = (tensorboard.event("x", step, tensorboard.simple(value)) for step in steps)
        (tmp_path / name).write_bytes(b"".join(events))

    write("events.out.tfevents.1.host", (10, 20, 30), 1)
    numbers.look()
    write("events.out.tfevents.2.host", (30, 40), 2)
    numbers.look()
    assert curves(numbers, "tensorboard") == {"x": [1.0, 1.0, 2.0, 2.0]}


def saved(path, **content):
    torch.save({"model_state_dict": {"weight": torch.ones(3), "count": torch.tensor(7)}, **content}, path)


def test_a_checkpoint_gives_its_histories(numbers, tmp_path):
    path = tmp_path / "checkpoints" / "best_model.pth"
    path.parent.mkdir()
    saved(
        path,
        epoch=1,
        val_loss_history=[0.5, np.float64(0.4)],
        history={"val_acc": [0.8, torch.tensor(0.5)], "names": ["a", "b"]},
        args=SimpleNamespace(betas=[0.9, 0.99], lr=0.1),
        best=np.float32(0.5),
    )
    assert looked(numbers, "checkpoint") == {
        "val_loss_history": [0.5, 0.4],
        "history.val_acc": [0.8, 0.5],
        "best": [0.5],
    }


def test_scalars_of_a_checkpoint_belong_to_its_epoch_and_need_one(numbers, tmp_path):
    saved(tmp_path / "best.pt", epoch=3, val_loss=0.5, metrics={"cosine": 0.25}, text="x", done=True)
    saved(tmp_path / "other", loss=0.1)
    assert looked(numbers, "checkpoint") == {"val_loss": [0.5], "metrics.cosine": [0.25]}
    saved(tmp_path / "last.ckpt", epoch=4, val_loss=0.75)
    assert looked(numbers, "checkpoint")["val_loss"] == [0.5, 0.75]


def test_an_epoch_that_comes_too_late_moves_no_other(numbers, tmp_path):
    saved(tmp_path / "last.pt", epoch=5, val_loss=0.5)
    assert looked(numbers, "checkpoint") == {"val_loss": [0.5]}
    saved(tmp_path / "best.pt", epoch=3, val_loss=0.25)
    assert looked(numbers, "checkpoint") == {"val_loss": [0.5]}  # epoch 1 has been told of


def test_a_checkpoint_is_read_once_it_is_stable_and_only_once(numbers, tmp_path, monkeypatch):
    loads, load = [], checkpoint_file.load
    monkeypatch.setattr(checkpoint_file, "load", lambda path: loads.append(path) or load(path))
    path = tmp_path / "last.pth"
    saved(path, losses=[0.5])
    numbers.look()
    assert loads == []
    saved(path, losses=[0.5, 0.4])
    numbers.look()
    assert loads == []
    for _ in range(3):
        numbers.look()
    assert loads == [path]
    assert curves(numbers, "checkpoint") == {"losses": [0.5, 0.4]}


def test_at_its_end_a_script_has_written_whole_files(numbers, tmp_path):
    saved(tmp_path / "last.pth", losses=[0.5])
    (tmp_path / "log.csv").write_text("epoch,loss\n1,0.5")
    numbers.look(ended=True)
    assert curves(numbers, "checkpoint") == {"losses": [0.5]}
    assert curves(numbers, "csv") == {"loss": [0.5]}


@pytest.mark.parametrize("name", ["x.pth", "x.json", "x.jsonl", "x.csv", "events.out.tfevents.1", "x"])
@pytest.mark.parametrize("content", [b"", b"PK", b"PK\x03\x04 torn", b"\x80\x02}", bytes(range(256)) * 8, b'{"a": '])
def test_files_that_are_no_results_give_nothing_and_end_nothing(numbers, tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    looked(numbers, "csv")
    numbers.look(ended=True)
    assert numbers.curves() == {}


@pytest.mark.parametrize("source", SOURCES)
def test_sources_that_are_not_wanted_are_not_read(tmp_path, source):
    saved(tmp_path / "last.pth", losses=[0.5])
    (tmp_path / "log.csv").write_text("epoch,loss\n1,0.5\n")
    (tmp_path / "log.json").write_text('{"loss": [0.5]}')
    (tmp_path / "events.out.tfevents.1").write_bytes(tensorboard.WRITTEN)
    numbers = Numbers(tmp_path, [source])
    numbers.hear('loss: 0.5\n{"loss": 0.5}\n')
    numbers.look(ended=True)
    assert {given for given, _ in numbers.curves()} == {source}


@pytest.mark.parametrize("listed", [False, True])
def test_a_file_that_is_removed_during_a_look_gives_nothing_and_ends_nothing(numbers, tmp_path, monkeypatch, listed):
    removed = [tmp_path / name for name in ("best.pth", "log.csv", "events.out.tfevents.1")]
    saved(removed[0], losses=[0.5])
    removed[1].write_text("epoch,loss\n1,0.5\n")
    removed[2].write_bytes(tensorboard.WRITTEN)
    (tmp_path / "log.json").write_text('{"loss": [0.5]}')

    def removing(function):
        def removing(*given):
            found = function(*given)
            found = [*found] if listed else found  # os.walk lists a folder before its files are looked at
            for path in removed:
                path.unlink(missing_ok=True)
            return found

        return removing

    if listed:
        monkeypatch.setattr(result_files.os, "walk", removing(os.walk))
    else:
        monkeypatch.setattr(result_files, "signatures", removing(result_files.signatures))
    numbers.look(ended=True)
    assert numbers.curves() == {("json", "loss"): {1: 0.5}}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes by name")
def test_a_pipe_is_not_waited_for_and_a_link_is_not_followed(numbers, tmp_path):
    os.mkfifo(tmp_path / "log.csv")
    (tmp_path / "train.csv").write_text("epoch,loss\n1,0.5\n")
    (tmp_path / "latest.csv").symlink_to(tmp_path / "train.csv")
    numbers.look(ended=True)
    assert numbers.curves() == {("csv", "loss"): {1: 0.5}}


def test_of_a_folder_with_too_many_files_no_further_folders_are_walked(tmp_path):
    for folder in ("a", "a/b", "a/b/c"):
        (tmp_path / folder).mkdir()
        for name in ("1", "2"):
            (tmp_path / folder / name).touch()
    assert {path.parent.name for path in result_files.signatures(tmp_path, 3)} == {"a", "b"}


def test_files_that_have_not_changed_are_not_opened(numbers, tmp_path, monkeypatch):
    saved(tmp_path / "last.pth", losses=[0.5])
    (tmp_path / "log.csv").write_text("epoch,loss\n1,0.5\n")
    (tmp_path / "log.json").write_text('{"loss": [0.5]}')
    (tmp_path / "events.out.tfevents.1").write_bytes(tensorboard.WRITTEN)
    (tmp_path / "picture.png").write_bytes(b"PNG")
    numbers.look(ended=True)
    monkeypatch.setattr(type(tmp_path), "open", lambda *_: pytest.fail("opened"))
    numbers.look()
    numbers.look(ended=True)


def test_output_may_come_while_files_are_read(numbers, tmp_path, monkeypatch):
    load, curves_then = checkpoint_file.load, []

    def slow(path):
        numbers.hear("val_loss: 0.5\n")  # as the thread that reads the output does
        curves_then.append(dict(numbers.curves()))
        return load(path)

    monkeypatch.setattr(checkpoint_file, "load", slow)
    saved(tmp_path / "last.pth", losses=[0.5])
    numbers.look(ended=True)
    assert curves_then == [{("printed", "val_loss"): {1: 0.5}}]
    assert curves(numbers, "checkpoint") == {"losses": [0.5]}


def test_a_folder_of_many_files_is_looked_at_less_often(tmp_path, monkeypatch):
    clock = SimpleNamespace(now=0.0)
    walked = []

    def walk(folder, most):
        walked.append(clock.now)
        clock.now += 1
        return dict.fromkeys(map(tmp_path.joinpath, map(str, range(501))), (0, 0))

    monkeypatch.setattr("face3d_tune.script.running.result_files.signatures", walk)
    monkeypatch.setattr("face3d_tune.script.running.numbers.time", SimpleNamespace(monotonic=lambda: clock.now))
    numbers = Numbers(tmp_path, ["csv"])
    for _ in range(3):
        clock.now += 10
        numbers.look()
    numbers.look(ended=True)
    assert walked == [10, 31, 32]


def test_the_epochs_that_a_source_names_are_told_as_it_counts_them(numbers):
    numbers.hear('{"step": 100, "loss": 0.5, "other": 1}\n{"step": 300, "loss": 0.4}\nval loss 0.3\n')
    assert numbers.steps("json", "loss") == [100, 300]
    assert numbers.steps("printed", "val loss") == []
    assert numbers.steps("csv", "loss") == []


def test_a_printed_path_of_windows_brings_no_warning_onto_the_terminal():
    code = 'from face3d_tune.script.running import records; records.of_line(\'{"path": "C:\\\\data", 1: None}\')'
    answer = subprocess.run([sys.executable, "-W", "always", "-c", code], capture_output=True, text=True)
    assert "invalid escape" not in answer.stderr
    assert answer.returncode == 0
