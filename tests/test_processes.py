"""How several processes find each other, agree, and are started on one machine; nothing here trains."""

import os
import socket
import sys
import threading
import time
from importlib.util import find_spec

import jax
import numpy as np
import pytest

from jaxformer import cli
from jaxformer.agreement import facts
from jaxformer.config import files as configfile
from jaxformer.config.sections import resolve
from jaxformer.errors import UserError
from jaxformer.experiment import Experiment
from jaxformer.parallel import meeting, places
from jaxformer.parallel.compile import Layout
from jaxformer.parallel.meeting import meet, numbered
from jaxformer.parallel.mesh import Timeouts, make_mesh
from jaxformer.parallel.places import Place, Unavailable, devices_in_slurm, find_place
from jaxformer.parallel.processes import disagreements
from jaxformer.parallel.topologies import topology_devices
from jaxformer.verbs.options import in_flags
from jaxformer.verbs.train import Train


@pytest.fixture
def port():
    with socket.create_server(("localhost", 0)) as server:
        return server.getsockname()[1]


def met(port, *places_, seconds=10.0):
    """What each process gets that meets the others: None or its error."""
    got = [None] * len(places_)

    def one(number, index, count):
        try:
            meet(Place(f"localhost:{port}", count, index), seconds)
        except UserError as error:
            got[number] = error

    threads = [threading.Thread(target=one, args=(n, *place)) for n, place in enumerate(places_)]
    for thread in threads:
        thread.start()
        time.sleep(0.05)
    for thread in threads:
        thread.join(30)
    return got


# Meeting


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0)])
def test_all_go_on_when_all_are_there(port, order):
    assert met(port, *((index, 3) for index in order)) == [None] * 3
    with socket.create_server(("localhost", port)):
        pass  # JAX can have the port at once


def test_a_missing_process_is_named(port, monkeypatch, caplog):
    monkeypatch.setattr(meeting, "SAID_EVERY", 0.2)
    caplog.set_level("INFO", "jaxformer")
    first, second = met(port, (0, 4), (2, 4), seconds=1.0)
    assert "waiting for processes 1, 3 of 4" in caplog.messages
    assert isinstance(first, Unavailable)
    assert str(first).startswith("processes 1, 3 of 4 did not come to localhost:")
    assert isinstance(second, Unavailable)


def test_an_unreachable_coordinator_is_named(port, monkeypatch, caplog):
    monkeypatch.setattr(meeting, "SAID_EVERY", 0.1)
    caplog.set_level("INFO", "jaxformer")
    with pytest.raises(Unavailable, match=rf"process 0 of 2 cannot be reached at localhost:{port} \(0.5 s\)"):
        meet(Place(f"localhost:{port}", 2, 1), 0.5)
    assert f"waiting for process 0 at localhost:{port}" in caplog.messages


def test_a_port_in_use(port):
    with socket.create_server(("", port)), pytest.raises(Unavailable, match="Address already in use"):
        meet(Place(f"localhost:{port}", 2, 0), 5)


@pytest.mark.parametrize("address", ["localhost", "localhost:", ":1", "host:70000", "host:x"])
def test_no_address(address):
    with pytest.raises(UserError, match="expected HOST:PORT"):
        meet(Place(address, 2, 1), 5)


def test_another_number_of_processes_stops_all(port):
    found = met(port, (0, 3), (1, 3), (2, 4))
    said = "processes: 4 on process 2, 3 on process 0; give all the same"
    assert [str(error) for error in found] == [said] * 3


def test_who_is_none_of_them_is_let_pass(port):
    def probe():
        for said in (b"", b"GET / HTTP/1.1\r\n\r\n", b"[1]\n", b"7\n"):
            with socket.create_connection(("localhost", port)) as connection:
                connection.sendall(said)
        meet(Place(f"localhost:{port}", 2, 1), 10)

    thread = threading.Timer(0.2, probe)
    thread.start()
    meet(Place(f"localhost:{port}", 2, 0), 10)
    thread.join()


def test_a_process_that_is_started_again_while_others_wait(port):
    def killed_and_again():
        with socket.create_connection(("localhost", port)) as connection:
            connection.sendall(b"[1, 3]\n")
        for index in (1, 2):
            time.sleep(0.1)
            threading.Thread(target=meet, args=(Place(f"localhost:{port}", 3, index), 10)).start()

    threading.Timer(0.2, killed_and_again).start()
    meet(Place(f"localhost:{port}", 3, 0), 10)


def test_numbers_as_people_write_them():
    assert numbered([3]) == "process 3"
    assert numbered([1, 2, 3, 5, 7, 8]) == "processes 1-3, 5, 7-8"


