"""What a trained model of text says of texts, whatever its task: a dict for each, to be a JSON line."""

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxformer.data.examples import Sequences, Tagged
from jaxformer.data.text.spans import NOWHERE, Question, encode_question
from jaxformer.data.text.tokens import Encoder
from jaxformer.decoding.sampling import Sampling
from jaxformer.errors import UserError
from jaxformer.inference.given import Given, as_pairs, as_words, read_questions, read_texts
from jaxformer.inference.loaded import LoadedRun
from jaxformer.inference.predict import Prediction, likeliest
from jaxformer.inference.writing import BATCH, Generation, rounded
from jaxformer.tasks.base import Batch
from jaxformer.tasks.classes import class_name
from jaxformer.tasks.language import MaskedLM
from jaxformer.tasks.spans import SpanQA
from jaxformer.tasks.tagging import TokenClassification
from jaxformer.tasks.text_classification import TextClassification, TextRegression
from jaxformer.tasks.text_metrics import best_spans
from jaxformer.tasks.translation import Translation

logger = logging.getLogger("jaxformer")
Arrays = dict[str, Any]
Predict = Callable[[LoadedRun, Given, int], Iterator[Prediction]]


def read_inputs(
    task: Any,
    examples: Any,
    texts: Sequence[str],
    files: Sequence[str],
    questions: Sequence[str],
    context_file: str | None,
) -> Given:
    """What a run of this task predicts, from the command line's arguments.

    Args:
      task: the run's task.
      examples: its config's `data.examples`.
      texts: of --text.
      files: of one text a line; of a task of questions JSON lines. "-" is stdin.
      questions: of --question.
      context_file: of --context-file.

    Raises:
      UserError: the task predicts nothing, or takes other inputs; a file cannot be read, or there is no text.
    """
    predictor(task)
    if isinstance(task, SpanQA):
        if texts:
            raise UserError(
                "--text: this run answers questions; ask with --question TEXT --context-file FILE, or give a file "
                "of JSON lines with question and context"
            )
        return read_questions(questions, context_file, files)
    if questions or context_file is not None:
        raise UserError(
            "--question, --context-file: are for runs that answer questions; give --text or files"
        )
    given = read_texts(texts, files)
    if isinstance(task, TokenClassification):
        return as_words(given)
    return as_pairs(given) if len(getattr(examples, "features", ())) == 2 else given


def predict_texts(trained: LoadedRun, given: Given, top: int = 5) -> Iterator[Prediction]:
    """Yields what the model says of each text, in their order, as JSON values.

    Of a class: "text" ("texts" of a pair) and "predictions", the `top` likeliest ("label", "index", "probability"). Of
    a number: "value". Of words: "words" and "tags", None for words that are beyond the model's length. Of masked
    words: "masks", for each mask the `top` likeliest tokens. Of a question: "question", "answer", "score",
    "probability", "start" and "end" (characters of the context), and the `top` best as "answers". Of a translation:
    "text" and "translation".

    Raises:
      UserError: the task predicts nothing; a text has no mask, or cannot be encoded; a prediction is not finite.
    """
    return predictor(trained.task)(trained, given, top)


def predictor(task: Any) -> Predict:
    """The function that predicts for a task.

    Raises:
      UserError: there is none.
    """
    for kind, function in PREDICTORS.items():
        if isinstance(task, kind):
            return function
    raise UserError(
        f"this run's task is {type(task).__name__}: it learns to go on with texts",
        '`jaxformer generate --workdir RUN --prompt "TEXT"` does that',
    )


def of_classes(trained: LoadedRun, given: Given, top: int) -> Iterator[Prediction]:
    """The likeliest classes of texts, or of pairs."""
    rows = apply(trained, encode(trained, given), trained.task.predictions)
    for text, place, row in zip(given.texts, given.places, rows):
        yield named(text) | {"predictions": likeliest(place, row["probabilities"], trained.class_names, top)}


