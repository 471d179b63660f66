"""A command on a pseudo-terminal, typed at and read as a person would."""
import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time

from . import suite


class Terminal:
    def __init__(self, *args, rows=33, columns=77):
        self._args = [str(a) for a in args]
        self._master, slave = pty.openpty()
        self.resize(rows, columns)
        self._seen = ""
        self._process = subprocess.Popen(
            self._args, stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))
        os.close(slave)

    def resize(self, rows, columns):
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))

    def type(self, text):
        os.write(self._master, text.encode())

    def expect(self, text, limit=suite.COMMAND_LIMIT):
        """Reads until `text` has come; gives what came up to and with it."""
        deadline = time.monotonic() + limit
        while text not in self._seen:
            if not self._read(deadline):
                raise AssertionError(f"{suite.command_line(self._args)}: {text!r} did not come; what came: {self._seen!r}")
        before, self._seen = self._seen.split(text, 1)
        return before + text

    def end(self, code, limit=suite.COMMAND_LIMIT):
        """Reads to the end and checks the exit status; gives the rest of the output."""
        deadline = time.monotonic() + limit
        while self._read(deadline):
            pass
        try:
            status = self._process.wait(max(1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            raise AssertionError(f"no end after {limit} s: {suite.command_line(self._args)}; last came {self._seen!r}") from None
        os.close(self._master)
        suite.note(f"$ {suite.command_line(self._args)}  (on a terminal)\nlast came {self._seen!r}")
        suite.equal(status, code, f"exit status of {suite.command_line(self._args)}")
        return self._seen

    def _read(self, deadline):
        ready, _, _ = select.select([self._master], [], [], max(0, deadline - time.monotonic()))
        if not ready:
            return False
        try:
            data = os.read(self._master, 65536)
        except OSError:  # EIO: the last writer has closed
            return False
        self._seen += data.decode(errors="replace")
        return bool(data)
