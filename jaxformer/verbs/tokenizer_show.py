"""What a tokenizer makes of texts."""

import sys
from dataclasses import dataclass
from pathlib import Path

from jaxformer.verbs.options import Verb, argument, flag


@dataclass(frozen=True, kw_only=True)
class TokenizerShow(Verb):
    """Show what a tokenizer is, and the tokens of texts."""

    file: Path = argument("FILE")
    """tokenizer.json, vocab.txt, a sentencepiece model, or their folder."""
    text: tuple[str, ...] = flag(())
    """A text; give it again for more."""

    def __call__(self) -> int:
        from jaxformer.data.text.tokenizers import FromFile, describe

        tokenizer = FromFile(str(self.file)).build(lambda: iter(()))
        sys.stdout.write(describe(tokenizer) + "\n")
        for text in self.text:
            ids = tokenizer.encode(text)
            sys.stdout.write(f"\n{text}\n")
            sys.stdout.writelines(f"{index:8}  {tokenizer.hf.id_to_token(index)}\n" for index in ids)
            again = tokenizer.decode(ids)
            sys.stdout.write(f"{len(ids)} tokens" + (f"; decoded: {again}\n" if again != text else "\n"))
        return 0
