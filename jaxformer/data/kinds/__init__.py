"""Kinds of examples: a name in a config -> the class that it names, imported when it is chosen."""

NAMES = "captions compared detection documents images pairs segmentation sequences spans tagged windows"
KINDS = {name: f"jaxformer.data.kinds.{name}:{name.capitalize()}" for name in NAMES.split()}
