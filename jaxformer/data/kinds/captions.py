"""Pictures with captions."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np

from jaxformer.config.fields import Constraint
from jaxformer.data.base import DatasetConfig, Example, Source, Spec
from jaxformer.data.kinds.images import ImageKind, ImageReader
from jaxformer.data.kinds.text import RowLength
from jaxformer.data.records import Labels, Record, Records, inner
from jaxformer.data.text.cache import Column, Writer, cached
from jaxformer.data.text.rows import IGNORED, build_tokenizer, id_dtype, naming_culprit, shares
from jaxformer.data.text.tokenizers import Tokenizer
from jaxformer.data.transform import Transform
from jaxformer.errors import UserError

EMPTY = "leave it out of the dataset, or skip it with data.examples.broken='skip'"


@dataclass(frozen=True, kw_only=True)
class Captions(ImageKind):
    """Pairs of a picture and one of its captions; the pairs are numbered one picture after another.

    `image` uint8 [B, H, W, C]; `tokens` int32 [B, T], what the tokenizer's template writes around the prompt and the
    caption, and padding; `token_mask` bool [B, T], False on padding; `targets` int32 [B, T], the token to predict at
    each place: the next one, and -1 on the places before the prompt's last, on the last token and on padding; `picture`
    int32 [B], the picture's number in the split; `caption` int32 [B], the number of the text, which equal captions
    share; and with `prompts` the class, `labels` int32 [B].
    """

    kind: ClassVar[str] = "captions"
    tokenized: ClassVar[bool] = True

    length: RowLength
    """Tokens of a prompt and a caption (T), special tokens included; what is longer is cut, and counted."""
    caption_feature: str = "caption"
    """The dataset's feature that holds the caption, or a list of them."""
    more_captions: tuple[str, ...] = ()
    """Further features that hold captions, such as those in other languages."""
    prompt_feature: str | None = None
    """The feature with a text that stands in front of the caption, such as a question: one for a picture, or as many as
    captions. Nothing is learnt of its own tokens."""
    prompts: tuple[
        Annotated[str, Constraint("a text with one {}", lambda text: text.count("{}") == 1)], ...
    ] = ()
    """Templates such as "a photo of a {}.", filled with the name of the picture's class: its caption. Pictures of a
    class take them in turn, so that there is one pair a picture."""
    label_feature: str = "label"
    """The feature that holds the class, for `prompts`."""

    def problems(self) -> Iterator[str]:
        if self.prompts and self.prompt_feature is not None:
            yield "prompt_feature: prompts make captions of classes, with nothing in front; leave one of the two out"

    @property
    def asked(self) -> bool:
        return self.prompt_feature is not None

    @property
    def text_features(self) -> dict[str, str]:
        """The features that hold texts, by the field that names each."""
        if self.prompts:
            return {}
        prompt = {} if self.prompt_feature is None else {"prompt_feature": self.prompt_feature}
        more = {f"more_captions[{place}]": name for place, name in enumerate(self.more_captions)}
        return prompt | {"caption_feature": self.caption_feature} | more

    def open(self, config: DatasetConfig, split: str, train: bool) -> Source:
        """A split's pairs; the tokenizer is learnt from the captions of the training split, whatever split is opened.

        Raises:
          UserError: the dataset, version, split or a feature is not there, or not what it has to be; a picture has no
            caption, or an empty one; the tokenizer cannot be made.
        """
        return CaptionSource(config, split)

    def check(self, records: Records) -> None:
        """Raises UserError for features of texts that are not there, or are none."""
        import tensorflow_datasets as tfds

        texts = []
        for name, feature in records.features.items():
            part = inner(feature)
            if isinstance(feature, tfds.features.Text) or isinstance(part, tfds.features.Text):
                texts.append(name)
            elif isinstance(part, tfds.features.FeaturesDict):  # COCO's, as TFDS has it: "captions/text"
                texts += [f"{name}/{key}" for key, f in part.items() if isinstance(f, tfds.features.Text)]
        for field, feature in self.text_features.items():
            records.check(feature, f"data.examples.{field}", texts, "a text or a list of texts")

    def filled(self, name: str) -> list[str]:
        """The prompts of a class."""
        return [prompt.replace("{}", name) for prompt in self.prompts]

    def labels(self, records: Records) -> Labels | None:
        """The feature of classes that prompts are filled with; None without prompts.

        Raises:
          UserError: it is no class, or its classes have no names.
        """
        if not self.prompts:
            return None
        labels = Labels(records, self.label_feature, "data.examples.label_feature")
        if labels.names is None:
            problem = f"the classes of {self.label_feature!r} of {records.name} have no names"
            raise UserError(f"data.examples.prompts: {problem} to fill them with; take another label_feature")
        return labels

    def tokenizer(self, config: DatasetConfig, opened: Records) -> Tokenizer:
        """The tokenizer of a config, learnt from the training split's texts, or from all prompts, if it learns."""
        same = opened.split == config.train_split
        records = opened if same else Records(config, config.train_split)
        self.check(records)
        if labels := self.labels(records):
            texts = [text for name in labels.names or () for text in self.filled(name)]
            made_by: Any = config.tokenizer  # the config has checked that there is one
            return made_by.build(lambda: iter(texts))
        return build_tokenizer(config.tokenizer, tuple(self.text_features.values()), [records])

    def nominal_spec(self, image: tuple[int, int, int], transforms: Sequence[Transform]) -> Spec:
        row, number = ((self.length,), np.dtype(np.int32)), ((), np.dtype(np.int32))
        spec: Spec = {"image": (image, np.dtype(np.uint8)), "tokens": row, "targets": row}
        spec["token_mask"] = ((self.length,), np.dtype(bool))
        return spec | dict.fromkeys(("picture", "caption", *(["labels"] if self.prompts else [])), number)


