"""Names of datasets and splits that cannot be, and damaged files for imports; see wrong_commands.py."""

from collections.abc import Iterator

from helpers.wrong import Wrong


def splits_and_datasets() -> Iterator[Wrong]:
    """Names of datasets and of splits that cannot be."""
    for split in (
        "train[5%:2%]",
        "",
        " ",
        "nothing",
        "train[",
        "train[:0]",
        "train[a:b]",
        "train[5:2]",
        "\0",
        "[:5]",
        "s" * 5000,
        "train[:99999999999999999999%]",
        "train[::2]",
        "+",
        "train[-1%:]x",
    ):
        yield Wrong(f"data show: the split {split[:30]!r}", ("data", "show", "digits", f"--split={split}"))
    for name in (
        "",
        ".",
        "..",
        "/",
        "digits/",
        "gs:",
        "gs://bucket/x",
        "no_such_data",
        "a/b/c",
        "\0",
        "n" * 5000,
        "digits/9",
        "digits/1.0.0/x",
        "\udcff",
        "-" * 3000,
        "file",
        "Digits\n",
    ):
        files = {"file": "mine"}
        yield Wrong(f"data show: the dataset {name[:30]!r}", ("data", "show", "--", name), "", files)
    for kind in ("", "imagez", "\0", "k" * 5000):
        yield Wrong(
            f"data import: the kind {kind[:20]!r}", ("data", "import", kind, "folder", "--name", "mine")
        )
    for name in ("", ".", "..", "a/b/c", "\0", "n" * 5000, "gs:", "\udcff", "1.0.0", "../up", "Mixed Name"):
        argv = ("data", "import", "text", "file.txt", f"--name={name}", "--data-dir=made")
        yield Wrong(f"data import: called {name[:20]!r}", argv, "", {"file.txt": "a text\n"})
    for kind, file in (
        ("csv", "a.csv"),
        ("jsonl", "a.jsonl"),
        ("conll", "a.conll"),
        ("squad", "a.json"),
        ("detection", "a.json"),
        ("images", "folder"),
        ("image-text", "a.csv"),
        ("segmentation", "folder"),
        ("pairs", "a.tsv"),
    ):
        for what, content in BROKEN.items():
            files = {f"{file}/": ""} if file == "folder" and what == "is empty" else {file: content}
            argv = ("data", "import", kind, file, "--name", "mine", "--data-dir", "made")
            yield Wrong(f"data import {kind}: a file that {what}", argv, file, files)


BROKEN: dict[str, str | bytes] = {
    "is empty": "",
    "is a zero byte": b"\0",
    "is not UTF-8": b"\xff\xfe\x00\xd8",
    "nests 100,000 brackets": "[" * 100_000,
    "nests 100,000 objects": '{"a":' * 100_000,
}
