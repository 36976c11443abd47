"""The command line: the only place that knows flags.

Heavy imports happen inside the verbs, so that `--help` and mistakes answer at once.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from jaxformer import __version__
from jaxformer.errors import UserError


class Parser(argparse.ArgumentParser):
    """An argument parser whose mistakes are UserErrors, like all others."""

    def error(self, message: str) -> NoReturn:
        """Raises what argparse would print."""
        verb = self.prog.partition(" ")[2]
        raise UserError(f"{verb}: {message}" if verb else message, f"see `{self.prog} --help`")


def parser() -> Parser:
    """All verbs and their flags."""
    root = Parser(
        prog="jaxformer", description=__doc__.splitlines()[0] if __doc__ else None, allow_abbrev=False
    )
    root.description = "Trains, evaluates and looks into Transformers, Vision Transformers and CNNs."
    root.add_argument("--version", action="version", version=f"jaxformer {__version__}")
    verbs = root.add_subparsers(dest="verb", required=True, metavar="VERB")

    def verb(name: str, summary: str) -> argparse.ArgumentParser:
        return verbs.add_parser(name, help=summary, description=summary, allow_abbrev=False)

    overrides = "; any leaf can be overridden: --config.train.total='10 epochs'"
    train = verb("train", "train a model, or go on with a run where it stopped" + overrides)
    train.add_argument(
        "--config", required=True, metavar="FILE[:ARG]", help="a config file, or a shipped config's name"
    )
    train.add_argument("--run", type=Path, metavar="DIR", help="the run's folder (default: runs/CONFIG_NAME)")
    train.add_argument("--profile", metavar="FIRST:LAST", help="trace these steps for XProf, as in 10:15")

    evaluate = verb("evaluate", "evaluate a run's checkpoint and write its metrics and tables")
    evaluate.add_argument("run", type=Path, metavar="RUN", help="a run's folder")
    evaluate.add_argument("--split", help="a TFDS split (default: the config's eval.split)")
    evaluate.add_argument(
        "--checkpoint", default="best", metavar="best|latest|STEP", help="which one (default: best)"
    )

    predict = verb(
        "predict", "classify image files: JSON lines to the terminal, annotated pictures to a folder"
    )
    predict.add_argument("run", type=Path, metavar="RUN", help="a run's folder")
    predict.add_argument(
        "images", nargs="+", type=Path, metavar="IMAGE", help="image files or folders of them"
    )
    predict.add_argument(
        "--output", type=Path, metavar="DIR", help="where annotated pictures go (default: RUN/predictions)"
    )
    predict.add_argument(
        "--checkpoint", default="best", metavar="best|latest|STEP", help="which one (default: best)"
    )
    predict.add_argument("--top", type=int, default=5, help="how many classes to list (default: 5)")
    predict.add_argument(
        "--skip-broken", action="store_true", help="leave unreadable images out instead of stopping"
    )

    report = verb("report", "write a run's report.html anew, or compare several runs")
    report.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run folders")
    report.add_argument("--output", type=Path, help="the comparison's file (default: comparison.html)")

    describe = verb(
        "describe", "what a config would train, and what it takes, without training it" + overrides
    )
    what = describe.add_mutually_exclusive_group(required=True)
    what.add_argument("--config", metavar="FILE[:ARG]", help="a config file, or a shipped config's name")
    what.add_argument("--preset", metavar="NAME", help="a model preset, trained as ImageNet at 224 pixels")
    describe.add_argument(
        "--mesh", metavar="AXIS=N,...", help="as if on these devices: data=8,fsdp=4,tensor=2"
    )
    describe.add_argument(
        "--no-compile", action="store_true", help="leave out what needs the step compiled: activations"
    )

    data = verb("data", "list, show and import datasets").add_subparsers(
        dest="action", required=True, metavar="ACTION"
    )
    folder = argparse.ArgumentParser(add_help=False)
    folder.add_argument(
        "--data-dir", metavar="DIR", help="the TFDS folder (default: TFDS_DATA_DIR, ~/tensorflow_datasets)"
    )
    data.add_parser("list", help="the datasets that are prepared", parents=[folder])
    show = data.add_parser(
        "show", help="a contact sheet of pictures with their labels (PNG)", parents=[folder]
    )
    show.add_argument("name", metavar="NAME", help="a dataset: digits, cifar10, ...")
    show.add_argument("--split", default="train", help="a TFDS split (default: train)")
    show.add_argument("--count", type=int, default=64, help="how many pictures (default: 64)")
    show.add_argument("--output", type=Path, help="the picture's file (default: NAME.png)")
    importing = data.add_parser("import", help="make a dataset of your own files", parents=[folder])
    importing.add_argument("kind", choices=["images"], help="what the files are")
    importing.add_argument(
        "source", type=Path, metavar="DIR|CSV", help="one folder a class, or a CSV of path,label"
    )
    importing.add_argument("--name", required=True, help="the dataset's name, for data.name in configs")
    importing.add_argument(
        "--test-share", type=float, default=0.2, help="what is held out if there are no splits (0.2)"
    )
    importing.add_argument(
        "--skip-broken", action="store_true", help="leave unreadable images out instead of stopping"
    )
    return root


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a verb and returns its exit code: 0 done, 1 failed, 2 the user's mistake, 75 preempted and saved."""
    argv = list(sys.argv[1:] if argv is None else argv)
    overrides = [a for a in argv if a.startswith("--config.")]
    try:
        arguments = parser().parse_args([a for a in argv if a not in overrides])
        if overrides and arguments.verb not in ("train", "describe"):
            raise UserError(
                f"{overrides[0]}: `{arguments.verb}` reads the run's own config, which has no overrides"
            )
        from jaxformer import verbs

        return getattr(verbs, arguments.verb)(arguments, overrides)
    except UserError as error:
        for line in error.lines:
            sys.stderr.write(f"jaxformer: {line}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("jaxformer: interrupted\n")
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 1
