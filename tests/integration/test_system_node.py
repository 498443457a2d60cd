"""node install --system: the machine's own node, with a user of its own. Runs alone: while it stands, root's commands mean that node."""
import json
import os
import pathlib
import subprocess

import pytest

from conftest import slow
from node import binary
from test_setup import Home


def has_no_system_node():
    return os.geteuid() == 0 and not os.path.exists("/var/lib/mswarm") and not os.path.exists("/etc/systemd/system/mswarm-self-hosted-node.service") and os.path.exists("/usr/sbin/useradd")


@pytest.mark.skipif(not os.environ.get("MSWARM_FULL") or not has_no_system_node(), reason="makes a user of the system: with --full, as root, where there is none")
def test_the_machines_own_node(tmp_path, gw):
    """node install --system, twice; its wrapper run as its user; root's commands reach it; all gone in the end."""
    home = Home(tmp_path, gw)
    state = "/var/lib/mswarm/.mswarm/self-hosted-node"
    program = binary()
    for folder in [program, *map(str, list(pathlib.Path(program).parents)[:-1])]:
        if not os.stat(folder).st_mode & 0o005:
            pytest.skip(f"user mswarm cannot reach {folder}")
    try:
        for _ in range(2):
            done = home.install("--system", "--listen-port", "0")
            assert done.returncode == 0, done.stderr
            assert {os.stat(f"{state}/{name}").st_uid for name in os.listdir(state)} == {os.stat("/var/lib/mswarm").st_uid}
            assert home.calls()[-1] == "systemctl restart mswarm-self-hosted-node.service"
        unit = open("/etc/systemd/system/mswarm-self-hosted-node.service").read()
        assert "User=mswarm" in unit and "WantedBy=multi-user.target" in unit
        n = len(gw.beats)
        process = subprocess.Popen(["setpriv", "--reuid", "mswarm", "--regid", "mswarm", "--clear-groups", f"{state}/mswarm-node"], cwd="/", stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL)
        try:
            gw.wait_beat(after=n, limit=slow(10))
            assert json.loads(home.run("node", "status").stdout)["running"]["gateway"]["state"] == "online"
            assert json.loads(home.run("node", "drain", "on").stdout) == {"drain": "on"}
        finally:
            process.terminate()
            assert process.wait(slow(20)) == 0
        assert json.loads(home.run("node", "uninstall", "--purge").stdout)["gateway_notification"]["notified"] is True
        assert not os.path.exists(state) and not os.path.exists("/etc/systemd/system/mswarm-self-hosted-node.service")
    finally:
        subprocess.run(["userdel", "-r", "mswarm"], capture_output=True)
