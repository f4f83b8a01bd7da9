"""What methods without training reach: as a study has stored it, or fitted."""

import pytest

from face3d_tune.refit import baselines
from face3d_tune.study.settings import kernel_ridge_attrs, no_model_attrs, ridge_attrs
from face3d_tune.training import kernel_ridge, ridge


@pytest.fixture(scope="module")
def fitted(data_folder):
    from face3d_tune.data.face_data import load

    return baselines.reached(load(data_folder), {})


def attrs_of(data, folds):
    stored = no_model_attrs(data, folds) | ridge_attrs(data, folds) | kernel_ridge_attrs(data, folds)
    return {**stored, "settings": {"folds": folds}}


def never(*given):
    raise AssertionError("fitted again")


def test_what_a_study_has_stored_is_not_fitted_again(data, fitted, monkeypatch):
    attrs = attrs_of(data, 1)
    for method in (ridge, kernel_ridge):
        monkeypatch.setattr(method, "fit", never)
    stored = baselines.reached(data, attrs)
    assert list(stored) == ["no model", "ridge", "kernel ridge"]
    assert stored == {name: pytest.approx(values) for name, values in fitted.items()}


def test_means_over_folds_do_not_stand_for_the_ordinary_split(data, fitted):
    attrs = attrs_of(data, 2)
    assert attrs["ridge_recognition"]["all"]["cosine"] != pytest.approx(fitted["ridge"][0], abs=1e-6)
    reached = baselines.reached(data, {**attrs, "ridge_penalty": ridge.fit(data).penalty})
    assert reached["ridge"] == pytest.approx(fitted["ridge"])


def test_what_a_study_has_chosen_is_not_chosen_again(data, monkeypatch):
    attrs = {"ridge_penalty": 10.0, "kernel_ridge_choice": {"landmarks": "none", "gamma": 2.0, "penalty": 3.0}}
    monkeypatch.setattr(ridge, "choose_penalty", never)
    monkeypatch.setattr(kernel_ridge, "choose", never)
    found = baselines.fit(data, attrs)
    assert found["ridge"].penalty == 10.0
    assert found["kernel ridge"].choice == kernel_ridge.Hyperparameters("none", 2.0, 3.0)


def test_what_a_study_of_folds_has_chosen_is_chosen_again_for_the_ordinary_split(data):
    # With four folds validation people of the ordinary split train in fold 1, so they would have a part in the choice.
    assert set(data.fold(1, of=4).people["train"]) & set(data.people["validation"])
    choice = {"landmarks": "none", "gamma": 4.0, "penalty": 1000.0}
    attrs = {"ridge_penalty": 1000.0, "kernel_ridge_choice": choice, "settings": {"folds": 4}}
    found = baselines.fit(data, attrs)
    assert found["ridge"].penalty == ridge.choose_penalty(data) != 1000.0
    assert found["kernel ridge"].choice == kernel_ridge.choose(data) != kernel_ridge.Hyperparameters.of(choice)
