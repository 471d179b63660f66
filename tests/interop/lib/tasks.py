"""containerd of its own, driven by ctr, and the cases that every shim has to pass."""
import json
import os
import subprocess

from . import scripts, suite
from .suite import case, equal, run, true
from .terminal import Terminal

IMAGE = "localhost/interop:latest"
ADDRESS = "/run/containerd/containerd.sock"
LIFE = "life"
folder = None

_daemon = None
_snapshotter = None
_flags = []
_path = None


def use(*flags, path=None):
    """Which runtime ctr asks for; `path` is a folder in which containerd looks for shims first."""
    global _flags, _path
    _flags, _path = flags, path


def ctr(*args, **options):
    return run("ctr", "--address", ADDRESS, *args, **options)


def start(top):
    global folder, _snapshotter
    folder = top
    _snapshotter = {"overlay": "overlayfs", "vfs": "native"}[scripts.storage_driver(folder)]
    archive = scripts.image(IMAGE, folder)
    with open(f"{folder}/containerd.toml", "w") as f:
        f.write(f"""version = 2
root = "{folder}/root"
state = "/run/containerd"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
address = "{ADDRESS}"
[plugins."io.containerd.internal.v1.opt"]
path = "{folder}/opt"
""")
    start_daemon()
    ctr("image", "import", "--snapshotter", _snapshotter, archive)


def start_daemon():
    """Starts containerd and waits until it answers."""
    global _daemon
    log = f"{folder}/containerd.log"
    path = os.environ["PATH"] if _path is None else _path + ":" + os.environ["PATH"]
    with open(log, "a") as f:
        _daemon = subprocess.Popen(
            ["containerd", "--config", f"{folder}/containerd.toml"], stdin=subprocess.DEVNULL, stdout=f, stderr=f, env={**os.environ, "PATH": path})

    def up():
        if _daemon.poll() is not None:
            with open(log) as f:
                raise AssertionError(f"containerd ended with {_daemon.returncode}:\n{f.read()[-3000:]}")
        return ctr("version", code=None).code == 0

    suite.until(up, "containerd answers", 120)


def stop():
    if _daemon is not None and _daemon.poll() is None:
        _daemon.terminate()
        _daemon.wait(suite.COMMAND_LIMIT)


def kill_daemon():
    """Ends containerd as a crash does."""
    _daemon.kill()
    _daemon.wait(suite.COMMAND_LIMIT)


def snapshotter():
    return _snapshotter


def start_args(*flags):
    return ["run", *_flags, "--snapshotter", _snapshotter, *flags, IMAGE]


def terminal_of(*args):
    return Terminal("ctr", "--address", ADDRESS, *args)


def status(name):
    rows = [line.split() for line in ctr("task", "ls").out.splitlines()[1:]]
    return next((row[2] for row in rows if row[0] == name), None)


def pid(name):
    """The task's process on the host."""
    rows = [line.split() for line in ctr("task", "ls").out.splitlines()[1:]]
    return next(int(row[1]) for row in rows if row[0] == name)


def life():
    """The container that several cases look at from outside; started by the first."""
    if status(LIFE) is None:
        ctr(*start_args("--detach", "--log-uri", f"file://{folder}/life.log", "--memory-limit", str(64 << 20)), LIFE,
            "sh", "-c", scripts.LIFE)
        suite.until(lambda: "started" in log(), "the container's first line in its log")
    return LIFE


def log():
    try:
        with open(f"{folder}/life.log") as f:
            return f.read()
    except FileNotFoundError:
        return ""


def deleted(name):
    """Deletes the task; gives the exit status that a warning of ctr has."""
    return ctr("task", "delete", name).err.rpartition("exit code ")[2].strip().strip('"')


@case("run --rm keeps streams, exit code and the process's settings")
def settings():
    volumes = scripts.Volumes()
    mounts = [("/rw", volumes.writable, "rw"), ("/ro", volumes.read_only, "ro"), ("/etc/one-file", volumes.file, "ro")]
    flags = [f"--mount=type=bind,src={source},dst={target},options=rbind:{mode}" for target, source, mode in mounts]
    result = ctr(*start_args(
        "--rm", "--env", "FROM_CALLER=a b", "--cwd", "/home/user", "--read-only",
        "--mount", "type=tmpfs,src=tmpfs,dst=/scratch,options=size=1m:mode=1777", *flags), "settings", "sh", "-c", scripts.SETTINGS,
        input="typed in\n", code=23)
    given = [line for line in result.out.splitlines() if not line.startswith(("host ", "user ", "files "))]
    equal(given, scripts.settings_lines("host", "user", "files"), "what the container says")
    equal(result.err, "apart\n", "standard error")
    scripts.check_volumes(volumes, 0)


