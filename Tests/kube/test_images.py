"""The images, started as the manifests say: with their users, capabilities, mounts and a container runtime's seccomp profile.

Needs root, buildah and runc, and images in .build/images (make images).
"""

import contextlib
import ctypes
import copy
import json
import os
import shutil
import socket
import struct
import subprocess
import threading
import time
import uuid
from pathlib import Path

import pytest

from deployment import ROOT, example, pod_spec

IMAGES = ROOT / ".build" / "images"
KEYMGR, OPERATOR = "xdp-encryptor-keymgr", "xdp-encryptor-operator"
SECCOMP = Path("/usr/share/containers/seccomp.json")

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="containers need root")


def run(*command, **options) -> subprocess.CompletedProcess:
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=120, **options)


class Store:
    """Images in a store of its own."""

    def __init__(self, folder: Path):
        self.options = ["buildah", "--root", folder / "store", "--runroot", folder / "run", "--storage-driver", "vfs"]

    def __call__(self, *command) -> str:
        done = run(*self.options, *command)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    yield Store(folder)
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def images(store):
    """Name to root file system and configuration."""
    result = {}
    for name in KEYMGR, OPERATOR:
        archive = IMAGES / f"{name}.tar"
        assert archive.exists(), f"{archive} is not there: make images"
        container = store("from", f"oci-archive:{archive}")
        configuration = json.loads(store("inspect", "--type", "container", container))["OCIv1"]["config"]
        result[name] = Path(store("mount", container)), configuration
    return result


def profile(capabilities: list[str]) -> dict:
    """What a runtime makes of its default profile for a container with these capabilities, as an OCI seccomp section."""
    whole = json.loads(SECCOMP.read_text())

    def applies(rule: dict) -> bool:
        needed, refused = rule.get("includes") or {}, rule.get("excludes") or {}
        if needed.get("arches") and "amd64" not in needed["arches"] or "amd64" in (refused.get("arches") or []):
            return False
        return set(needed.get("caps") or []) <= set(capabilities) and not set(refused.get("caps") or []) & set(capabilities)

    calls = []
    for rule in whole["syscalls"]:
        if applies(rule):
            call = {"names": rule["names"], "action": rule["action"]}
            if rule.get("args"):
                call["args"] = [{k: v for k, v in argument.items() if v is not None} for argument in rule["args"]]
            if rule["action"] == "SCMP_ACT_ERRNO":
                call["errnoRet"] = rule.get("errnoRet", 1)
            calls.append(call)
    return {
        "defaultAction": whole["defaultAction"],
        "defaultErrnoRet": whole.get("defaultErrnoRet", 38),
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": calls,
    }


