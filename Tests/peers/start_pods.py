#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Starts pods on a node one after the other, as kubelet and a container runtime do, each sending from its first moment.

    start_pods.py --server URL --host NAMESPACE --prefix NAME --target ADDRESS --marker TEXT [--plugin PATH --socket PATH]
                  --folder FOLDER [--count N] [--network 10.204.1] [--node node-1] [--sending SECONDS]

For each pod: the Pod object is created, annotated as to be protected; a network namespace with a veth pair is made, as a CNI plugin
does; then our plugin is called (if one is given), and as soon as it has returned, datagrams with the marker are sent to TARGET's
echo server, one every millisecond. Then the pod's address is written into its status, as kubelet does, and the next pod starts.

In the end each pod has to hear an echo. Prints one JSON object:
  started, refused, sent (datagrams), firstEcho (milliseconds of the slowest), silent (pods without an echo)
With --without-echo nobody waits for one.
"""

import argparse
import ctypes
import json
import os
import select
import socket
import subprocess
import sys
import threading
import time
import uuid

from kube import API

ECHO_PORT = 5353
CLONE_NEWNET = 0x40000000
libc = ctypes.CDLL(None, use_errno=True)


def socket_in(namespace):
    """A socket belongs to the namespace in which it was made; the thread comes back."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    there = os.open(namespace, os.O_RDONLY)
    try:
        if libc.setns(there, CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")
        try:
            return socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        finally:
            libc.setns(home, CLONE_NEWNET)
    finally:
        os.close(there)
        os.close(home)


class Pod:
    def __init__(self, options, number):
        self.options, self.number = options, number
        self.name = f"{options.pod}-{number}"
        self.api_path = f"/api/v1/namespaces/shop/pods/{self.name}"
        self.address = f"{options.network}.{number}"
        self.namespace = f"{options.prefix}-c{options.network.split('.')[1]}x{number}"
        self.path = f"/run/netns/{self.namespace}"
        self.interface = f"c{options.network.split('.')[1]}x{number}"
        self.sent, self.first_echo, self.error = 0, None, None

    def make_object(self, api):
        api.ask("POST", "/api/v1/namespaces/shop/pods", {
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": self.name, "namespace": "shop", "annotations": {"ebpf.xdp/encrypt": "true"}},
            "spec": {"nodeName": self.options.node, "containers": [{"name": "c", "image": "i"}]},
        })
        self.uid = api.ask("GET", self.api_path)["metadata"]["uid"]

    def make_network(self):
        host, inside = self.options.host, self.namespace
        commands = f"""
            ip netns add {inside}
            ip -n {inside} link set lo up
            ip -n {host} link add {self.interface} type veth peer name eth0 netns {inside}
            ip -n {inside} addr add {self.address}/32 dev eth0
            ip -n {host} link set {self.interface} up
            ip -n {inside} link set eth0 up
            ip -n {inside} route add 169.254.1.1 dev eth0
            ip -n {inside} route add default via 169.254.1.1
            """
        # Point to point, as Calico does it: a route on the host, and the host's hardware address as the next hop's.
        script = "\n".join(line.strip() for line in commands.strip().splitlines())
        script += f"""
            mac=$(ip -n {host} -o link show {self.interface} | sed 's/.*ether \\([0-9a-f:]*\\).*/\\1/')
            ip -n {inside} neigh replace 169.254.1.1 lladdr $mac dev eth0 nud permanent
            ip -n {host} route add {self.address}/32 dev {self.interface}
            ln -s {self.path} {self.options.folder}/{self.namespace}
            """
        subprocess.run(["sh", "-eu", "-c", script], check=True, stdin=subprocess.DEVNULL)

    def call_plugin(self):
        """ADD, as a container runtime calls the last plugin of a chain. Returns whether the pod may start."""
        result = {
            "cniVersion": "1.0.0", "interfaces": [{"name": "eth0", "sandbox": self.path}],
            "ips": [{"address": f"{self.address}/32", "interface": 0}],
        }
        configuration = {
            "cniVersion": "1.0.0", "name": "lab", "type": "xdp-encryptor-cni", "socket": self.options.socket, "prevResult": result,
        }
        environment = {
            **os.environ, "CNI_COMMAND": "ADD", "CNI_CONTAINERID": uuid.uuid4().hex, "CNI_NETNS": self.path, "CNI_IFNAME": "eth0",
            "CNI_ARGS": f"IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME={self.name};K8S_POD_UID={self.uid}",
        }
        done = subprocess.run([self.options.plugin], env=environment, input=json.dumps(configuration).encode(), capture_output=True)
        if done.returncode:
            self.error = done.stdout.decode() + done.stderr.decode()
        elif json.loads(done.stdout) != result:
            self.error = f"the result was changed: {done.stdout.decode()}"
        return self.error is None

    def send(self, end):
        """Sends from now on; ends with the first echo."""
        datagrams = self.socket
        datagrams.setblocking(False)
        begin = time.monotonic()
        while time.monotonic() < end:
            try:
                datagrams.sendto(f"{self.options.marker} {self.name} {self.sent}".encode(), (self.options.target, ECHO_PORT))
                self.sent += 1
            except OSError:
                pass  # the interface is not quite up, or the kernel has dropped it: so would a pod's program see it
            # Every millisecond at first.
            if select.select([datagrams], [], [], 0.001 if self.sent < 200 else 0.05)[0]:
                try:
                    datagrams.recvfrom(2048)
                except OSError:
                    continue
                if self.first_echo is None:
                    self.first_echo = round((time.monotonic() - begin) * 1000)
                if self.sent >= 200:
                    return

    def start(self, api):
        self.make_object(api)
        self.make_network()
        self.socket = socket_in(self.path)
        if self.options.plugin and not self.call_plugin():
            return None
        sender = threading.Thread(target=self.send, args=(time.monotonic() + self.options.sending,))
        sender.start()
        status = {"status": {"phase": "Running", "podIP": self.address, "podIPs": [{"ip": self.address}]}}
        api.patch(f"{self.api_path}/status", status)
        return sender


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("server", "host", "prefix", "folder", "target", "marker"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--plugin")
    parser.add_argument("--socket")
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--network", default="10.204.1")
    parser.add_argument("--node", default="node-1")
    parser.add_argument("--pod", default="starting")
    parser.add_argument("--sending", type=float, default=60)
    parser.add_argument("--without-echo", action="store_true")
    options = parser.parse_args()
    api = API(options.server)
    pods = [Pod(options, number + 1) for number in range(options.count)]
    senders = [pod.start(api) for pod in pods]
    for sender in senders:
        if sender:
            sender.join()
    started = [pod for pod, sender in zip(pods, senders) if sender]
    silent = [pod.name for pod in started if pod.first_echo is None]
    print(json.dumps({
        "started": len(started), "refused": [pod.error for pod in pods if pod.error][:5], "sent": sum(pod.sent for pod in pods),
        "firstEcho": max((pod.first_echo for pod in started if pod.first_echo is not None), default=0), "silent": silent,
    }))
    return 0 if len(started) == len(pods) and (options.without_echo or not silent) else 1


if __name__ == "__main__":
    sys.exit(main())
