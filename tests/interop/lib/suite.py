"""Cases, their results, and running the commands that they check."""
import os
import shlex
import subprocess
import sys
import time
import traceback

from . import jail

# Where the host's KVM emulates guest kernel code (no VT-x, no AMD-V), a container in a VM takes most of a minute to start.

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
RUNTIME = os.path.abspath(os.environ.get("RUNTIME", "/usr/sbin/runc"))
COMMAND_LIMIT = 240

_cases = []
_transcript = []


class Skipped(Exception):
    pass


class Result:
    def __init__(self, args, code, out, err):
        self.args, self.code, self.out, self.err = args, code, out, err

    def __str__(self):
        return f"$ {command_line(self.args)}\nexit status {self.code}\n{_indent('out', self.out)}{_indent('err', self.err)}"


def case(title):
    """A case."""
    def add(function):
        _cases.append((title, function))
        return function
    return add


def run(*args, input="", code=0, limit=COMMAND_LIMIT):
    """Runs a command to its end; any exit status but `code` fails the case (None: all are good)."""
    args = [str(a) for a in args]
    try:
        done = subprocess.run(args, input=input, capture_output=True, text=True, errors="replace", timeout=limit)
    except subprocess.TimeoutExpired as e:
        streams = [(s or b"").decode(errors="replace") if not isinstance(s, str) else s for s in (e.stdout, e.stderr)]
        note(f"$ {command_line(args)}\n{_indent('out', streams[0])}{_indent('err', streams[1])}")
        raise AssertionError(f"no end after {limit} s: {command_line(args)}") from None
    result = Result(args, done.returncode, done.stdout, done.stderr)
    note(str(result))
    if code is not None:
        equal(result.code, code, f"exit status of {command_line(args)}")
    return result


def command_line(args):
    """For messages: what a shell would take, but for long arguments, which are cut."""
    return " ".join(shlex.quote(a) if len(a) < 80 else repr(a[:60]) + "..." for a in args)


def note(text):
    """Adds to what is shown when the case fails."""
    _transcript.append(text)


def equal(actual, expected, what):
    if actual != expected:
        raise AssertionError(f"{what}: {actual!r}, expected {expected!r}")


def true(condition, what):
    if not condition:
        raise AssertionError(what)


def until(condition, what, limit=COMMAND_LIMIT):
    """Waits until condition() holds, and returns what it gave."""
    deadline = time.monotonic() + limit
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {limit} s: {what}")
        time.sleep(0.1)
    return value


def quietly(body, *failures):
    """Runs body(), whose failures of these kinds are expected; false after one."""
    try:
        body()
        return True
    except failures:
        return False


def skip(reason):
    raise Skipped(reason)


def runtime_name():
    """`runc`, `crun` or `microvm`: the first word of the runtime's --version."""
    return subprocess.run([RUNTIME, "--version"], capture_output=True, text=True, timeout=60).stdout.split(" ")[0]


def is_microvm():
    return runtime_name() == "microvm"


def main(engine, programs, start, stop, limit=1500):
    """Runs the script's cases in a jail, between start(folder) and stop(), and ends the process."""
    if "-h" in sys.argv or "--help" in sys.argv:
        print(f"usage: [RUNTIME=FILE] {sys.argv[0]} [PART-OF-A-TITLE...]")
        sys.exit(0)
    missing = [p for p in programs if not any(os.access(os.path.join(d, p), os.X_OK) for d in _path())]
    if os.getuid() != 0:
        _all_skipped(engine, "not root: an engine needs namespaces, mounts and cgroups")
    if missing:
        _all_skipped(engine, f"not installed: {', '.join(missing)} (eng/install-deps installs them)")
    if not os.access(RUNTIME, os.X_OK):
        _all_skipped(engine, f"the runtime {RUNTIME} is missing")
    if is_microvm() and not os.path.exists("/dev/kvm"):
        _all_skipped(engine, "no /dev/kvm on this machine")
    os.environ["PATH"] = ":".join(_path())
    jail.run(lambda folder: _run(engine, folder, start, stop), limit)


def _run(engine, folder, start, stop):
    name = runtime_name()
    counts = {"passed": 0, "failed": 0, "skipped": 0}
    wanted = sys.argv[1:]
    os.chdir(folder)  # conmon leaves files in its working directory
    try:
        start(folder)
    except (AssertionError, OSError) as e:
        print(f"failed: {engine} with {name}: start\n{_details(e)}", flush=True)
        counts["failed"] += 1
    for title, function in _cases if not counts["failed"] else []:
        if wanted and not any(w in title for w in wanted):
            continue
        label = f"{engine} with {name}: {title}"
        _transcript.clear()
        begin = time.monotonic()
        try:
            function()
            outcome, text = "passed", f"{time.monotonic() - begin:.1f} s"
        except Skipped as e:
            outcome, text = "skipped", str(e)
        except Exception as e:
            outcome, text = "failed", _details(e)
        counts[outcome] += 1
        print(f"{outcome}: {label}" + {"passed": f" ({text})", "skipped": f": {text}", "failed": f"\n{text}"}[outcome], flush=True)
    stop()
    print(", ".join(f"{n} {outcome}" for outcome, n in counts.items()), flush=True)
    return 1 if counts["failed"] or not sum(counts.values()) else 0


def _details(e):
    where = traceback.extract_tb(e.__traceback__)
    lines = "".join(f"  {os.path.basename(f.filename)}:{f.lineno}: {f.line}\n" for f in where if f.name != "_run")
    text = f"{type(e).__name__}: {e}\n{lines}" + "\n".join(_transcript[-6:])
    return "\n".join("    " + line for line in text[-6000:].splitlines())


def _indent(name, text):
    return "".join(f"  {name}| {line}\n" for line in text[-2000:].splitlines())


def _path():
    return os.environ["PATH"].split(":") + ["/usr/sbin", "/sbin", "/usr/local/sbin"]


def _all_skipped(engine, reason):
    for title, *_ in _cases:
        print(f"skipped: {engine}: {title}: {reason}")
    print(f"0 passed, 0 failed, {len(_cases)} skipped")
    sys.exit(0)
