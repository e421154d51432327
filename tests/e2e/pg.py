"""PostgreSQL's protocol by hand, for what no well-behaved client does."""

import socket
import struct
import sys
import time

HOST, PORT = sys.argv[1], int(sys.argv[2])


def connect():
    link = socket.create_connection((HOST, PORT), timeout=30)
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return link


def startup(user="nobody", database="app", version=196608):
    body = struct.pack("!I", version) + b"".join(
        part.encode() + b"\0" for part in ("user", user, "database", database, "application_name", "by-hand")
    )
    return struct.pack("!I", len(body) + 5) + body + b"\0"


def message(kind, body=b""):
    return kind.encode() + struct.pack("!I", len(body) + 4) + body


def query(sql):
    return message("Q", sql.encode() + b"\0")


def parse(sql, name=""):
    return message("P", name.encode() + b"\0" + sql.encode() + b"\0" + struct.pack("!H", 0))


def bind(name="", portal="", binary=False):
    formats = struct.pack("!HH", 1, 1) if binary else struct.pack("!H", 0)
    return message("B", portal.encode() + b"\0" + name.encode() + b"\0" + struct.pack("!HH", 0, 0) + formats)


def describe(kind="P", name=""):
    return message("D", kind.encode() + name.encode() + b"\0")


def execute(portal="", rows=0):
    return message("E", portal.encode() + b"\0" + struct.pack("!I", rows))


SYNC = message("S")


def exactly(link, count):
    data = b""
    while len(data) < count:
        part = link.recv(count - len(data))
        if not part:
            raise EOFError("closed")
        data += part
    return data


def read(link):
    kind = exactly(link, 1).decode()
    (length,) = struct.unpack("!I", exactly(link, 4))
    return kind, exactly(link, length - 4)


def until_ready(link):
    """Messages up to ReadyForQuery; asynchronous ones are left out."""
    seen = []
    while True:
        kind, body = read(link)
        if kind not in "SNK":
            seen.append((kind, body))
        if kind == "Z":
            return seen


def login(**options):
    link = connect()
    link.sendall(startup(**options))
    until_ready(link)
    return link


def kinds(messages):
    return "".join(kind for kind, _ in messages)


def fields(body):
    """The fields of an ErrorResponse."""
    return {part[:1].decode(): part[1:].decode() for part in body.split(b"\0") if part}


def rows(messages):
    """The values of every DataRow, as bytes or None."""
    found = []
    for kind, body in messages:
        if kind != "D":
            continue
        (count,), at, row = struct.unpack("!H", body[:2]), 2, []
        for _ in range(count):
            (length,) = struct.unpack("!i", body[at : at + 4])
            at += 4
            row.append(None if length < 0 else body[at : at + length])
            at += max(length, 0)
        found.append(row)
    return found


def rest(link, seconds=30):
    """Everything up to the peer's close, or what came in time."""
    link.settimeout(seconds)
    data = b""
    try:
        while part := link.recv(65536):
            data += part
        data += b"<closed>"
    except (ConnectionError, BrokenPipeError):
        data += b"<reset>"
    except TimeoutError:
        data += b"<open>"
    return data


def push(link, data):
    """Sends as much as the peer takes."""
    try:
        link.sendall(data)
    except (ConnectionError, TimeoutError):
        pass
