"""metrics.jsonl: valid JSON whatever the values, no step twice, nothing lost by a kill."""

import json
import math
import subprocess
import sys

import numpy as np
import pytest

from jaxformer.errors import UserError
from jaxformer.observe.writers import MetricWriter, read_metrics


def write(run, steps, start=0, scale=1.0):
    with MetricWriter(run, start, tensorboard=False) as writer:
        for step in steps:
            writer.write(step, {"train/loss": scale * step, "train/accuracy": 0.5})


def test_tensorboard_is_imported_without_pytorch():
    words = "import sys; from jaxformer.observe.writers import import_tensorboard; import_tensorboard()"
    loaded = "; assert 'tensorboardX' in sys.modules; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", words + loaded], check=True)


def test_written_metrics_are_read_back(tmp_path):
    write(tmp_path, [10, 20])
    curves = read_metrics(tmp_path)
    assert set(curves) == {"train/loss", "train/accuracy"}
    np.testing.assert_array_equal(curves["train/loss"][0], [10, 20])
    np.testing.assert_array_equal(curves["train/loss"][1], [10.0, 20.0])


def test_values_that_are_not_finite_stay_valid_json(tmp_path):
    with MetricWriter(tmp_path, tensorboard=False) as writer:
        writer.write(1, {"a": math.nan, "b": math.inf, "c": -math.inf, "d": np.float32(2)})

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    record = json.loads((tmp_path / "metrics.jsonl").read_text(), parse_constant=refuse)
    assert (record["a"], record["b"], record["c"], record["d"]) == ("NaN", "Infinity", "-Infinity", 2.0)
    curves = read_metrics(tmp_path)
    assert math.isnan(curves["a"][1][0])
    assert (curves["b"][1][0], curves["c"][1][0]) == (math.inf, -math.inf)


def test_a_resumed_run_has_every_step_once(tmp_path):
    write(tmp_path, [10, 20, 30, 40])
    write(tmp_path, [30, 40, 50], start=20, scale=2.0)
    steps, values = read_metrics(tmp_path)["train/loss"]
    np.testing.assert_array_equal(steps, [10, 20, 30, 40, 50])
    np.testing.assert_array_equal(values, [10, 20, 60, 80, 100])
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 5


def test_a_torn_last_line_costs_only_itself(tmp_path):
    write(tmp_path, [10, 20])
    whole = (tmp_path / "metrics.jsonl").read_text()
    for cut in range(1, len(whole.splitlines()[-1])):
        (tmp_path / "metrics.jsonl").write_text(whole[:-cut])
        np.testing.assert_array_equal(read_metrics(tmp_path)["train/loss"][0], [10])
        write(tmp_path, [20], start=10)
        np.testing.assert_array_equal(read_metrics(tmp_path)["train/loss"][0], [10, 20])
        assert all(json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines())


def test_bytes_that_are_no_text_are_survived(tmp_path):
    write(tmp_path, [10])
    with (tmp_path / "metrics.jsonl").open("ab") as file:
        file.write(b"\xff\xfe{\x00\n[1]\n")
    write(tmp_path, [20], start=10)
    np.testing.assert_array_equal(read_metrics(tmp_path)["train/loss"][0], [10, 20])


def test_records_are_on_disk_before_close(tmp_path):
    writer = MetricWriter(tmp_path, tensorboard=False)
    writer.write(1, {"train/loss": 1.0})
    assert 1 in read_metrics(tmp_path)["train/loss"][0]
    writer.close()


def test_other_processes_write_nothing(tmp_path):
    with MetricWriter(tmp_path, enabled=False) as writer:
        writer.write(1, {"train/loss": 1.0})
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(UserError, match=r"metrics\.jsonl: cannot write there"):
        MetricWriter(tmp_path / "missing", tensorboard=False)


def test_tensorboard_has_the_same_values_with_steps_before_the_resume(tmp_path):
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.record_writer import masked_crc32c

    with MetricWriter(tmp_path) as writer:
        writer.write(10, {"train/loss": 0.5})
    with MetricWriter(tmp_path, 10) as writer:
        writer.write(20, {"train/loss": 0.25})

    # TensorBoard is not a dependency: its record format is read by hand
    found, sessions = {}, []
    for path in sorted((tmp_path / "tensorboard").iterdir(), key=lambda p: p.stat().st_mtime_ns):
        data = path.read_bytes()
        while data:
            length = int.from_bytes(data[:8], "little")
            assert int.from_bytes(data[8:12], "little") == masked_crc32c(data[:8])
            event = Event.FromString(data[12 : 12 + length])
            data = data[12 + length + 4 :]
            if event.HasField("session_log"):
                sessions.append(event.step)
            for value in event.summary.value:
                found[event.step] = (value.tag, value.simple_value)
    assert found == {10: ("train/loss", 0.5), 20: ("train/loss", 0.25)}
    assert sessions == [11]  # TensorBoard hides what the first process wrote from step 11 on
