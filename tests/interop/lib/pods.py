"""containerd of its own with its CRI plug-in, driven as kubelet does, and the cases that every runtime handler has to pass."""
import base64
import glob
import json
import os
import random
import signal
import subprocess
import tempfile
import threading
import time
import uuid

from . import jail, scripts, suite
from .suite import equal, run, true

IMAGE, PAUSE = "localhost/interop:latest", "localhost/pause:latest"
ADDRESS = "/run/containerd/containerd.sock"
CLIENT = os.path.join(suite.TOP, "tests/interop/CriClient/bin/Debug/net10.0/CriClient.dll")
# make test-long has more.
ROUNDS, PODS, KILLS = (int(os.environ.get(f"MICROVM_POD{name}", default)) for name, default in (("_ROUNDS", 1), ("S", 4), ("_KILLS", 3)))
folder = None
handler = None
_cases = []
_daemon = None
_client = None
_pods = {}


class CallFailed(Exception):
    """A call that the plug-in refused: gRPC's code and message."""


def case(title):
    """A case of each handler."""
    def add(function):
        _cases.append((title, function))
        return function
    return add


def register(name, label=""):
    """Adds all cases for a runtime handler of containerd's configuration."""
    def bound(function):
        def body():
            global handler
            handler = name
            function()
        return body
    for title, function in _cases:
        suite.case(title + label)(bound(function))


def start(top, runtimes, path=None):
    """Starts containerd; `runtimes` is the part of its configuration with the handlers."""
    global folder
    folder = top
    true(os.path.exists(CLIENT), "the client is not built: dotnet build tests/interop/CriClient")
    run("mount", "--make-rshared", "/")
    snapshotter = {"overlay": "overlayfs", "vfs": "native"}[scripts.storage_driver(folder)]
    images = [scripts.image(IMAGE, folder), scripts.image(PAUSE, folder, "sleep 1000000")]
    os.makedirs(f"{folder}/cni")
    with open(f"{folder}/cni/10-pods.conflist", "w") as f:
        json.dump({"cniVersion": "0.4.0", "name": "pods", "plugins": [{
            "type": "bridge", "bridge": "pods0", "isGateway": True, "hairpinMode": True,
            "ipam": {"type": "host-local", "dataDir": "/run/cni", "ranges": [[{"subnet": "10.77.0.0/16"}]], "routes": [{"dst": "0.0.0.0/0"}]}}]}, f)
    with open(f"{folder}/containerd.toml", "w") as f:
        f.write(f"""version = 2
root = "{folder}/root"
state = "/run/containerd"
[grpc]
address = "{ADDRESS}"
[plugins."io.containerd.internal.v1.opt"]
path = "{folder}/opt"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{PAUSE}"
stream_server_address = "127.0.0.1"
stream_server_port = "0"
disable_apparmor = true
restrict_oom_score_adj = true
tolerate_missing_hugetlb_controller = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "{folder}/cni"
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "{snapshotter}"
{runtimes}""")
    start_daemon(path)
    for image in images:
        run("ctr", "--address", ADDRESS, "--namespace", "k8s.io", "image", "import", "--snapshotter", snapshotter, image)


def start_daemon(path=None):
    """Starts containerd and a client of its plug-in, and waits until it is ready."""
    global _daemon, _client, _path
    if path is not None:
        _path = path
    with open(f"{folder}/containerd.log", "a") as f:
        _daemon = subprocess.Popen(
            ["containerd", "--config", f"{folder}/containerd.toml"], stdin=subprocess.DEVNULL, stdout=f, stderr=f,
            env={**os.environ, "PATH": (_path + ":" if _path else "") + os.environ["PATH"]})
    close_client()
    _client = Client()

    def up():
        if _daemon.poll() is not None:
            raise AssertionError(f"containerd ended with {_daemon.returncode}:\n{log_of_daemon()}")
        try:
            return call("Version", version="v1")
        except CallFailed:
            return False

    suite.until(up, "containerd's CRI plug-in answers", 120)


_path = None


def log_of_daemon():
    with open(f"{folder}/containerd.log") as f:
        return f.read()[-3000:]


