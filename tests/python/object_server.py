"""A small and fast server of objects in S3's dialect over a folder, with faults that are switched at run time. Standard library only.

Usage: python object_server.py FOLDER

FOLDER/BUCKET/KEY is an object. The first line printed is `objects ADDRESS`, the second is `ready`; the server ends when its standard input
does. It lists (version 2, with delimiter, prefix, continuation and max-keys) and reads (ranges, If-Match, HEAD); it checks no credentials:
that is moto's part in the tests. What is under `/-/` steers it, in JSON:

    GET  /-/stats     {"requests": {"list": 1, "get": 2, "head": 0, "other": 0}, "bytes": 9, "signed": 3, "tokens": 0, "connections": 1,
                       "log": [["get", "lake", "c/t.parquet", "bytes=0-7", 206], ...]}
    POST /-/reset     counts from zero again
    POST /-/faults    a list of faults instead of those that were there:
                      {"do": .., "kind": "list"|"get"|"head"|"any", "match": part of the key or prefix, "skip": 0, "times": -1, ..}
                      `skip` requests that match are served first, then `times` are not (-1: none ever again). What is done:
                        status    answers {"status": 503}, with a body like S3's
                        delay     waits for {"seconds": s}, then answers as it should
                        stall     never answers
                        hang      sends the head and {"after": n} bytes of the body, then nothing
                        drip      sends the body as one byte every {"every": seconds}
                        cut       promises the whole body, sends {"after": n} bytes of it and closes
                        drop      the same, but the connection is reset
                        short     {"after": n} bytes and a head that promises no more
                        echo      answers 403 with everything that the request said in the body
                        page      answers 200 with a page of HTML, as a portal in between does
                        redirect  answers 307 with {"location": ..}
                        replace   puts the file {"with": path} in the object's place, then serves it
    POST /-/crowd     {"bucket": .., "keys": 100000, "pattern": "c/t/{i:06}.csv", "body": text}: a bucket of keys without files, all of which
                      hold the same. `{i}` counts, `{k}` is every `per`th one.
"""

import base64
import bisect
import json
import os
import re
import socket
import struct
import sys
import threading
import time
import urllib.parse
from email.utils import formatdate, parsedate_to_datetime
from xml.sax.saxutils import escape

LAST = "\U0010ffff"
REASONS = {
    200: "OK", 206: "Partial Content", 304: "Not Modified", 307: "Temporary Redirect", 400: "Bad Request", 401: "Unauthorized", 403: "Forbidden",
    404: "Not Found", 405: "Method Not Allowed", 412: "Precondition Failed", 416: "Range Not Satisfiable", 500: "Internal Server Error",
    503: "Service Unavailable",
}
CODES = {403: "AccessDenied", 404: "NoSuchKey", 412: "PreconditionFailed", 416: "InvalidRange", 500: "InternalError", 503: "SlowDown"}


class Refused(Exception):
    """An answer that is an error: its status, S3's code and a sentence."""

    def __init__(self, status, code=None, message="no"):
        super().__init__(message)
        self.status, self.code, self.message = status, code or CODES.get(status, "InvalidRequest"), message


class Request:
    """One request: the method, the path's bucket and key, the query, the headers by lower-case name."""

    def __init__(self, head, rest):
        lines = head.decode("latin-1").split("\r\n")
        self.method, target, _ = lines[0].split(" ", 2)
        path, _, self.query_text = target.partition("?")
        self.path = urllib.parse.unquote(path)
        self.bucket, _, self.key = self.path[1:].partition("/")
        self.headers = {}
        for line in lines[1:]:
            name, _, value = line.partition(":")
            self.headers[name.strip().lower()] = value.strip()
        self.head, self.rest = head, rest

    def query(self):
        return dict(urllib.parse.parse_qsl(self.query_text, keep_blank_values=True))

    def kind(self):
        if self.method == "HEAD":
            return "head"
        if self.method == "GET":
            return "get" if self.key else "list"
        return "other"


class File:
    """An object that is a file, open."""

    def __init__(self, path):
        try:
            self.file = open(path, "rb")
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            raise Refused(404, message="The specified key does not exist.") from None
        status = os.fstat(self.file.fileno())
        self.size, self.modified = status.st_size, status.st_mtime
        self.tag = tag_of(status)

    def send(self, connection, start, count):
        while count > 0:
            sent = os.sendfile(connection.fileno(), self.file.fileno(), start, count)
            if sent == 0:
                raise ConnectionError("the file became shorter")
            start, count = start + sent, count - sent

    def close(self):
        self.file.close()