class Container:
    """A container of a pod's, as the kubelet asks a runtime for it. Volumes are what the test says."""

    def __init__(self, root: Path, arguments: list, user: int, capabilities: list[str], mounts: dict, environment=(), host_network=False):
        names = [f"CAP_{name}" for name in capabilities]
        self.name = f"xe-test-{uuid.uuid4().hex[:12]}"
        self.bundle = Path("/tmp") / self.name
        namespaces = [{"type": kind} for kind in ("pid", "ipc", "uts", "mount")]
        if not host_network:
            namespaces.append({"type": "network"})
        self.spec = {
            "ociVersion": "1.0.2",
            "process": {
                "terminal": False,
                "user": {"uid": user, "gid": user},
                "args": [str(argument) for argument in arguments],
                "env": ["PATH=/usr/bin", *environment],
                "cwd": "/",
                "capabilities": {kind: names for kind in ("bounding", "effective", "permitted")},
                "noNewPrivileges": True,
                # None: nothing may depend on how generous a runtime is.
                "rlimits": [{"type": "RLIMIT_MEMLOCK", "soft": 0, "hard": 0}],
            },
            "root": {"path": str(root), "readonly": True},
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
                # With the host's network namespace the node's own sysfs is shown, read-only.
                {"destination": "/sys", "type": "bind", "source": "/sys", "options": ["rbind", "rslave", "nosuid", "noexec", "nodev", "ro"]},
                *(
                    {"destination": str(inside), "type": "bind", "source": str(outside), "options": ["rbind", "rslave", mode]}
                    for inside, (outside, mode) in mounts.items()
                ),
            ],
            "linux": {
                "namespaces": namespaces,
                "seccomp": profile(names),
                "maskedPaths": ["/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"],
                "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
            },
        }

    @contextlib.contextmanager
    def started(self, namespace: str | None = None):
        """Runs it; `namespace`: the network namespace that plays the host's."""
        self.bundle.mkdir()
        (self.bundle / "config.json").write_text(json.dumps(self.spec))
        enter = ["nsenter", f"--net=/run/netns/{namespace}"] if namespace else []
        log = open(self.bundle / "log", "w+")  # noqa: SIM115
        process = subprocess.Popen(
            [*enter, "runc", "run", "--bundle", self.bundle, self.name], stdout=log, stderr=subprocess.STDOUT, text=True
        )
        try:
            yield self
        finally:
            run("runc", "delete", "--force", self.name)
            process.wait(timeout=20)
            log.close()
            shutil.rmtree(self.bundle, ignore_errors=True)

    def wait(self, namespace: str | None = None) -> tuple[int, str]:
        """Runs it to its end: exit status, and what it said."""
        self.bundle.mkdir()
        (self.bundle / "config.json").write_text(json.dumps(self.spec))
        enter = ["nsenter", f"--net=/run/netns/{namespace}"] if namespace else []
        try:
            done = run(*enter, "runc", "run", "--bundle", self.bundle, self.name)
            return done.returncode, done.stdout + done.stderr
        finally:
            run("runc", "delete", "--force", self.name)
            shutil.rmtree(self.bundle, ignore_errors=True)

    def execute(self, *command) -> subprocess.CompletedProcess:
        return run("runc", "exec", self.name, *command)

    @property
    def log(self) -> str:
        return (self.bundle / "log").read_text()


def test_sizes_and_contents(images):
    print()
    for name, (root, configuration) in images.items():
        files = [path for path in root.rglob("*") if path.is_file() and not path.is_symlink()]
        print(f"IMAGE {name}: {(IMAGES / f'{name}.tar').stat().st_size / 2**20:.1f} MiB packed, {sum(path.stat().st_size for path in files) / 2**20:.1f} MiB unpacked")
        programs = {str(path.relative_to(root)) for path in files if path.stat().st_mode & 0o111}
        expected = {KEYMGR: {"usr/bin/ebpf-xdp-keymgr", "usr/bin/xdp-encryptor"}, OPERATOR: {"usr/bin/ebpf-xdp-operator"}}[name]
        assert programs == expected, "no shell, no package manager, nothing else that runs"
        assert not any(path.stat().st_mode & 0o6000 for path in files)
        assert not any(".so" in path.name for path in files)
        assert (root / "etc/ssl/certs/ca-certificates.crt").read_text().count("BEGIN CERTIFICATE") > 50
        assert list((root / "usr/share/doc").glob("*/copyright"))
        assert configuration["Entrypoint"] == [f"/usr/bin/{'ebpf-xdp-keymgr' if name == KEYMGR else 'ebpf-xdp-operator'}"]
    assert images[OPERATOR][1]["User"] == "65532:65532"


@pytest.mark.parametrize("name, program", [(KEYMGR, "ebpf-xdp-keymgr"), (KEYMGR, "xdp-encryptor"), (OPERATOR, "ebpf-xdp-operator")])
def test_programs_start_without_any_right(images, name, program):
    version = run(ROOT / ".build/release/ebpf-xdp-keymgr", "--version").stdout.strip()
    for argument, expected in [("--help", "OVERVIEW"), ("--version", version)]:
        status, said = Container(images[name][0], [f"/usr/bin/{program}", argument], 65532, [], {}).wait()
        assert status == 0 and expected in said, said


