"""docs/sdk.md: its code is code, its first agent is the one that `ring0 init` makes, and it tells
all that a Context has."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from page import loaded

from ring0 import Context
from ring0.cli import initing
from ring0.sdk.declare import agent_of

DOCUMENT = (Path(__file__).parents[2] / "docs" / "sdk.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```", DOCUMENT, re.M | re.S)


def test_every_example_of_the_sdks_page_is_python() -> None:
    assert len(BLOCKS) >= 3
    for block in BLOCKS:
        ast.parse(block)


def test_the_first_agent_of_the_page_is_declared_as_the_one_that_init_makes(tmp_path: Path) -> None:
    told = agent_of(loaded(tmp_path, "sdk_page_first", BLOCKS[0]).support)
    template = Path(initing.__file__).with_name("project") / "agent.py"
    made = agent_of(loaded(tmp_path, "sdk_page_made", template.read_text()).support)
    assert told is not None and made is not None
    assert told.manifest.functions == made.manifest.functions
    assert told.manifest.budget.cost_microusd == 500_000


def test_what_the_page_lists_of_ctx_is_what_there_is() -> None:
    named = set(re.findall(r"`ctx\.(\w+)", DOCUMENT))
    public = {name for name in dir(Context) if not name.startswith("_")} | {"memory", "derive"}
    assert named - public == set(), "it lists what there is not"
    assert public - named == set(), "it leaves out what there is"
