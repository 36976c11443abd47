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
from jaxformer.importing.formats import FORMATS

INTERRUPTED = 130  # the exit code after Ctrl-C: 128 + SIGINT


class Parser(argparse.ArgumentParser):
    """An argument parser whose mistakes are UserErrors, like all others."""

    def error(self, message: str) -> NoReturn:
        """Raises what argparse would print."""
        verb = self.prog.partition(" ")[2]
        raise UserError(f"{verb}: {message}" if verb else message, f"see `{self.prog} --help`")


def names(value: str) -> tuple[str, ...]:
    """The names in a list with commas."""
    return tuple(name.strip() for name in value.split(","))


def two_numbers(value: str) -> tuple[int, int]:
    """The numbers in "1,4"."""
    try:
        first, second = map(int, value.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{value!r}: expected two numbers, as in 1,4") from None
    return first, second


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

    evaluate = verb("evaluate", "evaluate a run's checkpoint on a split, on tasks in prompts, or on a text")
    evaluate.add_argument("run", type=Path, metavar="RUN", help="a run's folder")
    what = evaluate.add_mutually_exclusive_group()
    what.add_argument("--split", help="a TFDS split (default: the config's eval.split)")
    what.add_argument("--fewshot", type=Path, metavar="TASK.jsonl", help="a task in prompts: JSON lines")
    what.add_argument("--perplexity", metavar="FILE", help="a text file's perplexity and bits per byte")
    what.add_argument(
        "--harness", nargs="+", metavar="TASK", help="lm-evaluation-harness: its tasks' names, or YAML files"
    )
    evaluate.add_argument(
        "--tta",
        choices=["flip", "five_crop", "ten_crop"],
        help="see each picture of the split several times: mirrored, in parts, or both, and average probabilities",
    )
    evaluate.add_argument("--shots", type=int, metavar="K", help="demonstrations in a prompt (0)")
    evaluate.add_argument("--seed", type=int, help="of the demonstrations (0)")
    evaluate.add_argument("--limit", type=int, metavar="N", help="the first examples alone")
    evaluate.add_argument(
        "--stride", type=int, metavar="N", help="of --perplexity (half of what the model sees)"
    )
    evaluate.add_argument(
        "--output", type=Path, metavar="FILE", help="the examples (default: RUN/fewshot/TASK-K.jsonl)"
    )
    add_checkpoint(evaluate)

    predict = verb("predict", "what a run's model says of your images or texts, as JSON lines")
    predict.add_argument("run", type=Path, metavar="RUN", help="a run's folder")
    predict.add_argument(
        "inputs",
        nargs="*",
        metavar="INPUT",
        help="image files or folders of them; or files of one text a line (two with a tab between them, or JSON "
        "lines of question and context, where the model takes that), - is stdin",
    )
    predict.add_argument("--text", action="append", default=[], help="a text; give it again for more")
    predict.add_argument(
        "--question", action="append", default=[], metavar="TEXT", help="about --context-file"
    )
    predict.add_argument("--context-file", metavar="FILE", help="the text that answers --question")
    predict.add_argument(
        "--output", type=Path, metavar="DIR", help="annotated pictures, JSON lines (default: RUN/predictions)"
    )
    add_checkpoint(predict)
    predict.add_argument("--top", type=int, default=5, help="how many classes to list (default: 5)")
    predict.add_argument(
        "--skip-broken", action="store_true", help="leave unreadable images out instead of stopping"
    )
    predict.add_argument(
        "--explain",
        nargs="?",
        type=Path,
        const=True,
        metavar="DIR",
        help="pictures of what the model saw: attention, Grad-CAM (default: explanations, beside the predictions)",
    )
    predict.add_argument(
        "--class",
        dest="class_name",
        metavar="NAME",
        help="what Grad-CAM explains (default: what is predicted)",
    )

    generate = verb("generate", "go on with a text, or translate it, with a run's language model")
    generate.add_argument("--workdir", type=Path, required=True, metavar="RUN", help="a run's folder")
    generate.add_argument("--prompt", action="append", metavar="TEXT", help="a text; give it again for more")
    generate.add_argument("--prompts", metavar="FILE", help="a file of prompts, one a line, - is stdin")
    generate.add_argument("--max-new-tokens", type=int, default=256, metavar="N", help="at most (256)")
    generate.add_argument("--temperature", type=float, help="0 is greedy (0.8)")
    generate.add_argument("--greedy", action="store_const", const=True, help="always the likeliest token")
    generate.add_argument("--top-k", type=int, metavar="K", help="draw from the K likeliest tokens")
    generate.add_argument("--top-p", type=float, metavar="P", help="... from those that make up P together")
    generate.add_argument(
        "--min-p", type=float, metavar="P", help="... from those at least P as likely as the first"
    )
    generate.add_argument("--repetition-penalty", type=float, metavar="X", help="1 is none, 1.2 is usual (1)")
    generate.add_argument(
        "--stop", action="append", default=[], metavar="TEXT", help="ends before this string"
    )
    generate.add_argument(
        "--beams", type=int, default=1, metavar="K", help="beam search instead of drawing (1)"
    )
    generate.add_argument("--length-penalty", type=float, metavar="A", help="of beam search (0.6)")
    generate.add_argument("--samples", type=int, metavar="N", help="texts for each prompt (1)")
    generate.add_argument("--seed", type=int, help="of what is drawn (0)")
    generate.add_argument(
        "--json", action="store_true", help="a JSON line for each text, as for several prompts"
    )
    add_checkpoint(generate)

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

    add_data(verb("data", "list, show and import datasets, train tokenizers, paraphrase texts"))
    return root


def add_checkpoint(flags: argparse.ArgumentParser) -> None:
    """Which checkpoint of a run."""
    flags.add_argument(
        "--checkpoint", default="best", metavar="best|latest|STEP", help="which one (default: best)"
    )


def add_data(flags: argparse.ArgumentParser) -> None:
    """The flags of `data`."""
    data = flags.add_subparsers(dest="action", required=True, metavar="ACTION")
    folder = argparse.ArgumentParser(add_help=False)
    folder.add_argument(
        "--data-dir", metavar="DIR", help="the TFDS folder (default: TFDS_DATA_DIR, ~/tensorflow_datasets)"
    )
    data.add_parser("list", help="the datasets that are prepared", parents=[folder])
    show = data.add_parser(
        "show",
        help="some examples: texts, or a contact sheet of pictures with their labels (PNG)",
        parents=[folder],
    )
    show.add_argument("name", metavar="NAME", help="a dataset: digits, cifar10, ...")
    show.add_argument("--split", default="train", help="a TFDS split (default: train)")
    show.add_argument("--count", type=int, help="how many (default: 64 pictures, 5 texts)")
    show.add_argument("--output", type=Path, help="the picture's file (default: NAME.png)")
    add_import(data.add_parser("import", help="make a dataset of your own files", parents=[folder]))
    add_tokenizer(data.add_parser("tokenizer", help="train a tokenizer, or see what one does"), folder)
    add_back_translation(
        data.add_parser(
            "back-translate",
            help="paraphrase a dataset's texts with two runs that translate, for the transform back_translate",
            parents=[folder],
        )
    )


def add_import(importing: argparse.ArgumentParser) -> None:
    """The flags of `data import`."""
    importing.add_argument(
        "kind",
        choices=list(FORMATS),
        help="what the files are; csv has commas between columns, and a header line",
    )
    importing.add_argument(
        "source",
        nargs="+",
        type=Path,
        metavar="SOURCE",
        help="images: one folder a class, or a CSV of path,label; detection: COCO's JSON, a folder of VOC's XML, or "
        "YOLO's data.yaml; segmentation: a folder with images, masks and classes.txt; pairs: two files side by "
        "side, or one with tabs; else files, or folders of them. Files or folders named train, validation "
        "(val, dev), test are these splits",
    )
    importing.add_argument("--name", required=True, help="the dataset's name, for data.name in configs")
    importing.add_argument(
        "--test-share",
        type=float,
        metavar="SHARE",
        help="what is held out if there are no splits: at random (default: 0.2), or a text's tail (0.1)",
    )
    importing.add_argument(
        "--skip-broken", action="store_true", help="leave out what cannot be used instead of stopping"
    )
    importing.add_argument(
        "--unit", choices=["file", "paragraph", "line"], help="text: what an example is (default: file)"
    )
    importing.add_argument("--label", metavar="COLUMN", help="csv, jsonl: what is to be predicted")
    importing.add_argument(
        "--regression",
        action="store_const",
        const=True,
        help="csv, jsonl: the label is a number, not a class",
    )
    importing.add_argument(
        "--text", type=names, metavar="COLUMN,...", help="csv, jsonl: the texts to keep (default: all)"
    )
    importing.add_argument(
        "--classes",
        type=names,
        metavar="A,B,...",
        help="csv, jsonl, conll, segmentation: all classes, in their order",
    )
    importing.add_argument(
        "--columns",
        type=two_numbers,
        metavar="WORD,TAG",
        help="conll: these columns, from 1 (default: the first and the last)",
    )


def add_back_translation(flags: argparse.ArgumentParser) -> None:
    """The flags of `data back-translate`."""
    flags.add_argument("name", metavar="NAME", help="a dataset")
    flags.add_argument("--feature", metavar="NAME", help="the text to paraphrase (default: the only one)")
    flags.add_argument("--split", default="train", help="a TFDS split (default: train)")
    flags.add_argument(
        "--forward", type=Path, required=True, metavar="RUN", help="translates it into another language"
    )
    flags.add_argument(
        "--backward", type=Path, required=True, metavar="RUN", help="translates that language back"
    )
    add_checkpoint(flags)
    flags.add_argument("--samples", type=int, default=1, metavar="N", help="paraphrases for each text (1)")
    flags.add_argument("--temperature", type=float, help="0 is greedy (0.9)")
    flags.add_argument("--beams", type=int, default=1, metavar="K", help="beam search instead of drawing (1)")
    flags.add_argument("--seed", type=int, default=0, help="of what is drawn (0)")
    flags.add_argument(
        "--output",
        type=Path,
        required=True,
        metavar="FILE.jsonl",
        help="the paraphrases; FILE.jsonl.part until all are there, and the same command goes on with it",
    )


def add_tokenizer(flags: argparse.ArgumentParser, folder: argparse.ArgumentParser) -> None:
    """The flags of `data tokenizer`."""
    actions = flags.add_subparsers(dest="tokenizer_action", required=True, metavar="ACTION")
    train = actions.add_parser(
        "train", help="train one on a dataset's texts, or on text files", parents=[folder]
    )
    train.add_argument("names", nargs="+", metavar="NAME", help="a dataset, or text files")
    train.add_argument("--kind", choices=["bpe", "wordpiece", "unigram", "characters"], required=True)
    train.add_argument("--vocab-size", type=int, metavar="N", help="tokens at most (default: 8192)")
    train.add_argument("--lowercase", action="store_const", const=True, help="lowercase texts")
    train.add_argument(
        "--min-frequency",
        type=int,
        metavar="N",
        help="how often a pair has to be there to become a token (2)",
    )
    train.add_argument(
        "--template", help="special tokens: none, gpt, bert, roberta, t5 or seq2seq (default: none)"
    )
    train.add_argument(
        "--feature",
        type=names,
        metavar="NAME,...",
        help="a dataset's texts (default: the only one besides path)",
    )
    train.add_argument("--split", help="a TFDS split (default: train)")
    train.add_argument(
        "--output", type=Path, default=Path("tokenizer.json"), help="(default: tokenizer.json)"
    )
    show = actions.add_parser("show", help="what a tokenizer is, and the tokens of texts")
    show.add_argument(
        "file",
        type=Path,
        metavar="FILE",
        help="tokenizer.json, vocab.txt, a sentencepiece model, or their folder",
    )
    show.add_argument("--text", action="append", default=[], help="a text; give it again for more")


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The parsed flags.

    Inputs of `predict` may stand after flags, too: argparse takes those before the first alone (before Python 3.13).
    """
    root = parser()
    arguments, rest = root.parse_known_args(argv)
    if rest and arguments.verb == "predict" and all(a == "-" or not a.startswith("-") for a in rest):
        arguments.inputs += rest
    elif rest:
        root.error(f"unrecognized arguments: {' '.join(rest)}")
    return arguments


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a verb and returns its exit code: 0 done, 1 failed, 2 the user's mistake, 75 preempted and saved."""
    argv = list(sys.argv[1:] if argv is None else argv)
    overrides = [a for a in argv if a.startswith("--config.")]
    try:
        arguments = parse([a for a in argv if a not in overrides])
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
        return INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()
        return 1
