"""Which number of a script a trial is worth, guessed from names, sources and digits."""

import pytest

from face3d_tune.errors import UnsearchableError
from face3d_tune.script.metrics import Metric, ProbedNumber, choose

VALUES = (0.51234, 0.61234)


def number(name, source="tensorboard", values=VALUES, often="epoch", late=False):
    return ProbedNumber(source, name, values, often, late)


def chosen(*numbers, wanted=None, source=""):
    metric = choose(
        [each if isinstance(each, ProbedNumber) else number(each) for each in numbers], "t.py", source, wanted
    )
    return metric.number.name, metric.direction


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["Train/Loss", "Val/Loss", "Val/CosineSimilarity", "LR"], ("Val/CosineSimilarity", "maximize")),
        (["Epoch/TrainCosineSim", "Epoch/ValCosineSim", "Epoch/ValLoss"], ("Epoch/ValCosineSim", "maximize")),
        (["训练损失", "验证损失", "验证余弦相似度", "损失"], ("验证余弦相似度", "maximize")),
        (["train.loss", "val.loss", "val.cosine", "seconds"], ("val.cosine", "maximize")),
        (["train_acc", "val_acc", "val_loss"], ("val_acc", "maximize")),
        (["val_auc", "val_acc"], ("val_acc", "maximize")),
        (["val_f1", "valid_loss"], ("val_f1", "maximize")),
        (["dev_eer", "train_eer"], ("dev_eer", "minimize")),
        (["val_cosine_loss", "train_cosine"], ("val_cosine_loss", "minimize")),
        (["val_error", "lr"], ("val_error", "minimize")),
        (["Val Loss", "Train Loss", "test_acc"], ("Val Loss", "minimize")),
        (["test_acc", "train_acc"], ("test_acc", "maximize")),
        (["cosine", "loss"], ("cosine", "maximize")),
        (["best_val_acc", "val_acc"], ("val_acc", "maximize")),
    ],
)
def test_a_validation_cosine_or_accuracy_is_chosen_else_a_validation_loss(names, expected):
    assert chosen(*names) == expected
    assert chosen(*reversed(names)) == expected


def test_a_training_number_is_never_guessed_but_may_be_named():
    with pytest.raises(UnsearchableError) as caught:
        chosen("train_loss", "loss", "lr")
    assert caught.value.message == "t.py gives no validation result once an epoch that can be told by its name"
    assert caught.value.hint == "--metric NAME chooses one of train_loss, loss, lr"
    assert chosen("train_loss", "loss", wanted="train_loss") == ("train_loss", "minimize")


def test_a_name_that_the_script_does_not_give_is_answered_with_the_nearest():
    with pytest.raises(UnsearchableError, match=r"^t\.py gives no 'val_los' once an epoch; did you mean 'val_loss'\?$"):
        chosen("val_loss", wanted="val_los")


def test_what_does_not_come_once_an_epoch_is_no_metric():
    assert chosen(number("val_acc", often="once"), number("val_cosine", often="many"), "val_loss")[0] == "val_loss"


def test_a_number_that_is_not_finite_is_no_metric():
    assert chosen(number("val_acc", values=(float("nan"), 0.5)), "val_loss")[0] == "val_loss"


@pytest.mark.parametrize(
    ("numbers", "source"),
    [
        ([number("Val/Cosine"), number("val cosine", "printed", (0.5123, 0.6123))], "printed"),
        ([number("Val/Cosine"), number("val cosine", "printed", (0.51, 0.61))], "tensorboard"),  # too few digits
        ([number("Val/Cosine"), number("val_cos", "checkpoint")], "tensorboard"),
        ([number("Val/Cosine", late=True), number("val_cos", "checkpoint")], "checkpoint"),  # which came sooner
        ([number("val_cos", "csv"), number("val.cos", "json")], "json"),
    ],
)
def test_of_one_number_in_several_sources_the_soonest_with_enough_digits_is_chosen(numbers, source):
    assert choose(numbers, "t.py", "").number.source == source


def test_a_lowest_loss_that_decides_the_checkpoint_is_kept_by_name_in_the_same_source():
    numbers = [number("Val/Cosine"), number("Val/Loss"), number("val loss", "printed", (0.5, 0.4))]
    assert choose(numbers, "t.py", "if val_loss < best_val_loss:") == Metric(numbers[0], "maximize", "Val/Loss")
    assert choose(numbers, "t.py", "if val_cosine > best_cosine:").keep_lowest is None
    assert choose(numbers[:1] + numbers[2:], "t.py", "best_val_loss = val_loss").keep_lowest is None
    assert choose(numbers[1:2], "t.py", "best_val_loss = val_loss").keep_lowest is None  # it is the metric itself
