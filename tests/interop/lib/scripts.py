"""What the engines' cases share: the image, the scripts that containers run, and what must come of them."""
import os
import subprocess
import tempfile
import time
import urllib.request

from . import jail, suite
from .suite import equal, true

# Waits for signals without using the processor.
WAIT = "while :; do sleep 1000 & wait $!; done"

LIFE = "trap 'echo told' USR1; trap 'echo stopping; exit 5' TERM; echo started; echo complained >&2; " + WAIT

SETTINGS = """
read line; echo "stdin $line"
echo "host $(hostname)"
echo "caller $FROM_CALLER"
echo "image $IMAGE_VARIABLE"
echo "cwd $PWD"
echo "user $(id -u) $(id -g) $(id -G)"
echo "rw $(cat /rw/given)"; echo written > /rw/made
echo "ro $(cat /ro/given)"; (echo x > /ro/made) 2>/dev/null || echo "ro refused"
echo "file $(cat /etc/one-file)"; (echo x > /etc/one-file) 2>/dev/null || echo "file refused"
(echo x > /home/user/made) 2>/dev/null || echo "root refused"
echo x > /scratch/made && echo "scratch $(cat /scratch/made)"
echo "files $(ulimit -n)"
echo apart >&2
exit 23
"""

# What a privileged container may do, whatever devices there are.
PRIVILEGED = """
grep -q 'CapEff:.*ff$' /proc/self/status && echo capabilities
mount -t tmpfs tmpfs /mnt && echo mounted
echo 1 > /proc/sys/net/ipv4/ip_forward && echo sysctl
echo x > /dev/null && head -c 1 /dev/kmsg >/dev/null && echo devices
for d in $(find /dev -type b -o -type c | grep -v /dev/tty); do
    (: < $d) 2>&1 | grep -i 'no such device' | sed "s#^#dead: #"
done
"""

# Engines set the size a moment after the start.
TERMINAL = """
tty
until stty size 2>/dev/null | grep '33 77'; do sleep 0.2; done
trap 'stty size' WINCH
trap 'echo interrupted; exit 6' INT
echo waiting
while :; do read line && echo got $line; done
"""


def storage_driver(folder):
    """overlay where the folder's file system can carry it, else vfs."""
    parts = [os.path.join(folder, "overlay-trial", d) for d in ("lower", "upper", "work", "merged")]
    for part in parts:
        os.makedirs(part)
    options = "lowerdir={},upperdir={},workdir={}".format(*parts)
    if subprocess.run(["mount", "-t", "overlay", "-o", options, "overlay", parts[3]], capture_output=True).returncode != 0:
        return "vfs"
    subprocess.run(["umount", parts[3]], check=True)
    return "overlay"


# What runc says of a folder that is to be executed: 1.1.5, and 1.1.15.
NO_PROGRAM = ("permission denied", "is a directory")


def vm_limit(limit):
    """What an engine reads as the memory limit, in bytes: with a VM, the VM's size and what is beside it (docs/CALLERS.md)."""
    mib = 1 << 20
    return max(limit + 64 * mib, 128 * mib) + 128 * mib if suite.is_microvm() else limit


def installed_below(host):
    """The runtime's path, which is there below `host`, too, as `microvm install --host` wants it."""
    os.makedirs(host + os.path.dirname(suite.RUNTIME), exist_ok=True)
    if not os.path.lexists(host + suite.RUNTIME):
        os.symlink(suite.RUNTIME, host + suite.RUNTIME)
    return suite.RUNTIME


def check_privileged(said):
    lines = said.splitlines()
    equal([line for line in lines if not line.startswith("dead: ")], ["capabilities", "mounted", "sysctl", "devices"], "what it may do")
    if suite.is_microvm():
        equal(lines[4:], [], "nodes of devices that are not there")


def image(name, folder, command="/bin/sh"):
    """Makes the cases' image as an archive below `folder`."""
    archive = os.path.join(folder, name.partition(":")[0].rpartition("/")[2] + ".tar")
    suite.run(os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "make-image"), name, archive, command)
    return archive


class Volumes:
    """Two folders and a file of the host, for the container's user 1000."""

    def __init__(self):
        top = tempfile.mkdtemp()
        os.chmod(top, 0o755)
        self.writable, self.read_only, self.file = (os.path.join(top, n) for n in ("writable", "read-only", "file"))
        for folder in (self.writable, self.read_only):
            os.mkdir(folder)
            with open(os.path.join(folder, "given"), "w") as f:
                f.write("from the host\n")
            os.chown(folder, 1000, 1000)
        with open(self.file, "w") as f:
            f.write("one file\n")
        os.chmod(self.file, 0o666)


def check_settings(result, volumes):
    equal(result.out.splitlines(), settings_lines(), "what the container says")
    equal(result.err, "apart\n", "standard error")
    check_volumes(volumes)


def settings_lines(*without):
    """What SETTINGS prints, but for the lines that begin with one of `without`."""
    lines = [
        "stdin typed in",
        "host inner",
        "caller a b",
        "image image",
        "cwd /home/user",
        "user 1000 1000 1000 2000",
        "rw from the host",
        "ro from the host",
        "ro refused",
        "file one file",
        "file refused",
        "root refused",
        "scratch x",
        "files 512",
    ]
    return [line for line in lines if line.split()[0] not in without]


def check_volumes(volumes, owner=1000):
    """What SETTINGS did to them."""
    made = os.path.join(volumes.writable, "made")
    with open(made) as f:
        equal(f.read(), "written\n", "the file that the container wrote")
    equal(os.stat(made).st_uid, owner, "its owner")
    equal(os.listdir(volumes.read_only), ["given"], "the read-only folder")


def check_terminal(terminal):
    """With TERMINAL as the container's script."""
    said = terminal.expect("waiting").split()
    true(said[0].startswith("/dev/pts/") or said[0] == "/dev/console", f"tty says {said[0]!r}")
    equal(said[1:3], ["33", "77"], "stty size")
    terminal.type("a line\n")
    terminal.expect("got a line")

    def resized():
        # Twice, since a client looks at its terminal's size from some moment after its process has begun.
        terminal.resize(40, 99)
        terminal.resize(40, 100)
        terminal.type("\n")  # ends the shell's read, which holds the trap back; the signal may come after it
        return suite.quietly(lambda: terminal.expect("40 100", 1), AssertionError)
    suite.until(resized, "the terminal's new size")
    terminal.type("\x03")
    terminal.expect("interrupted")
    terminal.end(6)


def http(address, port):
    """What a server of the jail answers; it may need a moment to listen."""
    for attempt in range(100):
        try:
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(f"http://{address}:{port}/", timeout=10) as reply:
                return reply.read()
        except OSError:
            if attempt == 99:
                raise
            time.sleep(0.2)


def check_nothing_left(*servers):
    """No process but `servers` (parts of command lines), and no state of the runtime."""
    def strangers():
        return {p: line for p, line in jail.processes().items() if not any(s in line for s in servers)}

    deadline = time.monotonic() + 30
    while strangers() and time.monotonic() < deadline:
        time.sleep(0.1)
    equal(strangers(), {}, "processes that are left")
    state = os.path.join("/run", suite.runtime_name())
    equal(os.listdir(state) if os.path.isdir(state) else [], [], f"entries of {state}")
