"""A program that knows nothing of ring0: it asks a model in pieces, twice at the same time."""

import hashlib
import json
import os
import threading
import urllib.request

BASE = os.environ["OPENAI_BASE_URL"]


def asked(text, found, stream=True):
    body = {"model": "default", "stream": stream, "messages": [{"role": "user", "content": text}]}
    request = urllib.request.Request(
        f"{BASE}/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request) as answer:
        raw = answer.read()
    found[text] = [hashlib.sha256(raw).hexdigest(), raw.count(b"data: ")]


found = {}
both = [threading.Thread(target=asked, args=(text, found)) for text in ("one", "two")]
for one in both:
    one.start()
for one in both:
    one.join()
asked("three", found, stream=False)
print(json.dumps(found, sort_keys=True))
