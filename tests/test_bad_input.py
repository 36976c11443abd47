"""Every mistake gets exit code 2 and a line or two that name the thing and the remedy, before any work starts."""

import textwrap
from pathlib import Path

import pytest

from jaxformer import cli

CONFIGS = Path(__file__).parent.parent / "configs"
DIGITS = str(CONFIGS / "vit_digits.py")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch, digits_dir):
    """Nothing is written to the checkout, and nothing half-written is left."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TFDS_DATA_DIR", str(digits_dir))


def refused(capsys, *argv):
    """The message of a command line that is refused."""
    assert cli.main([str(a) for a in argv]) == 2
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    assert out == ""
    return err


OVERRIDES = {
    "a misspelt field": ("model.widht=3", "model.widht: ViT has no field 'widht'; did you mean 'width'?"),
    "a misspelt section": (
        "optimiser.name=adam",
        "optimiser: a config has no field 'optimiser'; did you mean 'optimizer'",
    ),
    "an unknown model": ("model.name=vitt", "model.name: there is no 'vitt'; did you mean 'vit'?"),
    "an unknown optimizer": (
        "optimizer.name=adamww",
        "optimizer.name: there is no 'adamww'; did you mean 'adamw'?",
    ),
    "an unknown schedule": (
        "schedule.name=cosin",
        "schedule.name: there is no 'cosin'; did you mean 'cosine'?",
    ),
    "an unknown task": (
        "task.name=classify",
        "task.name: there is no 'classify'; did you mean 'classification'?",
    ),
    "a wrong type": ("model.width=wide", "model.width: expected int, was given 'wide' (str)"),
    "a float for a whole number": (
        "data.batch_size=3.5",
        "data.batch_size: expected int, was given 3.5 (float)",
    ),
    "a duration without a unit": ("train.total=60", "train.total: '60' is not a duration"),
    "a duration in an unknown unit": ("eval.every='5 years'", "eval.every: '5 years' is not a duration"),
    "a total in percent": (
        "train.total='50%'",
        'train.total="50%": expected a length in steps, epochs or examples',
    ),
    "an unknown precision": ("precision=float8", "precision"),
    "a patch that does not divide the image": ("model.patch_size=3", "patch_size=3"),
    "heads that do not divide the width": ("model.num_heads=7", "num_heads=7"),
    "images of another size": ("model.image_size=16", "model.image_size=16: the training images are 8x8"),
    "too few classes": ("model.num_classes=5", "model.num_classes=5: the dataset has 10 classes"),
    "microbatches that do not divide the batch": (
        "train.accumulate=7",
        "train.accumulate=7 does not divide data.batch_size=64: use one that does, such as 4",
    ),
    "a batch the devices cannot share": (
        "data.batch_size=60",
        "data.batch_size=60 is not a multiple of 8 devices",
    ),
    "a mesh of other devices": (
        "parallel.mesh.data=3",
        "parallel.mesh: data=3 does not make up the 8 devices",
    ),
    "an unknown mesh axis": ("parallel.mesh.model=2", "parallel.mesh.model: there is no such axis"),
    "fsdp under pmap": (
        "parallel={'mode':'pmap','mesh':{'fsdp':-1}}",
        "parallel.mesh: pmap is data parallelism alone",
    ),
    "options of the compiler under pmap": (
        "parallel={'mode':'pmap','compiler_options':{'xla_embed_ir_in_executable':True}}",
        "parallel.compiler_options: pmap takes none",
    ),
    "an option of the compiler that is no value": (
        "parallel.compiler_options.xla_embed_ir_in_executable=[1]",
        "parallel.compiler_options",
    ),
    "a warm-up longer than training": ("schedule.warmup='100 epochs'", "schedule.warmup"),
    "a rule that takes nothing": ("optimizer.freeze=['encodr/.*']", "encodr"),
    "a decay that is none": ("train.ema_decay=1.5", "train.ema_decay=1.5: expected a decay between 0 and 1"),
    "a dataset that is not there": ("data.name=digitz", "digitz"),
    "a split that is not there": (
        "eval.split=tset",
        "eval.split: digits/1.0.0 has no split 'tset'",
    ),
    "a transform's impossible field": (
        "data.transforms[0].padding=-1",
        "data.transforms[0].padding=-1: expected 0 or more, and at most 32768 (in 'pad_and_crop', "
        "of the modality image)",
    ),
    "a transform of texts for images, which lacks a field": (
        "data.transforms=[dict(name='eda')]",
        "data.transforms[0].thesaurus: missing; Eda needs it (str) (in 'eda', of the modality text)",
    ),
    "an unknown transform": (
        "data.transforms=[{'name':'flipp'}]",
        "data.transforms[0].name: there is no 'flipp'",
    ),
    "a random transform in evaluation": ("data.eval_transforms=[{'name':'flip'}]", "data.eval_transforms[0]"),
    "an unknown metric to watch": ("eval.monitor=acuracy", "eval.monitor='acuracy'"),
    "no patience at all": ("eval.patience=0", "eval.patience=0: expected at least 1 evaluation"),
    "checkpoints that keep nothing": ("checkpoint.keep=0", "checkpoint.keep=0"),
    "a field below a leaf": ("model.width.more=1", "model.width is 48, which has no field 'more'"),
    "an entry that a list does not have": (
        "data.transforms[1].padding=2",
        "data.transforms is [{'name': 'pad_and_crop', 'padding': 1, 'probability': 0.5}], which has no field '1'",
    ),
    "an entry whose number has 5,000 digits": (
        f"data.transforms[{'1' * 5000}].padding=2",
        "which has no field '111",
    ),
    "a list that is none": ("data.transforms=flip", "data.transforms: expected a list of dict(name=...)"),
    "a rate that is not finite": (
        "optimizer.learning_rate=1e999",
        "optimizer.learning_rate: inf is not a finite number",
    ),
    "a rate of nothing": (
        "optimizer.learning_rate=0",
        "optimizer.learning_rate=0.0: expected a number above 0; with 0 nothing would be learnt",
    ),
    "a division by less than nothing": ("optimizer.eps=-1", "optimizer.eps=-1.0: expected a number above 0"),
    "a division by what float32 takes for nothing": ("optimizer.eps=1e-50", "optimizer.eps=1e-50: expected"),
    "a decay of more than all": (
        "optimizer.weight_decay=1e9",
        "optimizer.weight_decay=1000000000.0: at the learning rate it takes 5e+06 times each weight a step",
    ),
    "float16 parameters without a loss scale": (
        "precision=dict(params='float16', compute='bfloat16')",
        'precision.params="float16": gradients of float16 parameters vanish without the loss scale',
    ),
    "a seed that is too large": ("seed=99999999999999999999", "expected 0 to 2**32 - 1"),
    "a training without end": ("train.total='1B epochs'", "expected 1 to 2**31 - 1"),
    "an override without a value": (
        "model.width",
        "--config.model.width: expected --config.section.leaf=VALUE",
    ),
    "smoothing over 1": ("task.label_smoothing=1.5", "task.label_smoothing=1.5"),
}


@pytest.mark.parametrize("case", OVERRIDES)
def test_an_override_that_cannot_be(case, capsys, tmp_path):
    override, message = OVERRIDES[case]
    assert message in refused(capsys, "train", "--config", DIGITS, f"--config.{override}")
    assert not (tmp_path / "runs").exists()


def test_everything_wrong_is_said_at_once(capsys):
    wrong = ["--config.model.widht=3", "--config.task.name=x", "--config.train.total=60", "--config.seed=x"]
    lines = refused(capsys, "train", "--config", DIGITS, *wrong, "--config.train.accumulate=0").splitlines()
    for start in ("model.widht", "task.name", "train.total", "seed"):
        assert any(line.startswith(f"jaxformer: {start}") for line in lines)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "which of its verbs? There are: chaos, cross-validate, data"),
        (["data"], "data: which of its verbs? There are: back-translate, import"),
        (["data", "lst"], "data lst: there is no such verb; did you mean 'list'?"),
        (["train"], "train: --config is missing"),
        (["generate"], "generate: give the run first: `jaxformer generate RUN`"),
        (["evaluate", "--run", "nowhere"], "evaluate: give the run first: `jaxformer evaluate RUN`"),
        (
            ["predict", "--workdir", "nowhere", "x.png"],
            "predict: give the run first: `jaxformer predict RUN`",
        ),
        (["report"], "report: give the run first: `jaxformer report RUN`"),
        (["report", "nowhere", "--output", "a.html"], "--output: is for comparisons of several runs"),
        (["explain", "nowhere"], "explain: FILE is missing"),
        (["fewshot", "--shots", "1"], "fewshot: give the run first: `jaxformer fewshot RUN TASK.yaml`"),
        (["predict", "nowhere", "x.png", "--class", "cat"], "--class: chooses what --explain shows"),
        (
            ["predict", "nowhere", "--explain", __file__],
            "is a file; put --explain behind the images",
        ),
        (["describe"], "describe: give one of --config, --preset and --fields"),
        (["describe", "--preset", "vit-b16", "--mesh", "data=2,data=2"], "--mesh: data is there twice"),
        (
            ["describe", "--fields", "model.vitt"],
            "model.vitt: there is no 'vitt' in model; did you mean 'vit'?",
        ),
        (["train", "--config", DIGITS, "--profile"], "--profile: expected one argument"),
        (["trian", "--config", DIGITS], "trian: there is no such verb; did you mean 'train'?"),
        (["train", "--config", DIGITS, "--nope"], "--nope"),
        (["train", "--config", "vit_digit.py"], "did you mean 'vit_digits'?"),
        (["train", "--config", DIGITS, "--profile", "15:10"], "15:10"),
        (["train", "--config", DIGITS, "--profile", "ten"], "ten"),
        (["evaluate", "nowhere"], "nowhere: not a run's folder"),
        (["predict", "nowhere", "x.png"], "nowhere: not a run's folder"),
        (["report", "nowhere"], "nowhere"),
        (["evaluate", "nowhere", "--config.seed=1"], "reads the run's own config"),
        (["describe", "--config", DIGITS, "--mesh", "data=x"], "--mesh data=x: expected AXIS=SIZE"),
        (["describe", "--preset", "vit-s17"], "vit-s1"),
        (["data", "show", "nothing"], "nothing"),
        (["data", "import", "images", "no_such_folder", "--name", "mine"], "no_such_folder"),
    ],
)
def test_a_command_line_that_cannot_be(argv, message, capsys):
    assert message in refused(capsys, *argv)


def test_a_config_file_that_fails_names_the_line(capsys, tmp_path):
    broken = tmp_path / "broken.py"
    broken.write_text("def get_config(arg=None):\n    return 1 / 0\n")
    message = refused(capsys, "train", "--config", broken)
    assert "ZeroDivisionError" in message
    assert "line 2" in message


def test_a_config_file_without_get_config(capsys, tmp_path):
    empty = tmp_path / "empty.py"
    empty.write_text("x = 1\n")
    message = refused(capsys, "train", "--config", empty)
    assert f"there is no get_config in it ({empty})" in message
    assert "files.py" not in message


def test_a_config_that_takes_no_argument(capsys):
    assert "this config takes no argument; leave ':small' out" in refused(
        capsys, "train", "--config", f"{DIGITS}:small"
    )


def test_a_config_in_another_folder_is_not_a_shipped_one(capsys):
    assert "there is no such file" in refused(capsys, "train", "--config", "elsewhere/vit_digits.py")


def test_a_config_that_returns_no_config(capsys, tmp_path):
    (tmp_path / "mine.py").write_text("def get_config():\n    return {}\n")
    assert "get_config returned a dict" in refused(capsys, "train", "--config", "mine.py")


def test_a_config_that_is_not_python_names_its_line(capsys, tmp_path):
    (tmp_path / "mine.py").write_text("x = 1\ndef get_config(:\n")
    assert "mine.py, line 2" in refused(capsys, "train", "--config", "mine.py")


def test_a_folder_with_checkpoints_and_no_config(capsys, tmp_path):
    (tmp_path / "orphan" / "checkpoints").mkdir(parents=True)
    assert "no config.json that names their experiment" in refused(
        capsys, "train", "--config", DIGITS, "--workdir", "orphan"
    )


def test_a_result_that_is_broken(capsys, tmp_path):
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "result.json").write_text("{")
    (tmp_path / "torn" / "config.json").write_text("{")
    assert "config.json: cannot be read as JSON" in refused(
        capsys, "train", "--config", DIGITS, "--workdir", "torn"
    )


def test_a_config_without_a_section(capsys, tmp_path):
    short = tmp_path / "short.py"
    short.write_text(
        textwrap.dedent("""
        import ml_collections

        def get_config(arg=None):
            return ml_collections.ConfigDict({"task": {"name": "classification"}})
        """)
    )
    message = refused(capsys, "train", "--config", short)
    for section in ("model", "data", "optimizer", "schedule", "train"):
        assert f"jaxformer: {section}: missing" in message


def test_a_run_folder_of_another_experiment(capsys, tmp_path):
    from jaxformer.config import files as configfile
    from jaxformer.config.sections import resolve
    from jaxformer.runs import Run

    run = Run(tmp_path / "taken")
    run.enter(resolve(configfile.read(DIGITS)))
    run.metrics_file.write_text('{"step": 1, "train/loss": 2.3}\n')
    message = refused(capsys, "train", "--config", DIGITS, "--workdir", "taken", "--config.model.width=64")
    assert "taken holds another experiment: model.width: 48 -> 64" in message


def test_a_run_whose_config_is_broken(capsys, tmp_path):
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "config.json").write_text('{"config": {')
    assert "cannot be read as JSON" in refused(capsys, "evaluate", "torn")


def test_a_run_without_a_checkpoint(capsys, tmp_path):
    from jaxformer.config import files as configfile
    from jaxformer.config.sections import resolve
    from jaxformer.runs import Run

    Run(tmp_path / "fresh").enter(resolve(configfile.read(DIGITS)))
    assert "there is no checkpoint yet" in refused(capsys, "evaluate", "fresh")
    assert "--checkpoint newest: expected best, latest or a step" in refused(
        capsys, "evaluate", "fresh", "--checkpoint", "newest"
    )


def test_a_run_folder_that_cannot_be_made(capsys, tmp_path):
    (tmp_path / "file").write_text("")
    assert "cannot write there" in refused(capsys, "train", "--config", DIGITS, "--workdir", "file/run")
