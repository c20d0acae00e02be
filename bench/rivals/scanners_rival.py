"""detect-secrets or better-profanity over texts from standard input, as their documentation has it.

`scan_file` under `default_settings` (`scan_line` is for single words, and flags nearly every text;
writing the file is counted, and is little); `contains_profanity`. Prints one JSON object:
what each text took, and whether it was flagged. Run by `ring0 bench scanners` with the Python of
`.venv-rivals`.
"""

# mypy: disable-error-code="import-not-found, import-untyped"

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory


def detect_secrets() -> Callable[[str], bool]:
    from detect_secrets.core.scan import scan_file
    from detect_secrets.settings import default_settings

    _KEPT.enter_context(default_settings())
    path = Path(_KEPT.enter_context(TemporaryDirectory())) / "text.txt"

    def flag(text: str) -> bool:
        path.write_text(text)
        return any(scan_file(str(path)))

    return flag


def better_profanity() -> Callable[[str], bool]:
    from better_profanity import profanity

    profanity.load_censor_words()
    return lambda text: bool(profanity.contains_profanity(text))


_KEPT = ExitStack()
"""Settings last as long as their context does."""
RIVALS = {"detect-secrets": detect_secrets, "better-profanity": better_profanity}


def main() -> None:
    flag = RIVALS[sys.argv[1]]()
    texts: list[str] = json.load(sys.stdin)
    flag("The first call loads what is then kept.")
    wall_s, cpu_s, flagged = [], [], []
    for text in texts:
        begun, cpu = time.perf_counter(), time.thread_time()
        flagged.append(flag(text))
        cpu_s.append(time.thread_time() - cpu)
        wall_s.append(time.perf_counter() - begun)
    print(json.dumps({"wall_s": wall_s, "cpu_s": cpu_s, "flagged": flagged}))


if __name__ == "__main__":
    main()
