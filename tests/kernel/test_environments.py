"""`python agent.py` in somebody's own environment: what of the host it may read, and what not."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from ring0.cli.starting import agent_of_command, agent_of_file
from ring0.errors import ManifestInvalid
from ring0.kernel.agent import environments
from ring0.types import AgentManifest, SandboxProfile

RING0 = Path(sys.executable).with_name("ring0")


@pytest.fixture
def folder() -> Iterator[Path]:
    """Not beneath /tmp, which is the sandbox's own."""
    with tempfile.TemporaryDirectory(prefix="ring0-test-", dir="/var/tmp") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def venv(folder: Path, base: Path | None = None) -> Path:
    """One as `python -m venv` makes it, with a library of its own."""
    made = folder / ".venv"
    library = made / "lib" / "python3.11" / "site-packages"
    library.mkdir(parents=True)
    (library / "shelf.py").write_text("BOOK = 'of this environment'\n")
    (made / "bin").mkdir()
    base = base or Path(os.path.realpath(sys.executable)).parent
    (made / "bin" / "python3").symlink_to(base / "python3")
    (made / "bin" / "python").symlink_to("python3")
    (made / "lib64").symlink_to("lib")
    (made / "pyvenv.cfg").write_text(f"home = {base}\nversion = 3.11.7\n")
    return made


def installed(folder: Path, name: str = "installed") -> Path:
    """The folder of an installed Python, as far as it is looked at."""
    made = folder / name
    (made / "lib" / "python3.12").mkdir(parents=True)
    (made / "lib" / "python3.12" / "os.py").touch()
    (made / "bin").mkdir()
    (made / "bin" / "python3").write_text("#!/bin/sh\n")
    (made / "bin" / "python3").chmod(0o755)
    (made / "secrets.txt").write_text("not Python's own")
    return made


def found(program: str, here: Path, search: str = "") -> environments.Environment:
    environment = environments.environment_of(program, here, search)
    assert environment is not None
    return environment


def test_the_python_that_the_shell_finds_is_meant_with_all_that_it_needs(folder: Path) -> None:
    base = installed(folder)
    made = venv(folder, base / "bin")
    for program, search in (
        ("python", f"{made}/bin:/usr/bin"),
        (".venv/bin/python", ""),
        (str(made / "bin" / "python3"), "/usr/bin"),
    ):
        environment = found(program, folder, search)
        assert environment.program == str(made / "bin" / Path(program).name)
        assert set(environment.read) == {
            *(str(made / name) for name in ("bin", "lib", "lib64", "pyvenv.cfg")),
            *(str(base / name) for name in ("bin", "lib")),
        }


def test_what_is_no_program_of_an_environment_stays_as_it_is(folder: Path) -> None:
    (folder / "bin").mkdir()
    program = folder / "bin" / "tool"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    for name in ("tool", "sh", "nosuchprogram", str(program), "bin/tool"):
        assert environments.environment_of(name, folder, f"{folder}/bin:/usr/bin") is None
    manifest = AgentManifest(name="a", command=("tool",), folder=str(folder))
    assert environments.with_environment(manifest, folder, f"{folder}/bin") is manifest


def test_the_systems_python_is_named_by_its_path_and_shows_no_more(folder: Path) -> None:
    (environment,) = {found("python3", folder, "/usr/bin"), found("/usr/bin/python3", folder)}
    assert environment.program == "/usr/bin/python3" and environment.read == ()


def test_what_an_environment_needs_is_on_record_beside_what_the_manifest_names(
    folder: Path,
) -> None:
    made = venv(folder, installed(folder) / "bin")
    profile = SandboxProfile(read=("/opt/data", str(made / "lib")))
    manifest = AgentManifest(name="a", command=("python", "x"), folder=".", sandbox=profile)
    more = environments.with_environment(manifest, folder, f"{made}/bin")
    assert more.command == (str(made / "bin" / "python"), "x")
    assert more.sandbox.read[:2] == profile.read and str(made / "bin") in more.sandbox.read
    assert len(more.sandbox.read) == len(set(more.sandbox.read))


# --- an environment that came with a checkout, and lies ---------------------------------------


def test_an_environment_whose_folder_is_a_link_out_of_it_shows_nothing(folder: Path) -> None:
    private = folder / "private"
    private.mkdir()
    made = venv(folder / "checkout", installed(folder) / "bin")
    shutil.rmtree(made / "lib")
    (made / "lib").symlink_to(private)
    with pytest.raises(ManifestInvalid, match="can't be shown"):
        environments.environment_of(".venv/bin/python", folder / "checkout", "")


