"""What the benchmarks of searching are built on: curves as they were, early stopping replayed, people invented."""

import json
import random
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import optuna
import pytest
from command_line import call

from benchmarks import compare, curves, other_people, packed, surrogate
from benchmarks.priors import AroundSampler
from benchmarks.replay import Replay, Result, Setting
from benchmarks.surrogate import Ended, Surrogate
from face3d_tune.config import resolve
from face3d_tune.study import study_file
from face3d_tune.training.early_stopping import EarlyStopping


def test_a_packed_curve_is_the_recorded_one_to_a_millionth(tmp_path):
    rng = random.Random(0)
    cosine = [rng.uniform(-0.2, 0.7) for _ in range(100)]
    mse = [rng.uniform(0, 0.5) for _ in cosine]
    identity = [-rng.uniform(0.1, 0.5) for _ in cosine]
    whole = {"id": "sobol-0", "params": {"lr": 1e-4}, "seed": 3, "fold": 1, "error": None}
    diverged = {"id": "sobol-1", "params": {}, "seed": 4, "fold": 2, "error": "NaN"}
    records = [
        {**whole, "cosine": cosine, "mse": mse},  # as it was recorded before there was identity
        {**diverged, "cosine": cosine[:7], "mse": mse[:7], "identity": identity[:7]},
    ]

    packed.pack(records, tmp_path / "curves.npz")
    read = packed.read(tmp_path / "curves.npz")

    assert np.abs(read.cosine[0] - cosine).max() <= 1e-6
    assert np.abs(read.mse[0] - mse).max() <= 1e-8
    assert np.isnan(read.cosine[1, 7:]).all()
    assert not np.isnan(read.cosine[1, :7]).any()
    assert np.isnan(read.identity[0]).all()
    assert np.abs(read.identity[1, :7] - identity[:7]).max() <= 1e-6
    assert np.isnan(read.identity[1, 7:]).all()
    assert (read.ids, read.seeds, read.folds, read.errors) == (["sobol-0", "sobol-1"], [3, 4], [1, 2], [None, "NaN"])


def test_a_file_that_was_packed_without_identity_is_read_and_stays_without_it(tmp_path):
    record = {"id": "sobol-1", "params": {}, "seed": 3, "fold": 1, "error": None, "cosine": [0.1], "mse": [0.02]}
    packed.pack([record], tmp_path / "curves.npz")
    with np.load(tmp_path / "curves.npz") as held:
        np.savez(tmp_path / "old.npz", **{name: held[name] for name in ("records", "epochs", "cosine", "mse")})

    (again,) = packed.unpacked(tmp_path / "old.npz")
    packed.pack([again], tmp_path / "new.npz")

    assert again == {**record, "cosine": [pytest.approx(0.1)], "mse": [pytest.approx(0.02)], "identity": []}
    assert list(packed.unpacked(tmp_path / "new.npz")) == [again]


def test_what_is_packed_stays_when_more_is_added(tmp_path):
    described = {"params": {}, "seed": 3, "fold": 1, "error": None, "mse": [0.01, 0.02]}
    packed.pack([{"id": "sobol-1", "cosine": [0.1, 0.2], **described}], tmp_path / "curves.npz")
    more = [{"id": name, "cosine": [0.3, 0.4], **described} for name in ("sobol-0", "sobol-1")]
    (tmp_path / "made-1.jsonl").write_text("".join(json.dumps(each) + "\n" for each in more) + '{"id": "so')

    records = curves.records_in(tmp_path, tmp_path / "curves.npz")

    held = [(record["id"], pytest.approx(record["cosine"])) for record in records]
    assert held == [("sobol-0", [0.3, 0.4]), ("sobol-1", [0.1, 0.2])]


def test_points_follow_from_the_file_alone():
    first, again = (curves.points("default", []) for _ in range(2))

    assert first == again
    assert [p.id for p in first[:3]] == ["sobol-0", "random-0", "sobol-1"]
    assert len({tuple(p.params.values()) for p in first}) == len(first)


