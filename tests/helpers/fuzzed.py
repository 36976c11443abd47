"""The parsers that are fuzzed: for each, valid files, and what reads them. See tests/fuzz/test_every_parser.py."""

from helpers.fuzzed_configs import CONFIGS
from helpers.fuzzed_imports import IMPORTS
from helpers.fuzzed_runs import RUN_FILES
from helpers.fuzzed_texts import INPUTS, OTHERS

PARSERS = {**IMPORTS, **CONFIGS, **RUN_FILES, **INPUTS, **OTHERS}
