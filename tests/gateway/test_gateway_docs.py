"""docs/gateway.md says what there is: its doors, variables, providers, features and examples."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import msgspec
from gateway_world import doors

from ring0.gateway.models.routes import PATHS
from ring0.governance import Policies
from ring0.kernel.agent import manifests, processes
from ring0.models import dialects
from ring0.models.makers import OVER_HTTP

DOCUMENT = (Path(__file__).parents[2] / "docs" / "gateway.md").read_text()
OF_NO_MAKER = {"local", "scripted"}


def prose(title: str) -> str:
    """A section without its line breaks."""
    return " ".join(section(title).split())


def section(title: str) -> str:
    return DOCUMENT.split(f"\n## {title}\n")[1].split("\n## ")[0]


def blocks(language: str) -> list[str]:
    found = re.findall(rf"^ *```{language}\n(.*?)^ *```", DOCUMENT, re.M | re.S)
    return [inspect.cleandoc(one) + "\n" for one in found]


async def test_every_door_that_is_documented_answers_and_every_one_that_answers_is_documented(
    tmp_path: Path,
) -> None:
    said = set(re.findall(r"`((?:GET|POST|HEAD) /[^`]*)`", section("The doors")))
    assert {f"POST {path}" for path in PATHS} <= said
    async with doors(tmp_path) as d:
        for one in said:
            method, path = one.split()
            path = path.replace("NAME", "default").replace("ID", "resp_1")
            line = await d.line()
            await line.send(
                f"{method} {path} HTTP/1.1\r\nHost: r\r\nContent-Length: 2\r\n\r\n{{}}".encode()
            )
            head = (await line.reader.readuntil(b"\r\n\r\n")).decode()
            if " 404 " in head:  # There is such a door, but nothing of that id behind it.
                assert "has no" not in (await line.reader.read(4_000)).decode(), one
            await line.close()


def test_the_variables_that_are_documented_are_those_that_are_set() -> None:
    said = set(re.findall(r"`([A-Z0-9]+_[A-Z_]+)`", section("The doors")))
    set_there = set(re.findall(r'environment\["([A-Z0-9_]+)"\] = ', inspect.getsource(processes)))
    assert said == set_there


def test_the_providers_that_are_documented_are_those_that_there_are() -> None:
    rows = re.findall(r"^\| (`.*?) \|.*\| (.*?) \|$", section("Models"), re.M)
    keys = {name: key for names, key in rows for name in re.findall(r"`([a-z-]+)`", names)}
    assert set(keys) == set(OVER_HTTP) | OF_NO_MAKER
    for name, maker in OVER_HTTP.items():
        assert maker.key in keys[name], name


def test_the_features_that_are_documented_are_in_a_table() -> None:
    folder = Path(dialects.__file__).parent
    tables = "".join(path.read_text() for path in folder.glob("*/table.toml"))
    named = re.search(
        r"has to allow it: (.*?), …", prose("What goes through, and what does not"), re.S
    )
    assert named is not None
    for feature in re.findall(r"`(\w+)`", named[1]):
        assert f'"feature {feature}' in tables, feature
    for line in re.findall(r"`(\w+ = \"[^`]*\")`", prose("What goes through, and what does not")):
        assert line in tables, f"the example of a field table: {line}"


def test_the_policy_and_the_manifests_that_are_documented_fit(tmp_path: Path) -> None:
    (policy,) = blocks("cedar")
    (tmp_path / "mine.cedar").write_text(policy)
    assert Policies.load([tmp_path / "mine.cedar"]).count > 1
    agent, models = blocks("toml")
    (tmp_path / "my_agent.py").write_text("")
    (tmp_path / "agent.toml").write_text(agent)
    assert manifests.read_agent(tmp_path / "agent.toml").tools["refund"]["use"] == "agent"
    (tmp_path / "agent.toml").write_text('name = "a"\ncommand = ["python"]\n' + models)
    found = manifests.read_agent(tmp_path / "agent.toml")
    assert set(found.models) == {"default", "cheap", "here"}
    assert {one.provider for one in found.models.values()} <= set(OVER_HTTP), msgspec.to_builtins(
        found.models
    )