def stop():
    close_client()
    if _daemon is not None and _daemon.poll() is None:
        _daemon.terminate()
        _daemon.wait(suite.COMMAND_LIMIT)


def close_client():
    global _client
    if _client is not None:
        _client.close()
        _client = None


def restart_daemon():
    """As after a crash."""
    _daemon.kill()
    _daemon.wait(suite.COMMAND_LIMIT)
    start_daemon()


class Client:
    """A client of the plug-in; any number of threads may call."""

    def __init__(self):
        self._process = subprocess.Popen(["dotnet", CLIENT, ADDRESS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
        self._lock = threading.Condition()
        self._answers = {}
        self._last = 0
        threading.Thread(target=self._read, daemon=True).start()

    def call(self, method, request):
        text = json.dumps(request)
        with self._lock:
            self._last += 1
            number = str(self._last)
            self._process.stdin.write(f"{number} {method} {text}\n")
            while number not in self._answers:
                true(None not in self._answers, "the client has ended")
                self._lock.wait()
            answer = self._answers.pop(number)
        suite.note(f"{method} {text[:300]}\n  -> {answer[:1500]}")
        if answer.startswith("error "):
            raise CallFailed(f"{method}: {answer}")
        return json.loads(answer)

    def close(self):
        self._process.stdin.close()
        self._process.wait(suite.COMMAND_LIMIT)

    def _read(self):
        for line in self._process.stdout:
            number, _, answer = line.rstrip("\n").partition(" ")
            with self._lock:
                self._answers[number] = answer
                self._lock.notify_all()
        with self._lock:
            self._answers[None] = ""
            self._lock.notify_all()


def call(method, **request):
    """Calls the plug-in; fields as in cri.proto's JSON form."""
    return _client.call(method, request)


class Pod:
    """A pod sandbox and its containers."""

    def __init__(self, name, pid="CONTAINER", **linux):
        self.call = call
        self.logs = tempfile.mkdtemp(dir=folder)
        self.options = {"pid": pid}
        self.config = {
            "metadata": {"name": name, "uid": str(uuid.uuid4()), "namespace": "default"}, "hostname": f"{name}-host", "logDirectory": self.logs,
            "linux": {"securityContext": {"namespaceOptions": self.options}, **linux}}
        self.id = call("RunPodSandbox", config=self.config, runtimeHandler=handler)["podSandboxId"]
        self.containers = {}

    @property
    def address(self):
        return self.call("PodSandboxStatus", podSandboxId=self.id)["status"]["network"]["ip"]

    def create(self, name, *command, volume=None, resources=None, **config):
        linux = {"securityContext": {"namespaceOptions": self.options}}
        if resources:
            linux["resources"] = resources
        self.containers[name] = self.call("CreateContainer", podSandboxId=self.id, sandboxConfig=self.config, config={
            "metadata": {"name": name}, "image": {"image": IMAGE}, "command": command, "logPath": f"{name}.log", "linux": linux,
            "mounts": [{"containerPath": "/volume", "hostPath": volume}] if volume else [], **config})["containerId"]
        return self.containers[name]

    def start(self, name, *command, **options):
        container = self.create(name, *command, **options)
        self.call("StartContainer", containerId=container)
        return container

    def status(self, name):
        return self.call("ContainerStatus", containerId=self.containers[name])["status"]

    def state(self, name):
        return self.status(name).get("state", "CONTAINER_CREATED")

    def ended(self, name):
        """Waits for a container's end, and gives its exit status."""
        suite.until(lambda: self.state(name) == "CONTAINER_EXITED", f"{name} has ended")
        return self.status(name).get("exitCode", 0)

    def exec(self, name, *command, code=0):
        answer = self.call("ExecSync", containerId=self.containers[name], cmd=command)
        out, err = (base64.b64decode(answer.get(s, "")).decode() for s in ("stdout", "stderr"))
        if code is not None:
            equal(answer.get("exitCode", 0), code, f"exit status of {command} ({err})")
        return out

    def log(self, name):
        """What a container wrote: (stream, line) in order."""
        with open(f"{self.logs}/{name}.log") as f:
            return [(fields[1], fields[3]) for fields in (line.rstrip("\n").split(" ", 3) for line in f)]

    def remove(self):
        self.call("StopPodSandbox", podSandboxId=self.id)
        self.call("RemovePodSandbox", podSandboxId=self.id)


def stream(url, *input, code=0):
    """Runs a stream of Exec, Attach or PortForward: what it gives, once all of `input` is sent."""
    return run("dotnet", CLIENT, "stream", url, input="".join(input), code=code)


def pod():
    """The pod that most cases look at; made by the first."""
    if handler not in _pods:
        made = Pod("shared")
        made.volume = tempfile.mkdtemp(dir=folder)
        os.chmod(made.volume, 0o777)
        made.start("init", "sh", "-c", "hostname >/volume/index.html; echo prepared; exit 0", volume=made.volume)
        equal(made.ended("init"), 0, "exit status of the init container")
        made.start("web", "httpd", "-f", "-p", "8080", "-h", "/volume", volume=made.volume)
        made.start("life", "sh", "-c", scripts.LIFE, volume=made.volume, resources={"memoryLimitInBytes": 64 << 20, "cpuShares": 256})
        _pods[handler] = made
    return _pods[handler]


@case("an init container prepares a volume; two containers share it, the network and the hostname")
def shares():
    p = pod()
    equal(p.log("init"), [("stdout", "prepared")], "what the init container wrote")
    equal(p.exec("life", "cat", "/volume/index.html"), "shared-host\n", "what the init container left in the volume")
    equal([p.exec(c, "hostname") for c in ("web", "life")], ["shared-host\n"] * 2, "hostnames")
    equal(suite.until(lambda: p.exec("life", "wget", "-qO-", "http://127.0.0.1:8080/", code=None), "an answer over localhost"), "shared-host\n", "over localhost")
    equal(scripts.http(p.address, 8080), b"shared-host\n", "from the host")
    equal(p.exec("life", "sh", "-c", "pidof httpd; echo $?"), "1\n", "the other's processes are not seen")


@case("logs have both streams, in order")
def logs():
    p = pod()
    suite.until(lambda: len(p.log("life")) == 2, "two lines")
    equal(sorted(p.log("life")), [("stderr", "complained"), ("stdout", "started")], "log")


@case("ExecSync keeps streams and exit code")
def exec_sync():
    p = pod()
    answer = p.call("ExecSync", containerId=p.containers["life"], cmd=["sh", "-c", "echo out; echo err >&2; exit 9"])
    equal((base64.b64decode(answer["stdout"]), base64.b64decode(answer["stderr"]), answer["exitCode"]), (b"out\n", b"err\n", 9), "answer")


@case("exec carries streams; with a terminal it has a size, which follows, and the interrupt key")
def exec_stream():
    p = pod()
    answer = p.call("Exec", containerId=p.containers["life"], cmd=["sh", "-c", "read line; echo got $line; echo apart >&2; exit 4"], stdin=True, stdout=True, stderr=True)
    result = stream(answer["url"], "typed\n", code=4)
    equal((result.out, result.err), ("got typed\n", "apart\n"), "streams")
    script = "trap 'stty size' WINCH; trap 'echo interrupted; exit 6' INT; tty; echo waiting; while :; do read line && echo got $line; done"
    answer = p.call("Exec", containerId=p.containers["web"], cmd=["sh", "-c", script], stdin=True, stdout=True, tty=True)
    process = subprocess.Popen(["dotnet", CLIENT, "stream", answer["url"]], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
    said = b""

    def expect(text):
        nonlocal said
        while text not in said:
            more = os.read(process.stdout.fileno(), 4096)
            true(more, f"{text!r} in {said!r}")
            said += more

    expect(b"waiting")
    true(b"/dev/pts/" in said, f"tty: {said}")
    process.stdin.write(b"a line\n")
    expect(b"got a line")
    process.stdin.write(b"\x1f100 40\n")

    def resized():
        process.stdin.write(b"\n")
        time.sleep(0.2)
        nonlocal said
        said += os.read(process.stdout.fileno(), 4096)
        return b"40 100" in said
    suite.until(resized, "the terminal's new size")
    process.stdin.write(b"\x03")
    expect(b"interrupted")
    equal(process.wait(suite.COMMAND_LIMIT), 6, "exit status")


@case("attach reaches a container's streams")
def attach():
    p = pod()
    p.start("listener", "sh", "-c", "while read line; do echo heard $line; [ $line = end ] && exit 3; done", stdin=True)
    answer = p.call("Attach", containerId=p.containers["listener"], stdin=True, stdout=True, stderr=True)
    process = subprocess.Popen(["dotnet", CLIENT, "stream", answer["url"]], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
    os.set_blocking(process.stdout.fileno(), False)
    said = b""

    def heard():
        # containerd attaches the input before the output: what the container answers at once, nobody may hear.
        nonlocal said
        process.stdin.write(b"one\n")
        time.sleep(0.2)
        said += process.stdout.read() or b""
        return b"heard one\n" in said
    suite.until(heard, "what the container heard")
    process.stdin.write(b"end\n")
    equal(p.ended("listener"), 3, "exit status")
    process.wait(suite.COMMAND_LIMIT)
    p.call("RemoveContainer", containerId=p.containers["listener"])


@case("port-forward reaches a port of localhost, and says when nobody listens there")
def port_forward():
    p = pod()
    page = "GET / HTTP/1.0\r\n\r\n"

    def forward(port):
        return stream(p.call("PortForward", podSandboxId=p.id, port=[port])["url"] + f"?port={port}", page)
    result = forward(8080)
    true(result.out.startswith("HTTP/1.") and result.out.endswith("\n\nshared-host\n"), f"what came: {result.out!r}")
    equal(result.err, "", "errors")
    result = forward(8081)
    equal(result.out, "", "what came from where nobody listens")
    true("refused" in result.err or "reset" in result.err, f"what is said of it: {result.err!r}")
    p.exec("life", "sh", "-c", "exec httpd -p 127.0.0.1:8082 -h /volume")
    results = []
    threads = [threading.Thread(target=lambda: results.append(forward(8082).out.endswith("shared-host\n"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    equal(results, [True] * 4, "four at once, of a server on 127.0.0.1 alone")


@case("stats have the container's own memory and CPU time")
def stats():
    p = pod()
    figures = suite.until(lambda: p.call("ContainerStats", containerId=p.containers["life"])["stats"], "stats")
    memory = int(figures["memory"]["workingSetBytes"]["value"])
    true(0 < memory < 64 << 20, f"working set of {memory} bytes")
    true(int(figures["cpu"]["usageCoreNanoSeconds"]["value"]) > 0, str(figures))


@case("update changes a container's limits")
def update():
    p = pod()
    p.call("UpdateContainerResources", containerId=p.containers["life"], linux={"memoryLimitInBytes": 48 << 20})
    if suite.is_microvm():  # with runc the container sees no cgroup file system of its own here
        equal(p.exec("life", "sh", "-c", "cat /sys/fs/cgroup/memory.max || cat /sys/fs/cgroup/memory/memory.limit_in_bytes"), f"{48 << 20}\n", "limit inside")


@case("a pod outlives a crash of containerd")
def restart():
    p = pod()
    restart_daemon()
    equal(p.exec("web", "cat", "/volume/index.html"), "shared-host\n", "exec after the restart")
    equal(p.state("life"), "CONTAINER_RUNNING", "state")


@case("one container's end leaves the others, and it can be started again")
def one_ends():
    p = pod()
    p.call("StopContainer", containerId=p.containers["life"], timeout=60)
    equal((p.state("life"), p.status("life").get("exitCode")), ("CONTAINER_EXITED", 5), "state of the one that was stopped")
    p.call("RemoveContainer", containerId=p.containers["life"])
    equal(p.exec("web", "hostname"), "shared-host\n", "the other runs on")
    p.start("life", "sh", "-c", scripts.LIFE, volume=p.volume, **{"metadata": {"name": "life", "attempt": 1}})
    equal(p.exec("life", "wget", "-qO-", "http://127.0.0.1:8080/"), "shared-host\n", "the new one reaches the other")


@case("stop ends the whole pod, remove leaves nothing of it")
def remove():
    p = pod()
    p.call("StopPodSandbox", podSandboxId=p.id)
    equal([p.state(c) for c in ("web", "life")], ["CONTAINER_EXITED"] * 2, "states")
    p.call("RemovePodSandbox", podSandboxId=p.id)
    del _pods[handler]
    equal((call("ListPodSandbox"), call("ListContainers")), ({}, {}), "what is listed")


@case("a pod may share processes and memory")
def shared_processes():
    p = Pod("open", pid="POD")
    p.start("one", "sh", "-c", "echo shared >/dev/shm/message; exec sleep 1234")
    p.start("two", "sleep", "1000")
    seen = suite.until(lambda: next((line for line in p.exec("two", "ps").splitlines() if line.endswith("sleep 1234")), None), "the other's process")
    equal(p.exec("two", "cat", "/dev/shm/message"), "shared\n", "shared memory")
    p.exec("two", "kill", "-9", seen.split()[0])
    equal(p.ended("one"), 137, "exit status of the one that the other killed")
    equal(p.state("two"), "CONTAINER_RUNNING", "state of the other")
    p.remove()


@case("pods that are made, used and removed at once leave nothing")
def at_once():
    starts, failures = [], []

    def life(name):
        try:
            begin = time.monotonic()
            p = Pod(name)
            p.start("one", "httpd", "-f", "-p", "8080", "-h", "/etc")
            p.start("two", "sleep", "1000")
            starts.append(time.monotonic() - begin)
            equal(suite.until(lambda: p.exec("two", "wget", "-qO-", "http://127.0.0.1:8080/motd", code=None), "an answer"), "from the image\n", "answer")
            p.remove()
        except Exception as e:
            failures.append(f"{name}: {e}")
    for r in range(ROUNDS):
        threads = [threading.Thread(target=life, args=(f"pod-{r}-{n}",)) for n in range(PODS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        equal(failures, [], "failures")
    starts.sort()
    if len(starts) >= 20:
        print(f"note: start of a pod of two, {PODS} at once: p50 {starts[len(starts) // 2]:.2f} s, p99 {starts[len(starts) * 99 // 100]:.2f} s", flush=True)


@case("kill -9 of one of a pod's processes leaves nothing once the pod is removed")
def killed():
    if not suite.is_microvm():
        suite.skip("runc's shim leaves what it had when it is killed")
    for r in range(KILLS):
        before = set(jail.processes())
        p = Pod(f"doomed-{r}")
        p.start("one", "sleep", "1000")
        own = [pid for pid, line in sorted(jail.processes().items()) if pid not in before and any(n in line for n in ("microvm-vmm", "containerd-shim", "microvm sandbox"))]
        true(len(own) > 1, f"processes of the pod: {own}")
        starting = threading.Thread(target=lambda: suite.quietly(lambda: p.start("two", "sleep", "1000"), CallFailed))
        starting.start()
        time.sleep(random.random() / 2)
        os.kill(own[r % len(own)], signal.SIGKILL)
        starting.join()
        suite.until(lambda: suite.quietly(p.remove, CallFailed), "the pod is removed, as kubelet tries again and again")


@case("nothing is left when all pods are removed")
def leftovers():
    def networks():
        return glob.glob("/run/netns/*") + [i for i in os.listdir("/sys/class/net") if i not in ("lo", "pods0") and not i.startswith(("sit", "tunl", "ip6"))]
    suite.until(lambda: not networks(), f"no network is left: {networks()}", 30)
    scripts.check_nothing_left("containerd --config", CLIENT)
    sockets = ["/run/containerd/s"] if handler == "microvm" else []  # runc's shim leaves that of a killed one
    for states in ["/run/containerd/microvm/k8s.io", "/run/containerd/runc/k8s.io", *sockets]:
        equal(os.listdir(states) if os.path.isdir(states) else [], [], f"entries of {states}")
    with open("/proc/self/mountinfo") as f:
        equal([line for line in f if "/io.containerd.runtime.v2.task/" in line or "/sandboxes/" in line], [], "mounts of pods")