class Listener:
    """Accepts one TLS client after the other and keeps the first bytes of each."""

    def __init__(self, namespace: str):
        self.received: list[bytes] = []
        # Sockets belong to the namespace that their thread is in when it makes them.
        self.thread = threading.Thread(target=self._serve, args=(namespace,), daemon=True)
        self.ready = threading.Event()
        self.thread.start()
        assert self.ready.wait(10)

    def _serve(self, namespace):
        descriptor = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
        assert ctypes.CDLL(None, use_errno=True).setns(descriptor, 0) == 0, os.strerror(ctypes.get_errno())
        os.close(descriptor)
        names = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        names.bind(("127.0.0.1", 53))
        server = socket.create_server(("127.0.0.1", 8443))
        threading.Thread(target=self._answer, args=(names,), daemon=True).start()
        self.ready.set()
        while True:
            client, _ = server.accept()
            with client:
                self.received.append(client.recv(4096))

    def _answer(self, names):
        while True:
            query, sender = names.recvfrom(1024)
            end = query.index(b"\0", 12) + 5
            is_a = query[end - 4 : end - 2] == b"\0\1"
            # One A record, nothing else.
            answer = b"\xc0\x0c\0\1\0\1" + struct.pack(">IH", 30, 4) + b"\x7f\0\0\1" if is_a else b""
            names.sendto(query[:2] + b"\x81\x80\0\1" + (b"\0\1" if is_a else b"\0\0") + b"\0\0\0\0" + query[12:end] + answer, sender)


@contextlib.contextmanager
def network_namespace(name: str):
    assert run("ip", "netns", "add", name).returncode == 0
    try:
        run("ip", "-n", name, "link", "set", "lo", "up")
        yield name
    finally:
        run("ip", "netns", "del", name)


def test_names_are_resolved_through_files_and_dns(images, tmp_path):
    """A static C library is known for not resolving names."""
    name = f"xe-dns-{uuid.uuid4().hex[:8]}"
    (tmp_path / "resolv.conf").write_text("nameserver 127.0.0.1\n")
    (tmp_path / "hosts").write_text("127.0.0.1 localhost by-file.test\n")
    (tmp_path / "token").write_text("x")
    with network_namespace(name):
        listener = Listener(name)
        for host in "by-file.test", "by-dns.test":
            (tmp_path / "keymgr.json").write_text(
                json.dumps(
                    {
                        "node": "node-a",
                        "nodeID": 1,
                        "clusterDirectory": "/config/cluster",
                        "kms": {
                            "provider": "openbao",
                            "timeoutSeconds": 3,
                            "openbao": {"address": f"https://{host}:8443", "key": "k", "identity": {"source": "kubernetes", "role": "r", "tokenFile": "/config/token"}},
                        },
                    }
                )
            )
            container = Container(
                images[KEYMGR][0],
                ["/usr/bin/ebpf-xdp-keymgr", "check", "--config", "/config/keymgr.json"],
                0,
                [],
                {"/config": (tmp_path, "ro"), "/etc/resolv.conf": (tmp_path / "resolv.conf", "ro"), "/etc/hosts": (tmp_path / "hosts", "ro")},
                host_network=True,
            )
            # The file system of the image is read-only, and these two are not in it: a runtime makes them.
            for path in "etc/resolv.conf", "etc/hosts":
                (images[KEYMGR][0] / path).touch()
            _, said = container.wait(name)
            assert any(host.encode() in hello for hello in listener.received), f"{host} was not asked: {said}"


@pytest.fixture
def node():
    """Network namespaces that play a node and a pod on it, and folders as the node has them."""
    name = f"xe-img-{uuid.uuid4().hex[:8]}"
    pod = f"{name}-pod"
    folder = Path("/tmp") / name
    folder.mkdir(mode=0o755)
    pins = Path("/sys/fs/bpf") / name
    with network_namespace(name), network_namespace(pod):
        for command in (
            f"ip -n {name} link add veth0 type veth peer name eth0 netns {pod}",
            f"ip -n {name} addr add 10.99.0.1/24 dev veth0",
            f"ip -n {name} link set veth0 up",
            f"ip -n {pod} addr add 10.99.0.7/24 dev eth0",
            f"ip -n {pod} link set eth0 up",
            f"ip -n {pod} route add default via 10.99.0.1",
        ):
            assert run(*command.split()).returncode == 0, command
        yield name, pod, folder, pins
        shutil.rmtree(folder, ignore_errors=True)


