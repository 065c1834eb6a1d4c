"""read_screen.py OUTPUT ROWS COLUMNS: what a terminal of that size shows last of the alternate screen
in OUTPUT, the bytes a program wrote. An error if the program left the terminal in another state than
it found it, if the screen scrolled, or if anything was written beside it."""

import re
import sys

import pyte

ENTER, LEAVE, HIDE, SHOW = b"\x1b[?1049h", b"\x1b[?1049l", b"\x1b[?25l", b"\x1b[?25h"

with open(sys.argv[1], "rb") as source:
    output = source.read()
rows, columns = int(sys.argv[2]), int(sys.argv[3])
running = LEAVE not in output

before, entered, rest = output.partition(ENTER)
inside, left, after = rest.partition(LEAVE)
problems = []
if not entered:
    problems.append("the alternate screen was not entered")
if not running and inside.count(HIDE) != inside.count(SHOW):
    problems.append("the cursor stays hidden")
if before or after:
    problems.append(f"written beside the screen: {before!r} {after!r}")


class Screen(pyte.Screen):
    def index(self):
        if self.cursor.y == self.lines - 1:
            problems.append("it scrolled")
        super().index()


screen = Screen(columns, rows)
for frame in re.split(rb"(?=\x1b\[H)", inside):
    for line in re.sub(rb"\x1b\[[?0-9]*[a-zA-Z]", b"", frame).replace(b"\r", b"").split(b"\n"):
        if len(line) > columns:
            problems.append(f"longer than {columns} columns: {line!r}")
pyte.ByteStream(screen).feed(inside)
print(*[line.rstrip() for line in screen.display], sep="\n")
print(*problems, sep="\n", file=sys.stderr)
sys.exit(1 if problems else 0)
