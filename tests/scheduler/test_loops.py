"""What the loop stop says of one run's calls: which repeats are told, which refused, which pass."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ring0 import limits
from ring0.errors import LoopStopped
from ring0.runtime import Runtime
from ring0.scheduler.loops import Asked, Lane, Watch, only_asked
from ring0.scheduler.noise import plain
from ring0.scheduler.trees import Rate, Tree, check_chain


def watch(run: str = "r-1", tree: Tree | None = None) -> Watch:
    tree = tree or Tree(b"k" * 32, Runtime())
    tree.join(run)
    return Watch(tree, run)


def ask(w: Watch, call: str, lane: Lane = Lane.ACT, path: str = "0", polls: bool = False) -> Asked:
    return w.ask(call.encode(), lane, path, call, polls=polls)


def do(w: Watch, call: str, answer: Any, state: bytes = b"", **more: Any) -> str:
    """One call from beginning to end; its notice."""
    return w.ended(ask(w, call, **more), json.dumps(answer).encode(), state).notice


@pytest.mark.parametrize("period", range(1, 9))
def test_a_cycle_of_up_to_eight_calls_is_told_the_third_time_and_refused_the_fifth(
    period: int,
) -> None:
    w = watch()
    calls = [(f"call {n}", f"answer {n}") for n in range(period)]
    notices = [[do(w, *call) for call in calls] for _ in range(limits.LOOP_STOP_AT - 1)]
    assert [bool(any(one)) for one in notices] == [False, False, True, True]
    assert all(notices[2]) and "3 times" in notices[2][0]
    for call, _ in calls:
        with pytest.raises(LoopStopped, match="same answer 4 times"):
            ask(w, call)


@given(st.lists(st.permutations(range(6)), min_size=3, max_size=3))
@settings(deadline=None, max_examples=30)
def test_a_cycle_in_a_changing_order_is_stopped_all_the_same(orders: list[list[int]]) -> None:
    w = watch()
    for order in (range(6), *orders):
        for n in order:
            do(w, f"call {n}", n)
    with pytest.raises(LoopStopped):
        ask(w, "call 0")


def test_polling_whose_answer_changes_passes_up_to_the_absolute_cap() -> None:
    w = watch()
    for n in range(limits.IDENTICAL_CALLS_MAX):
        assert do(w, "status", {"done": n}) == ""
    with pytest.raises(LoopStopped, match=f"more than {limits.IDENTICAL_CALLS_MAX} times"):
        ask(w, "status")


def test_an_answer_of_which_only_the_noise_changes_is_the_same_answer() -> None:
    w = watch()
    answers = [
        {"status": "pending", "checked_at": f"2026-03-01T10:00:0{n}Z", "request_id": f"q{n}"}
        for n in range(9)
    ]
    notices = [do(w, "status", answer) for answer in answers[:4]]
    assert notices[:2] == ["", ""] and notices[2] and notices[3]
    with pytest.raises(LoopStopped):
        ask(w, "status")


def test_of_a_long_answer_the_beginning_and_the_end_are_looked_at() -> None:
    most = limits.LOOP_NOISE_CHARS_MAX
    beginning, end = "b" * most, "e" * most
    assert plain(beginning + end) == beginning + end
    for middle in ("m", "m" * 1_000_000, f"{'1' * 200} " * 10_000):
        assert plain(beginning + middle + end) == f"{beginning}\n{end}"


def test_an_answer_that_is_nothing_but_an_id_is_new_each_time() -> None:
    w = watch()
    for n in range(20):
        assert do(w, "new_id", {"id": f"00000000-0000-4000-8000-{n:012d}"}) == ""


def test_a_look_between_steps_that_are_new_is_no_loop() -> None:
    w = watch()
    for n in range(40):
        assert do(w, "list", ["a", "b"]) == ""
        assert do(w, f"read {n}", f"text {n}") == ""


def test_items_that_all_give_the_same_answer_are_no_loop() -> None:
    w = watch()
    for n in range(200):
        assert do(w, f"check {n}", "ok") == ""


def test_what_was_asked_side_by_side_is_one_observation() -> None:
    w = watch()
    for _ in range(2):
        together = [ask(w, "same") for _ in range(10)]
        notices = [w.ended(one, b'"same"').notice for one in together]
        assert not any(notices)
    assert ask(w, "same")


def test_a_failing_call_may_be_tried_four_times_and_more_with_pauses() -> None:
    w = watch()
    for _ in range(4):
        do(w, "flaky", ["tool_failed", "503"])
    with pytest.raises(LoopStopped):
        ask(w, "flaky")
    for _ in range(30):
        w.pause("0")
        assert do(w, "flaky", ["tool_failed", "503"]) == ""


def test_a_pause_covers_all_that_the_same_task_then_asks_again() -> None:
    w = watch()
    for _ in range(20):
        assert do(w, "status", "pending") == "" and do(w, "log", []) == ""
        w.pause("0")


def test_a_pause_in_one_task_excuses_no_other() -> None:
    w = watch()
    for _ in range(4):
        do(w, "hot", 1, path="0.1")
        w.pause("0.2")
    with pytest.raises(LoopStopped):
        ask(w, "hot", path="0.1")


def test_even_with_pauses_there_is_a_cap() -> None:
    w = watch()
    with pytest.raises(LoopStopped, match=f"more than {limits.POLLED_CALLS_MAX} times"):
        for _ in range(limits.POLLED_CALLS_MAX + 2):
            w.pause("0")
            do(w, "status", "pending")


def test_a_tool_that_says_that_it_polls_is_only_capped() -> None:
    w = watch()
    for _ in range(limits.POLLED_CALLS_MAX):
        assert do(w, "status", "pending", polls=True) == ""
    with pytest.raises(LoopStopped):
        ask(w, "status", polls=True)


def test_a_write_is_new_only_where_the_state_is_new() -> None:
    w = watch()
    for n in range(30):
        assert do(w, "append", "ok", state=b"%d" % n) == ""
    w = watch()
    for _ in range(4):
        do(w, "write A", "ok", state=b"A")
        do(w, "write B", "ok", state=b"B")
    with pytest.raises(LoopStopped):
        ask(w, "write A")


def test_what_a_run_tells_itself_is_nothing_new() -> None:
    w = watch()
    for n in range(4):
        do(w, "read", "same")
        do(w, f"note {n}", None, lane=Lane.ECHO)
    with pytest.raises(LoopStopped):
        ask(w, "read")


def test_models_and_acts_are_counted_apart() -> None:
    w = watch()
    for n in range(4):
        do(w, f"model after {n} turns", ["read"], lane=Lane.MODEL)
        do(w, "read", "same")
    with pytest.raises(LoopStopped):
        ask(w, "read")
    for _ in range(4):
        do(w, "model, the same", ["read"], lane=Lane.MODEL)
    with pytest.raises(LoopStopped):
        ask(w, "model, the same", lane=Lane.MODEL)


def test_after_something_new_the_run_may_look_again() -> None:
    w = watch()
    for _ in range(4):
        do(w, "read", "same")
    with pytest.raises(LoopStopped):
        ask(w, "read")
    do(w, "other", "new")
    assert do(w, "read", "same") == ""


def test_a_child_on_the_same_task_with_the_same_end_is_refused_the_fifth_time() -> None:
    w = watch()
    for n in range(4):
        w.children[f"c{n}"] = ask(w, "spawn", lane=Lane.SPAWN)
        child = w.child(f"c{n}")
        assert child is not None and w.child(f"c{n}") is None
        notice = w.ended(child, b'"the same"').notice
        assert bool(notice) == (n >= 2)
    with pytest.raises(LoopStopped):
        ask(w, "spawn", lane=Lane.SPAWN)


def test_equal_children_that_are_spawned_one_by_one_and_then_awaited_pass() -> None:
    w = watch()
    for n in range(20):
        w.children[f"c{n}"] = ask(w, "spawn", lane=Lane.SPAWN)
    for n in range(20):
        child = w.child(f"c{n}")
        assert child is not None and w.ended(child, b'"yes"').notice == ""


# --- after a restart --------------------------------------------------------------------------


def history(w: Watch) -> list[str]:
    """Calls of all sorts, as they go on record."""
    record = []
    for n in range(4):
        asked = [ask(w, "pair") for _ in range(2)]
        record += [w.ended(one, b'"x"').fingerprint for one in asked]
        record.append(w.ended(ask(w, "status"), b'{"s":"p","elapsed_ms":%d}' % n).fingerprint)
        record.append(only_asked(ask(w, "capped", lane=Lane.CAPPED)))
    return record


def test_what_is_on_record_counts_on_after_a_restart() -> None:
    before = watch()
    record = history(before)
    after = watch()
    for fingerprint in record:
        after.remember(fingerprint, Lane.ACT, "0", count=True, tree=True)
    for w in (before, after):
        with pytest.raises(LoopStopped):
            ask(w, "pair")
        assert w.tree.stale == before.tree.stale
    for _ in range(limits.IDENTICAL_CALLS_MAX - 4):
        ask(after, "capped", lane=Lane.CAPPED)
    with pytest.raises(LoopStopped):
        ask(after, "capped", lane=Lane.CAPPED)
    for w in (before, after):
        with pytest.raises(LoopStopped):
            ask(w, "status")


def test_a_fingerprint_of_another_version_is_left_alone() -> None:
    w = watch()
    assert w.remember("v9:whatever", Lane.ACT, "0", count=True, tree=True) is None
    assert do(w, "read", 1) == ""


def test_a_fingerprint_tells_nothing_without_the_trees_key() -> None:
    one, other = watch(tree=Tree(b"1" * 32, Runtime())), watch(tree=Tree(b"2" * 32, Runtime()))
    found = [w.ended(ask(w, "secret"), b'"secret"').fingerprint for w in (one, other)]
    assert found[0] != found[1] and all("secret" not in text for text in found)


# --- trees ------------------------------------------------------------------------------------


def test_a_tree_that_learns_nothing_more_is_stopped_and_something_new_frees_it() -> None:
    tree = Tree(b"k" * 32, Runtime())
    most = limits.LOOP_STALE_CALLS_MAX
    notices = []
    for number in range(most + 41):  # Each child does a little of what its sibling did before.
        w = watch(f"r-{number}", tree)
        try:
            notices.append(do(w, f"call {number % 40}", "same"))
        except LoopStopped as error:
            assert "brought" in str(error) or "were the last" in str(error)
            break
        tree.leave(w.run)
    else:
        pytest.fail("nobody was stopped")
    assert len(notices) >= most and any("brought nothing" in one for one in notices)
    do(w, "something else", "new")
    assert do(w, "call 0", "same") == ""


def test_equal_runs_side_by_side_do_not_stop_each_other() -> None:
    tree = Tree(b"k" * 32, Runtime())
    runs = [watch(f"r-{n}", tree) for n in range(20)]
    for w in runs:
        for number in range(60):
            assert do(w, f"call {number}", number) == ""


def test_the_same_call_in_all_runs_of_a_tree_has_a_cap() -> None:
    tree = Tree(b"k" * 32, Runtime())
    with pytest.raises(LoopStopped, match=f"more than {limits.TREE_IDENTICAL_CALLS_MAX}"):
        for number in range(limits.TREE_IDENTICAL_CALLS_MAX + 1):
            w = watch(f"r-{number}", tree)
            do(w, "same", number)
            tree.leave(w.run)


def test_a_run_that_hands_down_its_own_task_is_stopped_at_a_depth_of_two() -> None:
    chain = [("clerk", "t")]
    assert check_chain(chain, "clerk", "t") is True
    with pytest.raises(LoopStopped, match="2 times already"):
        check_chain([("clerk", "t"), *chain], "clerk", "t")
    assert check_chain(chain, "clerk", "half of t") is False
    assert check_chain(chain, "other", "t") is False


@pytest.mark.parametrize("period", range(2, 9))
def test_a_cycle_of_agents_is_stopped_when_it_begins_a_third_time(period: int) -> None:
    cycle = [(f"agent {n}", f"task {n}") for n in range(period)]
    chain: list[tuple[str, str]] = []
    for one in cycle * 2:
        check_chain(chain, *one)
        chain.insert(0, one)
    with pytest.raises(LoopStopped):
        check_chain(chain, *cycle[0])


def test_a_rate_lets_so_many_through_at_once_and_then_so_many_a_second() -> None:
    rate = Rate(10, 5)
    assert [rate.take(1_000_000) for _ in range(5)] == [0.0] * 5
    assert [round(rate.take(1_000_000), 3) for _ in range(3)] == [0.1, 0.2, 0.3]
    assert rate.take(0) == pytest.approx(0.4)  # A clock that was set back gives nothing.
    assert rate.take(60_000_000) == 0.0


# --- noise ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ('{"at":"2026-03-01T10:00:00Z","s":"up"}', '{"at":"2026-03-02 11:00:00+01:00","s":"up"}'),
        ('"4 passed in 0.31s"', '"4 passed in 12.04s"'),
        ('"busy (attempt 2)"', '"busy (attempt 3)"'),
        ('{"request_id":"a1","ok":true}', '{"request_id":"b2","ok":true}'),
        ('{"took_ms":3,"ok":true}', '{"took_ms":4.5,"ok":true}'),
        ('{"t":1767225600,"ok":true}', '{"t":1767225601,"ok":true}'),
        ('"Date: Mon, 02 Mar 2026 10:00:00 GMT ok"', '"Date: Tue, 03 Mar 2026 10:00:01 GMT ok"'),
    ],
)
def test_times_ids_and_durations_are_noise(one: str, other: str) -> None:
    assert plain(one) == plain(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ('{"progress":37}', '{"progress":38}'),
        ('{"head":"9fceb02d0ae598e95dc970b7","on":"main"}', '{"head":"1","on":"main"}'),
        ('"3 passed, 1 failed in 2s"', '"4 passed, 0 failed in 2s"'),
        ('"2026-03-01"', '"2026-03-02"'),
        ('{"now":"2026-03-01T10:00:00Z"}', '{"now":"2026-03-01T10:00:01Z"}'),
        ('{"rows":[[1,"a"]]}', '{"rows":[[2,"a"]]}'),
    ],
)
def test_what_says_that_something_changed_is_no_noise(one: str, other: str) -> None:
    assert plain(one) != plain(other)


@given(st.text(alphabet='0123456789abcdefATZ:-+., "_{}x', max_size=3_000))
@settings(deadline=500, max_examples=60)
def test_no_text_keeps_the_search_for_noise_busy(text: str) -> None:
    plain(text * 8)