def keymgr(images, node, arguments, capabilities, cluster="cluster", token=None) -> Container:
    """keymgr as the DaemonSet starts it, its records the test's own. `cluster`: the test's folder that plays a cluster directory."""
    name, pod, folder, pins = node
    container = pod_spec(example("local"), "DaemonSet")["containers"][0]
    places = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
    mounts = {
        "/sys/fs/bpf": ("/sys/fs/bpf", "rw"),
        "/run/xdp-encryptor": (folder / "run", "rw"),
        "/var/run/netns": ("/run/netns", "ro"),
        "/etc/xdp-encryptor/kek": (folder / "kek", "ro"),
        "/etc/xdp-encryptor/keymgr.json": (folder / "keymgr.json", "ro"),
    }
    assert set(mounts) == set(places), "this test mounts what the DaemonSet does"
    if cluster:
        mounts["/cluster"] = (folder / cluster, "rw")
    if token:
        mounts["/var/run/secrets/kubernetes.io/serviceaccount"] = (token, "ro")
    for inside in mounts:
        target = images[KEYMGR][0] / inside.lstrip("/")
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.touch() if Path(mounts[inside][0]).is_file() else target.mkdir()
    return Container(images[KEYMGR][0], arguments, 0, capabilities, mounts, host_network=True)


def prepare(images, node) -> list[str]:
    name, pod, folder, pins = node
    tool = images[KEYMGR][0] / "usr/bin/xdp-encryptor"
    done = run(tool, "keys", "init", "--kek-file", folder / "kek", "--cluster-directory", folder / "cluster")
    assert done.returncode == 0, done.stderr
    (folder / "run").mkdir(exist_ok=True)
    (folder / "keymgr.json").write_text(
        json.dumps(
            {
                "node": "node-a",
                "nodeID": 1,
                "clusterDirectory": "/cluster",
                "pinPath": str(pins),
                "kms": {"provider": "local", "local": {"kekFile": "/etc/xdp-encryptor/kek"}},
            }
        )
    )
    endpoint = {"addresses": ["10.99.0.7"], "node": "node-a", "mode": "strict", "networkNamespace": f"/var/run/netns/{pod}", "interface": "eth0"}
    (folder / "cluster/endpoints/pod.json").write_text(json.dumps(endpoint))
    return pod_spec(example("local"), "DaemonSet")["containers"][0]["securityContext"]["capabilities"]["add"]


RUN = ["/usr/bin/ebpf-xdp-keymgr", "run", "--config", "/etc/xdp-encryptor/keymgr.json"]
DETACH = ["/usr/bin/ebpf-xdp-keymgr", "detach", "--config", "/etc/xdp-encryptor/keymgr.json"]


def test_keymgr_protects_a_pod_with_the_daemonsets_rights(images, node):
    name, pod, folder, pins = node
    capabilities = prepare(images, node)
    published = folder / "cluster/nodes/node-a.json"
    try:
        with keymgr(images, node, RUN, capabilities).started(name) as container:
            deadline = time.monotonic() + 60
            while not (published.exists() and any(entry["state"] == "ready" for entry in json.loads(published.read_text())["endpoints"])):
                assert time.monotonic() < deadline, container.log
                time.sleep(0.2)
            assert "error" not in container.log and "locked" not in container.log, container.log
            assert 'secrets=memfd_secret' in container.log or 'secrets=mlock' in container.log, container.log
            # As the readiness probe asks.
            status = container.execute("/usr/bin/xdp-encryptor", "status", "--output", "json", "--pin-path", pins)
            assert status.returncode == 0 and json.loads(status.stdout), status.stderr
            assert "xdp" in run("ip", "-n", pod, "link", "show", "eth0").stdout
            print(f"\nCONTAINER keymgr: ready with {' '.join(capabilities)}, read-only, no new privileges, default seccomp profile")
        # The container is gone, the programs are not.
        assert "xdp" in run("ip", "-n", pod, "link", "show", "eth0").stdout
    finally:
        status, said = keymgr(images, node, DETACH, capabilities).wait(name)
    assert status == 0, said
    assert "xdp" not in run("ip", "-n", pod, "link", "show", "eth0").stdout
    assert not pins.exists()


