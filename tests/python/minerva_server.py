"""A private Minerva for a script: the real program on free ports, with manifests and data of its own, and clients of its doors."""

import base64
import http.client
import json
import os
import signal
import subprocess
from pathlib import Path

MANIFESTS = """
name: crm
version: v2alpha
type: depot
depot: {type: FILE, description: customers, file: {path: ../source}}
---
name: notes
version: v2alpha
type: depot
depot: {type: MEMORY, description: scratch, memory: {}}
---
name: jane
version: v1
type: user
user:
  tags: [roles:id:analyst, roles:id:user]
  attributes: {region: EU}
  certificates: [{subject: "CN=jane,O=Acme"}]
---
name: boss
version: v1
type: user
user: {tags: [roles:id:boss]}
---
name: boss-acts
version: v1
type: policy
policy:
  access:
    subjects: {tags: [roles:id:boss]}
    predicates: [impersonate]
    objects: {tags: ['dataos:system:minerva:user:jane']}
    allow: true
---
name: lena
version: v1
type: user
user: {tags: [roles:id:analyst, roles:id:user], attributes: {region: US}}
---
name: tom
version: v1
type: user
user: {tags: [roles:id:user]}
---
name: customer
version: v1
type: dataset
dataset:
  address: dataos://crm:public/customer
  tags: [DPTier.Gold]
  columns:
    - {name: email, tags: [PII.Email]}
    - {name: ssn, tags: [PII.Ssn]}
---
name: analysts
version: v1
type: policy
policy:
  access:
    subjects: {tags: [[roles:id:analyst, roles:id:user]]}
    predicates: [select, read]
    objects: {paths: ['dataos://crm:public/**', '/reports/**']}
    allow: true
---
name: no-payroll
version: v1
type: policy
policy:
  access:
    subjects: {tags: [roles:id:user]}
    predicates: ['**']
    objects: {paths: ['dataos://crm:public/payroll']}
    allow: false
---
name: no-column
version: v1
type: policy
policy:
  access:
    subjects: {tags: [roles:id:user]}
    predicates: [select]
    objects: {paths: ['dataos://crm:public/columns/{ID,Note}']}
    allow: false
---
name: no-ssn
version: v1
type: policy
policy:
  access:
    subjects: {tags: [users:id:lena]}
    predicates: [select]
    objects: {tags: [[PII.Ssn, 'dataos:type:column']]}
    allow: false
---
name: scratch
version: v1
type: policy
policy:
  access:
    subjects: {tags: [roles:id:analyst]}
    predicates: [select, write]
    objects: {paths: ['dataos://notes:**']}
    allow: true
---
name: mask-email
version: v1
type: policy
policy:
  data:
    type: mask
    priority: 10
    selector: {user: {match: any, tags: [roles:id:analyst]}, column: {tags: [PII.Email]}}
    mask: {operator: redact, redact: {replacement: geheimwort}}
---
name: own-region
version: v1
type: policy
policy:
  data:
    type: filter
    priority: 10
    depot: crm
    collection: public
    dataset: customer
    selector: {user: {match: any, tags: [roles:id:analyst]}}
    filters:
      - {column: region, operator: equals, value: '${user.attributes.region}'}
---
name: broken-filter
version: v1
type: policy
policy:
  data:
    type: filter
    priority: 10
    depot: crm
    collection: public
    dataset: broken
    selector: {user: {match: any, tags: [roles:id:analyst]}}
    filters:
      - {column: nowhere, operator: equals, value: x}
"""

FILES = {
    "public/customer.csv": "id,name,email,ssn,region\n1,Ann,kanari1@x.com,111,EU\n2,Bob,kanari2@x.com,222,US\n3,Eva,kanari3@x.com,333,EU\n",
    "public/payroll.csv": "id,wage\n1,5\n",
    "public/broken.csv": "id,note\n1,x\n",
    "public/columns.csv": "id,note\n1,x\n",
    "secret/plan.csv": "id,plan\n1,kanariplan\n",
}


class Server:
    """A coordinator in `folder`; started, stopped and started again."""

    def __init__(self, program, folder, *flags):
        self.program, self.folder, self.flags = program, Path(folder), flags
        self.keys, self.process = {}, None
        for name, text in FILES.items():
            path = self.folder / "source" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        (self.folder / "resources").mkdir(exist_ok=True)
        (self.folder / "resources/all.yaml").write_text(MANIFESTS)

    def start(self):
        command = [self.program, "serve", "--resources", self.folder / "resources", "--data", self.folder / "data", "--workers", "1"]
        for door in ("http", "flight", "cluster"):
            command += [f"--{door}-port", "0"]
        log = open(self.folder / "log.txt", "ab")
        self.process = subprocess.Popen(command + list(self.flags), stdout=subprocess.PIPE, stderr=log, text=True)
        self.addresses = {}
        for line in self.process.stdout:
            if line.strip() == "ready":
                break
            name, address = line.split()
            self.addresses[name] = address
        else:
            raise AssertionError(f"the server did not start:\n{self.log()}")
        self.keys["admin"] = (self.folder / "data/admin-key").read_text().strip()
        return self

    def log(self):
        return (self.folder / "log.txt").read_text()

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(timeout=60)
        assert code == 0, f"it left with {code}:\n{self.log()}"

    def kill(self):
        self.process.kill()
        self.process.wait(timeout=60)

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.kill()

    def client(self, *words, user="admin", stdin=None):
        environment = {name: value for name, value in os.environ.items() if not name.startswith("MINERVA_")}
        command = [self.program, *words, "--server", self.addresses["flight"], "--data", str(self.folder / "data")]
        if user != "admin":
            command += ["--user", user]
            environment["MINERVA_APIKEY"] = self.key(user)
        return subprocess.run(command, capture_output=True, text=True, env=environment, input=stdin, check=False)

    def key(self, user):
        if user not in self.keys:
            made = self.client("user", "apikey", "create", "-u", user, "-d", "1h")
            assert made.returncode == 0, made.stderr
            self.keys[user] = made.stdout.strip()
        return self.keys[user]

    def rows(self, user, sql):
        """The rows of a statement as dictionaries."""
        done = self.client("sql", "--output-format", "JSON", "-e", sql, user=user)
        assert done.returncode == 0, f"{sql}\n{done.stderr}"
        text = done.stdout.strip()
        return json.loads(text) if text.startswith("[") else [json.loads(line) for line in text.splitlines()]

    def error(self, user, sql):
        """What a failing statement says."""
        done = self.client("sql", "-e", sql, user=user)
        assert done.returncode != 0, f"{sql} succeeded:\n{done.stdout}"
        return done.stderr

    # ---- HTTP ----------------------------------------------------------------------------------------------------------

    def http(self, method, path, user=None, body=None, headers=()):
        """Status, headers and document of an answer."""
        host, port = self.addresses["http"].rsplit(":", 1)
        connection = http.client.HTTPConnection(host, int(port), timeout=60)
        sent = dict(headers)
        if user is not None:
            pair = f"{user}:{self.key(user)}".encode()
            sent["Authorization"] = "Basic " + base64.b64encode(pair).decode()
        if isinstance(body, (dict, list)):
            body = json.dumps(body)
        try:
            connection.request(method, path, body=body, headers=sent)
            answer = connection.getresponse()
            text = answer.read().decode()
        finally:
            connection.close()
        document = json.loads(text) if text.strip() else None
        return answer.status, dict(answer.getheaders()), document

    def get(self, path, user=None, **more):
        status, _, document = self.http("GET", path, user, **more)
        return status, document

    def post(self, path, body, **more):
        status, _, document = self.http("POST", path, body=body, **more)
        return status, document
