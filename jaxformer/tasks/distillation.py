"""Learning from a teacher's logits (Hinton et al. 2015; DeiT, Touvron et al. 2021, section 4)."""

from dataclasses import dataclass
from typing import Annotated, Literal

import jax
import jax.numpy as jnp

from jaxformer.config.fields import Constraint, above


@dataclass(frozen=True)
class Distillation:
    """Learning from a teacher beside the labels. The teacher sees the same augmented examples."""

    run: str
    """The folder of the teacher's run, of any model of the same classes and examples of the same shape."""
    checkpoint: str = "best"
    """ "best", "latest" or a step."""
    kind: Literal["hard", "soft"] = "hard"
    """ "hard" takes the teacher's most likely class for a label (DeiT, equation 3); "soft" its whole
    distribution, as the divergence KL(teacher, student) (equation 2)."""
    weight: Annotated[
        float, Constraint("a share above 0 and up to 1, such as 0.5", lambda value: 0 < value <= 1)
    ] = 0.5
    """The share of the loss that is the teacher's; the labels have the rest."""
    temperature: Annotated[float, above(0, "more than 0, such as 3.0")] = 3.0
    """With "soft", both sides' logits are divided by it, and the loss is multiplied by its square."""

    def per_example(self, logits: jax.Array, teacher: jax.Array) -> jax.Array:
        """The loss of each example, float32 [B], from the student's logits and the teacher's, both [B, K]."""
        logits, teacher = logits.astype(jnp.float32), teacher.astype(jnp.float32)
        if self.kind == "hard":
            chosen = jnp.argmax(teacher, axis=-1, keepdims=True)
            return -jnp.take_along_axis(jax.nn.log_softmax(logits), chosen, axis=-1)[:, 0]
        ours = jax.nn.log_softmax(logits / self.temperature)
        theirs = jax.nn.log_softmax(teacher / self.temperature)
        return self.temperature**2 * jnp.sum(jnp.exp(theirs) * (theirs - ours), axis=-1)
