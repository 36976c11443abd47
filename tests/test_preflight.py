"""The verdict of the target's compiler before the launch, as text and as JSON."""

import json

import jax
import pytest

from jaxformer import cli
from jaxformer.analysis import sweep as sweeping
from jaxformer.analysis.describe import assemble, for_preset
from jaxformer.analysis.preflight import Target, refusal, training
from jaxformer.analysis.preflight_text import report_text, sweep_text
from jaxformer.config import files as configfile
from jaxformer.config.sections import resolve
from jaxformer.observe import text
from jaxformer.parallel import topologies
from jaxformer.parallel.compile import bytes_a_device
from jaxformer.parallel.topologies import topology_devices

compiles = pytest.mark.skipif(
    topologies.find_spec("libtpu") is None, reason="libtpu, the TPU's compiler, is not installed"
)
TINY = {"model.width": 64, "model.depth": 2, "model.scan": True, "train.total": "100 steps"}
WORDS = ["preflight", "--config", "vit_digits", *(f"--config.{name}={value}" for name, value in TINY.items())]


@pytest.fixture(autouse=True)
def environment(digits_dir, monkeypatch):
    """The digits are there, and the cache of the tests."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(digits_dir))
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", jax.config.jax_compilation_cache_dir)
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")


def tiny(devices=None, **changes):
    return assemble(resolve(configfile.read("vit_digits", TINY | changes)), devices)


@pytest.fixture(scope="module")
def printed(digits_dir, tmp_path_factory):
    """What the command prints, and the JSON beside it."""
    file = tmp_path_factory.mktemp("preflight") / "report.json"
    lines = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TFDS_DATA_DIR", str(digits_dir))
        patch.setenv("JAX_COMPILATION_CACHE_DIR", jax.config.jax_compilation_cache_dir)
        patch.setenv("JAX_PLATFORMS", "cpu")
        patch.setattr("jaxformer.verbs.preflight.print_text", lines.append)
        target = ["--topology", "v5e:2x2", "--mesh", "data=2,fsdp=2", "--price", "1.2"]
        assert cli.main([*WORDS, *target, "--json", str(file)]) == 0
    return "".join(lines), json.loads(file.read_text())


@compiles
def test_the_verdict_has_the_bytes_of_each_kind_once(printed):
    _, report = printed
    held = report["bytes"]
    assert report["fits"] is True
    assert sum(held[kind] for kind in ("state", "batch", "outputs", "temporaries", "code")) == held["total"]
    assert held["batch"] == 64 // 4 * (8 * 8 + 4)  # uint8 images of 8 x 8 and int32 labels
    by_shapes = bytes_a_device(
        tiny(topology_devices("v5e:2x2"), parallel={"mesh": {"fsdp": 2, "data": 2}}).state_shapes
    )
    assert by_shapes <= held["state"] < 4 * by_shapes  # the compiler pads small arrays to its tiles
    assert held["memory"] == 16 * 2**30


@compiles
def test_the_text_has_the_numbers_of_the_json(printed):
    said, report = printed
    assert said == report_text(report) + "\n"
    held, step = report["bytes"], report["step"]
    for shown in (
        *(text.data_size(size) for size in held.values()),
        text.data_size(report["sent"]),
        text.duration(step["seconds"][0]),
        text.number(step["examples_per_second"][1]),
        text.engineering(report["compiler_estimate"]["cycles"]),
        " to ".join(dict.fromkeys(f"{mfu:.1%}" for mfu in step["mfu"])),
        text.number(report["training"]["dollars"][1]),
        *(text.data_size(row["sent"]) for row in report["collectives"]),
        *(row["shape"] for row in report["largest"]),
    ):
        assert shown in said
    (line,) = report["attention"]
    assert "not short: 16 queries, fewer than 32" in line  # patches of images of 8 x 8
    assert f"Attention: {line}\n" in said
    assert "FITS" in said
    assert said.count("assumed") == 2
    assert "Estimates" in said


@compiles
def test_times_follow_from_the_data_sheet(printed):
    """v5e: 197 TFLOP/s, 819 GB/s, links of 200 GB/s one way, 1.5 GHz, two dimensions."""
    _, report = printed
    roofline, estimate = report["roofline"], report["compiler_estimate"]
    assert report["peak"] == 197e12
    assert roofline["flops_seconds"] == pytest.approx(roofline["flops"] / 197e12)
    assert roofline["memory_seconds"] == pytest.approx(roofline["memory_bytes"] / 819e9)
    links = report["sent"] / 200e9
    assert roofline["links_seconds"] == pytest.approx(links)
    computed = estimate["cycles"] / 1.5e9
    assert estimate["kernels"] == estimate["kernel_flops"] == 0
    assert report["step"]["seconds"] == pytest.approx([max(computed, links), computed + 2 * links])
    assert report["step"]["mfu"][1] == pytest.approx(roofline["flops"] / 197e12 / max(computed, links))
    assert report["sent"] == pytest.approx(sum(row["sent"] for row in report["collectives"]))


@compiles
def test_nothing_of_the_size_of_the_model_is_gathered_at_once(printed):
    _, report = printed
    parameters = sum(leaf.size * 4 for leaf in jax.tree.leaves(tiny().state_shapes.params))
    assert report["parameters"] == parameters
    assert 0 < report["largest_gather"] < parameters / 4
    assert {row["axes"] for row in report["collectives"]} <= {"data", "fsdp", "data+fsdp"}


def test_days_and_money_by_hand():
    experiment = tiny()  # 100 steps
    made = training(experiment, Target.named("v5p-32"), [36.0, 72.0], 2.5)["training"]
    assert made["steps"] == 100
    assert made["days"] == pytest.approx([1 / 24, 2 / 24])
    assert made["chip_hours"] == pytest.approx([16, 32])  # 16 chips
    assert made["dollars"] == pytest.approx([40, 80])
    assert "dollars" not in training(experiment, Target.named("v5e-8"), [1.0, 2.0], None)["training"]


MESSAGE = """RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 22.62G of 15.75G hbm.