@pytest.mark.parametrize("home", ["private", "private/bin", "private/../private", "/etc", "/"])
def test_the_home_that_it_names_is_shown_only_where_it_is_a_python(folder: Path, home: str) -> None:
    (folder / "private" / "bin").mkdir(parents=True)
    (folder / "private" / "lib").mkdir()
    (folder / "private" / "python3").touch()
    (folder / "private" / "bin" / "python3").touch()
    made = venv(folder / "checkout", installed(folder) / "bin")
    (made / "pyvenv.cfg").write_text(f"home = {folder / home}\n")
    environment = found(".venv/bin/python", folder / "checkout")
    assert not [path for path in environment.read if "private" in path or path in ("/etc", "/")]


def test_of_a_project_that_is_its_own_environment_only_pythons_own_is_shown(folder: Path) -> None:
    made = venv(folder, installed(folder) / "bin")
    for name in ("keys.txt", "src"):
        (made / name).mkdir()
    shown = found(".venv/bin/python", folder).read
    assert not {str(made), str(made / "keys.txt"), str(made / "src")} & set(shown)


def test_links_that_go_round_end(folder: Path) -> None:
    made = venv(folder, installed(folder) / "bin")
    (made / "bin" / "python3").unlink()
    (made / "bin" / "python3").symlink_to("python")
    (made / "bin" / "python").unlink()
    (made / "bin" / "python").symlink_to("python3")
    assert environments.environment_of("python", folder, f"{made}/bin") is None
    (made / "pyvenv.cfg").write_text(f"home = {made / 'bin'}\n")
    (made / "bin" / "agent").write_text("#!/bin/sh\n")
    (made / "bin" / "agent").chmod(0o755)
    assert found("agent", folder, f"{made}/bin").program == str(made / "bin" / "agent")


# --- what a script imports --------------------------------------------------------------------


def test_a_script_has_its_neighbours_and_no_secret(folder: Path) -> None:
    for name in ("agent.py", "shop.py", "notes.txt", ".env"):
        (folder / name).touch()
    (folder / "parts").mkdir()
    (folder / "parts" / "__init__.py").touch()
    (folder / "data").mkdir()
    (folder / "linked.py").symlink_to("/etc/passwd")
    bare = agent_of_command(("python3", "agent.py", "x"), None, folder, "")
    assert set(bare.manifest.code) == {"agent.py", "shop.py", "parts"}
    bare = agent_of_command(("python3", "-m", "parts"), None, folder, "")
    assert set(bare.manifest.code) == {"agent.py", "shop.py", "parts"}
    for command in (("sh", "agent.py"), ("python3", "-c", "1")):
        bare = agent_of_command(command, None, folder, "")
        assert bare.manifest.code == tuple(one for one in command if one == "agent.py")


def test_the_command_of_a_manifest_is_found_as_one_after_the_dashes_is(folder: Path) -> None:
    made = venv(folder, installed(folder) / "bin")
    (folder / "agent.py").touch()
    (folder / "agent.toml").write_text('name = "a"\ncommand = ["python", "agent.py"]\n')
    named = agent_of_file("", folder / "agent.toml", f"{made}/bin").manifest
    assert named.command == (f"{made}/bin/python", "agent.py") and named.code == ("agent.py",)
    (folder / "agent.toml").write_text('name = "a"\ncommand = ["sh", "agent.py"]\n')
    assert agent_of_file("", folder / "agent.toml").manifest.code == ("agent.py",)


# --- in a real sandbox ------------------------------------------------------------------------


@pytest.mark.parametrize("linked", [False, True])
def test_a_program_of_an_environment_just_runs_and_sees_no_more(folder: Path, linked: bool) -> None:
    """Also where a link leads to the environment, as one for many projects has it."""
    made = venv(folder)
    if linked:
        (folder / "elsewhere").mkdir()
        made.rename(folder / "elsewhere" / "one")
        made.symlink_to("elsewhere/one")
    (folder / "secret.txt").write_text("of the host")
    (folder / "neighbour.py").write_text("NAME = 'neighbour'\n")
    (folder / "agent.py").write_text(
        "import os, shutil, sys, shelf, neighbour\n"
        "print(sys.prefix, shelf.BOOK, neighbour.NAME, shutil.which('python'))\n"
        f"print(sorted(os.listdir({str(folder)!r})))\n"
        f"try: open({str(made / 'lib' / 'new')!r}, 'w')\n"
        "except OSError as error: print(error.strerror)\n"
    )
    done = subprocess.run(
        [RING0, "--home", folder / "home", "run", "--json", "--", "python", "agent.py"],
        cwd=folder,
        env={"PATH": f"{made}/bin:/usr/bin:/bin", "HOME": str(folder)},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for said in (
        f"{made} of this environment neighbour {made}/bin/python",
        "['.venv', 'elsewhere']" if linked else "['.venv']",
        "Read-only file system",
    ):
        assert said in done.stdout
