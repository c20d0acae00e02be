"""`ring0 secret`: kept from standard input, named and never shown."""

from __future__ import annotations

import json

from cli_world import World

CANARY = "tok-canary-5b0d9f31"


def test_a_secret_is_set_from_standard_input_listed_by_name_and_removed(world: World) -> None:
    done = world.ring0("secret", "set", "GITHUB_TOKEN", stdin=CANARY + "\n")
    assert done.code == 0 and CANARY not in done.out + done.err
    listed = world.ring0("secret", "list", "--json")
    assert [entry["name"] for entry in json.loads(listed.out)] == ["GITHUB_TOKEN"]
    assert CANARY not in listed.out + world.ring0("secret", "list").out
    assert world.ring0("secret", "remove", "GITHUB_TOKEN").code == 0
    assert world.ring0("secret", "remove", "GITHUB_TOKEN").code == 2
    assert "is empty" in world.ring0("secret", "list").out


def test_a_secret_that_no_header_can_carry_is_refused(world: World) -> None:
    done = world.ring0("secret", "set", "A", stdin="two lines\nof a secret\n")
    assert done.code == 2 and "of a secret" not in done.out + done.err
    assert "Do:" in done.err


def test_a_secret_that_ring0_toml_names_and_nobody_set_stops_the_kernel(world: World) -> None:
    (world.home).mkdir(exist_ok=True)
    (world.home / "ring0.toml").write_text(
        '[credentials.github]\nsecret = "GITHUB_TOKEN"\nuse_for = "api.github.com"\n'
    )
    done = world.ring0("run", "agent.py:plain", "hi")
    assert done.code == 2 and "ring0 secret set GITHUB_TOKEN" in done.err
