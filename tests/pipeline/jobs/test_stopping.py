"""Walltimes as people and batch systems write them, and who else may say when a job ends."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scenelift.pipeline.errors import UsageError
from scenelift.pipeline.jobs.stopping import parse_walltime

UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


@given(amount=st.integers(1, 10**6), unit=st.sampled_from(list(UNITS)))
def test_an_amount_of_a_unit(amount: int, unit: str) -> None:
    assert parse_walltime(f"{amount}{unit}") == amount * UNITS[unit]
    assert parse_walltime(f"{amount}.5{unit}") == (amount + 0.5) * UNITS[unit]


@given(
    days=st.none() | st.integers(0, 99),
    hours=st.integers(0, 200),
    minutes=st.integers(0, 59),
    seconds=st.none() | st.integers(0, 59),
)
def test_clock_times(days: int | None, hours: int, minutes: int, seconds: int | None) -> None:
    text = f"{'' if days is None else f'{days}-'}{hours}:{minutes:02d}{'' if seconds is None else f':{seconds:02d}'}"
    total = (((days or 0) * 24 + hours) * 60 + minutes) * 60 + (seconds or 0)
    if total:
        assert parse_walltime(text) == total
    else:
        with pytest.raises(UsageError, match="above 0 seconds, got"):
            parse_walltime(text)


@given(text=st.text("0123456789:-.smhd x", max_size=9))
def test_any_other_text_is_refused_in_one_line(text: str) -> None:
    try:
        found = parse_walltime(text)
    except UsageError as error:
        assert str(error).startswith("walltime ") and "\n" not in str(error)
    else:
        assert found is not None and found > 0 and text[:1].isdigit()


@pytest.mark.parametrize("text", ["", "soon", "-5", "1:2", "1:2:3", "1:00:000", "2 h", "1e3", "5m30s", "1-2", " 5"])
def test_what_is_no_walltime(text: str) -> None:
    with pytest.raises(UsageError, match="walltime must be seconds, 90m, 2h, HH:MM:SS or D-HH:MM:SS, got"):
        parse_walltime(text)


def test_slurm_says_when_the_job_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_JOB_END_TIME", raising=False)
    assert parse_walltime(None) is None
    monkeypatch.setenv("SLURM_JOB_END_TIME", str(int(time.time()) + 500))
    assert parse_walltime(None) == pytest.approx(500, abs=2)
    monkeypatch.setenv("SLURM_JOB_END_TIME", "1")
    assert parse_walltime(None) == 1.0, "a job that is over has a second left to say so"
    monkeypatch.setenv("SLURM_JOB_END_TIME", "later")
    assert parse_walltime(None) is None
