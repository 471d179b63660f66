"""What ctr and its watchers see of each command, with two runtimes side by side: exit statuses, and events with their fields."""
import itertools
import json
import os

from . import suite, tasks
from .tasks import ctr, status

DOCUMENT = os.path.join(suite.TOP, "docs/CALLERS.md")
HEAD = "| `ctr` | exit status | events, with their fields |\n|---|---|---|\n"


def rows(events, flags):
    """Runs every command; (command, exit status, events) of each. `events` is a context manager whose lines() are those of `ctr events`."""
    made = []

    def note(what, *args, until=1):
        """Runs ctr, and waits for the last of the events that are expected of it."""
        with events() as heard:
            code = ctr(*args, code=None).code
            suite.until(lambda: len(heard.topics()) >= until, f"{until} events of {what}") if until else None
            made.append((what, code, [described(line) for line in heard.task_lines()]))

    start = ["run", *flags, "--snapshotter", tasks.snapshotter()]
    note("run --rm, exit 3", *start, "--rm", tasks.IMAGE, "beside", "sh", "-c", "exit 3", until=4)
    note("run --rm of a program that is not there", *start, "--rm", tasks.IMAGE, "beside", "no-such-program", until=0)
    ctr("container", "delete", "beside", code=None)
    note("run --detach", *start, "--detach", tasks.IMAGE, "beside", "sleep", "1000", until=2)
    note("task exec, exit 4", "task", "exec", "--exec-id", "e", "beside", "sh", "-c", "exit 4", until=3)
    note("task exec of a program that is not there", "task", "exec", "--exec-id", "e", "beside", "no-such-program")
    note("task pause", "task", "pause", "beside")
    note("task resume", "task", "resume", "beside")
    note("task metrics", "task", "metrics", "beside", until=0)
    note("task checkpoint", "task", "checkpoint", "beside", until=2)  # ctr itself pauses and resumes
    note("task kill --signal KILL", "task", "kill", "--signal", "KILL", "beside")
    suite.until(lambda: status("beside") == "STOPPED", "the task is stopped")
    note("task kill of one that has ended", "task", "kill", "beside", until=0)
    note("task delete", "task", "delete", "beside")
    note("task delete of what is not there", "task", "delete", "beside", until=0)
    ctr("container", "delete", "beside")
    return made


def described(line):
    """A line of `ctr events`: topic, the names of the fields, and the exit status."""
    topic = next(word for word in line.split() if word.startswith("/tasks/"))
    fields = json.loads(line[line.index("{"):])
    return f"{topic.removeprefix('/tasks/')} ({', '.join(f'{n} {v}' if n == 'exit_status' else n for n, v in sorted(fields.items()))})"


def table(made):
    return HEAD + "".join(f"| {what} | {code} | {'; '.join(seen) or '–'} |\n" for what, code, seen in made)


def check(text):
    """The document's table is `text`; with MICROVM_WRITE_TABLE it is made so."""
    with open(DOCUMENT) as f:
        document = f.read()
    before, head, rest = document.partition(HEAD)
    suite.true(head, f"no table of ctr's commands in {DOCUMENT}")
    body = "".join(itertools.takewhile(lambda line: line.startswith("|"), rest.splitlines(keepends=True)))
    if os.environ.get("MICROVM_WRITE_TABLE"):
        with open(DOCUMENT, "w") as f:
            f.write(before + text + rest[len(body):])
    else:
        suite.equal(head + body, text, "the table in docs/CALLERS.md (MICROVM_WRITE_TABLE=1 writes it)")
