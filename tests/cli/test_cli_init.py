"""`ring0 init`: the project that it makes works at once, by the commands of its own README; and it
writes over nothing."""

from __future__ import annotations

import json
import re
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
from cli_world import World

from ring0.cli import initing


@pytest.fixture
def project(world: World) -> World:
    """A world in a project of its own, with that project's data folder."""
    assert world.ring0("init", "shop").code == 0
    world.folder = world.folder / "shop"
    world.home = world.folder / ".ring0"
    world.environment["RING0_HOME"] = str(world.home)
    return world


def test_what_init_makes_works_at_once_from_its_policys_test_to_the_undo(project: World) -> None:
    done = project.ring0("policy", "test", "policy_tests.toml")
    assert done.code == 0 and "4 cases, all as wanted" in done.out
    assert project.ring0("policy", "check", "--manifest", "agent.toml").code == 0

    small = project.ring0("run", "agent.py", "Refund 15 for order A-18, please")
    assert small.code == 0 and "small-refund" in small.out, small.all
    assert "15 paid back for A-18" in small.out

    running = project.start("run", "agent.py", "Refund 80 for order A-17, please")
    ask = project.pending()
    assert project.ring0("approve", ask).code == 0
    large = project.finish(running)
    assert large.code == 0 and "80 paid back for A-17" in large.out, large.all

    shown = project.ring0("show", "last")
    assert shown.code == 0 and "refund" in shown.out and ask in shown.out
    back = project.ring0("undo", "last")
    assert back.code == 0 and "refund of A-17 cancelled" in back.out, back.all
    assert project.ring0("replay", "last", "--strict").code == 0


def test_no_approval_lets_through_what_the_projects_policy_forbids(project: World) -> None:
    script = project.folder / "puppet.toml"
    script.write_text(script.read_text().replace("refund 80", "refund 5000").replace("80", "5000"))
    done = project.ring0("run", "agent.py", "Refund 5000 for order A-17, please")
    assert done.code == 0 and "no-such-refund" in done.out and "paid back" not in done.out


def test_a_readme_of_a_project_names_only_what_there_is(project: World) -> None:
    readme = (project.folder / "README.md").read_text()
    assert len(readme.splitlines()) <= 15
    for named in re.findall(r"`([a-z_]+\.[a-z]+)`", readme):
        assert (project.folder / named).is_file(), named
    for verb in set(re.findall(r"^ +ring0 (\w+)", readme, re.M)):
        assert project.ring0(verb, "--help").code == 0, verb


class Provider(BaseHTTPRequestHandler):
    """Answers every question in the words of OpenAI's chat completions."""

    asked: ClassVar[list[dict[str, Any]]] = []

    def do_POST(self) -> None:
        self.asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        message = {"role": "assistant", "content": "It is on its way."}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        said = {"id": "c", "object": "chat.completion", "created": 1, "model": "gpt-5-mini",
                "choices": [choice], "usage": usage}  # fmt: skip
        body = json.dumps(said).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def test_the_one_line_for_a_real_model_is_in_the_manifest_and_asks_one(project: World) -> None:
    manifest = project.folder / "agent.toml"
    said = manifest.read_text()
    (real,) = re.findall(r"^# (default = .*)$", said, re.M)
    with ThreadingHTTPServer(("127.0.0.1", 0), Provider) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        # Its own address in place of the provider's: no test leaves this machine.
        here = f'base_url = "http://127.0.0.1:{server.server_port}/v1" }}'
        manifest.write_text(re.sub(r"^default = .*$", real.replace("}", f", {here}"), said,
                                   flags=re.M))  # fmt: skip
        project.environment["OPENAI_API_KEY"] = "sk-not-a-real-key"
        done = project.ring0("run", "agent.py", "Where is order A-18?")
        server.shutdown()
    assert done.code == 0 and "It is on its way." in done.out, done.all
    (asked,) = Provider.asked
    assert asked["model"] == "gpt-5-mini" and asked["tools"][0]["function"]["name"] == "refund"


def test_a_projects_journal_and_secrets_are_not_for_git(project: World) -> None:
    project.ring0("run", "agent.py", "hello")
    subprocess.run(["git", "init", "-q"], cwd=project.folder, check=True)
    told = subprocess.run(
        ["git", "status", "--short", "-uall"],
        cwd=project.folder,
        capture_output=True,
        text=True,
        check=True,
    )
    assert {line.split()[1] for line in told.stdout.splitlines()} == set(initing.FILES.values())


@pytest.mark.parametrize("name", [*initing.FILES.values(), ".ring0"])
def test_init_writes_over_nothing_and_leaves_nothing_behind(world: World, name: str) -> None:
    place = world.folder / "taken"
    (place / name).parent.mkdir(parents=True)
    (place / name).write_text("mine")
    before = sorted(place.rglob("*"))
    done = world.ring0("init", "taken")
    assert done.code == 2 and "nothing is written over it" in done.err
    assert sorted(place.rglob("*")) == before and (place / name).read_text() == "mine"


def test_init_does_not_write_through_a_link_that_leads_nowhere(world: World) -> None:
    place = world.folder / "linked"
    place.mkdir()
    (place / "agent.py").symlink_to(world.folder / "elsewhere.py")
    assert world.ring0("init", "linked").code == 2
    assert not (world.folder / "elsewhere.py").exists()


def test_a_project_that_could_not_be_made_whole_is_not_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Path.open

    def full(path: Path, *given: object, **more: object) -> object:
        if path.name == "policy.cedar":
            raise OSError(28, "No space left on device", str(path))
        return opened(path, *given, **more)  # type: ignore[arg-type, call-overload]

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(initing.InvalidInput) as caught:
        initing.make(tmp_path)
    assert "No space left" in caught.value.why
    assert list(tmp_path.iterdir()) == []


def test_init_says_what_it_wrote_and_takes_the_folder_here(world: World) -> None:
    new = world.folder / "new"
    new.mkdir()
    world.folder = new
    told = json.loads(world.ring0("init", "--json").out)
    assert told["files"] == list(initing.FILES.values())
    assert all((new / name).is_file() for name in told["files"])


def test_a_file_in_the_place_of_a_folder_is_told(world: World) -> None:
    world.write("file", "")
    done = world.ring0("init", "file")
    assert done.code == 2 and "No project was made" in done.err


def test_the_native_api_is_printed_as_openapi(world: World) -> None:
    done = world.ring0("openapi")
    assert done.code == 0 and done.json["openapi"].startswith("3.1")
    assert "/v1/call" in done.json["paths"] and not world.home.exists()
