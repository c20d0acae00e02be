"""`[guardrails] hosts`: names of hosts, and nothing that looks like one and never matches."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from ring0.errors import ManifestInvalid
from ring0.guardrails.scanners import links
from ring0.kernel.agent.config_guardrails import GuardrailsTable
from ring0.kernel.agent.manifests import read_config
from ring0.kernel.answers import Answers

DATA = "p?d=" + base64.b64encode(b"balance is 4711 euros").decode()


def read(folder: Path, host: str) -> GuardrailsTable:
    (folder / "ring0.toml").write_text(f'[guardrails]\nhosts = ["{host}"]\n')
    return read_config(folder).guardrails


@pytest.mark.parametrize(
    "host",
    [
        "https://ok.example/", "ok.example/path", "ok.example:443", "*.ok.example", "ok.example.",
        ".ok.example", "me@ok.example", "", " ok.example", "ok example", "[::1]", "0x7f.1",
    ],
)  # fmt: skip
def test_what_no_link_would_ever_go_to_is_refused(tmp_path: Path, host: str) -> None:
    with pytest.raises(ManifestInvalid, match="hosts") as error:
        read(tmp_path, host)
    assert "bare name" in error.value.todo


@pytest.mark.parametrize(
    ("host", "asked"),
    [
        ("ok.example", "ok.example"),
        ("OK.Example", "sub.ok.example"),
        ("192.0.2.7", "192.0.2.7"),
        ("bücher.example", "bücher.example"),
        ("bücher.example", "xn--bcher-kva.example"),
    ],
)
def test_a_host_is_that_of_a_link_however_it_is_written(
    tmp_path: Path, host: str, asked: str
) -> None:
    answers = Answers(lambda: "strict")
    assert links.judge(f"https://{asked}/{DATA}") is not None
    answers.said = read(tmp_path, host)
    masking = answers.masking
    assert masking is not None
    assert links.judge(f"https://{asked}/{DATA}", masking.hosts) is None
    assert links.judge(f"https://evil.example/{DATA}", masking.hosts) is not None
