"""CLIP and SigLIP of transformers: the same vectors, logits, loss and gradients, in and out again."""

import json
import re
import string

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sentencepiece
from flax.traverse_util import flatten_dict

import jaxformer as jf
from jaxformer import cli
from jaxformer.errors import UserError
from jaxformer.tasks import comparing
from jaxformer.weights.export import write_pretrained

VOCABULARY, LENGTH = 43, 9
SIZES = {"hidden_size": 24, "intermediate_size": 36, "num_hidden_layers": 2, "num_attention_heads": 3}
VISION = {**SIZES, "image_size": 16, "patch_size": 8}
TEXT = {
    **SIZES,
    "hidden_size": 18,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": LENGTH,
    "bos_token_id": 41,
    "eos_token_id": 42,
}
KINDS = {
    "clip": ("CLIP", {**VISION}, {**TEXT}, {"projection_dim": 12}),
    "clip, gelu": (
        "CLIP",
        {**VISION, "hidden_act": "gelu"},
        {**TEXT, "hidden_act": "gelu"},
        {"projection_dim": 12},
    ),
    "siglip": ("Siglip", VISION, {**TEXT, "projection_size": 24, "pad_token_id": 1}, {}),
}
PICTURES = 4


def reference(kind):
    """A random model of transformers', without ones and zeros that could hide a mistake, and its inputs."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    name, vision, text, own = KINDS[kind]
    classes = (getattr(transformers, f"{name}{part}Config") for part in ("", "Vision", "Text"))
    config, of_vision, of_text = classes
    torch.manual_seed(0)
    made = config(vision_config=of_vision(**vision), text_config=of_text(**text), **own)
    model = getattr(transformers, f"{name}Model")(made).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape))
        model.logit_scale.fill_(np.log(7.0) if name == "CLIP" else np.log(120.0))  # SigLIP's is not clipped
    rng = np.random.default_rng(0)
    lengths = np.array([LENGTH, 5, 3, 6])
    mask = np.arange(LENGTH) < lengths[:, None]
    tokens = np.where(mask, rng.integers(2, 40, mask.shape), 1)
    tokens[np.arange(PICTURES), lengths - 1] = 42
    pixels = rng.normal(size=(PICTURES, 16, 16, 3)).astype(np.float32)
    inputs = {
        "input_ids": torch.tensor(tokens),
        "pixel_values": torch.tensor(pixels.transpose(0, 3, 1, 2)),
        **({"attention_mask": torch.tensor(mask.astype(np.int64))} if name == "CLIP" else {}),
    }
    return (
        model,
        inputs,
        {"image": pixels, "tokens": np.where(mask, tokens, 7 * (name != "CLIP")), "token_mask": mask},
    )


def close(found, expected, name=""):
    scale = np.abs(expected).max()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * scale, err_msg=name)


@pytest.mark.parametrize("kind", KINDS)
def test_transformers_towers_come_in_and_go_out(kind, tmp_path):
    theirs, inputs, ours = reference(kind)
    theirs.save_pretrained(tmp_path / "theirs")
    source = jf.load_pretrained(tmp_path / "theirs")
    model, params = source.model, source.variables["params"]
    expected = theirs(**inputs, return_loss=True)
    expected.loss.backward()

    def loss(params):
        outputs = model.apply({"params": params}, **ours)
        total = comparing.sigmoid_total if kind == "siglip" else comparing.softmax_total
        return total(outputs, {"example_mask": jnp.ones(PICTURES, bool)}) / PICTURES, outputs

    (found, outputs), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    close(outputs.image, expected.image_embeds.detach().numpy())
    close(outputs.text, expected.text_embeds.detach().numpy())
    logits = outputs.scale[:, None] * (outputs.image @ outputs.text.T) + outputs.bias[:, None]
    close(logits, expected.logits_per_image.detach().numpy())
    close(found, expected.loss.item())
    of_theirs = {name: x.grad.numpy() for name, x in theirs.named_parameters() if x.grad is not None}
    written = source.family.write({"params": gradients})
    assert written.keys() == dict(theirs.named_parameters()).keys()
    largest = max(np.abs(x).max() for x in of_theirs.values())
    for name, gradient in written.items():
        np.testing.assert_allclose(
            gradient, of_theirs.get(name, 0), rtol=1e-3, atol=1e-4 * largest, err_msg=name
        )

    write_pretrained(model, "two_towers", source.variables, tmp_path / "ours")
    cls = type(theirs)
    again, loading = cls.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not any(loading[what] for what in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    for (name, one), (_, other) in zip(theirs.named_parameters(), again.named_parameters(), strict=True):
        assert np.array_equal(one.detach().numpy(), other.detach().numpy()), name
    outputs = again.eval()(**inputs)
    close(outputs.logits_per_image.detach().numpy(), expected.logits_per_image.detach().numpy())
    assert jf.load_pretrained(tmp_path / "ours").model == model
    back = flatten_dict(jf.load_pretrained(tmp_path / "ours").variables)
    assert all(np.array_equal(back[path], leaf) for path, leaf in flatten_dict(source.variables).items())


WORDS = ["a", "cat", "dog", "photo", "of", "red"]


def clip_folder(folder, kind="clip"):
    """A folder as transformers publishes a CLIP: weights, a tokenizer, what is done to images."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    theirs, *_ = reference(kind)
    theirs.save_pretrained(folder)
    marks = {"<|startoftext|>": 41, "<|endoftext|>": 42}
    words = {word: number for number, word in enumerate(WORDS, 3)}
    hf = Tokenizer(models.WordLevel({**words, **marks, "[UNK]": 0}, unk_token="[UNK]"))
    hf.pre_tokenizer = pre_tokenizers.Whitespace()
    hf.add_special_tokens([*marks])
    start, end = marks
    hf.post_processor = processors.TemplateProcessing(f"{start} $A {end}", special_tokens=[*marks.items()])
    hf.save(str(folder / "tokenizer.json"))
    view = {"do_resize": True, "size": 16, "resample": 3, "do_center_crop": True, "crop_size": 16}
    view |= {"do_normalize": True, "image_mean": [0.48, 0.46, 0.41], "image_std": [0.27, 0.26, 0.28]}
    (folder / "preprocessor_config.json").write_text(json.dumps(view))
    return theirs


