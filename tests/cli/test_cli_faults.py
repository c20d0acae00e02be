"""A fault of ring0 itself is one line that says where the details are."""

from __future__ import annotations

from pathlib import Path

import pytest

from ring0.cli import app as main


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    def app(**_: object) -> None:
        raise ZeroDivisionError("the inside of ring0")

    monkeypatch.setattr(main, "app", app)
    monkeypatch.setenv("RING0_HOME", str(tmp_path))
    return tmp_path


def test_a_fault_is_told_in_a_line_and_its_traceback_is_in_a_file(
    broken: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.guarded(["ps"]) == 70
    said = capsys.readouterr()
    assert said.out == ""
    assert "A fault of ring0: ZeroDivisionError" in said.err
    assert "Traceback" not in said.err and "the inside" not in said.err
    assert str(broken / "fault.txt") in said.err.replace("\n", "").replace("  ", "")
    assert "the inside of ring0" in (broken / "fault.txt").read_text()


def test_a_fault_is_told_even_where_its_traceback_can_not_be_written(
    broken: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RING0_HOME", "/proc/nowhere")
    assert main.guarded(["ps", "--json"]) == 70
    assert '"what": "A fault of ring0: ZeroDivisionError."' in capsys.readouterr().out
