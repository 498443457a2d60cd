"""Artifacts: uploads in JSON and as they are, resumed after a cut, downloads with ranges, inputs and outputs of jobs, room. 2.11, 3.10."""
import base64
import hashlib
import http.client
import json
import os
import socket
import urllib.parse

import pytest
from conftest import slow
from jobs import JOBS, echo
from node import is_sanitized, wait_until

MIB = 1 << 20
BIG = 128 * MIB if os.environ.get("MSWARM_FULL") else 48 * MIB


@pytest.fixture
def plane(make_plane):
    return make_plane(2)


def noise(n, seed=b"x"):
    """n bytes that look like none in particular."""
    block = hashlib.shake_256(seed).digest(min(n, MIB))
    return (block * (n // len(block) + 1))[:n] if n else b""


def sha(data):
    return hashlib.sha256(data).hexdigest()


def upload(plane, job_id, path, data, **more):
    """(status, body), as existing clients send it."""
    job = urllib.parse.quote(job_id, safe="")
    body = {"name": path.rsplit("/", 1)[-1], "path": path, "content_base64": base64.b64encode(data).decode(), **more}
    return plane.call("POST", f"{JOBS}/{job}/artifacts", plane.token(job_id), body)


def url_of(job_id, path):
    return f"{JOBS}/{urllib.parse.quote(job_id, safe='')}/artifacts/{urllib.parse.quote(path)}"


def file(plane, method, job_id, path, body=None, **head):
    """(status, headers, bytes)"""
    named = {k.replace("_", "-"): v for k, v in head.items()}
    connection = http.client.HTTPConnection(plane.node.host, plane.node.port, timeout=slow(60))
    connection.request(method, url_of(job_id, path), body, {"authorization": f"Bearer {plane.token(job_id)}", **named})
    answer = connection.getresponse()
    data = answer.read()
    connection.close()
    return answer.status, {k.lower(): v for k, v in answer.getheaders()}, data


def files_on_disk(plane):
    return sorted(p for p in (plane.node.state_dir / "artifacts" / "@files").glob("*/*"))


def refused(answer):
    status, body = answer
    return status, body["code"], body["message"]


# ---- R7 ----

def test_an_upload_in_json(plane):
    data = b"hello"
    status, body = upload(plane, "j/1", "a/./up.txt", data, sha256=sha(data), size_bytes=5, content_type=" text/plain ")
    assert status == 201 and body == {"job_id": "j/1", "artifact": {
        "id": "upload_" + sha(data)[:16], "uri": "artifact://local/j_1/a/up.txt", "name": "up.txt", "content_type": "text/plain",
        "size_bytes": 5, "sha256": sha(data), "scope": "input",
        "access": {"visibility": "owner-local", "read_by": ["runner", "owner"], "write_by": ["runner", "owner"]},
        "retention": {"retain_for_seconds": 86400}}}
    assert list(body["artifact"]) == [
        "id", "uri", "name", "content_type", "size_bytes", "sha256", "scope", "access", "retention"]
    assert refused(upload(plane, "j/1", "a/up.txt", data)) == (400, "validation_failed", "artifact_upload_target_exists")
    assert file(plane, "GET", "j/1", "a/up.txt")[2] == data
    assert [oct(p.stat().st_mode & 0o777) for p in files_on_disk(plane)] == ["0o600"]


@pytest.mark.parametrize("change, message", [
    ({"path": None}, "artifact_path_path_required"),
    ({"path": " "}, "artifact_path_path_required"),
    ({"path": "a\u0000b"}, "artifact_path_null_byte"),
    ({"path": "a\\b"}, "artifact_path_backslash_not_allowed"),
    ({"path": "/etc/passwd"}, "artifact_path_absolute_path_not_allowed"),
    ({"path": "C:/x"}, "artifact_path_absolute_path_not_allowed"),
    ({"path": "file:x"}, "artifact_path_uri_path_not_allowed"),
    ({"path": "./."}, "artifact_path_path_required"),
    ({"path": "a/../b"}, "artifact_path_parent_path_not_allowed"),
    ({"path": "x" * 256}, "artifact_path_path_segment_too_long"),
    ({"content_base64": None}, "content_base64_required"),
    ({"content_base64": " \n"}, "content_base64_required"),
    ({"content_base64": 7}, "content_base64_required"),
    ({"content_base64": "a-b_"}, "content_base64_invalid"),
    ({"content_base64": "aGVsbG8"[:5]}, "content_base64_invalid"),
    ({"content_base64": "aG=VsbG8"}, "content_base64_invalid"),
    ({"size_bytes": 6}, "artifact_upload_size_mismatch"),
    ({"size_bytes": 5.5}, "artifact_upload_size_mismatch"),
    ({"sha256": "A" * 64}, "artifact_upload_checksum_mismatch"),
    ({"sha256": "short"}, "artifact_upload_checksum_mismatch"),
])
def test_an_upload_that_is_refused(plane, change, message):
    body = {"path": "up.txt", "content_base64": "aGVsbG8=", **change}
    assert refused(plane.call("POST", f"{JOBS}/j1/artifacts", plane.token("j1"), body)) == (400, "validation_failed", message)
    wait_until(lambda: files_on_disk(plane) == [], slow(10), "nothing half-written")


def post(plane, body, job_id="j1", content_type="application/json", token=None):
    status, _, data = plane.node.request("POST", f"{JOBS}/{job_id}/artifacts", body, {
        "authorization": f"Bearer {token or plane.token(job_id)}", **({"content-type": content_type} if content_type else {})})
    return status, json.loads(data)


def test_bodies_of_all_kinds(plane):
    # members in any order, escapes inside the content, blanks, no padding
    text = b'{"content_base64" : "aGVs\\/\\nb\\u0047\\t8" , "x": {"content_base64": "no"}, "path":"a"}'
    data = base64.b64decode("aGVs/bG8=")
    status, body = post(plane, text)
    assert status == 201 and body["artifact"]["sha256"] == sha(data) and body["artifact"]["name"] == "a"
    assert post(plane, b'{"path":"b","content\\u005fbase64":"aGVsbG8"}')[1]["artifact"]["size_bytes"] == 5
    for bad in (b"", b"{", b"nonsense", b'{"path":"c","content_base64":"aGVs\x01bG8="}', b'{"path":"c","content_base64":"aGVs\\x"}',
                b'{"path":"c","content_base64":"aGVsbG8="'):
        status, body = post(plane, bad)
        assert status == 400 and body["code"] in ("FST_ERR_CTP_INVALID_JSON_BODY", "FST_ERR_CTP_EMPTY_JSON_BODY"), (bad, body)
    assert post(plane, b"[]")[1]["message"] == "artifact_path_path_required"
    assert post(plane, b"x", content_type="text/html")[0] == 415
    assert "twice" in post(plane, b'{"content_base64":"aGVs","content_base64":"aGVs","path":"d"}')[1]["message"]
    assert post(plane, b'{"path":"d","note":"' + b"x" * MIB + b'","content_base64":"aGVs"}')[0] == 413
    assert post(plane, b'{"path":"e","content_base64":"aGVs"}', token=plane.token("other"))[1]["message"] == \
        "generic job token does not match this node or job"
    assert refused(upload(plane, "..", "x", b"x"))[2] == "job_id_parent_path_not_allowed"
    wait_until(lambda: len(files_on_disk(plane)) == 2, slow(10), "only what was taken to be there")


class Peak:
    """The most memory that a node had since it was begun."""

    def __init__(self, node):
        self.pid = node.process.pid
        open(f"/proc/{self.pid}/clear_refs", "w").write("5")
        self.before = self.now()

    def now(self):
        return int(next(line.split()[1] for line in open(f"/proc/{self.pid}/status") if line.startswith("VmHWM:"))) << 10

    def grown(self):
        return self.now() - self.before


def test_a_large_one_needs_little_memory(plane):
    data = noise(BIG)
    body = json.dumps({"path": "big", "content_base64": base64.b64encode(data).decode(), "sha256": sha(data), "size_bytes": BIG}).encode()
    upload(plane, "warm", "x", noise(MIB))
    peak = Peak(plane.node)
    status, _, answer = plane.node.request("POST", f"{JOBS}/j1/artifacts", body, {
        "authorization": f"Bearer {plane.token('j1')}", "content-type": "application/json"}, limit=slow(120))
    assert status == 201, answer
    print(f"{BIG} bytes in JSON: {peak.grown()} bytes of memory")
    if not is_sanitized():
        assert peak.grown() <= 4 * MIB
    peak = Peak(plane.node)
    status, head, got = file(plane, "GET", "j1", "big")
    assert status == 200 and int(head["content-length"]) == BIG and sha(got) == sha(data)
    print(f"and out again: {peak.grown()}")
    if not is_sanitized():
        assert peak.grown() <= 4 * MIB


# ---- PUT ----

def test_a_file_as_it_is(plane):
    data = noise(3 * MIB + 7)
    digest = base64.b64encode(hashlib.sha256(data).digest()).decode()
    status, head, body = file(plane, "PUT", "j1", "dir/é v.bin", data, content_type="application/x-noise", repr_digest=f"sha-256=:{digest}:")
    artifact = json.loads(body)["artifact"]
    assert status == 201 and artifact["sha256"] == sha(data) and artifact["uri"] == "artifact://local/j1/dir/é v.bin"
    assert "upload-offset" not in head
    status, _, body = file(plane, "PUT", "j1", "dir/é v.bin", data)
    assert status == 409 and json.loads(body) == {"error": "conflict", "code": "conflict", "message": "artifact_upload_target_exists"}
    assert file(plane, "PUT", "j1", "wrong", data, repr_digest=f"sha-256=:{digest[::-1]}:")[0] == 400
    assert file(plane, "PUT", "j1", "wrong", data[1:], repr_digest=f"sha-256=:{digest}:")[0] == 400
    assert file(plane, "PUT", "j1", "short", data, upload_length="5")[0] == 400
    assert file(plane, "PUT", "j1", "empty", b"")[0] == 201 and file(plane, "GET", "j1", "empty")[0::2] == (200, b"")
    assert file(plane, "PUT", "j1", "chunked", iter([data[:5], data[5:]]))[0] == 201
    assert file(plane, "GET", "j1", "chunked")[2] == data
    assert len(files_on_disk(plane)) == 3
    for path in ("../x", "a/../../x", "%2e%2e/x", "a%2f..%2f..%2fx"):
        connection = http.client.HTTPConnection(plane.node.host, plane.node.port)
        connection.request("PUT", f"{JOBS}/j1/artifacts/{path}", b"x", {"authorization": f"Bearer {plane.token('j1')}"})
        answer = connection.getresponse()
        assert answer.status == 400 and b"parent_path_not_allowed" in answer.read()


def test_in_pieces(plane):
    data = noise(MIB)
    status, head, _ = file(plane, "PUT", "j1", "p", data[:300000], upload_complete="?0", upload_length=str(MIB))
    assert (status, head["upload-offset"], head["upload-complete"]) == (201, "300000", "?0") and head["location"].endswith("/artifacts/p")
    status, head, _ = file(plane, "HEAD", "j1", "p")
    assert (status, head["upload-offset"], head["upload-complete"], head["upload-length"]) == (204, "300000", "?0", str(MIB))
    assert file(plane, "GET", "j1", "p")[0] == 404, "not whole: not there"
    status, head, body = file(plane, "PATCH", "j1", "p", data[5:], upload_offset="5", upload_complete="?0")
    assert status == 409 and head["upload-offset"] == "300000", body
    status, head, _ = file(plane, "PATCH", "j1", "p", data[300000:300001], upload_offset="300000", upload_complete="?0")
    assert (status, head["upload-offset"]) == (204, "300001")
    plane.node.kill()
    plane.node.start()
    status, head, body = file(plane, "PATCH", "j1", "p", data[300001:], upload_offset="300001", upload_complete="?1")
    assert status == 201 and json.loads(body)["artifact"]["sha256"] == sha(data) and head["upload-complete"] == "?1"
    assert file(plane, "GET", "j1", "p")[2] == data
    assert file(plane, "PATCH", "j1", "p", b"x", upload_offset=str(MIB))[0] == 409
    assert file(plane, "PATCH", "j1", "none", b"x", upload_offset="1")[0] == 404
    assert file(plane, "PATCH", "j1", "none", b"x")[0] == 400


def cut_off(plane, path, data, sent, **head):
    """A PUT whose connection breaks after so many bytes."""
    s = socket.create_connection((plane.node.host, plane.node.port))
    named = "".join(f"{k.replace('_', '-')}: {v}\r\n" for k, v in head.items())
    s.sendall(f"PUT {url_of('j1', path)} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {plane.token('j1')}\r\n"
              f"content-length: {len(data)}\r\n{named}\r\n".encode() + data[:sent])
    return s


def test_a_connection_lost_in_the_middle(plane):
    data = noise(5 * MIB)
    cut_off(plane, "kept", data, 3 * MIB, upload_complete="?1").close()
    cut_off(plane, "lost", data, 3 * MIB).close()
    offset = wait_until(lambda: file(plane, "HEAD", "j1", "kept")[1].get("upload-offset"), slow(20), "what came is kept")
    assert int(offset) == 3 * MIB
    wait_until(lambda: len(files_on_disk(plane)) == 1, slow(10), "the other one is gone")
    assert file(plane, "HEAD", "j1", "lost")[0] == 404
    status, _, body = file(plane, "PATCH", "j1", "kept", data[3 * MIB:], upload_offset=offset)
    assert status == 201 and json.loads(body)["artifact"]["sha256"] == sha(data)
    # begun anew instead of gone on with: the beginning gives way
    cut_off(plane, "again", data, MIB, upload_complete="?1").close()
    wait_until(lambda: file(plane, "HEAD", "j1", "again")[0] == 204, slow(20), "begun")
    assert file(plane, "PUT", "j1", "again", data)[0] == 201
    wait_until(lambda: len(files_on_disk(plane)) == 2, slow(10), "two files")


def test_killed_in_the_middle(plane):
    data = noise(5 * MIB)
    s = cut_off(plane, "x", data, 4 * MIB, upload_complete="?1")
    wait_until(lambda: [p for p in files_on_disk(plane) if p.stat().st_size > MIB], slow(10), "it is being written")
    plane.node.kill()
    s.close()
    plane.node.start()
    wait_until(lambda: files_on_disk(plane) == [], slow(30), "what nobody was told of is swept")
    assert file(plane, "PUT", "j1", "x", data)[0] == 201 and file(plane, "GET", "j1", "x")[2] == data


def test_a_resumable_one_goes_on_after_a_kill(plane):
    data = noise(75 * MIB)
    s = cut_off(plane, "big", data, 70 * MIB, upload_complete="?1")
    wait_until(lambda: [p for p in files_on_disk(plane) if p.stat().st_size >= 65 * MIB], slow(60), "it is being written")
    plane.node.kill()
    s.close()
    plane.node.start()
    offset = int(file(plane, "HEAD", "j1", "big")[1]["upload-offset"])
    assert offset == 64 * MIB
    status, _, body = file(plane, "PATCH", "j1", "big", data[offset:], upload_offset=str(offset), upload_complete="?1")
    assert status == 201 and json.loads(body)["artifact"]["sha256"] == sha(data)
    assert [p.stat().st_size for p in files_on_disk(plane)] == [75 * MIB]
    # begun anew, checkpoints and all: the file of before gives way
    cut_off(plane, "twice", data, 40 * MIB, upload_complete="?1").close()
    wait_until(lambda: file(plane, "HEAD", "j1", "twice")[0] == 204, slow(20), "begun")
    assert file(plane, "PUT", "j1", "twice", data, upload_complete="?1")[0] == 201
    wait_until(lambda: len(files_on_disk(plane)) == 2, slow(20), "two files")


# ---- downloads ----

def test_ranges_and_validators(plane):
    data = noise(300000)
    assert file(plane, "PUT", "j1", "a/frame.png", data)[0] == 201
    status, head, got = file(plane, "GET", "j1", "a/frame.png")
    etag = head["etag"]
    assert status == 200 and got == data and etag == f'"{sha(data)}"' and head["content-type"] == "image/png" and head["accept-ranges"] == "bytes"
    assert head["x-content-type-options"] == "nosniff" and "frame.png" in head["content-disposition"]
    assert file(plane, "HEAD", "j1", "a/frame.png")[1]["content-length"] == "300000"
    by_id = file(plane, "GET", "j1", "upload_" + sha(data)[:16])
    assert by_id[0] == 200 and by_id[2] == data
    for header, want, said in (("bytes=0-0", data[:1], "0-0"), ("bytes=299990-", data[-10:], "299990-299999"), ("bytes=-7", data[-7:], "299993-299999"),
                               ("bytes=100-999999999", data[100:], "100-299999"), ("bytes=-999999999", data, "0-299999")):
        status, head, got = file(plane, "GET", "j1", "a/frame.png", range=header)
        assert (status, got == want, head["content-range"], head["content-length"]) == (206, True, f"bytes {said}/300000", str(len(want))), header
    for header in ("bytes=5-2", "lines=1-2", "bytes=0-1,5-6", "bytes=x-", "bytes=-"):
        assert file(plane, "GET", "j1", "a/frame.png", range=header)[0] == 200, header
    for header in ("bytes=300000-", "bytes=-0"):
        status, head, _ = file(plane, "GET", "j1", "a/frame.png", range=header)
        assert status == 416 and head["content-range"] == "bytes */300000", header
    assert file(plane, "GET", "j1", "a/frame.png", range="bytes=0-1", if_range=etag)[0] == 206
    assert file(plane, "GET", "j1", "a/frame.png", range="bytes=0-1", if_range='"other"')[0] == 200
    assert file(plane, "GET", "j1", "a/frame.png", if_none_match=f'"x", W/{etag}')[0] == 304
    assert file(plane, "GET", "j1", "a/none.png")[0] == 404
    assert file(plane, "DELETE", "j1", "a/frame.png")[0] == 204 and file(plane, "DELETE", "j1", "a/frame.png")[0] == 404
    wait_until(lambda: files_on_disk(plane) == [], slow(10), "its file is gone")


def test_a_type_that_is_none(plane):
    upload(plane, "j1", "page.html", b"<script>", content_type="text/html\r\nx: y")
    status, head, _ = file(plane, "GET", "j1", "page.html")
    assert status == 200 and head["content-type"].startswith("text/html") and head["content-security-policy"] == "sandbox" and "x" not in head


# ---- inputs and outputs ----

def reads(*uris, tenant=None, **more):
    job = echo("hi", tenant=tenant, delay_ms=int(slow(0.6) * 1000))
    job["inputs"] = [{"name": f"in{i}", "artifact": {"uri": uri, **more}, "required": True} for i, uri in enumerate(uris)]
    return job


def work_of(plane, attempt="*"):
    found = list((plane.node.state_dir / "artifacts" / "@work").glob(f"*-{attempt}"))
    return found[0] if found else None


def wait_begun(plane, job_id, work):
    """Its inputs are there and its shim runs; "running" is said earlier, when it is claimed."""
    key, attempt = work.name.rsplit("-", 1)
    pid = plane.node.state_dir / "jobs" / key / attempt / "pid"
    wait_until(lambda: plane.state(job_id) == "running" and pid.exists() and pid.stat().st_size, slow(20), "it runs")


def test_an_upload_is_an_input(plane):
    uri = upload(plane, "up", "scene.blend", b"scene")[1]["artifact"]["uri"]
    upload(plane, "up", "outputs/other", b"other")
    job = reads(uri, "artifact://local/up/other", "artifact://local/up/outputs/other")
    job["inputs"][0]["mount_path"] = "deep/er/scene.blend"
    job_id = plane.queue(job)
    work = wait_until(lambda: work_of(plane), slow(20), "its directory")
    wait_begun(plane, job_id, work)
    assert (work / "inputs/deep/er/scene.blend").read_bytes() == b"scene"
    assert {p.stat().st_mode & 0o77 for p in [work, *work.rglob("*")]} == {0}, "nobody else's"
    assert (work / "inputs/in1").read_bytes() == b"other" == (work / "inputs/in2").read_bytes()
    assert plane.ended(job_id, slow(20))["job"]["state"] == "succeeded"
    wait_until(lambda: work_of(plane) is None, slow(10), "it is removed")
    # to the job of the same id too, before it exists and when it runs again
    uri = upload(plane, "self", "x", b"x")[1]["artifact"]["uri"]
    plane.queue(reads(uri), "self")
    assert plane.ended("self", slow(20))["job"]["state"] == "succeeded"
    assert file(plane, "GET", "self", "x")[2] == b"x", "starting never wipes uploads"


@pytest.mark.parametrize("change, message", [
    ({"uri": "artifact://local/up/none"}, "input_artifact_unavailable"),
    ({"uri": "artifact://elsewhere/up/x"}, "input_artifact_unavailable"),
    ({"uri": "artifact://local/up/%2e%2e/x"}, "input_artifact_unavailable"),
    ({"sha256": "0" * 64}, "input_artifact_checksum_mismatch"),
    ({"size_bytes": 2}, "input_artifact_size_mismatch"),
])
def test_an_input_that_is_not_there(plane, change, message):
    upload(plane, "up", "x", b"x")
    job = reads("artifact://local/up/x")
    job["inputs"][0]["artifact"].update(change)
    end = plane.ended(plane.queue(job), slow(20))
    assert end["job"]["state"] == "failed" and end["job"]["result"]["error"] == {"code": "validation_failed", "message": message, "retryable": False}
    assert [e["type"] for e in end["events"]] == ["failed"]


def test_limits_and_places_of_inputs(plane):
    upload(plane, "up", "x", b"xyz")
    uri = "artifact://local/up/x"
    job = reads(uri)
    job["policy"]["max_artifact_bytes"] = 2
    twice = reads(uri, uri)
    twice["inputs"][0]["mount_path"] = twice["inputs"][1]["mount_path"] = "same"
    under = reads(uri, uri)
    under["inputs"][0]["mount_path"], under["inputs"][1]["mount_path"] = "a", "a/b"
    optional = reads("artifact://local/up/none")
    optional["inputs"][0]["required"] = False
    ends = [plane.ended(plane.queue(j), slow(20))["job"]["result"] for j in (job, twice, under, optional)]
    assert [e.get("error", {}).get("message") for e in ends] == ["input_artifact_size_limit_exceeded", "input_mount_path_conflict",
                                                                  "input_mount_path_conflict", None]


def test_a_file_of_another_tenant(plane):
    job = echo(tenant="a")
    plane.queue(job, "of-a")
    plane.ended("of-a", slow(20))
    uri = upload(plane, "of-a", "x", b"x")[1]["artifact"]["uri"]
    assert plane.ended(plane.queue(reads(uri, tenant="b")), slow(20))["job"]["result"]["error"]["message"] == "input_artifact_unavailable"
    assert plane.ended(plane.queue(reads(uri, tenant="a")), slow(20))["job"]["state"] == "succeeded"


def writes(*outputs, **more):
    """A job with outputs; a test puts them in its directory while it runs."""
    job = echo("hi", delay_ms=int(slow(0.6) * 1000))
    job["outputs"] = [{"name": path, "path": path, **more} for path in outputs]
    return job


def running(plane, job, job_id=None):
    job_id = plane.queue(job, job_id)
    work = wait_until(lambda: work_of(plane), slow(20), "its directory")
    wait_begun(plane, job_id, work)
    return job_id, work / "outputs"


def test_outputs_are_kept(plane):
    job = writes("frames", required=True)
    job["outputs"].append({"name": "log", "path": "log.txt", "content_type": "text/x-log"})
    job_id, out = running(plane, job, "job:1")
    (out / "frames" / "b").mkdir(parents=True)
    (out / "frames" / "b" / "2.png").write_bytes(b"two")
    (out / "frames" / "1.png").write_bytes(b"one")
    (out / "log.txt").write_bytes(b"")
    (out / "not-declared").write_bytes(b"x")
    s = plane.ended(job_id, slow(30))
    first = {
        "id": "output_" + hashlib.sha256(b"job:1:frames/1.png").hexdigest()[:16], "job_id": "job:1", "name": "frames/frames/1.png",
        "uri": "artifact://local/job_1/frames/1.png", "size_bytes": 3, "sha256": sha(b"one"), "scope": "output",
        "registered_at": s["artifacts"][0]["registered_at"], "store": {"backend": "local-dev", "root_uri": "artifact://local/job_1"},
        "access": {"visibility": "owner-local", "read_by": ["runner", "owner"], "write_by": ["runner", "owner"]},
        "retention": {"retain_for_seconds": 86400}}
    assert s["job"]["state"] == "succeeded" and s["artifacts"][0] == first and list(s["artifacts"][0]) == list(first)
    assert [(a["name"], a["size_bytes"], a.get("content_type")) for a in s["artifacts"]] == [
        ("frames/frames/1.png", 3, None), ("frames/frames/b/2.png", 3, None), ("log", 0, "text/x-log")]
    assert [e["type"] for e in s["events"]] == ["started", "stdout", "progress", "artifact", "artifact", "artifact", "completed"]
    assert s["events"][3]["message"] == "output artifact collected" and s["events"][3]["data"] == {"artifact": first}
    assert s["job"]["result"]["artifacts"] == s["artifacts"] == plane.get(job_id, "/artifacts")["artifacts"]
    row = plane.ops()["queue"]["jobs"][0]
    assert (row["artifact_count"], row["artifact_bytes"]) == (3, 6)
    for path, data in (("frames/1.png", b"one"), ("frames/b/2.png", b"two"), ("log.txt", b""), (first["id"], b"one")):
        assert file(plane, "GET", job_id, path)[2] == data
    assert refused(upload(plane, job_id, "outputs/log.txt", b"x"))[2] == "artifact_upload_target_exists"
    # another job takes it in, by both forms
    assert plane.ended(plane.queue(reads(first["uri"], "artifact://local/job_1/outputs/frames/1.png")), slow(20))["job"]["state"] == "succeeded"
    # a restart knows them still
    plane.node.kill()
    plane.node.start()
    assert file(plane, "GET", job_id, "frames/b/2.png")[2] == b"two"


@pytest.mark.parametrize("make, message", [
    (lambda out: None, "required_output_missing: o"),
    (lambda out: (out / "o").mkdir(), "required_output_missing: o"),
    (lambda out: (out / "o").symlink_to("/etc/hostname"), "output_symlink_not_allowed"),
    (lambda out: (out / "o").mkdir() or (out / "o" / "d").symlink_to("/etc"), "output_symlink_not_allowed"),
    (lambda out: os.mkfifo(out / "o"), "output_entry_type_not_allowed"),
    (lambda out: (out / "o").write_bytes(b"x" * 101), "output_artifact_size_limit_exceeded"),
    (lambda out: (out / "o").mkdir() or [(out / "o" / str(i)).write_bytes(b"x" * 60) for i in (1, 2)], "output_size_limit_exceeded"),
])
def test_outputs_that_are_refused(plane, make, message):
    job = writes("o", required=True)
    job["limits"] = {"max_output_bytes": 100}
    job_id, out = running(plane, job)
    make(out)
    s = plane.ended(job_id, slow(30))
    assert s["job"]["state"] == "failed" and s["job"]["result"]["error"]["message"] == message, s["job"]["result"]
    assert s["job"]["result"]["error"]["code"] == "runner_error" and s["artifacts"] == []


def test_what_a_stopped_job_has_done_is_kept(plane):
    job_id, out = running(plane, writes("o", required=True))
    (out / "o").write_bytes(b"half")
    plane.ask(job_id, "cancel")
    s = plane.ended(job_id, slow(30))
    assert s["job"]["state"] == "cancelled" and [a["size_bytes"] for a in s["artifacts"]] == [4]
    # tried again: those of the new attempt stand in their place
    assert plane.ask(job_id, "retry")[0] == 202
    work = wait_until(lambda: work_of(plane, 2), slow(20), "the directory of its second attempt")
    wait_begun(plane, job_id, work)
    (work / "outputs" / "o").write_bytes(b"whole")
    assert plane.ended(job_id, slow(30))["artifacts"][0]["sha256"] == sha(b"whole") and file(plane, "GET", job_id, "o")[2] == b"whole"
    wait_until(lambda: len(files_on_disk(plane)) == 1, slow(10), "one file")


def test_nothing_is_planted_into_a_running_job(plane):
    job_id, _ = running(plane, writes("o"))
    assert refused(upload(plane, job_id, "outputs/o", b"x")) == (400, "validation_failed", "artifact_upload_outputs_of_a_running_job")
    assert upload(plane, job_id, "notes", b"x")[0] == 201
    plane.ended(job_id, slow(30))


def test_a_node_killed_while_outputs_lie_there(plane):
    job_id, out = running(plane, writes("o", required=True))
    (out / "o").write_bytes(b"kept")
    plane.node.kill()
    wait_until(lambda: [f for f in (plane.node.state_dir / "jobs").glob("*/*/exit") if f.stat().st_size], slow(30), "the shim has ended")
    plane.node.start()
    assert plane.ended(job_id, slow(30))["artifacts"][0]["sha256"] == sha(b"kept") and file(plane, "GET", job_id, "o")[2] == b"kept"


def test_two_ids_never_meet(plane):
    """W16, weakness 19: a/b and a_b."""
    first, second = (upload(plane, job_id, "x", job_id.encode())[1]["artifact"]["uri"] for job_id in ("a_b", "a/b"))
    assert first == "artifact://local/a_b/x" and second.startswith("artifact://local/a_b~") and second.endswith("/x")
    assert file(plane, "GET", "a_b", "x")[2] == b"a_b" and file(plane, "GET", "a/b", "x")[2] == b"a/b"
    job_id = plane.queue(reads(second))
    work = wait_until(lambda: work_of(plane), slow(20), "its directory")
    wait_begun(plane, job_id, work)
    assert (work / "inputs" / "in0").read_bytes() == b"a/b"
    plane.ended(job_id, slow(20))


# ---- room ----

def test_a_quota(make_plane):
    plane = make_plane(env={"MSWARM_ARTIFACT_QUOTA_MB": "2"})
    assert upload(plane, "j1", "a", noise(MIB))[0] == 201
    for answer in (upload(plane, "j1", "b", noise(MIB + 1)), file(plane, "PUT", "j1", "b", noise(MIB + 1))[0::2],
                   file(plane, "PUT", "j1", "b", iter([noise(700000)] * 2))[0::2]):
        status, body = answer
        body = body if isinstance(body, dict) else json.loads(body)
        assert status == 507 and body["code"] == body["error"] == "insufficient_storage" and "2097152" in body["message"], body
    wait_until(lambda: len(files_on_disk(plane)) == 1, slow(10), "nothing half-written")
    job_id = plane.queue(reads(*["artifact://local/j1/a"] * 3))
    s = plane.ended(job_id, slow(20))
    assert s["job"]["state"] == "failed" and "2097152" in s["job"]["result"]["error"]["message"], s["job"]["result"]
    wait_until(lambda: work_of(plane) is None, slow(10), "what was placed is removed")
    assert file(plane, "DELETE", "j1", "a")[0] == 204
    assert upload(plane, "j1", "b", noise(MIB))[0] == 201, "there is room again"


def test_a_full_disk(make_plane, small_disk):
    plane = make_plane(env={"MSWARM_SELF_HOSTED_ARTIFACT_STORE_PATH": str(small_disk / "store"), "MSWARM_ARTIFACT_FREE_MB": "0"})
    status, _, body = file(plane, "PUT", "j1", "a", noise(7 * MIB))
    assert status == 507 and json.loads(body)["code"] == "insufficient_storage"
    (small_disk / "hole").write_bytes(b"x" * (5 * MIB))
    status, _, body = file(plane, "PUT", "j1", "a", iter([noise(MIB)] * 3))
    assert status == 507, body
    wait_until(lambda: not list((small_disk / "store" / "@files").glob("*/*")), slow(10), "nothing half-written")
    (small_disk / "hole").unlink()
    assert file(plane, "PUT", "j1", "a", noise(2 * MIB))[0] == 201
    plane.node.stop()
    plane.node.start(env={"MSWARM_ARTIFACT_FREE_MB": "100"})
    assert file(plane, "PUT", "j1", "b", b"x")[0] == 507, "under the watermark"


def test_forgotten_with_their_job(make_plane):
    plane = make_plane(env={"MSWARM_JOB_KEEP_MAX": "1"})
    upload(plane, "old", "x", b"x")
    upload(plane, "never", "x", b"y")
    for job_id in ("old", "new"):
        plane.queue(echo(), job_id)
        plane.ended(job_id, slow(20))
    plane.node.stop()
    plane.node.start()
    wait_until(lambda: len(files_on_disk(plane)) == 1, slow(30), "one file is left")
    assert file(plane, "GET", "old", "x")[0] == 404 and file(plane, "GET", "never", "x")[2] == b"y"
