"""ring0 as a daemon, with real processes: runs are handed to it, workers are killed and frozen."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time

import pytest
from cli_world import RING0, Terminal, World
from serving_world import counting, daemon, gone, hits, journal, state

from ring0 import limits
from ring0.store import events as ev

# --- runs are handed to it ---------------------------------------------------------------------


def test_a_run_is_handed_to_the_daemon_and_shown_as_ever(world: World) -> None:
    with daemon(world) as d:
        done = world.ring0("run", "agent.py:sleeps", "0.3")
        assert done.code == 0, done.all
        assert "files.write" in done.out and "done" in done.out and "\nslept\n" in done.out
        told = world.ring0("run", "agent.py:fails", "x", "--json")
        assert told.code == 1 and told.json["state"] == "failed"
        assert "│" in told.err and "Traceback" in told.err  # What its process printed.
        assert d.end() == 0


def test_what_an_agent_prints_comes_while_it_runs(world: World) -> None:
    world.write(
        "talks.py",
        "from ring0 import Context, agent\n"
        "@agent\nasync def talks(ctx: Context, task: str):\n"
        "    print('\\x1b[31mfirst', flush=True)\n    await ctx.sleep(20)\n",
    )
    with daemon(world):
        run = world.start("run", "talks.py", "x")
        assert run.stdout is not None
        seen = ""
        while "first" not in seen:
            line = run.stdout.readline()
            assert line, seen
            seen += line
        assert "│" in seen and "\x1b" not in seen
        assert world.ring0("kill", "last").code == 0
        assert world.finish(run).code == 3


def test_ctrl_c_ends_the_looking_on_and_not_the_run(world: World) -> None:
    with daemon(world):
        run = world.start("run", "agent.py:sleeps", "4")
        name = world.waits_or_runs()
        time.sleep(0.3)
        run.send_signal(signal.SIGINT)
        left = world.finish(run)
        assert left.code == 130 and f"Detached: {name} goes on" in left.err
        assert "ring0 follow" in left.err
        assert [row["id"] for row in world.live()] == [name]
        followed = world.ring0("follow", name)
        assert followed.code == 0 and "slept" in followed.out


def test_detached_it_prints_the_id_and_the_run_ends_without_anybody(world: World) -> None:
    with daemon(world):
        name = world.ring0("run", "--detach", "agent.py:sleeps", "0.2", "--priority", "2").out
        world.until(lambda: not world.live())
        row = world.ring0("show", name.strip(), "--json").json["run"]
        assert (row["state"], row["priority"]) == ("done", 2)
    alone = world.ring0("run", "--detach", "agent.py:sleeps", "0.2")
    assert alone.code == 2 and "ring0 serve" in alone.err


def test_a_held_call_is_answered_where_one_looks_on(world: World) -> None:
    with daemon(world):
        shown = Terminal(world, "run", "agent.py:clerk", "close the account of Ann, number 1")
        shown.wait_for("approve? [y]es")
        shown.type("y\n")
        assert shown.end() == 0
        assert "approved by" in shown.shown and world.customers() == ["Bob"]


def test_an_approval_that_comes_when_nobody_looks_on_and_after_a_crash_lets_the_run_go_on(
    world: World,
) -> None:
    with daemon(world) as d:
        world.ring0("run", "--detach", "agent.py:clerk", "close the account of Ann, number 1")
        approval = world.pending()
        d.says(f"`ring0 approve {approval}` or `ring0 deny {approval}`")
        old = d.worker()
        os.kill(old, signal.SIGKILL)
        d.next_worker(old)
        assert world.ring0("approve", approval).code == 0
        world.until(lambda: not world.live())
        assert world.customers() == ["Bob"]


def test_many_who_ask_for_runs_at_once_all_get_them_and_a_kill_comes_through(
    world: World,
) -> None:
    with daemon(world):
        asking = [world.start("run", "--detach", "agent.py:sleeps", "60") for _ in range(12)]
        ended = [world.finish(one) for one in asking]
        assert [one.code for one in ended] == [0] * 12, [one.all for one in ended if one.code]
        assert len({one.out for one in ended}) == 12
        assert len(world.ring0("kill", "--all", "--json").json["killed"]) == 12


def test_what_keeps_a_run_from_starting_is_said_to_whoever_asked(world: World) -> None:
    world.write("broken.py", "import nosuchmodule\n")
    with daemon(world):
        assert "nosuchmodule" in world.ring0("run", "broken.py", "x").err
        assert world.ring0("run", "nothing.py", "x").code == 2
        assert not world.live()


def test_recover_leaves_it_to_the_daemon(world: World) -> None:
    with daemon(world):
        name = world.ring0("run", "--detach", "agent.py:sleeps", "30").out.strip()
        told = world.ring0("recover")
        assert told.code == 0 and "daemon" in told.out and name in told.out


# --- workers die and freeze --------------------------------------------------------------------


def test_a_killed_worker_is_replaced_and_its_run_goes_on_to_its_end(world: World) -> None:
    with daemon(world) as d:
        run = world.start("run", "agent.py:sleeps", "3")
        name = world.waits_or_runs()
        old = d.worker()
        os.kill(old, signal.SIGKILL)
        killed = time.monotonic()
        new = d.next_worker(old)
        assert time.monotonic() - killed < limits.LEASE_S
        done = world.finish(run)
        assert done.code == 0 and "goes on" in done.out, done.all
        assert world.ring0("show", name, "--json").json["run"]["epoch"] == 3  # Two starts, an end.
        assert f"worker {old} has ended by signal 9" in d.log and str(new) in d.log


def test_a_frozen_worker_writes_nothing_and_does_nothing_once_another_has_taken_over(
    world: World,
) -> None:
    counting(world)
    with daemon(world) as d:
        name = world.ring0("run", "--detach", "counting.py", "150").out.strip()
        world.until(lambda: hits(world) > 10)
        old = d.worker()
        os.kill(old, signal.SIGSTOP)
        frozen, frozen_us = time.monotonic(), time.time_ns() // 1_000
        new = d.next_worker(old)
        took_s = time.monotonic() - frozen
        assert took_s <= 2 * limits.LEASE_S, d.log
        with pytest.raises(ProcessLookupError):
            os.kill(old, signal.SIGCONT)  # Too late to be woken: it is confirmed dead.
        assert f"worker {old} is killed: it was silent" in d.log
        # A `once` call that was cut off waits to be settled: by what the world says.
        world.until(lambda: not world.live() or _settle(world, name))
        world.until(lambda: not world.live())
        calls = [call for call in world.calls(name) if call["name"] == "crm.execute"]
        happened = sum(call["state"] == "ok" for call in calls)
        assert len(calls) == 150 and hits(world) == happened
        assert world.ring0("audit", "verify", "--json").json["ok"] is True
    written = journal(world)
    begun = [at_us for at_us, what in written if isinstance(what, ev.KernelStarted)]
    assert len(begun) == 2 and new != old
    late = [what for at_us, what in written if frozen_us + 500_000 < at_us < begun[1]]
    assert not late and begun[1] - frozen_us > limits.LEASE_S * 900_000


def _settle(world: World, run: str) -> bool:
    """Says of the call that was cut off whether it happened: as many as the database counts."""
    calls = [call for call in world.calls(run) if call["name"] == "crm.execute"]
    for call in calls:
        if call["state"] == "unknown":
            ok = sum(one["state"] == "ok" for one in calls)
            word = "happened" if hits(world) > ok else "did-not-happen"
            assert world.ring0("settle", call["id"], word).code == 0
    return False


def test_a_worker_that_was_stopped_for_less_than_the_lease_is_left_alone(world: World) -> None:
    with daemon(world) as d:
        name = world.ring0("run", "--detach", "agent.py:sleeps", "3").out.strip()
        old = d.worker()
        os.kill(old, signal.SIGSTOP)
        time.sleep(limits.LEASE_S / 3)
        os.kill(old, signal.SIGCONT)
        world.until(lambda: not world.live())
        assert d.worker() == old and "killed" not in d.log
        assert world.ring0("show", name, "--json").json["run"]["epoch"] == 2


def test_ctrl_z_of_the_supervisor_kills_no_worker(world: World) -> None:
    with daemon(world) as d:
        worker = d.worker()
        d.process.send_signal(signal.SIGSTOP)
        time.sleep(limits.LEASE_S + 1)
        d.process.send_signal(signal.SIGCONT)
        time.sleep(1)
        assert d.worker() == worker and "killed" not in d.log


def test_without_its_supervisor_no_worker_lives_not_even_a_frozen_one(world: World) -> None:
    for freeze in (False, True):
        with daemon(world) as d:
            worker = d.worker()
            if freeze:
                os.kill(worker, signal.SIGSTOP)
                world.until(lambda worker=worker: state(worker) == "T")
            d.process.kill()
            gone(worker, 2)
            assert world.ring0("doctor").out.count("none is at work") == 1


def test_a_kernel_that_is_opened_for_a_verb_never_takes_the_folder_from_a_daemon(
    world: World,
) -> None:
    with daemon(world) as d:
        name = world.ring0("run", "--detach", "agent.py:sleeps", "60").out.strip()
        old = d.worker()
        d.process.send_signal(signal.SIGSTOP)
        os.kill(old, signal.SIGKILL)
        gone(old)
        kill = world.start("kill", name)  # There is no worker: it waits for the next.
        time.sleep(2)
        assert kill.poll() is None
        d.process.send_signal(signal.SIGCONT)
        killed = world.finish(kill)
        assert killed.code == 0, killed.all
    begun = [what for _, what in journal(world) if isinstance(what, ev.KernelStarted)]
    assert len(begun) == 2 and "Another kernel" not in d.log


# --- it ends ------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_in_order_and_its_runs_go_on_at_the_next_start(world: World, number: int) -> None:
    with daemon(world) as d:
        name = world.ring0("run", "--detach", "agent.py:sleeps", "2").out.strip()
        world.until(lambda: world.calls(name))
        worker = d.worker()
        assert d.end(number) == 0
        gone(worker, 0.1)
        assert "what goes on is kept" in d.log
    assert [row["id"] for row in world.live()] == [name]
    with daemon(world) as d:
        assert "1 unfinished" in d.log
        world.until(lambda: not world.live())
        assert world.ring0("show", name, "--json").json["run"]["state"] == "done"
        assert d.end() == 0


def test_ending_in_order_cuts_no_effect_off(world: World) -> None:
    counting(world)
    world.write("slow.py", SLOW)
    with daemon(world) as d:
        name = world.ring0("run", "--detach", "slow.py", "3").out.strip()
        world.until(lambda: (world.folder / "home").exists() and _open_calls(world, name))
        assert d.end() == 0
    call = next(call for call in world.calls(name) if call["name"] == "slowly")
    assert call["state"] == "ok"


def test_its_log_says_how_to_settle_an_effect_that_a_dead_worker_left_unknown(
    world: World,
) -> None:
    counting(world)
    world.write("slow.py", SLOW)
    with daemon(world) as d:
        name = world.ring0("run", "--detach", "slow.py", "5").out.strip()
        world.until(lambda: _open_calls(world, name))
        os.kill(d.worker(), signal.SIGKILL)
        d.says("nobody knows whether an effect happened")
        call = next(one["id"] for one in world.calls(name) if one["state"] == "unknown")
        assert f"`ring0 settle {call} happened`" in d.log
        assert world.ring0("settle", call, "did-not-happen").code == 0


SLOW = """
import time
from ring0 import Context, agent, tool


