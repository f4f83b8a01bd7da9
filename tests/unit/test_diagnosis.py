"""What a script printed as it failed leads to the flag that is to blame, and to none where none can be."""

import pytest

from face3d_tune.script.diagnosis import find

GIVEN = [
    *(
        "--data_dir",
        "/tmp/some where/data",
        "--batch_size",
        "32",
        "--d_model",
        "128",
        "--nhead",
        "6",
        "--lr",
        "0.00014",
    ),
    *("--loss_type", "combined", "--dropout", "0.25", "--use_pose_attention"),
]
USAGE = "usage: train_3d.py [-h] [--lr LR] [--dropout DROPOUT]\ntrain_3d.py: error: "


def trace(error, *code):
    frames = "".join(f'  File "/home/u/train_3d.py", line {n}, in main\n    {line}\n' for n, line in enumerate(code, 1))
    return f"Epoch 1\nTraceback (most recent call last):\n{frames}{error}\n"


@pytest.mark.parametrize(
    ("message", "flags"),
    [
        ("unrecognized arguments: --dropout 0.25 --use_pose_attention", ("--dropout", "--use_pose_attention")),
        ("argument --lr: invalid int value: '0.00014'", ("--lr",)),
        ("argument --loss_type: invalid choice: 'combined' (choose from 'mse', 'cosine')", ("--loss_type",)),
        ("the following arguments are required: --config", ("--config",)),
    ],
)
def test_argparse_names_what_it_refuses(message, flags):
    found = find(2, USAGE + message + "\n", GIVEN)
    assert (found.reason, found.flags) == (message, flags)


@pytest.mark.parametrize(
    ("printed", "flags"),
    [
        (trace("ValueError: dropout probability has to be between 0 and 1, but got 25"), ("--dropout",)),
        (trace("ValueError: pose-attention is not built, see --use-pose-attention"), ("--use_pose_attention",)),
        (trace("ValueError: Invalid learning rate: -1"), ("--lr",)),
        (trace("AssertionError: embed_dim must be divisible by num_heads"), ("--nhead", "--d_model")),
        (trace("KeyError: 'combined'", "loss = losses[kind]"), ("--loss_type",)),
        (trace("FileNotFoundError: [Errno 2] … '/tmp/some where/data/extra.npy'"), ("--data_dir",)),
        (trace("TypeError: unsupported operand", "run(args)", "half = args.nhead // None"), ("--nhead",)),
        (trace("TypeError: no", 'x = opt["batch_size"] / None', "return None"), ("--batch_size",)),
    ],
)
def test_a_traceback_leads_to_the_flag_that_it_names_or_whose_value_or_code_it_shows(printed, flags):
    found = find(1, printed, GIVEN)
    assert found.flags == flags
    assert found.reason == printed.splitlines()[-1]


@pytest.mark.parametrize(
    ("printed", "flags"),
    [
        (trace("ValueError: glob is empty"), ("--glob",)),
        (trace("ValueError: no file matches '**/*.png'"), ("--glob",)),
        (trace("ValueError: a+b is negative"), ("--a+b",)),
        (trace("ValueError: no"), ()),
    ],
)
def test_an_argument_with_its_value_behind_an_equals_sign_is_read_and_is_no_pattern(printed, flags):
    assert find(1, printed, ["--glob=**/*.png", "--a+b", "1"]).flags == flags


@pytest.mark.parametrize(
    "printed",
    [
        trace("ZeroDivisionError: division by zero", "x = 1 / count"),
        trace("RuntimeError: the learner of 132 people", "step(lr, dropout)"),  # no flag's name, and no use of one
    ],
)
def test_no_flag_is_blamed_without_a_reason(printed):
    found = find(1, printed, GIVEN)
    assert found.flags == ()
    assert str(found) == "no flag can be blamed for it"


def test_the_last_of_several_tracebacks_counts_and_what_follows_it_does_not():
    inner = trace("KeyError: 'x'", "x = table[args.dropout]")
    outer = "\nDuring handling of the above exception, another exception occurred:\n\n" + trace(
        "TypeError: bad", "y = f(args.nhead)"
    )
    assert find(1, inner + outer + "cleaning up\n", GIVEN).flags == ("--nhead",)


@pytest.mark.parametrize(
    ("code", "printed"),
    [
        (1, trace("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB")),
        (1, trace("RuntimeError: [enforce fail] DefaultCPUAllocator: not enough memory")),
        (-9, "Epoch 1\n"),
    ],
)
def test_memory_is_what_batch_and_model_take(code, printed):
    found = find(code, printed, GIVEN)
    assert found.flags == ("--batch_size", "--d_model")
    assert "memory" in found.reason


def test_an_end_without_a_traceback_is_told_with_the_last_words():
    assert (
        find(3, "loading\nno GPU found\n\n", GIVEN).reason == "it ended with exit code 3; last it printed: no GPU found"
    )
    assert find(3, "", GIVEN).reason == "it ended with exit code 3; last it printed: nothing"


@pytest.mark.parametrize(
    ("error", "hint"),
    [
        (
            "TypeError: ReduceLROnPlateau.__init__() got an unexpected keyword argument 'verbose'",
            "delete verbose=… from the scheduler's call",
        ),
        (
            "TypeError: LRScheduler.__init__() got an unexpected keyword argument 'verbose'",
            "delete verbose=… from the scheduler's call",
        ),
        ("ModuleNotFoundError: No module named 'tensorboard'", "pip install tensorboard in the environment that"),
        ("ImportError: TensorBoard logging requires TensorBoard version 1.15 or above", "pip install tensorboard"),
        ("ModuleNotFoundError: No module named 'lr'", "name the Python that has it with --python PATH"),
        (
            "ImportError: libcudart.so.12: cannot open shared object file",
            "name the Python that has it with --python PATH",
        ),
        (
            "ImportError: cannot import name 'lr' from 'models' (/home/me/models.py)",
            "the module was found, but lacks that",
        ),
        (
            "ImportError: cannot import name 'Trainer' from partially initialized module 'train' (most likely due to a "
            "circular import)",
            "the module was found, but lacks that",
        ),
    ],
)
def test_a_known_trap_has_a_hint_of_its_own_and_no_flag_to_blame(error, hint):
    # The code uses a flag, and so does the error of a module called lr: neither is to blame.
    found = find(1, trace(error, "scheduler = build(args.lr)"), GIVEN)
    assert (found.reason, found.flags) == (error, ())
    assert str(found).startswith(hint)