# Places


@pytest.fixture
def nowhere(monkeypatch):
    """An environment in which nothing tells of other processes."""
    for name in (*os.environ,):
        if name.startswith(("JAXFORMER_CO", "JAXFORMER_PR", "SLURM_", "OMPI_", "JAX_COORD", "JAX_LOCAL")):
            monkeypatch.delenv(name)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return monkeypatch


def place(*told):
    return find_place(*(told or (None, None, None)), Timeouts())


def test_flags_tell_the_place_and_come_before_variables(nowhere):
    assert place() is None
    assert place("host:1", 4, 3) == Place("host:1", 4, 3)
    for name, value in {"COORDINATOR": "host:2", "PROCESSES": "3", "PROCESS": "1"}.items():
        nowhere.setenv(f"JAXFORMER_{name}", value)
    assert place() == Place("host:2", 3, 1)
    assert place(None, None, 2) == Place("host:2", 3, 2)


def test_one_process_alone_is_none_of_several(nowhere):
    assert place("host:1", 1, 0) is None


@pytest.mark.parametrize(
    ("told", "line"),
    [
        (("host:1", 2, None), "process: is missing beside `coordinator`; give it, or set JAXFORMER_PROCESS"),
        ((None, 2, 1), "coordinator: is missing beside `process`; give it, or set JAXFORMER_COORDINATOR"),
        (("host:1", 2, 2), "process=2: of 2 processes the last has the number 1"),
    ],
)
def test_a_place_that_is_none(nowhere, told, line):
    with pytest.raises(UserError) as error:
        place(*told)
    assert str(error.value) == line


def test_a_variable_that_is_no_number(nowhere):
    nowhere.setenv("JAXFORMER_PROCESS", "two")
    with pytest.raises(UserError, match="process='two': expected a number"):
        place("host:1", 2, None)


SLURM = {
    "SLURM_JOB_ID": "4097",
    "SLURM_STEP_NODELIST": "node[07-09]",
    "SLURM_NTASKS": "6",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "1",
    "SLURM_STEP_TASKS_PER_NODE": "2(x3)",
    "CUDA_VISIBLE_DEVICES": "0,1",
}


def test_the_place_in_a_step_of_slurm(nowhere):
    for name, value in SLURM.items():
        nowhere.setenv(name, value)
    assert place() == Place(f"node07:{61440 + 1}", 6, 3, (1,))
    nowhere.setenv("JAX_COORDINATOR_PORT", "6002")
    nowhere.setenv("JAX_LOCAL_DEVICE_IDS", "0")
    assert place() == Place("node07:6002", 6, 3)
    nowhere.setenv("SLURM_NTASKS", "1")
    assert place() is None


@pytest.mark.parametrize(
    ("changed", "devices"),
    [
        ({}, (1,)),
        ({"SLURM_STEP_TASKS_PER_NODE": "1(x6)"}, ()),  # one process has all GPUs of its machine
        ({"SLURM_STEP_TASKS_PER_NODE": "2,1(x4)"}, ()),
        ({"SLURM_STEP_TASKS_PER_NODE": "1,2(x2),1", "SLURM_NODEID": "2"}, (1,)),
        ({"CUDA_VISIBLE_DEVICES": "5"}, ()),  # bound to its own
        ({"CUDA_VISIBLE_DEVICES": "0,1,2,3", "SLURM_GPUS_PER_TASK": "4"}, ()),
        ({"CUDA_VISIBLE_DEVICES": "0,1,2,3"}, (2, 3)),
        ({"CUDA_VISIBLE_DEVICES": "0,1", "SLURM_STEP_TASKS_PER_NODE": "4(x3)", "SLURM_LOCALID": "3"}, (1,)),
    ],
)
def test_which_gpus_a_task_of_slurm_has(changed, devices):
    assert devices_in_slurm(SLURM | changed) == devices


