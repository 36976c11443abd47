"""Traces of some steps."""

import logging

import jax
import jax.numpy as jnp
import pytest

from jaxformer.errors import UserError
from jaxformer.observe.timing import Profile, parse_steps


@pytest.mark.parametrize("steps", ["10", "a:b", "10:15:20", "15:10", "0:3", "-1:3", "1.5:3", ""])
def test_a_range_that_is_none_is_refused_with_an_example(steps):
    with pytest.raises(UserError, match=r'profile=.*as in "10:15"'):
        parse_steps(steps)


def test_ranges():
    assert parse_steps("10:15") == (10, 15)
    assert parse_steps("1_000:1_000") == (1000, 1000)


def test_a_trace_is_written_where_tensorboard_looks(tmp_path):
    step = jax.jit(lambda x: jnp.sin(x) @ x)
    x = jnp.ones((64, 64))
    with Profile("2:3", tmp_path) as profile:
        for number in range(1, 6):
            profile.before(number)
            assert profile.tracing == (number in (2, 3))
            x = step(x)
            profile.after(number, x)
    assert [file.name for file in (tmp_path / "profile").iterdir()] == ["plugins"]
    found = tmp_path / "profile" / "plugins" / "profile" / "steps-2-3"
    assert sorted(file.name for file in found.glob("*.xplane.pb")) == ["process-0000.xplane.pb"]


def test_processes_of_one_machine_are_hosts_of_one_trace(tmp_path, monkeypatch):
    for index in (0, 11):
        monkeypatch.setattr(jax, "process_index", lambda index=index: index)
        with Profile("5:6", tmp_path) as profile:
            for number in (5, 6):
                profile.before(number)
                profile.after(number)
    names = sorted(file.name for file in tmp_path.glob("profile/plugins/profile/*/*.xplane.pb"))
    assert names == ["process-0000.xplane.pb", "process-0011.xplane.pb"]


def test_a_trace_ends_with_the_run(tmp_path):
    profile = Profile("1:100", tmp_path)

    def run():
        with profile:
            profile.before(1)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run()
    assert not profile.tracing
    assert list(tmp_path.glob("profile/plugins/profile/*/*.xplane.pb"))


def test_a_range_that_is_never_reached_is_told(tmp_path, caplog):
    caplog.set_level(logging.INFO, "jaxformer")
    with Profile("100:110", tmp_path) as profile:
        profile.before(1)
        profile.after(1)
    assert "none of these steps was taken" in caplog.text
    assert not (tmp_path / "profile").exists()


def test_without_a_range_nothing_happens(tmp_path):
    with Profile(None, tmp_path) as profile:
        profile.before(1)
        profile.after(1)
    assert list(tmp_path.iterdir()) == []


def test_a_profile_that_cannot_be_written_costs_a_warning(tmp_path, caplog):
    (tmp_path / "profile").write_text("a file where a folder belongs")
    with Profile("1:1", tmp_path) as profile:
        profile.before(1)
        profile.after(1)
    assert "profile: the profile cannot be written there" in caplog.text
    assert (tmp_path / "profile").read_text() == "a file where a folder belongs"