Largest program allocations in hbm:

  1. Size: 6.25G
     Operator: op_name="jit(step)/mlp/up" source_file="a.py"
     Shape: bf16[16,4096,51200]{2,1,0:T(8,128)(2,1)}
     Unpadded size: 6.25G
  2. Size: 512.0M
     Shape: f32[1024,131072]{1,0}
     Unpadded size: 512.0M
"""


def test_a_refusal_keeps_the_compilers_largest_allocations():
    experiment = tiny()

    def step(x):
        jax.numpy.tile(x, (4, 1))  # which nothing uses
        return x @ x

    jaxpr = jax.make_jaxpr(step)(jax.ShapeDtypeStruct((64, 64), "float32")).jaxpr
    found = refusal(experiment, Target.named("v5e-8"), MESSAGE, jaxpr)
    assert found["fits"] is False
    assert found["reason"].startswith("Ran out of memory in memory space hbm")
    assert found["needs"] == pytest.approx(22.62 * 2**30)
    assert found["largest"] == [
        {"bytes": 6.25 * 2**30, "shape": "bf16[16,4096,51200]", "where": "jit(step)/mlp/up"},
        {"bytes": 512 * 2**20, "shape": "f32[1024,131072]", "where": ""},
    ]
    bare = refusal(experiment, Target.named("v5e-8"), MESSAGE.partition("\n")[0], jaxpr)
    assert bare["largest"] == []
    assert bare["largest_whole"][0]["shape"] == "float32[64,64]"
    assert any("data.batch_size" in remedy for remedy in bare["remedies"])
    assert not any("eval_batch_size" in remedy for remedy in bare["remedies"])


@compiles
@pytest.mark.parametrize(
    ("depth", "mesh", "says"),
    [
        (48, {"fsdp": 4}, "the memory of 37 devices at least"),
        (4, {"data": 4}, "a larger parallel.mesh.fsdp than 1"),
        (1, {"fsdp": 4}, "a smaller data.batch_size than 512"),
    ],
)
def test_remedies_suffice_for_a_large_state(depth, mesh, says):
    """39.1e9 parameters at depth 48, by hand; 16 bytes each with two moments and the gradient: 36.4 x 16 GiB."""
    size = {"model.width": 8192, "model.num_heads": 64, "model.depth": depth, "data.batch_size": 512}
    config = resolve(configfile.read("gpt2_124m", size | {"parallel.mesh": mesh}))
    experiment = assemble(config, topology_devices("v5e-4"))
    jaxpr = jax.make_jaxpr(lambda x: x @ x)(jax.ShapeDtypeStruct((64, 64), "float32")).jaxpr
    (first, *_) = refusal(experiment, Target.named("v5e-4"), MESSAGE, jaxpr)["remedies"]
    assert says in first


@compiles
@pytest.mark.slow
def test_what_does_not_fit_says_so_with_exit_code_1(tmp_path, capsys):
    file = tmp_path / "report.json"
    words = [*WORDS, "--topology", "v5e:2x2", "--config.data.batch_size=4194304"]
    assert cli.main([*words, "--json", str(file)]) == 1
    said, report = capsys.readouterr().out, json.loads(file.read_text())
    assert report["fits"] is False
    assert "DOES NOT FIT: Ran out of memory" in said
    assert "a smaller data.batch_size than 4194304" in said
    assert report["largest_whole"][0]["bytes"] > 2**30


@compiles
@pytest.mark.parametrize(
    ("preset", "fields", "slices"),
    [
        ("gpt2", {}, {"v5e:2x2": 4, "v5e:4x4": 16, "v5e:4x8": 32}),
        ("gpt3-13b", {"scan": True, "width": 5120}, {"v5p:8x8x16": 1024}),
    ],
)
def test_the_state_of_a_device_falls_as_one_over_the_devices(preset, fields, slices):
    """All of AdamW's state: to 5%, though norms and biases of GPT-2's unrolled layers are whole on every device."""
    config = for_preset(preset)
    config["model"] |= {"vocab_size": 50_304, **fields}
    config |= {"parallel": {"mode": "jit", "mesh": {"fsdp": -1}}}
    config["data"]["batch_size"] = max(slices.values())
    config = resolve(config)
    whole = bytes_a_device(assemble(config, topology_devices("v5e:1x1")).state_shapes)
    for where, count in slices.items():
        held = bytes_a_device(assemble(config, topology_devices(where)).state_shapes)
        assert held == pytest.approx(whole / count, rel=0.05)


def test_the_meshes_of_eight_devices():
    """Four heads, a batch of 64."""
    found = [(m["data"], m["fsdp"], m["tensor"]) for m in sweeping.meshes(8, tiny())]
    assert found == [
        *((1, 8, 1), (2, 4, 1), (4, 2, 1), (8, 1, 1)),
        *((1, 4, 2), (2, 2, 2), (4, 1, 2)),
        *((1, 2, 4), (2, 1, 4)),
    ]
    assert {m["tensor"] for m in sweeping.meshes(8, tiny(**{"data.batch_size": 4}))} == {2, 4}
    microbatches = tiny(**{"data.batch_size": 8, "train.accumulate": 2})
    assert {m["tensor"] for m in sweeping.meshes(8, microbatches)} == {2, 4}


def test_long_texts_are_split_over_devices_too():
    """2,048 tokens a device at least: 8,192 go to four; 12 heads; rows by two."""
    long = {"model.context_length": 8192, "data.examples.length": 8192, "data.batch_size": 2}

    def found(**changes):
        experiment = assemble(resolve(configfile.read("gpt2_124m", long | changes)), jax.devices()[:1])
        return [tuple(mesh.values()) for mesh in sweeping.meshes(8, experiment)]

    assert found() == [
        *((1, 2, 4, 1), (2, 1, 4, 1)),  # data, fsdp, sequence, tensor
        *((1, 2, 2, 2), (2, 1, 2, 2)),
        *((1, 2, 1, 4), (2, 1, 1, 4)),
        *((1, 1, 4, 2), (1, 1, 2, 4)),
    ]
    short = {"model.context_length": 4095, "data.examples.length": 4095}
    assert {mesh[2] for mesh in found(**short)} == {1}
    odd = {"model.context_length": 8190, "data.examples.length": 8190}
    assert {mesh[2] for mesh in found(**odd)} == {1, 2}  # four do not divide it


@compiles
@pytest.mark.slow
def test_a_sweep_has_the_quickest_mesh_first(capsys, monkeypatch):
    monkeypatch.setattr(sweeping, "MOST_MESHES", 2)
    assert cli.main([*WORDS, "--topology", "v5e:2x2", "--sweep-mesh"]) == 0
    said = capsys.readouterr()
    assert said.out.count("fsdp=4") == said.out.count("data=2,fsdp=2") == 1
    assert "meshes are left out" in said.err


def test_a_table_of_meshes_marks_what_does_not_fit():
    about = {"topology": "v5e:2x2", "chips": 4, "batch_size": 64}
    good = about | {
        "mesh": {"data": 4, "fsdp": 1, "sequence": 1, "tensor": 1},
        "fits": True,
        "step": {"seconds": [1.0, 2.0], "mfu": [0.25, 0.5]},
        "bytes": {"total": 2**30},
        "sent": 2**20,
    }
    large = about | {"mesh": {"data": 1, "fsdp": 4, "tensor": 1}, "fits": False, "needs": 2**35}
    rows = sweep_text([good, large, large | {"compiler": "libtpu"}])
    assert rows.startswith("v5e:2x2: 4 chips; batch 64. Times, MFU and dollars are estimates")
    (first, second, third) = rows.splitlines()[-3:]
    assert first.split() == ["data=4", "1", "s", "to", "2", "s", "25%", "to", "50%", "1", "GiB", "1", "MiB"]
    assert " ".join(second.split()) == ("fsdp=4 not compiled: state and gradients alone do not fit 32 GiB")
    assert " ".join(third.split()) == "fsdp=4 does not fit, by the compiler 32 GiB"
    priced = good | {"training": {"dollars": [40.0, 40.0]}}
    first, second = sweep_text([priced, large]).splitlines()[-2:]
    assert first.split()[-1] == "40"


def test_where_nothing_fits_what_takes_less_on_the_nearest_mesh_is_said():
    about = {"topology": "v5e:2x2", "chips": 4, "batch_size": 64, "fits": False}
    near = about | {"mesh": {"data": 1, "fsdp": 4}, "needs": 2**34, "remedies": ["a smaller model"]}
    far = about | {"mesh": {"data": 4, "fsdp": 1}, "needs": 2**36, "remedies": ["another"]}
    unknown = far | {"needs": None}
    assert sweep_text([unknown, far, near]).splitlines()[-2:] == [
        "Any of these takes less:",
        "  a smaller model",
    ]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--topology", "v5e-17"], "the nearest are v5e:4x4"),
        (["--topology", ""], "--topology"),
        ([], "preflight: --topology is missing"),
        (["--topology", "v5e:2x2", "--price", "0"], "--price"),
        (["--topology", "v5e:2x2", "--price", "cheap"], "--price"),
        (["--topology", "v5e:2x2", "--preset", "vit-b16"], "give one of --config and --preset"),
        (["--topology", "v5e:2x2", "--sweep-mesh", "--mesh", "data=4"], "leave out --mesh"),
        (["--topology", "v5e:2x2", "--json", "/nowhere/report.json"], "--json"),
        (["--topology", "v5e:2x2", "--json", "/"], "--json"),
    ],
)
def test_what_cannot_be_is_refused_at_once(words, says, capsys):
    assert cli.main([*WORDS, *words]) == 2
    said = capsys.readouterr().err
    assert says in said
    assert said.count("\n") <= 2


@compiles
@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--mesh", "data=8"], "does not make up the 4 devices"),
        (["--config.parallel.mode=pmap"], 'use mode="jit"'),
        (["--config.parallel.mode=pmap", "--sweep-mesh"], 'use mode="jit"'),
        (["--config.parallel.mode=pmap", "--mesh", "data=2,sequence=2"], 'use mode="jit"'),
        (["--config.eval.monitor=bleu", "--sweep-mesh"], "eval.monitor='bleu': not a metric"),
        (
            ["--config.data.batch_size=3", "--config.model.num_heads=1", "--sweep-mesh"],
            "no mesh of 4 devices",
        ),
    ],
)
def test_what_cannot_be_on_a_slice_is_refused_before_compiling(words, says, capsys):
    assert cli.main([*WORDS, "--topology", "v5e:2x2", *words]) == 2
    said = capsys.readouterr().err
    assert says in said
    assert "compiling" not in said


def test_without_the_compiler_it_says_how_to_get_it(monkeypatch, capsys):
    monkeypatch.setattr(topologies, "find_spec", lambda name: None)
    assert cli.main([*WORDS, "--topology", "v5e:2x2"]) == 2
    assert 'pip install "jaxformer[aot]"' in capsys.readouterr().err