def test_the_place_under_open_mpi(nowhere):
    variables = {"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "2", "OMPI_COMM_WORLD_LOCAL_RANK": "0"}
    variables["OMPI_MCA_orte_hnp_uri"] = "1531576320.0;tcp://10.96.0.1,10.148.0.1:34911"
    for name, value in variables.items():
        nowhere.setenv(name, value)
    assert place() == Place(f"10.96.0.1:{61440 + 1531576320 // 4096 % 4096}", 4, 2, (0,))


def test_a_cluster_that_does_not_answer(nowhere):
    def fails(**_):
        raise RuntimeError("Failed to recognize coordinator address node07")

    for name, value in SLURM.items():
        nowhere.setenv(name, value)
    nowhere.setattr(places.clusters.SlurmCluster, "get_coordinator_address", fails)
    with pytest.raises(Unavailable, match=r"does not tell the place of this process \(Failed to recognize"):
        place()


def test_kubernetes_is_never_asked(nowhere):
    """JAX's detection wants rights on the API, and counts the pods of one Job alone."""
    nowhere.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    nowhere.setitem(sys.modules, "kubernetes", None)
    assert place() is None
    assert {kind.name for kind in places.clusters.ClusterEnv._cluster_types} >= {
        "",
        "slurm",
        "ompi",
        "gcetpu",
    }


# What they have to have in common


def test_what_differs_is_named():
    same = {"facts": {"seed": 0, "git revision": "abc", "devices": "4 x cpu"}, "mistake": []}
    assert disagreements([same, same]) == []
    other = {"facts": {"seed": 0, "git revision": "abd", "devices": "4 x cpu"}, "mistake": []}
    line = "git revision: 'abc' on process 0, 'abd' on process 1"
    assert disagreements([same, other, same]) == [f"{line}; all processes of a run need the same"]
    line += ", and 1 more that differ"
    assert disagreements([same, other, other]) == [f"{line}; all processes of a run need the same"]


def test_a_mistake_is_told_with_the_process_that_found_it():
    fine, wrong = (
        {"facts": {"a": 1}, "mistake": []},
        {"facts": {"a": 1}, "mistake": ["b: is wrong", "mend it"]},
    )
    said = disagreements([fine, wrong])
    assert said == ["on process 1: b: is wrong", "mend it"]
    assert in_flags(Train, said[0]) == said[0]  # the flag for a process's number has no part in it
    assert disagreements([wrong, wrong]) == ["b: is wrong", "mend it"]


DIGITS = "vit_digits"
compiles = pytest.mark.skipif(
    find_spec("libtpu") is None, reason="libtpu, the TPU's compiler, is not installed"
)


def test_facts_tell_configs_and_data_apart():
    def told(**changed):
        config = {name.replace("__", "."): value for name, value in changed.items()}
        return facts(Experiment(resolve(configfile.read(DIGITS, config))))

    ours = told()
    assert ours == told(data__read_threads=3)
    assert ours["git revision"] or ours["code"]
    assert ours["devices"] == f"8 x {jax.devices()[0].device_kind}"
    differing = {name for name, value in told(seed=1).items() if value != ours[name]}
    assert differing == {"seed", "data of train_split, first examples"}
    others = told(data__train_split="test")
    differing = {name for name, value in others.items() if value != ours[name]}
    assert differing == {
        "data.train_split",
        "data of train_split, examples",
        "data of train_split, first examples",
    }


# Rows


def test_rows_are_in_order_on_one_machine():
    layout = Layout("jit", make_mesh({"data": 2, "fsdp": 2, "tensor": 2}))
    assert layout.reader == (0, 1)
    np.testing.assert_array_equal(layout.rows(8), np.arange(8))


@compiles
@pytest.mark.parametrize(
    ("axes", "shares"), [({"data": 16}, 4), ({"data": 4, "fsdp": 4}, 4), ({"data": 2, "tensor": 8}, 2)]
)
def test_processes_of_a_pod_read_disjoint_and_complete_rows(axes, shares):
    """A machine of v5e has 2 x 2 chips, so that its rows of a batch are not neighbours."""
    devices = topology_devices("v5e:4x4")
    layout = Layout("jit", make_mesh(axes, devices))
    assert len(layout.shares) == shares
    assert {process for processes in layout.shares.values() for process in processes} == {0, 1, 2, 3}
    batch = 32
    rows, held = layout.rows(batch), layout.batch_sharding.devices_indices_map((batch,))
    assert sorted(rows) == list(range(batch))
    for number, processes in enumerate(layout.shares.values()):
        read = range(number * batch // shares, (number + 1) * batch // shares)
        for process in processes:
            here = {held[device][0].indices(batch) for device in devices if device.process_index == process}
            on_devices = np.concatenate([np.arange(*part) for part in sorted(here)])
            np.testing.assert_array_equal(rows[on_devices], read)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--devices-per-process", "2"], "--devices-per-process: is for processes that are started here; "),
        (["--processes", "0"], "--processes 0: expected 1 or more"),
        (["--coordinator", "host:1", "--processes", "2"], "--process: is missing beside --coordinator; "),
        (
            ["--coordinator", "host", "--processes", "2", "--process", "1"],
            "--coordinator host: expected HOST:PORT",
        ),
    ],
)
def test_wrong_flags(words, line, nowhere, capsys):
    assert cli.main(["train", "--config", DIGITS, *words]) == 2
    assert line in capsys.readouterr().err
