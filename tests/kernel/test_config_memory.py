"""[memory] of agent.toml: read strictly, off unless it is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from ring0.errors import ManifestInvalid
from ring0.kernel.agent import manifests
from ring0.types import MemorySettings


def read(folder: Path, said: str) -> MemorySettings:
    path = folder / "agent.toml"
    path.write_text(f'name = "clerk"\nentry = "agent.py"\n{said}')
    return manifests.read_agent(path).memory


def test_what_is_not_said_is_off(tmp_path: Path) -> None:
    assert read(tmp_path, "") == read(tmp_path, "[memory]") == MemorySettings()


def test_all_of_it_is_read(tmp_path: Path) -> None:
    said = '[memory]\ntools = true\nrecall = 5\nwindow_tokens = 8000\nconsolidate = "after 50"\n'
    assert read(tmp_path, said + 'consolidate_model = "default"') == MemorySettings(
        tools=True,
        recall=5,
        window_tokens=8_000,
        consolidate_after=50,
        consolidate_model="default",
    )
    assert read(tmp_path, '[memory]\nconsolidate = "daily"').consolidate_daily


@pytest.mark.parametrize(
    ("said", "named"),
    [
        ("[memory]\nrecal = 5", "recal"),
        ("[memory]\nrecall = -1", "recall"),
        ("[memory]\nrecall = 51", "recall"),
        ("[memory]\nwindow_tokens = 10", "window_tokens"),
        ('[memory]\nconsolidate = "hourly"', "hourly"),
        ('[memory]\nconsolidate = "after 2"', "after 2"),
        ('[memory]\nconsolidate_model = "default"', "consolidate_model"),
        (
            '[memory]\ntools = true\n[tools.memory_search]\nuse = "files"\nfolder = "."',
            "memory_search",
        ),
    ],
)
def test_what_cant_be_is_refused_by_its_name(tmp_path: Path, said: str, named: str) -> None:
    with pytest.raises(ManifestInvalid) as error:
        read(tmp_path, said)
    assert named in error.value.as_line() and error.value.todo