@tool(effect="once")
def slowly(s: int) -> str:
    time.sleep(s)
    return "done"


@agent(tools=[slowly])
async def slow(ctx: Context, task: str):
    await ctx.tool("slowly", s=int(task))
    await ctx.sleep(60)
"""


def _open_calls(world: World, run: str) -> bool:
    return any(call["state"] == "intended" for call in world.calls(run))


def test_its_log_says_which_runs_begin_and_end(world: World) -> None:
    with daemon(world) as d:
        name = world.ring0("run", "--detach", "agent.py:plain", "hi").out.strip()
        d.says("has ended: done")
        lines = [line for line in d.lines if name in line]
        assert len(lines) == 2 and "agent plain is started, for" in lines[0]


def test_a_folder_has_one_daemon_and_a_daemon_finds_it_free(world: World) -> None:
    with daemon(world) as d:
        second = world.ring0("serve")
        assert second.code == 6 and f"process {d.process.pid}" in second.err
    with world.holding("run", "agent.py:sleeps", "20"):
        beside = world.ring0("serve")
        assert beside.code == 6 and "Another kernel" in beside.err


def test_what_keeps_the_kernel_from_its_work_ends_it_at_once_with_that_error(world: World) -> None:
    world.home.mkdir()
    (world.home / "ring0.toml").write_text('policy = ["own.cedar"]\n')
    (world.home / "own.cedar").write_text("permit (nonsense")
    ended = world.ring0("serve")
    assert ended.code == 2 and "own.cedar" in ended.err


def test_a_service_manager_is_told_when_it_is_at_work(world: World) -> None:
    path = world.folder / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(path))
        manager.settimeout(20)
        world.environment["NOTIFY_SOCKET"] = str(path)
        with daemon(world, ready=False) as d:
            assert manager.recv(100) == b"READY=1"
            assert d.end() == 0
            assert manager.recv(100) == b"STOPPING=1"


def test_its_log_is_json_where_that_is_asked(world: World) -> None:
    with daemon(world, "--json") as d:
        assert world.ring0("run", "agent.py:plain", "hi").code == 0
        assert d.end() == 0
        rows = [json.loads(line) for line in d.lines]
        of_runs = {"at", "run", "what", "trace_id"}
        assert all(row.keys() == (of_runs if row["run"] else {"at", "run", "what"}) for row in rows)
        assert any(row["run"] for row in rows)
        assert any("is at work" in row["what"] for row in rows)


def test_nothing_of_the_folder_it_is_started_in_is_code_of_ours(world: World) -> None:
    world.write("msgspec.py", "raise SystemExit('taken in')\n")
    with daemon(world) as d:
        assert "taken in" not in d.log


def test_a_worker_of_nobody_ends_at_once(world: World) -> None:
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    python = RING0.rpartition("/")[0] + "/python"
    with ours, its:
        options = json.dumps({"home": str(world.home), "parent": 1})
        ended = subprocess.run(
            [python, "-P", "-m", "ring0.daemon.worker", options, str(its.fileno())],
            pass_fds=[its.fileno()],
            timeout=30,
        )
    assert ended.returncode == 71 and not world.home.exists()
