"""The numbers of K models and their optimiser step, against torch's own AdamW and Adam, clipping and GradScaler."""

from dataclasses import fields

import pytest
import torch

from face3d_tune.training.batched import state as state_module
from face3d_tune.training.batched.state import FIRST_SCALE, GROWTH_INTERVAL, State, optimizer_step

P, D, HIDDEN = 2048, 32, 256  # live and dead numbers of a model, width of the batch normalisation
RATES, DECAYS = (1e-3, 0.05, 0.3), (0.0, 0.01, 0.4)
SIZES = (0.1, 1.0, 30.0)  # of the gradient of each model: not clipped, about clipped, clipped
DOUBLE = torch.float64


def start(models=3, dtype=DOUBLE):
    state = State.empty(P, D, HIDDEN, torch.empty(0, dtype=dtype)).resized([], models)
    draw = torch.Generator().manual_seed(0)
    for model in range(models):
        state.begin(model)
        state.weights[model] = torch.randn(P, generator=draw, dtype=DOUBLE)
        state.dead[model] = model + 1
    return state


def gradients_of(step, models=3):
    draw = torch.randn(models, P, generator=torch.Generator().manual_seed(100 + step), dtype=DOUBLE)
    sizes = torch.tensor(SIZES[:models], dtype=DOUBLE).unsqueeze(1)
    return draw / draw.norm(dim=1, keepdim=True) * sizes * (1 + 0.2 * step)


class Plain:
    """One model's numbers under torch's own optimiser, clipping and scaler."""

    def __init__(self, weights, rate, decay, scale=None, kind=torch.optim.AdamW):
        self.weights = torch.nn.Parameter(weights.clone())
        self.optimizer = kind([self.weights], lr=rate, weight_decay=decay)
        self.scaler = torch.amp.GradScaler("cpu", init_scale=scale or 1.0, enabled=scale is not None)

    def step(self, gradient):
        """`gradient` is that of the scaled loss."""
        self.scaler.scale(torch.zeros(()))  # makes its scale, as the loss does in a training
        self.weights.grad = gradient.clone()
        self.scaler.unscale_(self.optimizer)
        torch.nn.utils.clip_grad_norm_([self.weights], 1.0)
        self.scaler.step(self.optimizer)
        self.scaler.update()


def compare(state, plains, *, atol=1e-12):
    for place, plain in enumerate(plains):
        moments = plain.optimizer.state[plain.weights]
        for name, expected in (
            ("weights", plain.weights.detach()),
            ("first", moments["exp_avg"]),
            ("second", moments["exp_avg_sq"]),
        ):
            torch.testing.assert_close(getattr(state, name)[place], expected, rtol=0, atol=atol)
        assert state.steps[place] == moments["step"]


def train(state, steps, *, rates=RATES, decays=DECAYS, plains=(), first=0, optimizer="adamw"):
    for step in range(first, first + steps):
        gradients = gradients_of(step, len(state.weights))
        for plain, gradient in zip(plains, gradients, strict=False):
            plain.step(gradient)
        rates_of_models = torch.tensor(rates, dtype=DOUBLE)
        optimizer_step(state, gradients, rates_of_models, list(decays), scaled=False, optimizer=optimizer)


def plains_of(state, rates=RATES, decays=DECAYS, kind=torch.optim.AdamW):
    return [Plain(*row, kind=kind) for row in zip(state.weights, rates, decays, strict=True)]


def test_a_step_of_every_model_is_that_of_torchs_adamw_after_clipping_it_alone():
    state = start()
    plains = plains_of(state)
    train(state, 6, plains=plains)
    compare(state, plains)


def test_under_adam_it_is_that_of_torchs_adam_whose_decay_comes_after_the_clipping():
    state = start()
    plains = plains_of(state, kind=torch.optim.Adam)
    train(state, 6, plains=plains, optimizer="adam")
    compare(state, plains)
    other = start()
    train(other, 6, optimizer="adamw")
    with pytest.raises(AssertionError):
        compare(other, plains)


