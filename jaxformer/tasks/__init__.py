"""Tasks: a name in a config -> the class that it names."""

TASKS = {"classification": "jaxformer.tasks.classification:Classification"}
