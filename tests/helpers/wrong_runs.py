"""Folders that are no run's, and damaged files of runs; see wrong_commands.py."""

import json
from collections.abc import Iterator

from helpers.wrong import NEEDED, Wrong

RUN_FILES = {
    "is empty": "",
    "is cut short": '{"config": {',
    "is null": "null",
    "is a list": "[]",
    "is a number": "7",
    "has no config": "{}",
    "has a config that is null": '{"config": null}',
    "has a config that is a list": '{"config": [1]}',
    "has a config that is a text": '{"config": "vit"}',
    "has an empty config": '{"config": {}}',
    "has sections that are null": '{"config": {"model": null, "data": null}}',
    "is not UTF-8": b'{"config": "\xff"}',
    "nests 100,000 brackets": '{"config": ' + "[" * 100_000,
    "nests 100,000 objects": '{"a":' * 100_000,
    "says NaN": '{"config": NaN}',
    "holds a number of 5,000 digits": '{"config": ' + "9" * 5000 + "}",
    "is UTF-16": '{"config": {}}'.encode("utf-16"),
}
METRICS_LINES = {
    "has a mapping for a number": '{"step": 1, "train/loss": {"a": 1}}',
    "has a list for a number": '{"step": 1, "train/loss": [1]}',
    "has a word for a number": '{"step": 1, "train/loss": "low"}',
    "has null for a number": '{"step": 1, "train/loss": null}',
    "has a number of 400 digits": '{"step": 1, "train/loss": ' + "9" * 400 + "}",
    "has a step of 30 digits": '{"step": ' + "9" * 30 + ', "train/loss": 1.0}',
}
RESULT = dict.fromkeys(("final", "best", "seconds", "examples_per_second", "mfu", "device"))
RESULT_FILES = {
    "is empty": "",
    "is null": "null",
    "is a list": "[1]",
    "lacks its keys": "{}",
    "has a status that is a list": json.dumps({**RESULT, "status": [1], "step": 1}),
    "has metrics that are a text": json.dumps({**RESULT, "status": "completed", "step": 1, "final": "good"}),
    "has metrics that are mappings": json.dumps(
        {**RESULT, "status": "completed", "step": 1, "final": {"a": {}}}
    ),
    "has a step that is a text": json.dumps({**RESULT, "status": "completed", "step": "one"}),
    "nests 100,000 brackets": "[" * 100_000,
}


def run_folders() -> Iterator[Wrong]:
    """Runs that are none, or whose files are broken."""
    of_run = [verb for verb in NEEDED if NEEDED[verb][:1] == ("run",)]
    good = {"task.yaml": "", "text.txt": "a text\n", "image.png": b""}
    for verb in of_run:
        rest = NEEDED[verb][1:]
        for folder in (
            "nowhere",
            "",
            "\0",
            "r" * 5000,
            "gs:",
            "gs://bucket/run",
            "text.txt",
            "\udcff",
            "empty",
        ):
            name = f"{verb}: the run {folder[:30]!r}"
            yield Wrong(name, (*verb.split(), folder, *rest), "", good | {"empty/": ""})
        for step in ("newest", "-1", "", "\u0661", "1.5", "9" * 5000, "\0"):
            if verb != "report":
                argv = (*verb.split(), "run", *rest, f"--checkpoint={step}")
                yield Wrong(f"{verb}: the checkpoint {step[:30]!r}", argv, "--checkpoint", good)
    for what, content in RUN_FILES.items():
        files = good | {"run/config.json": content}
        readable = what in (
            "has an empty config",
            "has sections that are null",
        )  # for a report, and to begin anew
        for verb in ("evaluate", "generate") if readable else ("evaluate", "report", "generate"):
            argv = (*verb.split(), *NEEDED[verb])
            yield Wrong(f"{verb}: a config.json that {what}", argv, "config.json", files)
        if not readable:
            argv = ("train", "--config", "vit_digits", "--run", "run")
            begun = files | {"run/metrics.jsonl": '{"step": 1}\n'}  # else it is begun anew
            yield Wrong(f"train: a config.json that {what}", argv, "config.json", begun)
    for what, line in METRICS_LINES.items():
        files = {"run/config.json": '{"config": {}}', "run/metrics.jsonl": line + "\n"}
        yield Wrong(f"report: a metrics.jsonl that {what}", ("report", "run"), "metrics.jsonl, line 1", files)
    for what, content in RESULT_FILES.items():
        files = {"run/config.json": '{"config": {}}', "run/result.json": content}
        yield Wrong(f"report: a result.json that {what}", ("report", "run"), "result.json", files)
    for argv in (
        ("report", "run", "run2", "--output", "empty"),
        ("report", "run", "run2", "--output", "\0"),
        ("report", "run", "run2", "--output", "text.txt/x"),
        ("report", "run", "--output", "x.html"),
        ("report", "run", "nowhere"),
        ("report",),
    ):
        files = {
            **good,
            "run/config.json": '{"config": {}}',
            "run2/config.json": '{"config": {}}',
            "empty/": "",
        }
        yield Wrong(" ".join(argv).replace("\0", "NUL"), argv, "", files)
