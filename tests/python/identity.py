"""What the checks of identity share: keys that sign, tokens good and forged, certificates.

Usage: python identity.py prepare FOLDER        writes private keys, certificates and `resources/jwks.json` into FOLDER
       python identity.py publish FOLDER        serves FOLDER/resources/jwks.json over HTTP; prints `jwks ADDRESS` and `ready`
"""

import base64
import datetime
import hashlib
import hmac
import http.server
import json
import os
import pathlib
import sys
import threading
import time

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

ISSUER = "https://idp.example"
ALGORITHMS = {"RS256": jwt.algorithms.RSAAlgorithm, "ES256": jwt.algorithms.ECAlgorithm, "EdDSA": jwt.algorithms.OKPAlgorithm}


def new_key(algorithm):
    if algorithm == "RS256":
        return rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return ec.generate_private_key(ec.SECP256R1()) if algorithm == "ES256" else ed25519.Ed25519PrivateKey.generate()


def pem(key):
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def public_pem(key):
    return key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def public_jwk(algorithm, kid, key):
    written = ALGORITHMS[algorithm].to_jwk(key.public_key())
    return {**(json.loads(written) if isinstance(written, str) else written), "kid": kid, "use": "sig", "alg": algorithm}


def publish(folder, keys):
    """Writes a key set in one step; `keys` are triples of algorithm, name and key."""
    path = pathlib.Path(folder) / "resources" / "jwks.json"
    path.parent.mkdir(exist_ok=True)
    (path.parent / ".new").write_text(json.dumps({"keys": [public_jwk(*key) for key in keys]}))
    (path.parent / ".new").rename(path)


def claims(**changes):
    now = int(time.time())
    made = {"iss": ISSUER, "sub": "jane", "aud": "minerva", "iat": now, "exp": now + 600, "groups": ["analyst"], **changes}
    return {name: value for name, value in made.items() if value is not None}


def sign(algorithm, kid, key, **changes):
    return jwt.encode(claims(**changes), key, algorithm=algorithm, headers={"kid": kid} if kid else {})


def part(value):
    return base64.urlsafe_b64encode(value if isinstance(value, bytes) else json.dumps(value).encode()).rstrip(b"=").decode()


def forged(head, secret=b"", **changes):
    """A token with any head, whose signature is an HMAC with any secret, or empty."""
    signed = f"{part(head)}.{part(claims(**changes))}"
    return f"{signed}.{part(hmac.new(secret, signed.encode(), hashlib.sha256).digest() if secret else b'')}"


def certificate(name, issuer, signer, key, usage=None, authority=False, names=(), days=1):
    now = datetime.datetime.now(datetime.timezone.utc)
    made = x509.CertificateBuilder().subject_name(name).issuer_name(issuer).public_key(key.public_key())
    made = made.serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(days=2))
    made = made.not_valid_after(now + datetime.timedelta(days=days)).add_extension(x509.BasicConstraints(authority, None), True)
    if usage:
        made = made.add_extension(x509.ExtendedKeyUsage([usage]), False)
    if names:
        made = made.add_extension(x509.SubjectAlternativeName(names), False)
    return made.sign(signer, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def name_of(common, organisation="Acme"):
    return x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, organisation), x509.NameAttribute(NameOID.COMMON_NAME, common)])


def prepare(folder):
    folder = pathlib.Path(folder)
    keys = {algorithm: new_key(algorithm) for algorithm in ALGORITHMS}
    for algorithm, key in keys.items():
        (folder / f"{algorithm}.pem").write_bytes(pem(key))
    publish(folder, [(algorithm, f"one-{algorithm}", key) for algorithm, key in keys.items()])
    import ipaddress

    for authority in ["ca", "other-ca"]:
        signer = ec.generate_private_key(ec.SECP256R1())
        issuer = name_of(authority)
        (folder / f"{authority}.pem").write_bytes(certificate(issuer, issuer, signer, signer, authority=True))
        made = {
            "server": (name_of("server"), ExtendedKeyUsageOID.SERVER_AUTH, [x509.IPAddress(ipaddress.ip_address("127.0.0.1"))], 1),
            "jane": (name_of("jane"), ExtendedKeyUsageOID.CLIENT_AUTH, (), 1),
            "robot": (name_of("whatever"), ExtendedKeyUsageOID.CLIENT_AUTH, [x509.UniformResourceIdentifier("spiffe://acme/robot")], 1),
            "nobody": (name_of("nobody"), ExtendedKeyUsageOID.CLIENT_AUTH, (), 1),
            "jane-elsewhere": (name_of("jane", "Other"), ExtendedKeyUsageOID.CLIENT_AUTH, (), 1),
            "expired": (name_of("jane"), ExtendedKeyUsageOID.CLIENT_AUTH, (), -1),
        }
        for name, (subject, usage, names, days) in made.items():
            key = ec.generate_private_key(ec.SECP256R1())
            path = folder / (name if authority == "ca" else f"other-{name}")
            path.with_suffix(".pem").write_bytes(certificate(subject, issuer, signer, key, usage, names=names, days=days))
            path.with_suffix(".key").write_bytes(pem(key))


def serve_keys(folder):
    folder = pathlib.Path(folder)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            with (folder / "hits").open("a") as hits:
                hits.write(self.path + "\n")
            body = (folder / "resources" / "jwks.json").read_bytes()
            if self.path == "/moved":
                self.send_response(302)
                self.send_header("location", "/keys")
                self.end_headers()
                return
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print("jwks %s:%d\nready" % server.server_address, flush=True)
    threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
    server.serve_forever()


if __name__ == "__main__":
    {"prepare": prepare, "publish": serve_keys}[sys.argv[1]](sys.argv[2])
