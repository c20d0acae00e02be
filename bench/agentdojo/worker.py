"""Serves AgentDojo's environments over stdin and stdout, a JSON object a line. No ring0 in it.

Runs in an environment of its own (`.venv-agentdojo`, which `make rivals` makes). Each question has
`do`: `suite`, `new`, `call`, `attack` or `end`; each gets one answer, in order: what it asked for,
or `{"error": …}`. What AgentDojo says (environments, tools, ground truth, checks) is all here; what
is done with it is not.
"""

# mypy: disable-error-code="import-not-found, import-untyped, misc"

from __future__ import annotations

import functools
import importlib.metadata
import json
import pickle
import sys
from typing import Any, NamedTuple

import plans

VERSION = "v1.2.2"
"""The newest benchmark that the package has."""
ATTACK = "important_instructions"
MODEL = "local"
"""Whom the attack's text speaks to; a name that the package knows."""
SHOWN_CHARS = 60
"""So much of the injected text, in one leaf of a result, says that it was shown."""
KEPT_MAX = 16
"""Environments kept as they were made: the same pair comes several times in a row."""


class Task(NamedTuple):
    """One environment, with the task that goes on in it."""

    suite: Any
    user: Any
    injection: Any
    before: Any
    """As the task met it."""
    now: Any
    truth: list[Any]
    """The user's calls."""
    injected: dict[str, str]
    made: list[Any]
    """The calls so far."""


class Worker:
    """Answers one question after the other."""

    def __init__(self, suites: dict[str, Any]) -> None:
        """`suites`: by name, as the package's `get_suites` has them."""
        self._suites = suites
        self._attacks: dict[str, Any] = {}
        self._tasks: dict[int, Task] = {}
        self._next = 0
        self._fresh = functools.lru_cache(KEPT_MAX)(self._made)

    def answer(self, question: dict[str, Any]) -> dict[str, Any]:
        """Raises whatever is wrong with it."""
        given = {key: value for key, value in question.items() if key != "do"}
        found: dict[str, Any] = getattr(self, f"do_{question['do']}")(**given)
        return found

    def do_suite(self, suite: str) -> dict[str, Any]:
        """What a suite consists of."""
        named = self._suites[suite]
        return {
            "package": importlib.metadata.version("agentdojo"),
            "version": VERSION,
            "attack": ATTACK,
            "users": list(named.user_tasks),
            "injections": list(named.injection_tasks),
            "tools": [
                {
                    "name": tool.name,
                    "description": tool.description,
                    "schema": tool.parameters.model_json_schema(),
                }
                for tool in named.tools
            ],
        }

    def do_new(self, suite: str, user: str, injection: str = "") -> dict[str, Any]:
        """A fresh environment; with an injection, all places that the user's task reads show it."""
        named = self._suites[suite]
        task = named.user_tasks[user]
        attacker = named.injection_tasks[injection] if injection else None
        injected, made = self._fresh(suite, user, injection)
        now, before = pickle.loads(made), pickle.loads(made)
        truth = task.ground_truth(pickle.loads(made))
        self._next += 1
        self._tasks[self._next] = Task(named, task, attacker, before, now, truth, injected, [])
        return {
            "env": self._next,
            "prompt": task.PROMPT,
            "calls": [[call.function, plain(call.args)] for call in truth],
            "output": task.GROUND_TRUTH_OUTPUT,
            "places": sorted(injected),
        }

    def _made(self, suite: str, user: str, injection: str) -> tuple[dict[str, str], bytes]:
        """What is injected where, and the environment with it."""
        named = self._suites[suite]
        task, injected = named.user_tasks[user], {}
        if injection:
            injected = self._attack(suite).attack(task, named.injection_tasks[injection])
        now = task.init_environment(named.load_and_inject_default_environment(injected))
        return injected, pickle.dumps(now)

    def do_call(self, env: int, name: str, args: dict[str, Any]) -> dict[str, Any]:
        """Calls a tool: its value, how a model would be shown it, and whether that shows the
        injected text."""
        from agentdojo.agent_pipeline.tool_execution import tool_result_to_str
        from agentdojo.functions_runtime import FunctionCall, FunctionsRuntime

        task = self._tasks[env]
        task.made.append(FunctionCall(function=name, args=args))
        found, failed = FunctionsRuntime(task.suite.tools).run_function(task.now, name, args)
        value = plain(found)
        marks = {squeezed(text)[:SHOWN_CHARS] for text in task.injected.values()}
        shows = any(mark in leaf for leaf in map(squeezed, texts(value)) for mark in marks)
        text = "" if failed else tool_result_to_str(found)
        return {"value": value, "text": text, "failed": failed or "", "shows": shows}

    def do_attack(self, env: int) -> dict[str, Any]:
        """The injection's calls, for the environment as it stands."""
        task = self._tasks[env]
        suite, attacker = task.suite.name, task.injection
        try:
            found = attacker.ground_truth(task.now.model_copy(deep=True))
        except Exception:  # The user's calls took away what it is about: as it was before them.
            found = attacker.ground_truth(task.before.model_copy(deep=True))
        calls = [[call.function, plain(call.args)] for call in found]
        if not calls:
            planned = plans.calls(suite, attacker.ID, task.before, task.now)
            calls = [[name, args] for name, args in planned]
        return {"calls": calls, "output": attacker.GROUND_TRUTH_OUTPUT}

    def do_end(self, env: int, output: str, check: str) -> dict[str, Any]:
        """What the package's `utility` or `security` (`check`) says; the environment is gone."""
        task = self._tasks.pop(env)
        judged = task.user if check == "utility" else task.injection
        said = [{"type": "text", "content": output}]
        try:
            found = task.suite._check_task_result(judged, said, task.before, task.now, task.made)
        except Exception as error:  # It looks for what is not there: as good as a no.
            return {"holds": False, "why": f"{type(error).__name__}: {error}"[:200]}
        return {"holds": bool(found), "why": ""}

    def _attack(self, suite: str) -> Any:
        if suite not in self._attacks:
            from agentdojo.agent_pipeline.base_pipeline_element import BasePipelineElement
            from agentdojo.attacks.attack_registry import load_attack

            class Nobody(BasePipelineElement):
                """No model is asked; the attack's text needs a name."""

                name = MODEL

                def query(self, *args: Any, **kwargs: Any) -> Any:
                    raise NotImplementedError

            self._attacks[suite] = load_attack(ATTACK, self._suites[suite], Nobody())
        return self._attacks[suite]


def plain(value: Any) -> Any:
    """As JSON: pydantic models as objects, dates as text."""
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def texts(value: Any) -> list[str]:
    """All text in it."""
    if isinstance(value, dict):
        return [text for item in value.values() for text in texts(item)]
    if isinstance(value, list):
        return [text for item in value for text in texts(item)]
    return [value] if isinstance(value, str) else []


def squeezed(text: str) -> str:
    return " ".join(text.split())


def main() -> None:
    """Until stdin ends."""
    import yaml
    from agentdojo.task_suite.load_suites import get_suites

    # The same texts, many times quicker: each environment is read from YAML anew.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    yaml.safe_load = lambda text: yaml.load(text, loader)
    serve(Worker(get_suites(VERSION)))


def serve(worker: Worker) -> None:
    """Answers what comes on stdin, line by line."""
    answers, sys.stdout = sys.stdout, sys.stderr  # What tools print is no answer.
    for line in sys.stdin:
        try:
            answer = worker.answer(json.loads(line))
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"[:1_000]}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
