import pytest

from features.engines import _machine
from features.engines._machine import default_engine, launched_recipe, worker_recipes
from features.recipe import ExtractConfig
from vjepa_loc.errors import ConfigError


@pytest.fixture(autouse=True)
def sixteen_cores_and_four_gpus(monkeypatch):
    monkeypatch.setattr(_machine, "usable_cores", lambda: 16)
    monkeypatch.setattr(_machine, "num_gpus", lambda: 4)


def test_a_worker_has_a_gpu_of_its_own_and_its_part_of_the_cores():
    recipes = worker_recipes(ExtractConfig(), None, gpus=4)
    assert [recipe["device"] for recipe in recipes] == ["cuda:0", "cuda:1", "cuda:2", "cuda:3"]
    assert {(recipe["threads"], recipe["decode_workers"]) for recipe in recipes} == {(4, 4)}
    assert [recipe["device"] for recipe in worker_recipes(ExtractConfig(), 3, gpus=2)] == ["cuda:0", "cuda:1", "cuda:0"]


def test_what_the_recipe_says_stands():
    recipe = ExtractConfig(device="cpu", threads=5, decode_workers=1)
    assert worker_recipes(recipe, 2, gpus=4) == [{"threads": 5, "decode_workers": 1}] * 2
    assert "device" not in worker_recipes(ExtractConfig(device="cuda:3"), 2, gpus=4)[0]


def test_without_gpus_one_worker_unless_more_are_asked_for():
    assert len(worker_recipes(ExtractConfig(), None, gpus=0)) == 1
    assert worker_recipes(ExtractConfig(), 32, gpus=0) == [{"threads": 1, "decode_workers": 1}] * 32
    with pytest.raises(ConfigError, match="--workers: expected at least 1, got 0"):
        worker_recipes(ExtractConfig(), 0, gpus=0)


def test_more_workers_than_any_machine_can_hold_are_refused_before_one_is_started():
    assert len(worker_recipes(ExtractConfig(), 64, gpus=0)) == 64
    with pytest.raises(ConfigError, match="--workers: expected at most 64 on a machine with 16 cores and 0 GPUs, got 1000"):
        worker_recipes(ExtractConfig(), 1000, gpus=0)


@pytest.mark.parametrize(("environment", "expected"), [
    ({}, {}),
    ({"LOCAL_RANK": "5", "LOCAL_WORLD_SIZE": "8"}, {"threads": 2, "decode_workers": 2, "device": "cuda:1"}),
    ({"SLURM_STEP_ID": "0", "SLURM_LOCALID": "3"}, {"device": "cuda:3"}),
    ({"SLURM_LOCALID": "0"}, {}),
])
def test_processes_of_a_launcher_take_a_gpu_each(environment, expected):
    assert launched_recipe(ExtractConfig(), environment) == expected


def test_where_each_process_sees_one_gpu_it_takes_that(monkeypatch):
    monkeypatch.setattr(_machine, "num_gpus", lambda: 1)
    assert launched_recipe(ExtractConfig(), {"SLURM_STEP_ID": "0", "SLURM_LOCALID": "3"}) == {}


def test_a_launcher_that_speaks_nonsense_is_refused():
    with pytest.raises(ConfigError, match="LOCAL_RANK='x'"):
        launched_recipe(ExtractConfig(), {"LOCAL_RANK": "x"})


def test_several_gpus_and_no_launcher_mean_a_process_each(monkeypatch):
    assert default_engine(ExtractConfig(), {}) == "processes"
    assert default_engine(ExtractConfig(device="cuda:1"), {}) == "local"
    assert default_engine(ExtractConfig(), {"LOCAL_RANK": "0"}) == "local"
    monkeypatch.setattr(_machine, "num_gpus", lambda: 1)
    assert default_engine(ExtractConfig(), {}) == "local"