@dataclass(frozen=True)
class Pair:
    """A picture's caption, before it is tokens."""

    prompt: str
    """What stands in front; "" for nothing."""
    caption: str
    """The caption."""
    label: int = 0
    """The class, with prompts."""


class CaptionSource(ImageReader):
    """Pairs of a picture and a caption; the tokens of a split are made once, and kept in the cache of texts."""

    settings: Captions
    tokenizer: Tokenizer

    def __init__(self, config: DatasetConfig, split: str):
        """Opens `split`; raises UserError as `Captions.open` does."""
        super().__init__(config, split)
        settings = self.settings
        settings.check(self.records)
        self._labels = settings.labels(self.records)
        self.class_names = None if self._labels is None else self._labels.names
        self.tokenizer = settings.tokenizer(config, self.records)
        self._start, self._end = self.tokenizer.frame()
        self.length = settings.length
        self._check_length()
        fields = (
            "length",
            "caption_feature",
            "more_captions",
            "prompt_feature",
            "prompts",
            "label_feature",
            "broken",
        )
        made_of = {name: getattr(settings, name) for name in (*fields, "image_feature")}
        data = {"data": self.records.digest(), "tokenizer": self.tokenizer.digest}
        entry = cached({"kind": settings.kind, **made_of, **data}, self._build)
        self._arrays, counts = entry.arrays, Counter(entry.notes)
        self._pictures, self._captions = self._arrays["picture"], self._arrays["caption"]
        if not len(self):
            raise UserError(f"dataset {self.name}, split {split!r}: none of its pictures has a caption")
        self.fills = {"tokens": self.tokenizer.pad_id or 0, "targets": IGNORED}
        self.facts = [f"{split}: {fact}" for fact in self._told(counts)]

    def __len__(self) -> int:
        return len(self._pictures)

    @property
    def sizes(self) -> dict[str, int]:
        """`vocab_size`, and with prompts `num_classes`."""
        return {"vocab_size": self.tokenizer.vocab_size, **super().sizes}

    def record_of(self, index: int) -> int:
        return int(self._pictures[index])

    def decode(self, features: Any, index: int) -> Example:
        """The picture and the caption's arrays."""
        arrays, length = self._arrays, self.length
        ids = arrays["ids"][arrays["offsets"][index] : arrays["offsets"][index + 1]].astype(np.int32)
        given = int(arrays["given"][index])
        rows = {"tokens": ids, "targets": np.append(np.full(given, IGNORED, np.int32), ids[given + 1 :])}
        example: Example = {"image": self.image(features), "token_mask": np.arange(length) < len(ids)}
        for name, values in rows.items():
            example[name] = np.full(length, self.fills[name], np.int32)
            example[name][: len(values)] = values
        labels = {} if self._labels is None else {"labels": int(arrays["labels"][index])}
        return example | self.truth(index) | labels

    def truth(self, index: int) -> dict[str, int]:
        """The numbers of a pair's "picture" and "caption", as batches have them."""
        return {"picture": int(self._pictures[index]), "caption": int(self._captions[index])}

    def text_of(self, index: int) -> str:
        """A pair's caption."""
        return text_in(self._arrays, "captions", int(self._captions[index]))

    def prompt_of(self, index: int) -> str:
        """What stands in front of a pair's caption; "" for nothing."""
        return text_in(self._arrays, "prompts", int(self._arrays["prompt"][index]))

    def captions_of(self, index: int) -> list[str]:
        """All captions of a pair's picture that answer the same prompt; with `prompts` all those of its class."""
        if self.class_names is not None:
            return self.settings.filled(self.class_names[int(self._arrays["labels"][index])])
        picture, prompts = self._pictures[index], self._arrays["prompt"]
        first, stop = np.searchsorted(self._pictures, [picture, picture + 1])
        return [self.text_of(each) for each in range(first, stop) if prompts[each] == prompts[index]]

    def _check_length(self) -> None:
        special = len(self._start) + len(self._end)
        least = special + 1 + bool(self.settings.prompt_feature)
        if self.length < least:
            takes = f"special tokens alone take {special}"
            raise UserError(f"data.examples.length={self.length}: {takes}; enlarge it to {least} or more")

    def _told(self, counts: Mapping[str, int]) -> Iterator[str]:
        """Lines for people."""
        pairs, tokens = len(self), len(self._arrays["ids"])
        pictures = f"{len(np.unique(self._pictures)):,} pictures"
        yield f"{pairs:,} pairs of {pictures} and a caption, {tokens / pairs:.1f} tokens on average"
        yield from shares(
            counts,
            pairs,
            cut=f"pairs were cut at {self.length} tokens",
            twice="pairs are there before, picture and caption",
            shared="pairs have a caption that other pictures have, too",
        )
        if counts["empty"]:
            yield f"{counts['empty']:,} captions are empty, and left out"

    def _build(self, writer: Writer) -> None:
        """Writes the tokens of each pair, its numbers, and the distinct texts."""
        columns = {name: writer.column(name, np.int32) for name in ("picture", "caption", "prompt", "given")}
        if self._labels is not None:
            columns["labels"] = writer.column("labels", np.int32)
        ids = writer.column("ids", id_dtype(self.tokenizer))
        offsets = writer.column("offsets", np.int64)
        offsets.append([0])
        counts: Counter[str] = Counter()
        captions, prompts = Texts(), Texts()
        seen: set[bytes] = set()
        pictures_of: dict[int, set[int]] = {}
        for record, index, pair, (prompt, caption) in self._encoded(counts):
            given, tokens = self._row(prompt, caption, counts)
            number = captions.number(pair.caption)
            key = digest_of(record[self.settings.image_feature], pair, labelled=self._labels is not None)
            counts["twice"] += key in seen
            seen.add(key)
            pictures_of.setdefault(number, set()).add(index)
            ids.append(tokens)
            offsets.append([ids.count])
            values = {"picture": index, "caption": number, "prompt": prompts.number(pair.prompt)}
            values |= {"given": given, "labels": pair.label}
            for name, column in columns.items():
                column.append([values[name]])
        captions.write(writer, "captions")
        prompts.write(writer, "prompts")
        numbers = Counter(captions.uses)
        if self._labels is None:
            counts["shared"] = sum(numbers[n] for n, found in pictures_of.items() if len(found) > 1)
        writer.notes.update(counts)

    def _row(self, prompt: list[int], caption: list[int], counts: Counter[str]) -> tuple[int, list[int]]:
        """How many places have nothing to predict before the first that has, and a pair's tokens, cut to the length."""
        room = self.length - len(self._start) - len(self._end)
        counts["cut"] += len(prompt) + len(caption) > room
        prompt = prompt[: room - 1]
        caption = caption[: room - len(prompt)]
        given = max(0, len(self._start) + len(prompt) - 1)
        return given, [*self._start, *prompt, *caption, *self._end]

    def _encoded(
        self, counts: Counter[str]
    ) -> Iterator[tuple[Record, int, Pair, tuple[list[int], list[int]]]]:
        """Each pair: its record, the record's index, the pair, and the tokens of its prompt and of its caption.

        Raises:
          UserError: a caption is empty, or there is none, and such are to be refused.
        """
        turns: Counter[int] = Counter()
        for first, group in self.records.groups():
            found = [list(self._pairs(record, index, turns)) for index, record in enumerate(group, first)]
            texts = [[text for pair in pairs for text in (pair.prompt, pair.caption)] for pairs in found]
            with naming_culprit(self.tokenizer, texts, self.records, first):
                flat = [text for given in texts for text in given]
                encoded = iter(self.tokenizer.encode_batch(flat, special=False) if flat else [])
            for index, (record, pairs) in enumerate(zip(group, found), first):
                if not pairs:
                    self._without(index, "has no caption", counts)
                for pair in pairs:
                    prompt, caption = next(encoded), next(encoded)
                    if pair.caption.strip() and caption:
                        yield record, index, pair, (prompt, caption)
                    else:
                        self._without(index, f"its {self.settings.caption_feature} is empty", counts)

    def _without(self, index: int, problem: str, counts: Counter[str]) -> None:
        """Counts a caption that is not there; raises UserError if such are to be refused."""
        if self.settings.broken == "refuse":
            raise UserError(f"{self.records.where(index)}: {problem}; {EMPTY}")
        counts["empty"] += 1

    def _pairs(self, record: Record, index: int, turns: Counter[int]) -> Iterator[Pair]:
        """The pairs of a picture; with prompts, `turns` counts the pictures of each class."""
        settings = self.settings
        if self._labels is not None:
            label = int(self._labels.read(record, index))
            filled = settings.filled((self._labels.names or [])[label])
            turns[label] += 1
            yield Pair("", filled[(turns[label] - 1) % len(filled)], label)
            return
        features = (settings.caption_feature, *settings.more_captions)
        captions = [text for name in features for text in self.records.texts(record, name, index)]
        prompts = [""]
        if settings.prompt_feature is not None:
            prompts = self.records.texts(record, settings.prompt_feature, index)
        if len(prompts) == 1:
            prompts *= len(captions)
        if len(prompts) != len(captions):
            what = f"has {len(captions)} of {settings.caption_feature} and {len(prompts)} of {settings.prompt_feature}"
            raise UserError(
                f"{self.records.where(index)}: {what}; each caption needs a prompt, or all the same"
            )
        yield from map(Pair, prompts, captions)