class Text:
    """An object of a crowd: bytes that all of them share."""

    modified = 1_700_000_000

    def __init__(self, body):
        self.body, self.size = body, len(body)
        self.tag = f'"{hash(body) & 0xFFFFFFFFFFFF:x}"'

    def send(self, connection, start, count):
        connection.sendall(self.body[start : start + count])

    def close(self):
        pass


def tag_of(status):
    return f'"{status.st_ino:x}-{status.st_mtime_ns:x}-{status.st_size:x}"'


class ObjectServer:
    """Serves a folder on a free port of the loopback interface, each connection on a thread of its own."""

    def __init__(self, folder, authorize=None):
        #: `authorize(request)` raises `Refused` when the request may not be.
        self.folder, self.authorize = os.fspath(folder), authorize
        self.lock = threading.Lock()
        self.faults, self.crowds = [], {}
        self.reset()
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.address = "127.0.0.1:%d" % self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def reset(self):
        with self.lock:
            self.requests = {"list": 0, "get": 0, "head": 0, "other": 0}
            self.bytes = self.signed = self.tokens = self.connections = 0
            self.log = []

    # ---- Connections -----------------------------------------------------------------------------------------------

    def accept(self):
        while True:
            connection, _ = self.listener.accept()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self.converse, args=(connection,), daemon=True).start()

    def converse(self, connection):
        with self.lock:
            self.connections += 1
        buffer = b""
        try:
            while True:
                while b"\r\n\r\n" not in buffer:
                    more = connection.recv(65536)
                    if not more:
                        return
                    buffer += more
                head, _, buffer = buffer.partition(b"\r\n\r\n")
                length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
                length = int(length[1]) if length else 0
                while len(buffer) < length:
                    more = connection.recv(65536)
                    if not more:
                        return
                    buffer += more
                request, buffer = Request(head, buffer[:length]), buffer[length:]
                if not self.answer(connection, request):
                    return
        except (ConnectionError, TimeoutError, OSError):
            pass
        finally:
            connection.close()

    def answer(self, connection, request):
        """Answers one request; false when the connection is to be closed."""
        if request.path.startswith("/-/"):
            return self.steer(connection, request)
        kind = request.kind()
        with self.lock:
            self.requests[kind] += 1
            self.signed += "authorization" in request.headers
            self.tokens += "x-amz-security-token" in request.headers
        fault = self.fault_for(request, kind)
        status = "-"
        try:
            if fault and (done := self.misbehave(connection, request, kind, fault)) is not None:
                status = fault["do"]
                return done
            if fault and fault["do"] in ("delay", "replace"):
                fault = None
            if self.authorize:
                self.authorize(request)
            if kind == "list":
                body = self.listing(request)
                status = 200
                self.send(connection, 200, {"Content-Type": "application/xml"}, body)
            elif kind in ("get", "head"):
                status = self.read(connection, request, kind == "head", fault)
            else:
                raise Refused(405, "MethodNotAllowed", "this server only reads")
            return status != "closed"
        except Refused as refused:
            status = refused.status
            self.refuse(connection, request, refused)
            return True
        finally:
            part = request.key if kind != "list" else request.query().get("prefix", "")
            with self.lock:
                if len(self.log) < 20_000:
                    self.log.append([kind, request.bucket, part, request.headers.get("range", ""), status])

    def send(self, connection, status, headers, body=b"", length=None):
        head = [f"HTTP/1.1 {status} {REASONS.get(status, 'Status')}", f"Content-Length: {len(body) if length is None else length}"]
        head += [f"{name}: {value}" for name, value in headers.items()]
        data = ("\r\n".join(head) + "\r\n\r\n").encode()
        if length is None:
            connection.sendall(data + body)
            self.count(len(body))
        else:
            # The body follows at once: one packet rather than two.
            connection.sendall(data, socket.MSG_MORE if length else 0)

    def count(self, sent):
        with self.lock:
            self.bytes += sent

    def refuse(self, connection, request, refused):
        body = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{refused.code}</Code><Message>{escape(refused.message)}</Message></Error>'.encode()
        headers = {"Content-Type": "application/xml"}
        if request.method == "HEAD":
            self.send(connection, refused.status, headers, length=len(body))
        else:
            self.send(connection, refused.status, headers, body)

    # ---- Objects ---------------------------------------------------------------------------------------------------

    def bucket(self, name):
        path = os.path.join(self.folder, name)
        if not name or name in (".", "..") or not os.path.isdir(path):
            raise Refused(404, "NoSuchBucket", "The specified bucket does not exist")
        return path

    def open(self, request):
        if request.bucket in self.crowds:
            keys, text = self.crowds[request.bucket]
            at = bisect.bisect_left(keys, request.key)
            if at == len(keys) or keys[at] != request.key:
                raise Refused(404, message="The specified key does not exist.")
            return text
        bucket = self.bucket(request.bucket)
        if ".." in request.key.split("/"):
            raise Refused(400)
        return File(os.path.join(bucket, request.key))

    def read(self, connection, request, head_only, fault):
        thing = self.open(request)
        try:
            preconditions(request.headers, thing)
            headers = {"ETag": thing.tag, "Last-Modified": formatdate(thing.modified, usegmt=True), "Accept-Ranges": "bytes"}
            headers["Content-Type"] = "application/octet-stream"
            status, start, count = 200, 0, thing.size
            if text := request.headers.get("range"):
                start, count = span(text, thing.size)
                status = 206
                headers["Content-Range"] = f"bytes {start}-{start + count - 1}/{thing.size}"
            if head_only:
                self.send(connection, status, headers, length=count)
                return status
            if fault:
                return self.maim(connection, fault, status, headers, thing, start, count)
            self.send(connection, status, headers, length=count)
            thing.send(connection, start, count)
            self.count(count)
            return status
        finally:
            thing.close()

    def keys(self, bucket):
        """Every key of a bucket in its order, with what is told of it."""
        folder = self.bucket(bucket)
        found = []
        for where, _, files in os.walk(folder, followlinks=True):
            for name in files:
                path = os.path.join(where, name)
                found.append((os.path.relpath(path, folder).replace(os.sep, "/"), path))
        found.sort()
        return [key for key, _ in found], [path for _, path in found]

    def listing(self, request):
        query = request.query()
        if query.get("list-type") != "2":
            raise Refused(400, "NotImplemented", "only version 2 of listing is served")
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        encode = urllib.parse.quote if query.get("encoding-type") == "url" else escape
        limit = min(int(query.get("max-keys", 1000)), 1000)
        after = query.get("start-after", "")
        if token := query.get("continuation-token"):
            after = base64.urlsafe_b64decode(token).decode()
        if request.bucket in self.crowds:
            keys, text = self.crowds[request.bucket]
            paths = None
        else:
            keys, paths = self.keys(request.bucket)
        at = max(bisect.bisect_left(keys, prefix), bisect.bisect_right(keys, after))
        parts, count, last, more = [], 0, after, False
        while at < len(keys) and keys[at].startswith(prefix):
            if count == limit:
                more = True
                break
            key = keys[at]
            cut = key.find(delimiter, len(prefix)) if delimiter else -1
            if cut >= 0:
                common = key[: cut + len(delimiter)]
                parts.append(f"<CommonPrefixes><Prefix>{encode(common)}</Prefix></CommonPrefixes>")
                last = common + LAST
                at = bisect.bisect_right(keys, last)
                count += 1
                continue
            entry = self.entry(encode(key), paths and paths[at], None if paths else text)
            if entry:
                parts.append(entry)
                count += 1
            last, at = key, at + 1
        token = f"<NextContinuationToken>{base64.urlsafe_b64encode(last.encode()).decode()}</NextContinuationToken>" if more else ""
        body = (
            '<?xml version="1.0" encoding="UTF-8"?>\n<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            f"<Name>{escape(request.bucket)}</Name><Prefix>{encode(prefix)}</Prefix><KeyCount>{count}</KeyCount><MaxKeys>{limit}</MaxKeys>"
            + (f"<Delimiter>{encode(delimiter)}</Delimiter>" if delimiter else "")
            + ("<EncodingType>url</EncodingType>" if encode is urllib.parse.quote else "")
            + f"<IsTruncated>{'true' if more else 'false'}</IsTruncated>{token}{''.join(parts)}</ListBucketResult>"
        )
        return body.encode()

    @staticmethod
    def entry(key, path, text):
        if path:
            try:
                status = os.stat(path)
            except FileNotFoundError:
                return None
            modified, size, tag = status.st_mtime, status.st_size, tag_of(status)
        else:
            modified, size, tag = text.modified, text.size, text.tag
        when = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(modified))
        return (
            f"<Contents><Key>{key}</Key><LastModified>{when}</LastModified><ETag>{escape(tag)}</ETag><Size>{size}</Size>"
            "<StorageClass>STANDARD</StorageClass></Contents>"
        )

    # ---- Faults ----------------------------------------------------------------------------------------------------

    def fault_for(self, request, kind):
        part = request.key if kind != "list" else request.query().get("prefix", "")
        with self.lock:
            for fault in self.faults:
                if fault.get("kind", "any") not in ("any", kind) or fault.get("match", "") not in part:
                    continue
                if fault.get("skip", 0) > 0:
                    fault["skip"] -= 1
                    continue
                if fault.get("times", -1) == 0:
                    continue
                fault["times"] = fault.get("times", -1) - (fault.get("times", -1) > 0)
                return dict(fault)
        return None

    def misbehave(self, connection, request, kind, fault):
        """What does not need the object; `None` when that comes later."""
        do = fault["do"]
        if do == "status":
            self.refuse(connection, request, Refused(fault.get("status", 503), message="Please reduce your request rate."))
            return True
        if do == "delay":
            time.sleep(fault["seconds"])
            return None
        if do == "stall":
            self.wait(connection)
            return False
        if do == "echo":
            self.refuse(connection, request, Refused(403, "SignatureDoesNotMatch", (request.head + b"\n" + request.rest).decode("latin-1")))
            return True
        if do == "page":
            self.send(connection, 200, {"Content-Type": "text/html"}, b"<!DOCTYPE html><html><body>Please log in<br></body></html>")
            return True
        if do == "redirect":
            self.send(connection, 307, {"Location": fault["location"]})
            return True
        if do == "replace":
            new = os.path.join(self.folder, f".{time.monotonic_ns()}")
            with open(fault["with"], "rb") as source, open(new, "wb") as target:
                target.write(source.read())
            os.replace(new, os.path.join(self.bucket(request.bucket), fault.get("key", request.key)))
            return None
        if kind == "list":
            body = self.listing(request)
            self.maim(connection, fault, 200, {"Content-Type": "application/xml"}, Text(body), 0, len(body))
            return False
        return None

    def maim(self, connection, fault, status, headers, thing, start, count):
        """Sends a body that is not what it should be."""
        do, after = fault["do"], min(fault.get("after", 0), count)
        if do == "short":
            self.send(connection, status, headers, length=after)
            thing.send(connection, start, after)
            self.count(after)
            return status
        self.send(connection, status, headers, length=count)
        if do in ("cut", "drop", "hang"):
            thing.send(connection, start, after)
            self.count(after)
            if do == "hang":
                self.wait(connection)
            if do == "drop":
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return "closed"
        if do == "drip":
            for offset in range(count):
                thing.send(connection, start + offset, 1)
                self.count(1)
                time.sleep(fault.get("every", 0.5))
            return status
        thing.send(connection, start, count)
        self.count(count)
        return status

    @staticmethod
    def wait(connection):
        """Until the client goes away."""
        while connection.recv(65536):
            pass

    # ---- Steering --------------------------------------------------------------------------------------------------

    def steer(self, connection, request):
        answer = {}
        if request.path == "/-/stats":
            with self.lock:
                answer = {
                    "requests": dict(self.requests), "bytes": self.bytes, "signed": self.signed, "tokens": self.tokens,
                    "connections": self.connections, "log": list(self.log),
                }
        elif request.path == "/-/reset":
            self.reset()
        elif request.path == "/-/faults":
            faults = json.loads(request.rest or b"[]")
            with self.lock:
                self.faults = faults
        elif request.path == "/-/crowd":
            self.crowd(**json.loads(request.rest))
        else:
            self.refuse(connection, request, Refused(404))
            return True
        self.send(connection, 200, {"Content-Type": "application/json"}, json.dumps(answer).encode())
        return True

    def crowd(self, bucket, keys, pattern, body, per=1):
        self.crowds[bucket] = (sorted(pattern.format(i=i, k=i // per) for i in range(keys)), Text(body.encode()))


def preconditions(headers, thing):
    tags = [tag.strip() for tag in headers.get("if-match", "").split(",") if tag.strip()]
    if tags and "*" not in tags and thing.tag not in tags:
        raise Refused(412, message="At least one of the pre-conditions you specified did not hold")
    if (since := headers.get("if-unmodified-since")) and not tags and int(thing.modified) > parsedate_to_datetime(since).timestamp():
        raise Refused(412, message="At least one of the pre-conditions you specified did not hold")
    if headers.get("if-none-match") in (thing.tag, "*"):
        raise Refused(304)


def span(text, size):
    """The start and the length of a range."""
    found = re.fullmatch(r"bytes=(\d*)-(\d*)", text)
    if not found or found[1] == found[2] == "":
        raise Refused(416, message="The requested range is not satisfiable")
    if found[1] == "":
        start, end = max(size - int(found[2]), 0), size
    else:
        start, end = int(found[1]), min(int(found[2]) + 1 if found[2] else size, size)
    if start >= size or end <= start:
        raise Refused(416, message="The requested range is not satisfiable")
    return start, end - start


def main():
    server = ObjectServer(sys.argv[1])
    print(f"objects {server.address}\nready", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