def test_any_beginning_of_the_part_identity_covers_the_space_and_knows_the_noise_of_a_seed():
    points = curves.points("identity", [])
    begun = points[:60]

    kinds = [point.id.removeprefix("identity-").partition("-")[0] for point in begun]
    assert {kind: kinds.count(kind) for kind in kinds} == {"sobol": 20, "random": 20, "preset": 5, "known": 15}
    again = {point.id: point for point in begun if point.id.endswith("/seed1")}
    first = {point.id: point for point in begun if point.id not in again}
    assert len(again) == 7
    for id, second in again.items():
        once = first[id.removesuffix("/seed1")]
        assert (second.params, second.overrides) == (once.params, once.overrides)
        assert second.seed != once.seed
    earliest = next(place for place, point in enumerate(points) if point.id in again)
    assert len({points[place].params["inputs"] for place in range(earliest)}) == 3
    assert earliest < 25
    assert len({point.id for point in points}) == len(points)


def test_a_record_has_the_identity_of_every_epoch_of_a_model_on_the_inputs_of_its_point(data, monkeypatch):
    monkeypatch.setattr(curves, "_data", {1: data})
    point = next(point for point in curves.points("identity", []) if point.params["inputs"] == "ridge")
    monkeypatch.setattr(curves.torch, "set_num_threads", lambda count: None)

    record = curves.train(replace(point, overrides={"batch_size": 8, "num_layers": 1}), epochs=2)

    assert record["error"] is None
    assert [len(record[name]) for name in packed.METRICS] == [2, 2, 2]
    assert all(value < 0 for value in record["identity"])
    assert record["params"]["inputs"] == "ridge"


def test_what_the_known_settings_keep_is_shown_by_input_and_weight_at_the_lowest_loss(capsys):
    params = {"inputs": "kernel", "identity_weight": 0.3, "cosine_weight": 0.5}
    record = {"id": "identity-known-0", "params": params, "error": None, "mse": [0.02, 0.02]}
    first = {**record, "cosine": [0.6, 0.5], "identity": [-0.2, -0.1]}
    second = {**record, "cosine": [0.6, 0.7], "identity": [-0.2, -0.3]}

    curves.show_known([first, second, {**first, "id": "identity-sobol-0"}])

    assert capsys.readouterr().out.splitlines()[1].split() == ["kernel", "0.3", "2", "0.6500", "-0.2500"]


@pytest.mark.parametrize("patience", [0, 3, 15])
def test_early_stopping_is_replayed_as_a_training_does_it(patience):
    rng = np.random.default_rng(patience)
    cosine = (0.6 + np.cumsum(rng.normal(0, 0.01, 100))).tolist()
    mse = rng.uniform(0.005, 0.006, 100).tolist()
    config = resolve(
        {"cosine_weight": 0.7, "early_stopping_patience": patience, "early_stopping_min_delta": 1e-3},
        feature_size=128,
        epochs=100,
        layout="keypoint",
    )

    losses = [config.mse_weight * m + 0.7 * (1 - c) for c, m in zip(cosine, mse, strict=True)]
    stopping = EarlyStopping(patience, 1e-3)
    stopped = next((epoch for epoch, loss in enumerate(losses, start=1) if stopping.update(loss)), 100)

    assert Ended.of(config, cosine, mse) == Ended(stopped, losses.index(min(losses[:stopped])))


@pytest.fixture
def two_configurations(tmp_path, monkeypatch):
    """Gives a table of two configurations on three folds, the first with a second seed, from what each fold adds."""
    monkeypatch.setattr(surrogate, "CACHE", tmp_path)
    quality = -np.log(0.012)  # of the best on fold 1, as a surrogate counts: 0.012 below the ceiling

    def make(added):
        rows = [("a", 0, 1e-4, quality), ("a/seed1", 0, 1e-4, quality - 0.1), ("b", 1, 1e-3, quality - 0.5)]
        rows = [(name, config, lr, value, 1, 0) for name, config, lr, value in rows]
        rows += [(f"a/fold{k}", 0, 1e-4, quality, k, k - 1) for k in (2, 3)]
        rows += [(f"b/fold{k}", 1, 1e-3, quality - 0.5, k, k - 1) for k in (2, 3)]
        cosine = [0.7 - np.exp(-(value + added[config][fold])) for _, config, _, value, _, fold in rows]
        ids, _, rates, _, folds, _ = zip(*rows, strict=True)
        return packed.Curves(
            ids=list(ids),
            params=[{"lr": lr} for lr in rates],
            seeds=[0] * len(rows),
            folds=list(folds),
            errors=[None] * len(rows),
            cosine=np.repeat(np.array(cosine)[:, None], packed.EPOCHS, axis=1),
            mse=np.full((len(rows), packed.EPOCHS), 0.01),
            identity=np.full((len(rows), packed.EPOCHS), np.nan),
        )

    return make