def of_numbers(trained: LoadedRun, given: Given, top: int) -> Iterator[Prediction]:
    """The numbers of texts, or of pairs."""
    rows = apply(trained, encode(trained, given), trained.task.predictions)
    for text, place, row in zip(given.texts, given.places, rows):
        check_finite(row["value"], place)
        yield named(text) | {"value": float(row["value"])}


def of_words(trained: LoadedRun, given: Given, top: int) -> Iterator[Prediction]:
    """The tag of each word: that of its first token, as in training."""
    encodings = encode(trained, given)
    rows = apply(trained, encodings, trained.task.predictions)
    for words, encoding, row in zip(given.texts, encodings, rows):
        tags: list[str | None] = [None] * len(words)
        for token, word in reversed([*enumerate(encoding.word_ids)]):
            if word is not None:
                tags[word] = class_name(int(row["tags"][token]), trained.class_names)
        yield {"words": words, "tags": tags}


def of_masks(trained: LoadedRun, given: Given, top: int) -> Iterator[Prediction]:
    """The likeliest tokens in the place of each mask."""
    tokenizer, mask_id = trained.tokenizer, trained.tokenizer.mask_id
    encodings = encode(trained, given)
    places = [np.flatnonzero(np.asarray(encoding.ids) == mask_id) for encoding in encodings]
    for masks, place in zip(places, given.places):
        if mask_id is None or not len(masks):
            mask = "a mask" if mask_id is None else tokenizer.hf.id_to_token(mask_id)
            raise UserError(f"{place}: there is no {mask} in it to be filled in")
    most = max(map(len, places))
    table = np.stack([np.pad(masks, (0, most - len(masks))) for masks in places]).astype(np.int32)

    def fillers(outputs: Any, batch: Batch) -> Arrays:
        logits = jnp.take_along_axis(outputs.logits, batch["places"][..., None], axis=1)  # [B, M, V]
        found, ids = lax.top_k(jax.nn.softmax(logits), min(top, logits.shape[-1]))
        return {"probabilities": found, "ids": ids}

    for text, masks, row in zip(given.texts, places, apply(trained, encodings, fillers, {"places": table})):
        found = [
            [
                {
                    "token": tokenizer.decode([token], skip_special=False),
                    "index": int(token),
                    "probability": round(float(probability), 6),
                }
                for token, probability in zip(ids, probabilities)
            ]
            for ids, probabilities, _ in zip(row["ids"], row["probabilities"], masks)
        ]
        yield {"text": text, "masks": found}


def of_questions(trained: LoadedRun, given: Given, top: int) -> Iterator[Prediction]:
    """The best answers to questions about texts, over all windows of each."""
    settings, task = trained.config.data.examples, trained.task
    encoder = Encoder(trained.tokenizer, settings.length, True, "only_second", settings.stride)
    places: Any = given  # as in `encode`
    windows: list[Any] = []
    owners: list[int] = []
    cut = 0
    for number, (text, context) in enumerate(given.texts):
        question = Question(str(number), text, context, [], [])
        found, is_cut = encode_question(encoder, question, settings, places, number)
        cut += is_cut
        windows += found
        owners += [number] * len(found)
    if cut:
        logger.warning(
            "%d of %d questions were cut at %d tokens", cut, len(given.texts), settings.question_length
        )
    logits = np.stack([row["logits"] for row in apply(trained, windows, task.predictions)])  # [W, 2, T]
    for row, owner in zip(logits, owners):
        check_finite(row, given.places[owner])
    characters = np.full((*logits.shape[::2], 2), -1, np.int32)
    for row, window in enumerate(windows):
        inside = [span if part == 1 else NOWHERE for span, part in zip(window.offsets, window.sequence_ids)]
        characters[row, : len(inside)] = inside
    contexts = [context for _, context in given.texts]
    borders = logits[:, 0], logits[:, 1]
    answers = best_spans(
        *borders, characters, contexts, np.array(owners), task.n_best, task.max_answer_tokens
    )
    for number, (text, _) in enumerate(given.texts):
        best = {"answer" if name == "text" else name: value for name, value in answers[number][0].items()}
        yield {"question": text, **best, "answers": answers[number][:top]}


