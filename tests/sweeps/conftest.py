"""What tests of sweeps that train have in common."""

import pytest


@pytest.fixture(scope="module")
def digits_without_reports(digits_dir):
    """The digits are found, and trainings write no reports."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TFDS_DATA_DIR", str(digits_dir))
        for name in ("write_shown", "write_report"):  # tests/test_configs.py has them
            patch.setattr(f"jaxformer.reporting.{name}", lambda *_: None)
        yield