@pytest.mark.parametrize("models", [1, 2])
def test_how_many_models_there_are_changes_nothing(models):
    few, all_three = start(models), start()
    for step in range(3):
        gradients = gradients_of(step)
        optimizer_step(
            few,
            gradients[:models].clone(),
            torch.tensor(RATES[:models], dtype=DOUBLE),
            list(DECAYS[:models]),
            scaled=False,
        )
        optimizer_step(all_three, gradients, torch.tensor(RATES, dtype=DOUBLE), list(DECAYS), scaled=False)
    assert torch.equal(few.weights, all_three.weights[:models])


SPOILS = {
    "a rate": {"rates": (1e-3, 0.051, 0.3)},
    "rates swapped": {"rates": (0.05, 1e-3, 0.3)},
    "a decay": {"decays": (0.0, 0.01, 0.41)},
    "decays swapped": {"decays": (0.01, 0.0, 0.4)},
}


@pytest.mark.parametrize("spoil", SPOILS)
def test_that_comparison_objects_to_a_wrong_hyperparameter(spoil):
    state = start()
    plains = plains_of(state)
    train(state, 2, plains=plains, **SPOILS[spoil])
    with pytest.raises(AssertionError):
        compare(state, plains)


@pytest.mark.parametrize("norm", [0.99, 1.01, 1e9])
def test_that_comparison_objects_to_another_clipping(monkeypatch, norm):
    monkeypatch.setattr(state_module, "MAX_NORM", norm)
    state = start()
    plains = plains_of(state)
    train(state, 2, plains=plains)
    with pytest.raises(AssertionError):
        compare(state, plains)


def test_a_refilled_place_counts_its_own_steps():
    state = start()
    plains = plains_of(state)
    train(state, 4, plains=plains)
    state.begin(1)
    state.weights[1] = torch.linspace(-1, 1, P, dtype=DOUBLE)
    plains[1] = Plain(state.weights[1], 2e-3, 0.1)
    now = {"rates": (RATES[0], 2e-3, RATES[2]), "decays": (DECAYS[0], 0.1, DECAYS[2])}
    train(state, 3, plains=plains, first=4, **now)
    compare(state, plains)
    assert state.steps.tolist() == [7, 3, 7]
    state.steps[1] = 7
    train(state, 1, plains=plains, first=7, **now)
    with pytest.raises(AssertionError):
        compare(state, plains)


def test_beginning_forgets_everything_but_the_weights_and_touches_no_neighbour():
    state = start()
    train(state, 2)
    state.mean += 3
    state.variance += 3
    state.scales *= 4
    state.since_overflow += 9
    before = {field.name: getattr(state, field.name).clone() for field in fields(State)}
    state.begin(1)
    fresh = {"first": 0, "second": 0, "steps": 0, "since_overflow": 0, "mean": 0, "variance": 1, "scales": 65536}
    for name, value in fresh.items():
        assert (getattr(state, name)[1] == value).all(), name
        assert not (before[name][1] == value).any() or name in ("first", "second"), name
    for name, held in before.items():
        assert torch.equal(getattr(state, name)[[0, 2]], held[[0, 2]]), name


def test_resizing_copies_those_kept_in_their_order_and_leaves_the_rest_empty():
    state = start()
    train(state, 2)
    before = {field.name: getattr(state, field.name).clone() for field in fields(State)}
    new = state.resized([2, 0], 4)
    for name, held in before.items():
        resized = getattr(new, name)
        assert resized.shape == (4, *held.shape[1:])
        assert torch.equal(resized[:2], held[[2, 0]]), name
        assert not resized[2:].any(), name
        resized += 1
        assert torch.equal(getattr(state, name), held), name  # a copy
    assert state.resized([], 0).weights.shape == (0, P)


def test_numbers_have_the_type_of_the_weights_and_step_counts_are_float32_as_torch_has_them():
    state = start(dtype=DOUBLE)
    assert {field.name for field in fields(State) if getattr(state, field.name).dtype != DOUBLE} == {"steps"}
    assert state.steps.dtype == torch.float32


# Loss scaling


