"""Config files and options of `describe` that cannot be; see wrong_commands.py."""

import dataclasses
from collections.abc import Iterator

from helpers.wrong import Wrong

HEAD = "from ml_collections import ConfigDict\n"
FILES = {
    "is empty": "",
    "is a comment": "# nothing\n",
    "has no get_config": "x = 1\n",
    "has a get_config that is no function": "get_config = 3\n",
    "is not Python": "def get_config(:\n",
    "is indented wrongly": "def get_config():\n  x = 1\n    y = 2\n",
    "has a tab where blanks were": "def get_config():\n        x = 1\n\treturn x\n",
    "divides by zero": "def get_config():\n    return 1 / 0\n",
    "raises": "def get_config():\n    raise RuntimeError('no')\n",
    "raises with many lines": "def get_config():\n    raise RuntimeError('no\\n' * 50)\n",
    "raises a long message": "def get_config():\n    raise RuntimeError('n' * 100_000)\n",
    "raises when it is imported": "raise ValueError('at once')\n",
    "returns None": "def get_config():\n    pass\n",
    "returns a number": "def get_config():\n    return 3\n",
    "returns a list": "def get_config():\n    return [1]\n",
    "returns a dict": "def get_config():\n    return {}\n",
    "asks for a key that is not there": HEAD + "def get_config():\n    return ConfigDict().model.width\n",
    "needs an argument": HEAD + "def get_config(arg):\n    return ConfigDict()\n",
    "calls itself for ever": "def get_config():\n    return get_config()\n",
    "reads a file that is not there": "def get_config():\n    return open('nowhere.txt').read()\n",
    "imports a module that is not there": "import no_such_module_at_all\n",
    "imports a name that is not there": "from json import nothing_of_the_kind\n",
    "ends the program": "import sys\nsys.exit(0)\n",
    "ends the program without a code": "def get_config():\n    raise SystemExit\n",
    "holds a zero byte": "x = '\0'\n",
    "is Latin-1": b"x = '\xe9'\n",
    "is an image": b"\x89PNG\r\n\x1a\n\x00\x00\x00",
    "is UTF-16": "def get_config(): pass\n".encode("utf-16"),
    "nests 3,000 brackets": "x = " + "[" * 3000 + "]" * 3000 + "\n",
    "nests 300 unary signs": "x = " + "-" * 100_000 + "1\n",
    "asserts": "def get_config():\n    assert False\n",
    "is a generator": "def get_config():\n    yield 1\n",
    "is YAML": "model:\n  name: vit\n  width: 48\n",
}


def config_files() -> Iterator[Wrong]:
    """Config files that fail, and names that are no config file."""
    for what, content in FILES.items():
        yield Wrong(
            f"a config that {what}", ("train", "--config", "mine.py"), "mine.py", {"mine.py": content}
        )
    yaml, js = "model:\n  name: vit\n", '{"model": {"name": "vit"}}'
    for name, content in {
        "mine.yaml": yaml,
        "mine.json": js,
        "mine.txt": "hello",
        "mine.bin": b"\0\1",
    }.items():
        yield Wrong(f"a config file called {name}", ("train", "--config", name), name, {name: content})
    for name in (
        "",
        ".",
        "..",
        "/",
        "vit_digit",
        "vit_digits.pyy",
        "\0",
        "x" * 5000,
        ":",
        "vit_digits:small",
        "-",
        "~",
        "gs:",
        "gs://bucket/vit.py",
        "/dev/null",
        "configs",
        "a/b/c.py",
        "folder/",
        "\udcff",
    ):
        what = Wrong(f"train: a config called {name[:30]!r}", ("train", f"--config={name}"), "config")
        yield dataclasses.replace(what, files={"folder/": ""})
        yield dataclasses.replace(
            what,
            name=f"describe: a config called {name[:30]!r}",
            argv=("describe", f"--config={name}"),
            files={"folder/": ""},
        )
    train = ("train", "--config", "vit_digits")
    for value in (
        "1",
        ":",
        "1:",
        ":2",
        "2:1",
        "0:1",
        "-1:2",
        "a:b",
        "1:2:3",
        "\u0661:\u0662",
        "",
        "1" * 5000 + ":2",
        "1e3:2e3",
        "999999:9999999",
    ):
        yield Wrong(f"train: --profile {value[:30]!r}", (*train, f"--profile={value}"), "--profile")
    for value in ("", "\0", "x" * 5000, "gs:", "file", "file/run", "gs://bucket/run", "full", "/dev/null"):
        files = {"file": "mine", "full/letters/1.txt": "mine"}
        yield Wrong(f"train: --run {value[:30]!r}", (*train, f"--run={value}"), "", files)
    for mesh in (
        "data=99999999",
        "data=0",
        "data",
        "=2",
        "data=2=3",
        "model=2",
        "data=-1",
        "data=1.5",
        "data=x",
        "data=2,data=2",
        ",",
        "data=" + "9" * 5000,
        "data=\u0662",
        "tensor=5",
        "data=2,tensor=5",
    ):
        yield Wrong(
            f"describe: --mesh {mesh[:30]!r}", ("describe", "--config", "vit_digits", f"--mesh={mesh}")
        )
    for path in (
        "modell",
        "model.",
        ".model",
        "model.vitt",
        "model.vit.width.more",
        "model.os:getcwd",
        "\0",
        "x" * 5000,
        "model." + "a." * 1000,
        "seed",
        "model..vit",
    ):
        yield Wrong(f"describe: --fields {path[:30]!r}", ("describe", f"--fields={path}"))
    for preset in ("vit-b17", "", "\0", "p" * 5000):
        yield Wrong(f"describe: --preset {preset[:30]!r}", ("describe", f"--preset={preset}"))
    yield Wrong(
        "describe: a config and a preset", ("describe", "--config", "vit_digits", "--preset", "vit-b16")
    )
