"""Choosing tokens, one after the other, with any model: sampling, loops and streams, beam search."""
