"""A program that knows nothing of ring0 but its HTTP API: no SDK, no task path."""

import http.client
import json
import os
import socket
import sys


class Door(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(os.environ["RING0_DOOR"])


def ask(method, path, body=None):
    door = Door("ring0")
    door.request(method, path, body=None if body is None else json.dumps(body))
    answer = json.loads(door.getresponse().read())
    door.close()
    return answer


def call(kind, name="", **args):
    return ask("POST", "/v1/call", {"kind": kind, "name": name, "args": args})


def main(how):
    entries = ask("GET", "/v1/run")["task"].split()
    seen = [call("now")["value"], call("now")["value"]]
    if how == "diverges":  # What the kernel can't know: it differs on each start.
        for _ in range(2):
            call("memory.append", text=os.urandom(8).hex())
    for entry in entries:
        insert = "INSERT INTO ledger (entry) VALUES (?)"
        seen.append(call("tool", "bank.execute", statement=insert, parameters=[entry]))
    delete = "DELETE FROM ledger WHERE entry = ?"
    seen.append(call("tool", "bank.execute", statement=delete, parameters=["old"]))
    print(json.dumps(seen, sort_keys=True))


main(sys.argv[1] if len(sys.argv) > 1 else "")