def test_a_fold_that_is_harder_for_every_configuration_decides_about_none(two_configurations):
    modelled = Surrogate(two_configurations([[0, -0.3, -0.2], [0, -0.3, -0.2]]))

    assert np.abs(modelled.folds[1]).max() < 1e-9


def test_what_a_fold_adds_to_one_configuration_and_not_to_another_is_kept_at_its_variance(two_configurations):
    modelled = Surrogate(two_configurations([[0, 0.1, -0.1], [0, -0.1, 0.1]]))

    # No row and no column of these has a mean, so they are the whole of it; of 2 · 3 numbers (2 - 1)(3 - 1) are free.
    expected = np.array([[0, 0.1, -0.1], [0, -0.1, 0.1]]) * (6 / 2) ** 0.5
    assert modelled.folds[1][:, :, 0] == pytest.approx(expected, abs=1e-9)
    of_b = modelled.space.point(modelled.space.config({"lr": 1e-3}, {}))
    assert modelled._of_fold(of_b, 2)[0] == pytest.approx(0.1 * 3**0.5)


def test_what_was_trained_is_found_again_in_the_cube(two_configurations):
    modelled = Surrogate(two_configurations([[0, 0.1, -0.1], [0, -0.1, 0.1]]))
    rows = list(modelled.space.file.space.items())

    for config, point in zip(modelled.configs, modelled.x, strict=True):
        again = modelled._config(modelled._cube(config), rows)
        assert modelled.space.point(again) == pytest.approx(point, abs=1e-8)


@pytest.fixture
def both_tables(tmp_path, monkeypatch):
    """Gives two trainings of the default space, and three of the study `identity`: two seeds each, and a preset."""
    monkeypatch.setattr(surrogate, "CACHE", tmp_path)
    monkeypatch.setattr(surrogate, "_most_likely", lambda x, target: np.array([0.0] * x.shape[1] + [0.0, -4.0]))
    rows = [
        ("sobol-0", {"lr": 1e-4}, 0.64, np.nan),
        ("sobol-0/seed1", {"lr": 1e-4}, 0.62, np.nan),
        ("identity-known-0", {"lr": 1e-4, "inputs": "ridge", "identity_weight": 0.1}, 0.61, -0.14),
        ("identity-known-0/seed1", {"lr": 1e-4, "inputs": "ridge", "identity_weight": 0.1}, 0.63, -0.16),
        ("identity-preset-baseline-0", {"lr": 1e-3}, 0.5, -0.3),
    ]
    ids, params, cosine, identity = zip(*rows, strict=True)
    return packed.Curves(
        ids=list(ids),
        params=list(params),
        seeds=[0] * len(rows),
        folds=[1] * len(rows),
        errors=[None] * len(rows),
        cosine=np.repeat(np.array(cosine)[:, None], packed.EPOCHS, axis=1),
        mse=np.full((len(rows), packed.EPOCHS), 0.01),
        identity=np.repeat(np.array(identity)[:, None], packed.EPOCHS, axis=1),
    )


def test_a_study_for_identity_has_its_own_trainings_and_a_truth_for_each_objective(both_tables):
    modelled = Surrogate(both_tables, "identity")

    assert (modelled.objective, modelled.objectives) == ("identity", ("cosine", "identity"))
    known, _, preset = modelled.configs
    assert [config.inputs for config in modelled.configs] == ["ridge", "ridge", "view"]
    truths = modelled.truths(known)
    assert truths["cosine"] == pytest.approx(0.62, abs=0.01)
    assert truths["identity"] == pytest.approx(-0.15, abs=0.01)
    assert all(truths[name] > modelled.truths(preset)[name] for name in truths)
    curves_of = modelled.train(known, np.random.default_rng(0))
    assert [len(curves_of[name]) for name in packed.METRICS] == [packed.EPOCHS] * 3