def scaled_steps(state, plains, overflows, *, first=0):
    """Steps with scaled gradients; `overflows` says for each step which models' gradients overflow."""
    for step, places in enumerate(overflows, start=first):
        gradients = gradients_of(step, len(state.weights)) * state.scales.double().unsqueeze(1)
        for place in places:
            gradients[place, 5] = torch.inf
        for plain, gradient in zip(plains, gradients, strict=True):
            plain.step(gradient)
        optimizer_step(state, gradients, torch.tensor(RATES, dtype=DOUBLE), list(DECAYS), scaled=True)
        assert state.scales.tolist() == [plain.scaler.get_scale() for plain in plains]
        assert state.since_overflow.tolist() == [plain.scaler._get_growth_tracker() for plain in plains]


def scaled_plains(state):
    return [Plain(*row, FIRST_SCALE) for row in zip(state.weights, RATES, DECAYS, strict=True)]


def test_each_model_has_its_own_loss_scale_as_a_gradscaler_of_its_own_would_have_it():
    state = start()
    plains = scaled_plains(state)
    scaled_steps(state, plains, [(), (1,), (1, 2), (), (0,), ()])
    compare(state, plains)
    assert state.steps.tolist() == [5, 4, 5]
    assert state.scales.tolist() == [2.0**15, 2.0**14, 2.0**15]


def test_not_a_number_is_an_overflow_too():
    state = start()
    weights = state.weights.clone()
    gradients = gradients_of(0)
    gradients[2, 7] = torch.nan
    optimizer_step(state, gradients, torch.tensor(RATES, dtype=DOUBLE), list(DECAYS), scaled=True)
    assert torch.equal(state.weights[2], weights[2])
    assert not torch.equal(state.weights[1], weights[1])
    assert state.scales.tolist() == [FIRST_SCALE, FIRST_SCALE, FIRST_SCALE / 2]


def test_without_scaling_nothing_is_skipped_and_no_scale_moves():
    state = start()
    gradients = gradients_of(0)
    gradients[1, 5] = torch.inf
    optimizer_step(state, gradients, torch.tensor(RATES, dtype=DOUBLE), list(DECAYS), scaled=False)
    assert state.steps.tolist() == [1, 1, 1]
    assert state.scales.tolist() == [FIRST_SCALE] * 3
    assert state.since_overflow.tolist() == [0, 0, 0]
    assert not state.weights[1].isfinite().all()
    assert state.weights[[0, 2]].isfinite().all()


def test_a_scale_doubles_after_as_many_steps_without_overflow_as_a_gradscaler_waits():
    assert torch.amp.GradScaler("cpu").get_growth_interval() == GROWTH_INTERVAL
    assert torch.amp.GradScaler("cpu").get_scale() == FIRST_SCALE
    assert torch.amp.GradScaler("cpu").get_growth_factor() == 1 / torch.amp.GradScaler("cpu").get_backoff_factor() == 2
    state = start()
    plains = scaled_plains(state)
    for since in (0, 1, 2):
        state.since_overflow[since] = GROWTH_INTERVAL - 2 + since - 1
        plains[since].scaler._init_growth_tracker = int(state.since_overflow[since])
    scaled_steps(state, plains, [(), (0,), (), ()])
    assert state.scales.tolist() == [2.0**15, 2.0**17, 2.0**17]
    compare(state, plains)


def test_a_scale_never_grows_to_infinity():
    state = start(1, torch.float32)
    state.scales[0] = 2.0**127
    state.since_overflow[0] = GROWTH_INTERVAL - 1
    optimizer_step(state, torch.zeros(1, P), torch.tensor(RATES[:1], dtype=DOUBLE), [0.0], scaled=True)
    assert state.scales.tolist() == [2.0**127]
    assert state.since_overflow.tolist() == [0]


def test_an_overflow_leaves_the_zeros_between_the_blocks_which_nobody_writes_again():
    state, gradients = start(2), gradients_of(0, 2)
    gradients[:, 1000:] = 0
    gradients[1, 5], gradients[0, 6] = torch.inf, torch.nan
    optimizer_step(state, gradients, torch.tensor(RATES[:2], dtype=DOUBLE), list(DECAYS[:2]), scaled=True)
    assert not gradients[:, 1000:].any()