@case("run -t has a terminal with a size, which follows, and the interrupt key")
def terminal():
    scripts.check_terminal(terminal_of(*start_args("--rm", "-t"), "terminal", "sh", "-c", scripts.TERMINAL))


@case("run of a program that is not there fails and names it")
def missing():
    result = ctr(*start_args("--rm"), "missing", "no-such-program", code=1)
    true("no-such-program" in result.err and "not found" in result.err, result.err)


@case("run -d, task ls and task ps show it running")
def listing():
    equal(status(life()), "RUNNING", "status")
    process = str(pid(LIFE))
    true(os.path.exists(f"/proc/{process}"), "the task's PID is a process")
    listed = [line.split()[0] for line in ctr("task", "ps", LIFE).out.splitlines()[1:]]
    true(process in listed, f"task ps lists {listed}, not {process}")
    equal(sorted(log().splitlines()), ["complained", "started"], "what it wrote")


@case("task exec keeps streams and exit code; exec -t has a terminal")
def execute():
    name = life()
    result = ctr("task", "exec", "--exec-id", "e1", "--user", "1000:1000", "--cwd", "/tmp", name, "sh", "-c",
                 "read line; echo $line $PWD $(id -u); echo apart >&2; exit 9", input="typed\n", code=9)
    equal((result.out, result.err), ("typed /tmp 1000\n", "apart\n"), "exec's streams")
    scripts.check_terminal(terminal_of("task", "exec", "-t", "--exec-id", "e2", name, "sh", "-c", scripts.TERMINAL))


@case("task metrics has memory and processes")
def metrics():
    found = json.loads(ctr("task", "metrics", "--format", "json", life()).out)
    memory = found["memory"]["usage"]
    usage = memory["usage"] if isinstance(memory, dict) else memory
    true(int(usage) > 0 and int(found["pids"]["current"]) > 0, str(found)[:500])


@case("the memory limit of task metrics is the container's, or with runc's shim its VM's")
def metrics_limit():
    found = json.loads(ctr("task", "metrics", "--format", "json", life()).out)
    memory = found["memory"]["usage"]
    limit = int(memory["limit"] if isinstance(memory, dict) else found["memory"]["usage_limit"])
    equal(limit, 64 << 20 if "io.containerd.microvm.v2" in _flags else scripts.vm_limit(64 << 20), "the limit")


@case("task pause holds back the signal that kill sends, resume lets it through")
def pause():
    name = life()
    ctr("task", "pause", name)
    equal(status(name), "PAUSED", "status")
    ctr("task", "kill", "--signal", "USR1", name)
    true("told" not in log(), "the handler of SIGUSR1 ran while paused")
    ctr("task", "resume", name)
    equal(status(name), "RUNNING", "status")
    suite.until(lambda: "told" in log(), "the handler's line in the log")


@case("task kill ends it, task delete gives its exit status")
def kill():
    name = life()
    ctr("task", "kill", name)
    suite.until(lambda: status(name) == "STOPPED", "the task is stopped")
    true("stopping" in log(), "the handler of SIGTERM ran")
    equal(deleted(name), "5", "the exit status that task delete tells")
    ctr("container", "delete", name)


@case("task delete --force ends what does not listen")
def stubborn():
    ctr(*start_args("--detach"), "stubborn", "sh", "-c", "trap '' TERM; " + scripts.WAIT)
    ctr("task", "kill", "stubborn")
    equal(status("stubborn"), "RUNNING", "status")
    ctr("task", "delete", "--force", "stubborn", code=None)
    equal(status("stubborn"), None, "status")
    ctr("container", "delete", "stubborn")


@case("the shim deletes what a killed runtime process leaves")
def killed():
    ctr(*start_args("--detach"), "killed", "sleep", "1000")
    ctr("task", "kill", "--signal", "KILL", "killed")
    suite.until(lambda: status("killed") == "STOPPED", "the task is stopped")
    equal(deleted("killed"), "137", "the exit status that task delete tells")
    ctr("container", "delete", "killed")
