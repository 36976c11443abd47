"""Values that the configs of Hugging Face transformers have under other names than ours."""

from jaxformer.config.schema import did_you_mean
from jaxformer.errors import UserError

ACTIVATIONS = {
    "gelu": "gelu_erf",
    **dict.fromkeys(("gelu_new", "gelu_pytorch_tanh"), "gelu_tanh"),
    "quick_gelu": "quick_gelu",
    "relu": "relu",
    "relu2": "relu_squared",
    **dict.fromkeys(("silu", "swish"), "silu"),
}
THEIRS = {ours: theirs for theirs, ours in reversed(ACTIVATIONS.items())}
GATED = {"gelu_erf": "geglu_erf", "gelu_tanh": "geglu", "silu": "swiglu"}


def activation(name: str, gated: bool = False) -> str:
    """Our name of an activation of theirs."""
    if name not in ACTIVATIONS or (gated and ACTIVATIONS[name] not in GATED):
        raise UserError(f"the activation {name!r} is not known; {did_you_mean(name, ACTIVATIONS)}")
    return GATED[ACTIVATIONS[name]] if gated else ACTIVATIONS[name]
