"""A client of the job plane, as the existing ones are: tokens of its own, plain requests (direct-api.md 5)."""
import base64
import datetime
import hashlib
import hmac
import http.client
import json
import os
import pathlib
import time
import uuid

from node import wait_until

BASE = "/v1/swarm/self-hosted/node"
JOBS = f"{BASE}/generic-job-control/jobs"
OPS = f"{BASE}/generic-job-control/ops"
SCHEMA = "2026-06-14"
ENDED = {"succeeded", "failed", "cancelled", "expired", "blocked"}
SCOPES = {"generic": "self_hosted.generic_job.invoke", "ops": "self_hosted.generic_job.ops.read", "capabilities": "self_hosted.capabilities.read"}
SECRET = "jobs-secret-0123456789"
NODE = "shn_jobs"
ENV = {"MSWARM_SELF_HOSTED_INVOCATION_SIGNING_SECRET": SECRET, "MSWARM_SELF_HOSTED_NODE_ID": NODE}


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def mint(kind="generic", secret=SECRET, ttl=3600, **claims):
    now = int(time.time())
    deadline = datetime.datetime.fromtimestamp(now + ttl, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.000Z")
    payload = {"node_id": NODE, "scope": SCOPES[kind], "deadline_at": deadline, "iat": now, "exp": now + ttl, **claims}
    text = b64(b'{"alg":"HS256","typ":"JWT"}') + b"." + b64(json.dumps(payload).encode())
    return (text + b"." + b64(hmac.new(secret.encode(), text, hashlib.sha256).digest())).decode()


def echo(message="hi", tenant=None, scheduling=None, metadata=None, **args):
    """A request for the test runner."""
    job = {"schema_version": SCHEMA, "job_type": "tenant.test-echo", "args": {"message": message, **args}, "policy": {"trust_mode": "owner-local"}}
    if tenant or metadata:
        job["metadata"] = {**({"tenant_id": tenant} if tenant else {}), **(metadata or {})}
    if scheduling:
        job["scheduling"] = scheduling
    return job


class Jobs:
    def __init__(self, node):
        self.node = node

    def token(self, job_id, request_id="r1", job_type="tenant.test-echo", **claims):
        return mint(job_id=job_id, request_id=request_id, schema_version=SCHEMA, job_type=job_type, **claims)

    def call(self, method, path, token, body=None):
        status, _, data = self.node.request(method, path, body, {"authorization": f"Bearer {token}"})
        return status, json.loads(data)

    def create(self, job, job_id=None, request_id="r1"):
        """(status, body, job id)"""
        job_id = job_id or f"job-{uuid.uuid4()}"
        envelope = {"job_id": job_id, "request_id": request_id, "node_id": NODE, "job": job}
        status, body = self.call("POST", JOBS, self.token(job_id, request_id, job.get("job_type", "")), envelope)
        return status, body, job_id

    def queue(self, job, job_id=None):
        status, body, job_id = self.create(job, job_id)
        assert status == 202, body
        assert body["job"]["state"] == "queued" and body["events"] == [] and len(body["audit"]) == 2
        return job_id

    def get(self, job_id, rest="", **claims):
        status, body = self.call("GET", f"{JOBS}/{job_id}{rest}", self.token(job_id, **claims))
        assert status == 200, body
        return body

    def state(self, job_id):
        return self.get(job_id)["job"]["state"]

    def ended(self, job_id, limit=20):
        """The snapshot at the end."""
        seen = {}

        def is_ended():
            seen.update(self.get(job_id))
            return seen["job"]["state"] in ENDED
        wait_until(is_ended, limit, f"the end of {job_id}")
        return seen

    def ask(self, job_id, wish, **claims):
        return self.call("POST", f"{JOBS}/{job_id}/{wish}", self.token(job_id, **claims))

    def ops(self, query=""):
        status, body = self.call("GET", OPS + query, mint("ops", nonce="n"))
        assert status == 200, body
        return body


def marked(word):
    """Living processes that have this word in their environment."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if word.encode() in pathlib.Path(f"/proc/{pid}/environ").read_bytes():
                found.append(int(pid))
        except OSError:
            pass
    return found


class Follower:
    """One stream of ?follow=1; entries are (id, event, data)."""

    def __init__(self, plane, job_id, what="events", last=None, query="", timeout=60):
        self.connection = http.client.HTTPConnection(plane.node.host, plane.node.port, timeout=timeout)
        head = {"authorization": f"Bearer {plane.token(job_id)}", **({"last-event-id": last} if last else {})}
        self.connection.request("GET", f"{JOBS}/{job_id}/{what}?follow=1{query}", headers=head)
        self.answer = self.connection.getresponse()
        assert self.answer.status == 200, self.answer.read()
        assert self.answer.getheader("content-type") == "text/event-stream; charset=utf-8"

    def __iter__(self):
        entry = {}
        while True:
            line = self.answer.readline().decode()
            if not line:
                return
            line = line.rstrip("\n")
            if line.startswith(":"):
                continue
            if line:
                name, value = line.split(": ", 1)
                entry[name] = value
                continue
            if entry:
                yield entry.get("id"), entry["event"], json.loads(entry["data"])
            entry = {}

    def close(self):
        self.connection.close()