@pytest.mark.parametrize("missing", ["BPF", "NET_ADMIN", "PERFMON", "SYS_ADMIN"])
def test_keymgr_says_which_right_is_missing(images, node, missing):
    name, pod, folder, pins = node
    capabilities = [capability for capability in prepare(images, node) if capability != missing]
    status, said = keymgr(images, node, RUN, capabilities).wait(name)
    assert status == 1 and f"CAP_{missing}" in said, said


def test_without_ipc_lock_keys_could_be_swapped(images, node):
    name, pod, folder, pins = node
    capabilities = [capability for capability in prepare(images, node) if capability != "IPC_LOCK"]
    try:
        with keymgr(images, node, RUN, capabilities).started(name) as container:
            deadline = time.monotonic() + 60
            while "could not be locked into memory" not in container.log:
                assert time.monotonic() < deadline, container.log
                time.sleep(0.2)
    finally:
        keymgr(images, node, DETACH, capabilities).wait(name)


def test_the_cni_container_has_no_right_and_needs_none(images, tmp_path):
    container = next(entry for entry in pod_spec(example("eks"), "DaemonSet")["containers"] if entry["name"] == "cni")
    assert "add" not in container["securityContext"]["capabilities"]
    for folder in "bin", "conf":
        (tmp_path / folder).mkdir()
        (images[KEYMGR][0] / "host" / folder).mkdir(parents=True, exist_ok=True)
    chain = {"cniVersion": "0.4.0", "name": "n", "plugins": [{"type": "ptp"}]}
    network = tmp_path / "conf/10-n.conflist"
    network.write_text(json.dumps(chain))
    mounts = {"/host/bin": (tmp_path / "bin", "rw"), "/host/conf": (tmp_path / "conf", "rw")}

    def types() -> list[str]:
        return [plugin["type"] for plugin in json.loads(network.read_text())["plugins"]]

    def until(condition):
        deadline = time.monotonic() + 20
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.1)

    with Container(images[KEYMGR][0], container["command"], 0, [], mounts).started() as started:
        until(lambda: types() == ["ptp", "xdp-encryptor-cni"])
        check = container["readinessProbe"]["exec"]["command"]
        assert started.execute(*check).returncode == 0
        # The network's own agent is upgraded.
        network.write_text(json.dumps(chain))
        began = time.monotonic()
        until(lambda: types() == ["ptp", "xdp-encryptor-cni"])
        print(f"\nCNI back in the chain after {(time.monotonic() - began) * 1000:.0f} ms")
        stopping = time.monotonic()
        run("runc", "kill", started.name, "TERM")
        until(lambda: run("runc", "state", started.name).returncode != 0 or '"stopped"' in run("runc", "state", started.name).stdout)
        assert time.monotonic() - stopping < 5
    # What it has installed runs on the node itself, and answers as a plugin.
    plugin = tmp_path / "bin/xdp-encryptor-cni"
    answer = run(plugin, env={"CNI_COMMAND": "VERSION"}, input="{}")
    assert answer.returncode == 0 and "1.0.0" in json.loads(answer.stdout)["supportedVersions"], answer.stderr
    uninstall = ["/usr/bin/xdp-encryptor", "cni", "uninstall", "--bin-dir=/host/bin", "--conf-dir=/host/conf"]
    status, said = Container(images[KEYMGR][0], uninstall, 0, [], mounts).wait()
    assert status == 0, said
    assert types() == ["ptp"] and list((tmp_path / "bin").iterdir()) == []
    assert json.loads(network.read_text()) == chain
