"""What a worker of a sweep has: cores, GPUs or TPU chips. The machines are folders with the names of their devices."""

import os

import pytest

from jaxformer.errors import UserError
from jaxformer.sweeps import slots
from jaxformer.sweeps.spaces import Sweep

VARIABLES = ("CUDA_VISIBLE_DEVICES", "TPU_VISIBLE_CHIPS", "JAX_PLATFORMS")


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """Makes a machine that has devices of these names."""
    monkeypatch.setattr(os, "environ", {k: v for k, v in os.environ.items() if k not in VARIABLES})
    monkeypatch.setattr(slots, "DEVICES", str(tmp_path))
    monkeypatch.setattr(slots, "find_spec", lambda package: package)

    def make(*names):
        for name in names:
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).touch()

    return make


GPUS = [f"nvidia{number}" for number in range(4)]
CHIPS = [f"accel{number}" for number in range(4)]


@pytest.mark.parametrize(
    ("names", "each", "index", "variable", "value"),
    [
        ([*GPUS, "nvidiactl", "nvidia-uvm"], 1, 2, "CUDA_VISIBLE_DEVICES", "2"),
        (GPUS, 2, 1, "CUDA_VISIBLE_DEVICES", "2,3"),
        (GPUS, 3, 0, "CUDA_VISIBLE_DEVICES", "0,1,2"),
        (CHIPS, 1, 3, "TPU_VISIBLE_CHIPS", "3"),
        (["vfio/0", "vfio/1", "vfio/vfio"], 1, 1, "TPU_VISIBLE_CHIPS", "1"),
        (CHIPS, 4, 0, "TPU_VISIBLE_CHIPS", "0,1,2,3"),
    ],
)
def test_accelerators_are_shared_out(machine, names, each, index, variable, value):
    machine(*names)
    slots.confine(index, Sweep(accelerators_per_trial=each))
    assert os.environ[variable] == value


def test_workers_on_one_tpu_host_do_not_meet(machine):
    """Each is a slice by itself, at a port of its own."""
    machine(*CHIPS)
    ports = []
    for index in range(2):
        slots.confine(index, Sweep(accelerators_per_trial=2))
        assert os.environ["TPU_PROCESS_BOUNDS"] == "1,1,1"
        assert os.environ["TPU_CHIPS_PER_PROCESS_BOUNDS"] == "1,2,1"
        assert os.environ["TPU_PROCESS_ADDRESSES"] == f"localhost:{os.environ['TPU_PROCESS_PORT']}"
        ports.append(os.environ.pop("TPU_PROCESS_PORT"))
        del os.environ["TPU_VISIBLE_CHIPS"]
    assert len(set(ports)) == 2


def test_only_what_the_user_allows_is_shared_out(machine):
    machine(*GPUS)
    os.environ["CUDA_VISIBLE_DEVICES"] = "3,GPU-1a"
    slots.confine(1, Sweep())
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "GPU-1a"
    os.environ["JAX_PLATFORMS"] = "cpu"
    assert slots.accelerators() == (None, [])


def test_without_their_library_they_are_no_accelerators(machine, monkeypatch):
    machine(*CHIPS)
    monkeypatch.setattr(slots, "find_spec", lambda package: None)
    assert slots.accelerators() == (None, [])


@pytest.mark.parametrize(
    ("names", "workers", "each", "message"),
    [
        (GPUS, 5, 1, "workers=5: each has 1 of the 4 GPUs here; use 4"),
        (CHIPS, 3, 2, "workers=3: each has 2 of the 4 TPU chips here; use 2"),
        (CHIPS, 1, 3, "accelerators_per_trial=3: there are 4 TPU chips here; use 1 or 2 or 4"),
        (GPUS, 1, 8, "accelerators_per_trial=8: there are 4 GPUs here; use 1 or 2 or 3 or 4"),
    ],
)
def test_what_a_machine_does_not_have_is_refused(machine, names, workers, each, message):
    machine(*names)
    with pytest.raises(UserError) as caught:
        slots.check_count(workers, Sweep(accelerators_per_trial=each))
    assert caught.value.lines == (message,)


def test_no_more_workers_than_there_are_accelerators_join(machine):
    machine(*GPUS)
    with pytest.raises(UserError, match=r"a worker for each 1 of the 4 GPUs; start no more on this machine"):
        slots.confine(4, Sweep())


def test_cores_are_shared_out_and_shared_where_there_are_too_few():
    assert [slots.cores_of(index, 2, [4, 5, 6]) for index in range(3)] == [{4, 5}, {6, 4}, {5, 6}]
    with pytest.raises(UserError, match="cores_per_trial=4: this process may use 3"):
        slots.cores_of(0, 4, [4, 5, 6])