def test_an_imported_clip_tells_pictures_by_texts(tmp_path, capsys):
    theirs = clip_folder(tmp_path / "clip")
    torch = pytest.importorskip("torch")
    from PIL import Image

    run = str(tmp_path / "run")
    assert cli.main(["weights", "import", str(tmp_path / "clip"), "--workdir", run]) == 0
    pixels = np.random.default_rng(1).integers(0, 256, (20, 32, 3), np.uint8)
    picture = str(tmp_path / "picture.png")
    Image.fromarray(pixels).save(picture)
    capsys.readouterr()
    words = ["predict", run, "--zero-shot", "cat", "red dog", "--templates", "a photo of a {}", "--", picture]
    assert cli.main(words) == 0
    answer = json.loads(capsys.readouterr().out.splitlines()[0])
    assert answer["file"] == picture

    small = np.asarray(Image.fromarray(pixels).resize((25, 16), Image.Resampling.BICUBIC))[:, 4:20]
    seen = (small / 255 - [0.48, 0.46, 0.41]) / [0.27, 0.26, 0.28]
    ids = torch.tensor([[41, 3, 6, 7, 3, 4, 42, 42], [41, 3, 6, 7, 3, 8, 5, 42]])
    mask = torch.tensor([[1] * 7 + [0], [1] * 8])
    with torch.no_grad():
        found = theirs(
            input_ids=ids,
            attention_mask=mask,
            pixel_values=torch.tensor(seen.transpose(2, 0, 1)[None]).float(),
        )
    expected = found.logits_per_image.softmax(-1)[0]
    for each in answer["predictions"]:
        assert each["probability"] == pytest.approx(float(expected[each["index"]]), abs=1e-5)
        assert each["label"] == ["cat", "red dog"][each["index"]]

    assert cli.main(["explain", run, picture, "--output", str(tmp_path / "seen")]) == 0
    drawn = json.loads(capsys.readouterr().out)["images"]  # of the image's tower alone
    assert [one["image"] for one in drawn] == ["picture/rollout.png", "picture/heads.png"]

    loaded = jf.load_run(run)
    vectors = loaded.embed_texts(["a photo of a cat", "a photo of a red dog"])
    np.testing.assert_allclose(vectors, found.text_embeds, atol=1e-5)
    np.testing.assert_allclose(loaded.embed_images(pixels), found.image_embeds, atol=1e-5)
    for given, said in (
        (["--zero-shot", "cat", "--", picture], "'cat': is the only text; give two or more"),
        (["--zero-shot", "cat", " ", "--", picture], "jaxformer: text 2 is empty"),
        (["--zero-shot", "cat", "cat", "--", picture], "is there twice"),
        (["--zero-shot", "cat", "dog " * 20, "--", picture], "has 22 tokens, the model takes 9"),
        (["--zero-shot", "cat", "dog", "--templates", "a", "--", picture], "expected one {}"),
        (["--templates", "a {}", "--", picture], "give --zero-shot, too"),
        (["--zero-shot", "cat", "dog", "one.png"], "they stand behind two hyphens, as in: --zero-shot"),
        (["--zero-shot", "cat", "dog", "--text", "bird", "--", picture], "leave --text, --question"),
        ([picture], "say with which texts"),
        (["--features"], "no images were named"),
        (["--features", "--question", "what?"], "answers none"),
    ):
        assert cli.main(["predict", run, *given]) == 2
        assert said in capsys.readouterr().err
    assert cli.main(["predict", run, picture, "--text", "a photo of a cat", "--features"]) == 0
    image, text = map(json.loads, capsys.readouterr().out.splitlines())
    assert (image["file"], text["text"]) == (picture, "a photo of a cat")
    np.testing.assert_allclose(image["features"], found.image_embeds[0], atol=1e-5)
    np.testing.assert_allclose(text["features"], found.text_embeds[0], atol=1e-5)
    assert cli.main(["weights", "export", run, str(tmp_path / "out")]) == 0
    assert jf.load_pretrained(tmp_path / "out").preprocessing == loaded_view(tmp_path / "clip")


