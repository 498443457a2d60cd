"""Fixtures of the integration tests: a scripted model runner, and nodes that have it as their only source.

Environment: MSWARM_BIN the program, MSWARM_SANITIZED=1 it was built with a sanitizer (times may be five times as long),
MSWARM_FULL=1 the large sizes.
"""
import contextlib
import json
import os
import pathlib
import shutil
import ssl
import subprocess
import sys
import threading

import pytest

TESTS = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS / "support"), str(TESTS / "fakes")]
sys.dont_write_bytecode = True

from gateway import Gateway  # noqa: E402
from jobs import ENV, Jobs  # noqa: E402
from node import Node, wait_until  # noqa: E402
from upstream import Upstream  # noqa: E402


def slow(seconds):
    """A limit of time, longer for a program that was built with a sanitizer."""
    return seconds * (5 if os.environ.get("MSWARM_SANITIZED") else 1)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item):
    outcome = yield
    if outcome.get_result().failed:
        item.has_failed = True


@pytest.fixture(scope="session")
def preload(tmp_path_factory):
    """preload("fail_sync"): a library of tests/support for LD_PRELOAD."""
    if os.environ.get("MSWARM_SANITIZED"):
        pytest.skip("a sanitizer's own library must come first")
    folder = tmp_path_factory.mktemp("preload")

    def build(name):
        out = folder / f"{name}.so"
        if not out.exists():
            subprocess.run([shutil.which("gcc") or shutil.which("clang"), "-shared", "-fPIC", "-D_GNU_SOURCE", "-o", out, TESTS / "support" / f"{name}.c"],
                           check=True, timeout=60)
        return str(out)
    return build


def config_for(*upstreams, **members):
    """A config.json whose only source is these runners."""
    return {"upstreams": [u if isinstance(u, dict) else u.entry() for u in upstreams], **members}


def is_listed(node, *models):
    listed = {m["id"] for m in json.loads(node.request("GET", "/v1/models")[2])["data"]}
    return set(models) <= listed


def local_requests(node):
    """{"running", "queued", "bound"} of local clients, as the node says it."""
    return json.loads(node.cli("node", "status", "--json").stdout)["running"]["requests"]["local"]


@pytest.fixture
def make_upstream(request):
    made = []

    def make(*args, **kw):
        made.append(Upstream(*args, **kw))
        return made[-1]
    yield make
    for up in made:
        if getattr(request.node, "has_failed", False):
            up.show()
        up.close()
    for up in made:
        up.check()


@pytest.fixture
def upstream(make_upstream):
    return make_upstream()


def stop(node):
    try:
        node.stop(slow(20))
    except AssertionError:
        node.show()
        raise


@pytest.fixture
def make_node(request):
    """make_node(upstream, ..., env={}, args=[], keys of config.json): started, its models listed; stopped and its log checked at the end.

    is_stall_checked=False is for tests that move megabytes in one turn: on a virtual machine a page fault of fresh memory
    can cost 20 us, so that one megabyte is over the 5 ms that a loop may be held.
    """
    made = []

    def make(*upstreams, env=None, args=(), is_waiting=True, home=None, is_stall_checked=True, **members):
        node = Node(env=env, args=args, config=config_for(*upstreams, **members), home=home, is_stall_checked=is_stall_checked)
        made.append(node)
        node.start(limit=slow(20))
        if is_waiting:
            wanted = [m for u in upstreams if isinstance(u, Upstream) for m in u.models]
            wait_until(lambda: is_listed(node, *wanted), slow(10), "the runner's models in the list")
        return node
    yield make
    failed = getattr(request.node, "has_failed", False)
    for node in made:
        try:
            if failed:
                node.show()
            else:
                stop(node)
        finally:
            node.close()


@pytest.fixture
def node(make_node, upstream):
    return make_node(upstream)


@pytest.fixture
def make_plane(request):
    """make_plane(concurrency, env={}, args=[]): a node with the job plane, its models off; stopped and its log checked at the end."""
    made = []

    def make(concurrency=1, env=None, args=(), is_stall_checked=True, **kw):
        node = Node(env={**ENV, **(env or {})}, args=["--generic-job-max-concurrency", str(concurrency), "--no-mcoda", "--no-ollama",
                                                       "--no-discovery", *args], is_stall_checked=is_stall_checked, **kw).start(limit=slow(20))
        made.append(node)
        return Jobs(node)
    yield make
    for node in made:
        if getattr(request.node, "has_failed", False):
            node.show()
        try:
            if node.process:
                node.stop(slow(20))
        finally:
            node.close()


@pytest.fixture
def gw(request):
    """A gateway that checks what it hears; everything that it heard must have been right."""
    g = Gateway()
    yield g
    if getattr(request.node, "has_failed", False):
        g.show()
    g.close()
    g.check()


@pytest.fixture
def make_member(request, gw, make_upstream):
    """make_member(env={}, ...): a node of gw's account whose runner is node.up; it has told gw of its models."""
    made = []

    def make(env=None, up=None, share=True, args=(), is_waiting=True, home=None, is_stall_checked=True, **members):
        up = up or make_upstream()
        node = Node(env=gw.env(**{"MSWARM_SELF_HOSTED_MAX_CONCURRENT_JOBS": "4", **(env or {})}), args=args, config=config_for(up.entry(share=share), **members), home=home,
                    is_stall_checked=is_stall_checked)
        node.up = up
        made.append(node)
        node.start(limit=slow(20))
        if is_waiting:
            gw.wait_beat(lambda b: b["local_agent_catalog"]["exposed_model_count"] > 0, slow(10))
        return node
    yield make
    failed = getattr(request.node, "has_failed", False)
    for node in made:
        try:
            if failed:
                node.show()
            elif node.process:
                node.stop(slow(20))
        finally:
            node.close()


def link(node):
    """What the node says of its link to the gateway."""
    return json.loads(node.cli("node", "status", "--json").stdout)["running"]["gateway"]


def wait_link(node, *states, limit=10):
    wait_until(lambda: link(node)["state"] in states, slow(limit), f"link {states}")
    return link(node)


@pytest.fixture(scope="session")
def certificate(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
                    "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
                    "-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")], check=True, capture_output=True)
    (folder / "key.pem").chmod(0o600)
    return folder


def tls_config(certificate):
    return {"tls_cert": str(certificate / "cert.pem"), "tls_key": str(certificate / "key.pem")}


def trusting(certificate):
    return ssl.create_default_context(cafile=certificate / "cert.pem")


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 6 MB. Only root may mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "none", str(disk)], capture_output=True).returncode:
        pytest.skip("a small file system cannot be mounted here")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


@contextlib.contextmanager
def keep_full(path):
    """The disk of this file is full, and stays so whatever is given back, until the end of the block."""
    is_over, is_full = threading.Event(), threading.Event()

    def fill():
        with open(path, "wb", buffering=0) as f:
            while not is_over.is_set():
                try:
                    f.write(b"x" * 512)
                except OSError:
                    is_full.set()
                    is_over.wait(0.001)
    filler = threading.Thread(target=fill, daemon=True)
    filler.start()
    assert is_full.wait(60)
    try:
        yield
    finally:
        is_over.set()
        filler.join()
        os.unlink(path)
