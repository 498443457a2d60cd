"""The official OpenAI client (npm) at both ends; its lines are skipped where node or the package is not to be had. Rows as in checks.py.

The package is installed with "npm ci" from the lock file of tests/integration/openai into the folder "openai-sdk" beside the
program, where the integration tests look for it too. Each scenario of sdk.mjs is a line of the table.
"""
import hashlib
import json
import os
import pathlib
import shutil
import subprocess

from checks import OPTIONAL, SAME
from end import Failed, Refused, Skipped, need

HERE = pathlib.Path(__file__).resolve().parent
LOCK = HERE.parent / "integration/openai"


def install(program):
    """The folder with node_modules; Skipped when it cannot be had."""
    if not shutil.which("node"):
        raise Skipped("node is not installed")
    folder = pathlib.Path(program).resolve().parent / "openai-sdk"
    mark, wanted = folder / "installed", hashlib.sha256((LOCK / "package-lock.json").read_bytes()).hexdigest()
    if mark.exists() and mark.read_text() == wanted:
        return folder
    if not shutil.which("npm"):
        raise Skipped("npm is not installed")
    folder.mkdir(exist_ok=True)
    for name in ("package.json", "package-lock.json"):
        shutil.copy(LOCK / name, folder)
    words = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=300)
    if done.returncode:
        raise Skipped("npm ci failed: " + (done.stderr.strip().splitlines() or ["?"])[-1])
    mark.write_text(wanted)
    return folder


def seen_by(end, bed, name):
    """What sdk.mjs saw in one scenario at this end. Nothing is kept: asked again, it runs again."""
    folder = install(bed.program)
    env = {"PATH": os.environ["PATH"], "HOME": str(bed.node.home), "TEST_KEY": end.key, "TEST_EXTRA": json.dumps(end.extra)}
    done = subprocess.run(["node", str(HERE / "sdk.mjs"), str(folder), end.base, end.model, name], capture_output=True, text=True,
                          timeout=300, env=env)
    if done.returncode:
        raise Failed(done.stderr[-300:])
    return json.loads(done.stdout)


def scenario(name):
    def check(end, bed):
        if name == "errors" and not end.is_relayed:
            raise Skipped("the server's own affair")
        seen = seen_by(end, bed, name)
        if "error" in seen:
            raise Refused(seen["error"])
        if name == "errors":
            need(seen["value"] == ["NotFoundError", 404, "model_not_found", "model"], str(seen["value"]))
        need(seen["value"], "nothing")
        return seen["value"]
    return check


ROWS = [(f"sdk {name.replace('_', ' ')}", scenario(name), flags) for name, flags in (
    ("list", 0), ("create", SAME), ("iterate", SAME), ("stream", SAME), ("tools", SAME | OPTIONAL), ("stream_tools", SAME | OPTIONAL),
    ("run_tools", OPTIONAL), ("abort", 0), ("errors", 0))]
