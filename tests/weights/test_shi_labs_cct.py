"""Our CCT gives the logits and gradients of its authors' form, which is written down here once more in PyTorch."""

import pytest
from helpers.image_parity import check_same, count_of, randomised
from helpers.parity import build

from jaxformer.weights.shi_labs_cct import CCT

SIZE = 18  # the maps have 18, 9 and 5 places a side
WIDTH, HEADS, CLASSES = 24, 3, 5
FIELDS = {
    "image_size": SIZE, "conv_layers": 2, "stem_width": 16, "width": WIDTH, "depth": 2, "num_heads": HEADS,
    "mlp_dim": 32, "num_classes": CLASSES,
}  # fmt: skip


def reference(positions=25):
    """Tokenizer, blocks and sequence pooling, by the names of the authors' state dict."""
    from torch import nn
    from torch.nn import functional as F

    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.qkv, self.proj = nn.Linear(WIDTH, 3 * WIDTH, bias=False), nn.Linear(WIDTH, WIDTH)

        def forward(self, x):
            q, k, v = (y.unflatten(-1, (HEADS, -1)).transpose(1, 2) for y in self.qkv(x).chunk(3, dim=-1))
            return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.pre_norm, self.self_attn, self.norm1 = nn.LayerNorm(WIDTH), Attention(), nn.LayerNorm(WIDTH)
            self.linear1, self.linear2 = nn.Linear(WIDTH, 32), nn.Linear(32, WIDTH)

        def forward(self, x):
            x = self.norm1(x + self.self_attn(self.pre_norm(x)))
            return x + self.linear2(F.gelu(self.linear1(x)))

    class Tokenizer(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv_layers = nn.Sequential(
                *(
                    nn.Sequential(nn.Conv2d(c, d, 3, 1, 1, bias=False), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
                    for c, d in ((3, 16), (16, WIDTH))
                )
            )

        def forward(self, x):
            return self.conv_layers(x).flatten(2).transpose(1, 2)

    class Classifier(nn.Module):
        def __init__(self):
            import torch

            super().__init__()
            self.positional_emb = nn.Parameter(torch.zeros(1, positions, WIDTH))
            self.blocks = nn.Sequential(Block(), Block())
            self.norm, self.attention_pool = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 1)
            self.fc = nn.Linear(WIDTH, CLASSES)

        def forward(self, x):
            x = self.norm(self.blocks(x + self.positional_emb))
            return self.fc((self.attention_pool(x).softmax(dim=1) * x).sum(dim=1))

    class CCT(nn.Module):
        def __init__(self):
            super().__init__()
            self.tokenizer, self.classifier = Tokenizer(), Classifier()

        def forward(self, x):
            return self.classifier(self.tokenizer(x))

    return randomised(CCT())


def test_logits_and_gradients_are_those_of_the_authors():
    pytest.importorskip("torch")
    check_same(build("cct", FIELDS), CCT, reference(), SIZE)


# Of the authors' cct_2_3x2_32() and so on, sum(p.numel() for p in model.parameters()); the paper has 0.28M for it,
# 3.76M for CCT-7/3x1, and 22.36M for CCT-14/7x2.
COUNTS = {
    "cct-2-3x2-32": 283_723,
    "cct-4-3x2-32": 482_123,
    "cct-6-3x1-32": 3_233_803,
    "cct-6-3x2-32": 3_326_923,
    "cct-7-3x1-32": 3_760_139,
    "cct-7-3x2-32": 3_853_259,
    "cct-7-7x2-224": 4_573_735,
    "cct-14-7x2-224": 22_367_273,
    "cct-14-7x2-384": 22_513_193,
}


@pytest.mark.parametrize("name", COUNTS)
def test_presets_have_as_many_parameters_as_the_authors(name):
    assert count_of(name) == COUNTS[name]
