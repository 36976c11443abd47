"""Pages that the code writes: the reference of every field that a config may set, by section.

mkdocs calls `on_files` before it builds the site (https://www.mkdocs.org/user-guide/configuration/#hooks).
"""

from collections.abc import Mapping

from mkdocs.structure.files import File, Files

from jaxformer.config.reference import inner, reference
from jaxformer.config.sections import ExperimentConfig

SECTIONS = [
    "task",
    "model",
    "data",
    "eval",
    "optimizer",
    "adapter",
    "schedule",
    "precision",
    "parallel",
    "train",
    "checkpoint",
    "watchdog",
]


def on_files(files: Files, config) -> Files:
    """Adds reference/SECTION.md for every section of a config."""
    for section in SECTIONS:
        files.append(File.generated(config, f"reference/{section}.md", content=page(section)))
    return files


def page(section: str) -> str:
    """The Markdown of one section's fields, with a heading for each class that a field chooses among."""
    field = next(f for f in reference(ExperimentConfig) if f.name == section)
    lines = [f"# `{section}`", "", field.doc, ""]
    known = inner(ExperimentConfig).get(section)
    if known is None:
        lines += [f"Type: {field.type}. Default: `{field.default}`.", ""]
    elif isinstance(known, dict):
        lines += [
            f'`{section}.name` is one of the headings below, or `"package.module:Class"` of your own.',
            "",
        ]
        for name, cls in known.items():
            lines += class_lines(name, cls, "##", known)
    else:
        lines += class_lines("", known, "##")
    return "\n".join(lines)


def class_lines(name: str, cls: type, heading: str, headings: Mapping[str, type] = {}) -> list[str]:
    """A heading, what the class is, and its fields; then the classes that its fields choose among.

    Classes that have headings of their own on the page, such as the models that are backbones, are left out.
    """
    lines = [f'{heading} "{name}"', ""] if name else []
    summary = " ".join((cls.__doc__ or "").partition("\n\n")[0].split())
    lines += [escaped(summary), ""]
    fields = reference(cls)
    if fields:
        lines += ["| field | type | default | meaning |", "|---|---|---|---|"]
        lines += [
            f"| `{f.name}` | {escaped(f.type)} | {code(f.default)} | {escaped(f.doc)} |" for f in fields
        ]
        lines.append("")
    for field, known in inner(cls).items():
        if isinstance(known, dict) and heading == "##" and not known.items() <= headings.items():
            for choice, inside in known.items():
                lines += class_lines(f"{field}: {choice}", inside, "###")
    return lines


def code(default: str) -> str:
    """A default as code; "required" where a field has none."""
    return f"`{default.replace('|', chr(92) + '|')}`" if default else "required"


def escaped(text: str) -> str:
    """Text in which Markdown and HTML have no meaning."""
    for character in "\\|<>*_[]":
        text = text.replace(character, f"&#{ord(character)};")
    return text
