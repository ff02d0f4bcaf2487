# SPDX-License-Identifier: Apache-2.0
"""Makes hosts in network namespaces of their own, which all reach the one that mpirun runs on, and not each other."""

import os
import shutil
import subprocess

TOOLS = ("ip", "nsenter", "unshare", "setsid")


def why_not():
    """Says why there can be no such hosts here; "" when there can."""
    missing = [name for name in TOOLS if shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin") is None]
    if missing:
        return f"no {', '.join(missing)} here"
    tried = subprocess.run(["unshare", "--net", "--uts", "true"], capture_output=True, text=True)
    return "" if tried.returncode == 0 else f"no network namespaces here: {tried.stderr.strip()}"


class Hosts:
    """Host i has the address 10.213.i.2 and the name `names[i - 1]`. A context: leaving it ends everything."""

    def __init__(self, folder, count=2):
        self.folder = folder
        self.names = [f"nlhost{i}" for i in range(1, count + 1)]
        self.addresses = [f"10.213.{i}.2" for i in range(1, count + 1)]
        self.pids = {}
        self.processes = []

    def __enter__(self):
        try:
            head = self.boot("head")
            for i, (name, address) in enumerate(zip(self.names, self.addresses), 1):
                pid = self.boot(name)
                self.run("head", "ip", "link", "add", f"v{i}", "type", "veth", "peer", "name", "eth0", "netns", pid)
                self.run("head", "ip", "addr", "add", f"10.213.{i}.1/24", "dev", f"v{i}")
                self.run("head", "ip", "link", "set", f"v{i}", "up")
                self.run(name, "ip", "addr", "add", f"{address}/24", "dev", "eth0")
                self.run(name, "ip", "link", "set", "eth0", "up")
                # Packets to another host get lost: head forwards nothing.
                self.run(name, "ip", "route", "add", "default", "via", f"10.213.{i}.1")
            agent = self.folder / "agent"  # in the place of ssh
            cases = "\n".join(f"  {address}) pid={self.pids[name]};;" for name, address in zip(self.names, self.addresses))
            agent.write_text(f"#!/bin/sh\ncase $1 in\n{cases}\nesac\nshift\n"
                             'exec nsenter --target "$pid" --net --uts -- setsid /bin/sh -c "$*"\n')
            agent.chmod(0o755)
            self.mpi = {"OMPI_MCA_plm": "rsh", "OMPI_MCA_plm_rsh_agent": str(agent),
                        "PRTE_MCA_plm": "ssh", "PRTE_MCA_plm_ssh_agent": str(agent)}
            self.head = head
            return self
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *_):
        for process in self.processes:
            process.kill()
            process.wait()

    def boot(self, name):
        process = subprocess.Popen(["unshare", "--net", "--uts", "sh", "-c", f"hostname {name} && echo up && exec sleep 1000"],
                                   stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        self.processes.append(process)
        assert process.stdout.readline() == "up\n"
        self.pids[name] = process.pid
        self.run(name, "ip", "link", "set", "lo", "up")
        return process.pid

    def command(self, name, *words):
        return ["nsenter", "--target", str(self.pids[name]), "--net", "--uts", "--", *map(str, words)]

    def run(self, name, *words):
        path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
        subprocess.run(self.command(name, *words), check=True, env={**os.environ, "PATH": path})