def test_an_imported_siglip_reads_texts_as_sentencepiece_does(tmp_path):
    """Of a folder without tokenizer.json: texts as big_vision's `canonicalize_text` leaves them, and behind them </s>,
    which is padding, too, and is seen."""
    torch, (theirs, *_) = pytest.importorskip("torch"), reference("siglip")
    folder, run = tmp_path / "siglip", str(tmp_path / "run")
    theirs.save_pretrained(folder)
    corpus = ["a photo of a cat", "a red dog", "two dogs and a cat"]
    ends = {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1, "hard_vocab_limit": False}  # T5's
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(corpus * 9),
        model_prefix=str(folder / "spiece"),
        vocab_size=36,
        minloglevel=2,
        **ends,
    )
    clip = {"do_resize": True, "size": {"height": 16, "width": 16}}
    (folder / "preprocessor_config.json").write_text(json.dumps(clip))
    assert cli.main(["weights", "import", str(folder), "--workdir", run]) == 0

    words = sentencepiece.SentencePieceProcessor(model_file=str(folder / "spiece.model"))
    texts = ["a photo", " A  RED\tdog!", "cat's", "d'o.g's (cat)", "Été"]
    rows = np.ones((len(texts), LENGTH), int)
    for row, text in zip(rows, texts):
        plain = text.lower().translate(str.maketrans("", "", string.punctuation))
        ids = words.encode(re.sub(r"\s+", " ", plain).strip())
        row[: len(ids)] = ids
    expected = theirs.text_model(torch.tensor(rows)).pooler_output.detach().numpy()
    close(jf.load_run(run).embed_texts(texts), expected / np.linalg.norm(expected, axis=1, keepdims=True))


def loaded_view(folder):
    return jf.load_pretrained(folder).preprocessing


def test_a_tower_alone_and_open_clips_form(tmp_path):
    from jaxformer.weights.open_clip import write_open_clip

    theirs, inputs, ours = reference("clip")
    theirs.save_pretrained(tmp_path / "clip")
    whole = jf.load_pretrained(tmp_path / "clip")
    image = jf.load_pretrained(f"{tmp_path / 'clip'}#image")
    expected = theirs.vision_model(inputs["pixel_values"]).pooler_output.detach().numpy()
    close(image.model.apply(image.variables, ours["image"]).features, expected)
    text = jf.load_pretrained(f"{tmp_path / 'clip'}#text")
    assert (
        flatten_dict(text.variables).keys()
        == flatten_dict({"params": whole.variables["params"]["text"]}).keys()
    )
    write_pretrained(image.model, "vit", image.variables, tmp_path / "vit")
    with pytest.raises(UserError, match="#imag is no part of a model; did you mean 'image'"):
        jf.load_pretrained(f"{tmp_path / 'clip'}#imag")
    with pytest.raises(UserError, match="has no such part; leave #image out"):
        jf.load_pretrained(f"{tmp_path / 'vit'}#image")

    write_open_clip(
        whole.model.clone(image=whole.model.image.clone(num_heads=3)),
        whole.variables,
        tmp_path / "open",
        None,
    )
    names = json.loads((tmp_path / "open" / "open_clip_config.json").read_text())
    assert names["model_cfg"]["vision_cfg"]["head_width"] == 8
    back = jf.load_pretrained(tmp_path / "open")
    assert back.model == whole.model
    found, expected = flatten_dict(back.variables), flatten_dict(whole.variables)
    assert all(np.array_equal(found[path], leaf) for path, leaf in expected.items())
    # Names and shapes of openai/CLIP's own file.
    assert back.tensors["visual.proj"].shape == (24, 12)
    assert back.tensors["visual.transformer.resblocks.1.attn.in_proj_weight"].shape == (72, 24)
    assert back.tensors["positional_embedding"].shape == (LENGTH, 18)


def test_naflex_is_refused_by_name(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "siglip2"}))
    with pytest.raises(UserError, match="NaFlex"):
        jf.load_pretrained(tmp_path)