def test_the_other_studies_have_the_trainings_that_they_had_before_those_of_identity(both_tables):
    modelled = Surrogate(both_tables, "default")  # whose space has the preset of the part `identity`, too

    assert [config.lr for config in modelled.configs] == [1e-4, 1e-4]
    assert modelled.truths(modelled.configs[0]).keys() == {"cosine"}
    assert both_tables.rows() == [0, 1]
    assert both_tables.rows(of_identity=True) == [2, 3, 4]


def test_what_is_kept_is_of_the_lowest_loss_whatever_the_objective(both_tables):
    modelled, config = Surrogate(both_tables, "identity"), resolve({}, feature_size=128, epochs=100, layout="keypoint")
    curves_of = {name: np.full((1, packed.EPOCHS), start) for name, start in (("cosine", 0.5), ("identity", -0.2))}
    curves_of["mse"] = np.full((1, packed.EPOCHS), 0.01)
    curves_of["cosine"][0, 7], curves_of["identity"][0, 7] = 0.55, -0.22  # the lowest loss; identity is higher before
    table = packed.Curves(ids=[], params=[], seeds=[], folds=[], errors=[], **curves_of)

    kept = modelled.kept([config], modelled.transform.forward(table, [0]))

    assert kept == {"cosine": [pytest.approx(0.55)], "identity": [pytest.approx(-0.22)]}


class Crossed:
    """Stands in for a surrogate: a small rate is good for the cosine, and a large one for identity."""

    def train(self, config, rng, fold, stretch):
        truths = self.truths(config)
        curves_of = {name: np.full(100, truth) for name, truth in truths.items()} | {"mse": np.full(100, 0.01)}
        curves_of["cosine"][0] += 0.01  # the kept epoch is the first
        curves_of["identity"][0] -= 0.01
        return curves_of

    def truths(self, config):
        return {"cosine": 0.6 - 100 * config.lr, "identity": -0.3 + 100 * config.lr}


def suggest_only(rates, monkeypatch):
    """Make a replay draw these learning rates, in this order, and leave all else at its default."""
    drawn = iter(rates)
    monkeypatch.setattr("benchmarks.replay.suggest", lambda trial, name, row: next(drawn) if name == "lr" else 0.5)
    monkeypatch.setattr(
        "benchmarks.replay.Space.config",
        lambda self, params, overrides: resolve({"lr": params["lr"]}, feature_size=128, epochs=100, layout="keypoint"),
    )


@pytest.mark.parametrize("objective", ["cosine", "identity"])
def test_a_replayed_search_sees_and_recommends_by_its_objective_and_knows_the_truth_of_both(objective, monkeypatch):
    setting = Setting("random", presets="none", stopping=False, study="identity", objective=objective)
    rates = [5e-4, 1e-4, 1e-3]
    suggest_only(rates, monkeypatch)
    search = Replay(Crossed(), setting, seed=0)

    for _ in rates:
        search._trial()

    seen = {"cosine": [0.56, 0.6, 0.51], "identity": [-0.26, -0.3, -0.21]}[objective]
    assert [trial.value for trial in search.study.trials] == pytest.approx(seen)
    best = rates[seen.index(max(seen))]
    assert search.best_config.lr == best
    assert search.trace[-1][1] == pytest.approx({"cosine": 0.6 - 100 * best, "identity": -0.3 + 100 * best})


def test_the_pruner_of_a_search_for_identity_is_asked_about_identity(monkeypatch):
    setting = Setting("random", pruner="shape", presets="none", stopping=False, study="identity")
    search, asked = Replay(Crossed(), setting, seed=0), []
    monkeypatch.setattr(
        search.pruner, "prune", lambda study, trial: asked.append(dict(trial.intermediate_values)) or len(asked) == 3
    )

    search._trial()

    assert asked[-1].keys() == {1, 2, 3}
    assert all(value < 0 for value in asked[-1].values())
    assert (search.spent, search.counts["pruned"]) == (3, 1)


