"""Wrong command lines and configs, one mistake each: at least 500 of them, for tests/test_wrong_commands.py.

To add a mistake, add a line to one of the tables below: they are tried by every test of wrong commands. Families of
mistakes are generated from the schema of configs and from the options of the verbs, so that a new field, a new choice
and a new flag are tried without a line here.
"""

from helpers.wrong import Wrong
from helpers.wrong_config_files import config_files
from helpers.wrong_configs import fields_of_sections, written_overrides
from helpers.wrong_datasets import splits_and_datasets
from helpers.wrong_options import values_of_flags, verbs_and_flags
from helpers.wrong_runs import run_folders
from helpers.wrong_texts import other_files


def wrong_commands() -> list[Wrong]:
    """All of them; no name is there twice."""
    found = [
        *verbs_and_flags(),
        *values_of_flags(),
        *written_overrides(),
        *fields_of_sections(),
        *config_files(),
        *splits_and_datasets(),
        *run_folders(),
        *other_files(),
    ]
    names = [wrong.name for wrong in found]
    assert len(set(names)) == len(names), sorted(name for name in set(names) if names.count(name) > 1)
    return found