class Texts:
    """Distinct texts, numbered as they come."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self.uses: Counter[int] = Counter()

    def number(self, text: str) -> int:
        """The number of a text, the same each time."""
        number = self._numbers.setdefault(text, len(self._numbers))
        self.uses[number] += 1
        return number

    def write(self, writer: Writer, name: str) -> None:
        """Writes them as UTF-8, one after the other, and where each begins."""
        content: Column = writer.column(name, np.uint8)
        offsets = writer.column(f"{name}_offsets", np.int64)
        offsets.append([0])
        for text in self._numbers:
            content.append(np.frombuffer(text.encode(), np.uint8))
            offsets.append([content.count])


def text_in(arrays: Mapping[str, np.ndarray], name: str, number: int) -> str:
    """One of the texts that `Texts.write` wrote."""
    first, stop = arrays[f"{name}_offsets"][number : number + 2]
    return arrays[name][first:stop].tobytes().decode()


def digest_of(image: Any, pair: Pair, labelled: bool) -> bytes:
    """16 bytes that tell pairs of a picture and a caption (or a class) apart."""
    picture = hashlib.blake2b(b"".join(image.bytes_list.value), digest_size=16)
    picture.update(f"{pair.label}".encode() if labelled else f"{pair.prompt}\0{pair.caption}".encode())
    return picture.digest()
