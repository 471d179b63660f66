"""A place of its own for a container engine: new network, mount, PID and cgroup namespaces, which end with everything in them.

What an engine writes outside its own folders (/run, /var/lib, /dev/shm) goes to file systems of the jail. Its cgroups are made
below one of the jail's, so that removing that one removes all.
"""
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

_STAGE = "MICROVM_INTEROP_STAGE"
_PRIVATE = ["/run", "/var/lib", "/var/tmp", "/dev/shm"]


def run(body, limit):
    """Runs body(folder) in a jail and exits with its status; kills all of it after `limit` seconds."""
    stage = os.environ.get(_STAGE)
    if stage is None:
        sys.exit(_outside(limit))
    del os.environ[_STAGE]
    sys.exit(_first_process(lambda: body(stage)))


def processes():
    """Command lines of the jail's processes, without the jail's own, by PID."""
    own = {1, os.getpid()}
    found = {}
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) not in own:
            try:
                with open(f"/proc/{name}/cmdline", "rb") as f:
                    line = f.read().replace(b"\0", b" ").decode(errors="replace").strip()
            except OSError:
                continue
            if line:  # neither a zombie nor a kernel thread
                found[int(name)] = line
    return found


def _outside(limit):
    folder = tempfile.mkdtemp(prefix="microvm-interop-")
    cgroups = _make_cgroups(f"microvm-interop-{os.getpid()}")

    # The process that waits for the jail stays out of the jail's own cgroup of version 2, which passes controllers on only while it
    # holds no process itself; the jail moves there.
    unified = next((path for controllers, path in cgroups if not controllers), None)
    waiting = os.path.join(unified, "waiting") if unified else None
    if waiting:
        os.mkdir(waiting)

    def join():
        for controllers, path in cgroups:
            _write(os.path.join(path if controllers else waiting, "cgroup.procs"), "0")

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    jailed = None
    try:
        jailed = subprocess.Popen(
            ["unshare", "--mount", "--net", "--pid", "--ipc", "--uts", "--fork", "--kill-child", "--mount-proc",
             "sh", "-c", 'if [ -n "$1" ]; then echo 0 >"$1/cgroup.procs"; fi; shift; exec unshare --cgroup "$@"', "sh", unified or "",
             sys.executable, *sys.argv],
            env={**os.environ, _STAGE: folder, "TMPDIR": os.path.join(folder, "tmp")}, preexec_fn=join)
        return jailed.wait(limit)
    except subprocess.TimeoutExpired:
        print(f"failed: everything took longer than {limit} s and was killed", flush=True)
        return 1
    finally:
        if jailed is not None and jailed.poll() is None:
            jailed.kill()
            jailed.wait()
        _remove_cgroups(cgroups)
        shutil.rmtree(folder, ignore_errors=True)


def _first_process(body):
    """PID 1 of the jail: makes its mounts, then reaps what engines leave behind until `body`, a child, ends."""
    folder = os.environ["TMPDIR"]
    os.makedirs(folder)
    for path in _PRIVATE:
        _command("mount", "-t", "tmpfs", "-o", "mode=755", "jail", path)
    os.chmod("/var/tmp", 0o1777)
    os.chmod("/dev/shm", 0o1777)
    hierarchies = _hierarchies()
    _command("mount", "-t", "sysfs", "-o", "nosuid,nodev,noexec", "sysfs", "/sys")
    _mount_cgroups(hierarchies)
    _command("ip", "link", "set", "lo", "up")
    os.makedirs("/run/lock")
    child = os.fork()
    if child == 0:
        status = 1
        try:
            status = body()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    while True:
        pid, status = os.wait()
        if pid == child:
            return os.waitstatus_to_exitcode(status)


def _hierarchies():
    """(controllers, own path) of each cgroup hierarchy; no controllers stands for version 2."""
    with open("/proc/self/cgroup") as f:
        return [(c, p) for _, c, p in (line.rstrip("\n").split(":", 2) for line in f)]


def _make_cgroups(name):
    """Makes the jail's cgroup in every mounted hierarchy, below the caller's own: (controllers, folder) of each."""
    with open("/proc/self/mountinfo") as f:
        mounts = [line.split() for line in f]
    made = []
    for controllers, own in _hierarchies():
        for fields in mounts:
            kind, options = fields[fields.index("-") + 1], fields[-1].split(",")
            if kind != ("cgroup" if controllers else "cgroup2") or not set(filter(None, controllers.split(","))) <= set(options):
                continue
            root, point = fields[3], fields[4]
            relative = os.path.relpath(own, root) if own.startswith(root) else "."
            path = os.path.join(point, "" if relative == "." else relative, name)
            try:
                os.mkdir(path)
            except OSError as e:
                sys.exit(f"cannot make the cgroup {path}: {e.strerror}")
            for setting in ("cpuset.cpus", "cpuset.mems"):
                inherited = os.path.join(os.path.dirname(path), setting)
                if controllers and os.path.exists(inherited):
                    with open(inherited) as f:
                        _write(os.path.join(path, setting), f.read())
            made.append((controllers, path))
            break
    return made


def _mount_cgroups(hierarchies):
    """Mounts the hierarchies again, so that the jail's cgroup is the root of each, as /proc says."""
    if not any(controllers for controllers, _ in hierarchies):
        _command("mount", "-t", "cgroup2", "cgroup2", "/sys/fs/cgroup")
        # Version 2 lets controllers through only where no process is: the jail's own go to a leaf.
        os.mkdir("/sys/fs/cgroup/jail")
        _write("/sys/fs/cgroup/jail/cgroup.procs", str(os.getpid()))
        with open("/sys/fs/cgroup/cgroup.controllers") as f:
            for controller in f.read().split():
                _write("/sys/fs/cgroup/cgroup.subtree_control", "+" + controller)
        return
    _command("mount", "-t", "tmpfs", "-o", "mode=755", "cgroups", "/sys/fs/cgroup")
    for controllers, _ in hierarchies:
        point = "/sys/fs/cgroup/" + (controllers.removeprefix("name=") or "unified")
        os.mkdir(point)
        if not controllers:
            _command("mount", "-t", "cgroup2", "cgroup2", point)
        else:
            options = controllers if "=" not in controllers else "none," + controllers
            _command("mount", "-t", "cgroup", "-o", options, "cgroup", point)


def _remove_cgroups(cgroups):
    deadline = time.monotonic() + 10
    for _, top in cgroups:
        for path, _, _ in os.walk(top, topdown=False):
            while True:
                try:
                    os.rmdir(path)
                except FileNotFoundError:
                    pass
                except OSError as e:  # the last processes are still on their way out
                    if time.monotonic() < deadline:
                        time.sleep(0.05)
                        continue
                    print(f"left behind: {path}: {e.strerror}", file=sys.stderr)
                break


def _write(path, text):
    with open(path, "w") as f:
        f.write(text)


def _command(*args):
    done = subprocess.run(args, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(args)}: {done.stderr.strip()}")
