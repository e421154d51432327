"""A small HTTP API that wants a credential, and writes down every request that it sees.

usage: http_api.py PORT LOG SECRET_FILE [CERTIFICATE KEY]

The log has one JSON object a line: method, target, headers (a list of pairs), body. It serves HTTP/1.1 with keep-alive on 127.0.0.5
and ::1. `/v1/...` wants the secret as bearer token, as password of basic authentication, as `X-Api-Key`, or as `?key=`.
"""

import base64
import binascii
import gzip
import json
import socket
import ssl
import sys
import threading
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PORT, LOG, SECRET_FILE = int(sys.argv[1]), sys.argv[2], sys.argv[3]
SECRET = open(SECRET_FILE, encoding="utf-8").read().strip()
LOG_LOCK = threading.Lock()

ITEMS = {
    "items": [{"id": 1, "name": "lamp", "api_key": "key-of-the-lamp"}, {"id": 2, "name": "desk", "api_key": "key-of-the-desk"}],
    "owner": {"email": "ann@example.com", "password": "hunter2-ann", "note": "plain"},
}


def encodings(secret):
    raw = secret.encode()
    shifted = {f"base64_{pad}": base64.b64encode(b"x" * pad + raw).decode() for pad in range(3)}
    shifted_url = {f"base64url_{pad}": base64.urlsafe_b64encode(b"x" * pad + raw).decode().rstrip("=") for pad in range(3)}
    hexed = {"hex": binascii.hexlify(raw).decode(), "HEX": binascii.hexlify(raw).decode().upper()}
    percent = {"percent": "".join(f"%{byte:02X}" for byte in raw), "quoted": urllib.parse.quote(secret, safe="")}
    escaped = {"unicode": "".join(f"\\u{byte:04x}" for byte in raw)}
    return {"raw": secret, **shifted, **shifted_url, **hexed, **percent, **escaped}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Small answers in one segment each: Nagle and delayed acknowledgements would be measured instead of the proxy.
    wbufsize = 65536
    disable_nagle_algorithm = True

    def log_message(self, *_):
        pass

    def read_body(self):
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            body = b""
            while size := int(self.rfile.readline().split(b";")[0], 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            while self.rfile.readline() not in (b"\r\n", b""):
                pass
            return body
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def note(self, body):
        seen = {"method": self.command, "target": self.path, "headers": list(self.headers.items()), "body": body.decode("latin-1")}
        with LOG_LOCK, open(LOG, "a", encoding="utf-8") as log:
            log.write(json.dumps(seen) + "\n")

    def authorized(self):
        query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
        given = self.headers.get("Authorization", "")
        if given.startswith("Basic "):
            _, _, password = base64.b64decode(given[6:]).decode().partition(":")
            return password == SECRET
        return given == f"Bearer {SECRET}" or self.headers.get("X-Api-Key") == SECRET or query.get("key") == [SECRET]

    def answer(self, status, body, headers=()):
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        if not any(name.lower() == "content-type" for name, _ in headers):
            self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        self.wfile.flush()

    def chunked(self, body, size, trailers=()):
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        if trailers:
            self.send_header("Trailer", ", ".join(name for name, _ in trailers))
        self.end_headers()
        for start in range(0, len(body), size):
            piece = body[start : start + size]
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            self.wfile.flush()
        self.wfile.write(b"0\r\n" + b"".join(f"{name}: {value}\r\n".encode() for name, value in trailers) + b"\r\n")
        self.wfile.flush()

    def handle_any(self):
        body = self.read_body()
        self.note(body)
        path = urllib.parse.urlsplit(self.path).path
        if path.startswith("/v1/") and not self.authorized():
            return self.answer(401, b'{"error": "who are you?"}', [("WWW-Authenticate", "Bearer")])
        items = json.dumps(ITEMS).encode()
        if path == "/v1/items":
            return self.answer(200, items, [("Set-Cookie", "session=server-cookie-value")])
        if path == "/v1/chunked":
            return self.chunked(items, 1, [("X-Checksum", "42")])
        if path == "/v1/gzip":
            return self.answer(200, gzip.compress(items), [("Content-Encoding", "gzip")])
        if path == "/v1/echo":
            text = json.dumps({"headers": dict(self.headers.items()), "target": self.path, "body": body.decode("latin-1")})
            return self.answer(200, text.encode())
        if path == "/v1/leak":
            text = json.dumps(encodings(SECRET)).replace("\\\\u", "\\u")
            return self.answer(200, text.encode(), [("X-Leak", SECRET)])
        if path == "/v1/leak-chunked":
            return self.chunked(("leak: " + " ".join(encodings(SECRET).values())).encode(), 3)
        if path == "/v1/upgrade":
            return self.answer(426, b"{}", [("Upgrade", "websocket")])
        if path == "/plain":
            return self.answer(200, b'{"ok": true}')
        if path == "/reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
            self.close_connection = True
            return self.connection.close()
        return self.answer(404, b'{"error": "no such path"}')

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = do_PATCH = do_OPTIONS = handle_any


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256


class ServerV6(Server):
    address_family = socket.AF_INET6


def serve(server):
    if len(sys.argv) > 5:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(sys.argv[4], sys.argv[5])
        # The handshake belongs to the connection's thread: a client that says nothing must not stop the others.
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    server.serve_forever(poll_interval=0.1)


threading.Thread(target=serve, args=(ServerV6(("::1", PORT), Handler),), daemon=True).start()
serve(Server(("127.0.0.5", PORT), Handler))