def test_the_regret_of_a_search_is_told_in_both_objectives(capsys):
    best = {"cosine": 0.65, "identity": -0.14}
    chosen = {"cosine": {"cosine": 0.64, "identity": -0.17}, "identity": {"cosine": 0.62, "identity": -0.145}}
    results = {
        f"shape, for {name}": Result(Setting(objective=name), 500, [[(90, chosen[name])]] * 3, name, best)
        for name in chosen
    }
    assert results["shape, for identity"].median(500) == pytest.approx(0.005)
    assert results["shape, for identity"].regret(500, "cosine") == pytest.approx([0.03] * 3)
    assert results["shape, for identity"].median(80) == 1  # nothing is completed yet

    compare.tell_identity(results)

    out = capsys.readouterr().out
    assert "3 searches each, best truths cosine 0.6500, identity -0.1400" in out
    assert "30.0 (30.0 to 30.0)" in out
    assert "+20.0 (+20.0 to +20.0)" in out  # cosine that the choice for identity loses


class Steady:
    """Stands in for a surrogate: a curve is flat, at a height that a small rate raises; every fold is as hard."""

    def train(self, config, rng, fold, stretch):
        cosine = np.full(100, self.truths(config)["cosine"]) + rng.normal(0, 1e-6, 100)
        return {"cosine": cosine, "mse": np.full(100, 0.01)}

    def truths(self, config):
        return {"cosine": 0.6 - 100 * config.lr}


@pytest.mark.parametrize(("race", "spent"), [(False, 6 * 300), (True, 3 * 300 + 3 * 100)])
def test_a_replay_on_three_folds_pays_for_each_and_saves_what_the_race_saves(race, spent, monkeypatch):
    setting = Setting("random", presets="none", stopping=False, folds=3, race=race)
    rates = [1e-5, 2e-5, 3e-5, 1e-4, 1e-3, 5e-4]  # the first three fill the race; no later one is better
    suggest_only(rates, monkeypatch)
    search = Replay(Steady(), setting, seed=0)

    for _ in rates:
        search._trial()

    assert search.spent == spent
    assert search.best_config.lr == 1e-5
    assert search.counts["complete"] == (3 if race else 6)


def test_a_sampler_round_the_presets_stays_in_the_space_and_near_them():
    file = study_file.read("default")
    centre = dict(file.initial_trials()[1].params)
    study = optuna.create_study(direction="maximize")
    study.sampler = AroundSampler(optuna.samplers.RandomSampler(0), file.space, 0, [centre], share=1.0, width=0.01)

    trial = study.ask(dict(file.space))

    assert all(file.space[name]._contains(file.space[name].to_internal_repr(v)) for name, v in trial.params.items())
    assert trial.params["lr"] == pytest.approx(centre["lr"], rel=0.3)
    assert trial.params["pose_unit"] == centre["pose_unit"]


def test_invented_people_are_data_that_the_program_accepts(tmp_path):
    other_people.write(tmp_path / "people", other_people.make(7, people=12, views=4, size=16))

    answer = call("data", "check", "people", cwd=tmp_path)

    assert answer.code == 0, answer.err
    assert json.loads((tmp_path / "people/video_metadata.json").read_text())["poses"][0] != [0, 0, 0]


def test_invented_people_follow_from_their_seed():
    one, same, other = (other_people.make(seed, people=6, views=3, size=16) for seed in (7, 7, 8))

    assert np.array_equal(one["video_feature.npy"], same["video_feature.npy"])
    assert not np.array_equal(one["video_feature.npy"], other["video_feature.npy"])


def test_a_picture_of_many_settings_draws_each_in_its_own_way_with_its_quartiles(tmp_path):
    grid = np.array([100, 300, 1000])
    settings = {f"setting {number}": compare.Spread(grid, grid / 1e5, grid / 5e4, grid / 1e4) for number in range(14)}
    compare.draw(settings, tmp_path / "new" / "regret.svg")
    svg = "{http://www.w3.org/2000/svg}"
    picture = ElementTree.parse(tmp_path / "new" / "regret.svg").getroot()
    assert [text.text for text in picture.iter(f"{svg}text") if text.get("class") == "entry"] == list(settings)
    (chart,) = picture.findall(f"{svg}svg[@class='chart']")
    assert len({line.get("class") for line in chart.iter(f"{svg}polyline")}) == 14
    assert all(len(band.get("points").split()) == 2 * len(grid) for band in chart.iter(f"{svg}polygon"))
