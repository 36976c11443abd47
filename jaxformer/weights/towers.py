"""Models of two towers, by the names of other projects' checkpoint files.

CLIP (Radford et al. 2021) and SIGLIP_TOWERS (Zhai et al. 2023; SigLIP 2, Tschannen et al. 2025, where images have one
size): CLIPModel and SiglipModel of Hugging Face transformers. OPEN_CLIP: openai/CLIP's own names, which OpenCLIP's
files have. Towers alone are in `transformers_image.py`.

`towers_config.py` gives the fields of models that compute the same.
"""

from jaxformer.weights.convert import Family, family
from jaxformer.weights.rows import Part, Row, Rows, below, rows
from jaxformer.weights.transformers_image import CLIP_VISION_ROWS, QKV, SIGLIP, SIGLIP_BLOCK


def text_rows(stack: str) -> Rows:
    """The rows of a text tower whose blocks stand in `stack`."""
    return (
        *rows({name: name for name in ("token_embedding", "position_embedding")}, theirs="embeddings."),
        Row("norm", "final_layer_norm"),
        *below(f"{stack}/block_{{i}}/", "encoder.layers.{i}.", SIGLIP_BLOCK),
    )


def towers(image: Rows, text: Rows, *others: Row) -> Family:
    """The family of a model of transformers' with these towers."""
    parts = below("image/", "vision_model.", image), below("text/", "text_model.", text)
    ids = {f"{name}_model.embeddings.position_ids": None for name in ("vision", "text")}
    return family(*parts, others, extras=ids)


CLIP = towers(
    CLIP_VISION_ROWS,
    text_rows("decoder"),
    Row("image_projection", "visual_projection"),
    Row("text_projection", "text_projection"),
    Row("log_scale", "logit_scale"),
)
SIGLIP_TOWERS = towers(
    SIGLIP.rows,
    text_rows("encoder"),
    Row("text_projection", "text_model.head"),
    Row("log_scale", "logit_scale", style="vector"),
    Row("bias", "logit_bias", style="vector"),
)

OPEN_BLOCK = (
    *rows({"norm_{k}": "ln_{k}", "mlp/up": "mlp.c_fc", "mlp/down": "mlp.c_proj"}),
    Row("attention/out", "attn.out_proj"),
    *(
        Row(f"attention/{name}/{ours}", f"attn.in_proj_{theirs}", Part(i, 3))
        for i, name in enumerate(QKV)
        for ours, theirs in (("kernel", "weight"), ("bias", "bias"))
    ),
)
OPEN_CLIP = family(
    below(
        "image/",
        "visual.",
        Row("class_token", "class_embedding", style="vector"),
        Row("position_embedding", "positional_embedding", style="table"),
        rows({"patch_embedding": "conv1", "embedding_norm": "ln_pre", "norm": "ln_post"}),
        below("encoder/block_{i}/", "transformer.resblocks.{i}.", OPEN_BLOCK),
    ),
    Row("image_projection/kernel", "visual.proj", style="flax"),
    below(
        "text/",
        "",
        Row("token_embedding", "token_embedding"),
        Row("position_embedding/embedding", "positional_embedding"),
        Row("norm", "ln_final"),
        below("decoder/block_{i}/", "transformer.resblocks.{i}.", OPEN_BLOCK),
    ),
    Row("text_projection/kernel", "text_projection", style="flax"),
    Row("log_scale", "logit_scale"),
    extras={"attn_mask": None},  # the causal mask
)
