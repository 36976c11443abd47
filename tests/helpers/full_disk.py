"""A disk that is full when a process saves for the second time, at different places of the save; and when it starts."""

import errno
import os
from itertools import count

import jax
import orbax.checkpoint as ocp

from jaxformer import checkpoint_items, runs

WHY = os.strerror(errno.ENOSPC)


def refused(*_, **__):
    """Raises the system's error."""
    raise OSError(errno.ENOSPC, WHY)


class Refused:
    """What is still to be written, and cannot be."""

    result = staticmethod(refused)


def arrays():
    """In the background: the arrays that this process writes."""
    real, begun = ocp.type_handlers.ArrayHandler.serialize, count(1)

    async def serialize(*arguments, **named):
        later = await real(*arguments, **named)
        return [*later, Refused()] if next(begun) > 2 else later  # a save has two items

    ocp.type_handlers.ArrayHandler.serialize = serialize


def digests():
    """In the background, when all else is written: the digests, which process 0 writes."""
    real, begun = checkpoint_items.write_digests, count(1)
    checkpoint_items.write_digests = lambda folder: (refused if next(begun) == 2 else real)(folder)


def folders():
    """While the others wait: the folder, which process 0 makes."""
    real = os.mkdir

    def mkdir(path, *arguments, **named):
        second = f"4{checkpoint_items.TEMPORARY}" in str(path)
        return (refused if second else real)(path, *arguments, **named)

    os.mkdir = mkdir


def config():
    """Before the first step: config.json, which process 0 writes."""
    runs.write_json = refused


def count_programs():
    """No fault: all programs are kept, also those that take no time, and there is a line for each that is found."""
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)

    def listen(event, **_):
        if event.endswith("/cache_hits"):
            print("a compiled program is found", flush=True)

    jax.monitoring.register_event_listener(listen)