def of_translations(trained: LoadedRun, given: Given, top: int) -> Iterator[Prediction]:
    """Translations, found as in an evaluation of the run: by beam search, or greedily."""
    task = trained.task
    writer = trained.writer
    how = Generation(
        task.max_new_tokens or writer.context_length,
        Sampling(temperature=0),
        beams=max(1, task.beams),
        length_penalty=task.length_penalty,
    )
    written = writer.generate([writer.encode(text) for text in given.texts], how)
    for text, continuation in zip(given.texts, written):
        yield {"text": text, "translation": continuation.text}


PREDICTORS: dict[type, Predict] = {
    TextClassification: of_classes,
    TextRegression: of_numbers,
    TokenClassification: of_words,
    MaskedLM: of_masks,
    SpanQA: of_questions,
    Translation: of_translations,
}


def named(text: Any) -> Prediction:
    """A text, or a pair of them, under its name."""
    return {"text": text} if isinstance(text, str) else {"texts": list(text)}


def check_finite(values: np.ndarray, place: str) -> None:
    """Raises UserError for NaN and infinities."""
    if not np.isfinite(values).all():
        raise UserError(f"{place}: what the model says is not finite; try another --checkpoint")


def encode(trained: LoadedRun, given: Given) -> list[Any]:
    """Encodings as in training: with its special tokens, where it had them, cut at its length, which is logged.

    Raises:
      UserError: a text cannot be encoded; names it.
    """
    examples = trained.config.data.examples
    places: Any = given  # they name a text as the examples of a dataset are named
    if isinstance(examples, (Sequences, Tagged)):
        encoder = Encoder(trained.tokenizer, examples.length, len(getattr(examples, "features", ())) == 2)
        encodings = encoder(given.texts, places, 0, words=isinstance(examples, Tagged))
    else:  # windows and documents have no special tokens around them
        encodings = trained.tokenizer.hf.encode_batch(given.texts, add_special_tokens=False)
        for encoding in encodings:
            encoding.truncate(examples.length)
    cut = sum(bool(encoding.overflowing) for encoding in encodings)
    if cut:
        logger.warning("%d of %d texts were cut at %d tokens", cut, len(encodings), examples.length)
    return encodings


def apply(
    trained: LoadedRun,
    encodings: Sequence[Any],
    read: Callable[[Any, Batch], Arrays],
    more: Arrays | None = None,
) -> Iterator[Arrays]:
    """Yields what `read` makes of the model's outputs for each encoding.

    All batches have one shape, so that it is compiled once.

    Args:
      encodings: of the tokenizers library.
      read: (outputs, batch) -> arrays [B, ...], as `Task.predictions`.
      more: further arrays of the batches, [N, ...].
    """
    model, task = trained.model, trained.task
    longest = max((len(encoding) for encoding in encodings), default=0)
    length = min(rounded(max(1, longest)), model.context_length)
    rows = min(BATCH, len(encodings))

    @jax.jit
    def predict(variables: Any, batch: Batch) -> Arrays:
        return read(model.apply(variables, **task.inputs(batch), deterministic=True), batch)

    for first in range(0, len(encodings), rows or 1):
        chosen = encodings[first : first + rows]
        batch: Arrays = {
            "tokens": np.full((rows, length), trained.tokenizer.pad_id or 0, np.int32),
            "token_types": np.zeros((rows, length), np.int32),
            "token_mask": np.zeros((rows, length), bool),
        }
        for row, encoding in enumerate(chosen):
            inside = slice(0, len(encoding))
            batch["tokens"][row, inside] = encoding.ids
            batch["token_types"][row, inside] = encoding.type_ids
            batch["token_mask"][row, inside] = True
        for name, values in (more or {}).items():
            part = values[first : first + rows]
            batch[name] = np.concatenate([part, np.zeros((rows - len(part), *part.shape[1:]), part.dtype)])
        found = jax.device_get(predict(trained.variables, batch))
        for row in range(len(chosen)):
            yield {name: array[row] for name, array in found.items()}
