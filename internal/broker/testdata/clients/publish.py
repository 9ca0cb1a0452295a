"""Publishes one submission with the key of a form, and ends when it is on disk. Standard library only.

    NATS=127.0.0.1:4222 FORM=guide KEY=... python3 publish.py '{"email": "ada@example.com"}'
"""
import json
import os
import socket
import sys

form, key = os.environ["FORM"], os.environ["KEY"]
host, _, port = os.environ["NATS"].rpartition(":")
inbox, body = f"_INBOX_{form}.1", sys.argv[1].encode()
with socket.create_connection((host, int(port)), timeout=10) as s:
    hello = json.dumps({"user": f"form-{form}", "pass": key, "verbose": False, "pedantic": False})
    s.sendall(f"CONNECT {hello}\r\nSUB {inbox} 1\r\nPUB lodestone.forms.{form} {inbox} {len(body)}\r\n".encode() + body + b"\r\n")
    for line in s.makefile("rb"):
        if line.startswith(b"PING"):
            s.sendall(b"PONG\r\n")
        if line.startswith(b"-ERR"):
            sys.exit(line.decode().strip())
        if line.startswith(b"{"):  # the answer to the submission
            answer = json.loads(line)
            sys.exit(json.dumps(answer["error"]) if "error" in answer else 0)
sys.exit("the connection ended before the answer came; it may be stored or not")
