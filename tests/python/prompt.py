"""Types at `minerva sql` as a person does, in a pseudo-terminal, and looks at what the screen shows."""

import fcntl
import os
import pty
import re
import select
import signal
import socket
import stat
import struct
import sys
import tempfile
import termios
import time

PROGRAM, SERVER, DATA, USER, KEY = sys.argv[1:6]
FOLDER = tempfile.mkdtemp()
CTRL_C, CTRL_D, CTRL_R, UP, TAB = "\x03", "\x04", "\x12", "\x1b[A", "\t"
PROMPT = "minerva> "
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
#: Makes 3.6 thousand million rows and shows one.
ENDLESS = f"SELECT max(a.l_partkey * b.l_partkey) AS of_{os.getpid()} FROM small.tpch.lineitem a, small.tpch.lineitem b;"

CHECKS = []


def check(function):
    CHECKS.append(function)
    return function


class Terminal:
    """A prompt in a terminal of its own."""

    def __init__(self, *arguments, size=(24, 100), environment=None, wait=True):
        settings = {
            "PATH": os.environ["PATH"],
            "HOME": FOLDER,
            "TERM": "xterm-256color",
            "PAGER": "",
            "MINERVA_SERVER": SERVER,
            "MINERVA_DATA": DATA,
        }
        settings.update(environment or {})
        settings = {name: value for name, value in settings.items() if value is not None}
        self.start = time.monotonic()
        self.process, self.terminal = pty.fork()
        if self.process == 0:
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))
            os.execve(PROGRAM, [PROGRAM, "sql", *arguments], settings)
        self.seen = ""
        self.at = 0
        if wait:
            self.until(PROMPT)
            self.ready = time.monotonic() - self.start

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process:
            os.kill(self.process, signal.SIGKILL)
            os.waitpid(self.process, 0)
        os.close(self.terminal)

    def type(self, text):
        os.write(self.terminal, text.encode())

    def read(self, seconds):
        """Reads what comes; false when nothing did, or the other end is closed."""
        if not select.select([self.terminal], [], [], seconds)[0]:
            return False
        try:
            data = os.read(self.terminal, 1 << 16)
        except OSError:
            return False
        self.seen += data.decode(errors="replace")
        return bool(data)

    def until(self, *needles, seconds=20):
        """Reads until all of these have appeared, in turn, since the last time; answers what was read, without control sequences."""
        end = time.monotonic() + seconds
        while True:
            text = CONTROL.sub("", self.seen[self.at :])
            position = 0
            for needle in needles:
                found = text.find(needle, position)
                if found < 0:
                    break
                position = found + len(needle)
            else:
                self.at = len(self.seen)
                return text
            if time.monotonic() > end or not self.read(0.5) and self.is_over():
                raise AssertionError(f"`{needle}` did not come; on the screen: {self.seen[-3000:]!r}")

    def is_over(self):
        return self.process is None or os.waitid(os.P_PID, self.process, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def run(self, text, *needles, seconds=20):
        """Enters a text and reads until its answer and the next prompt have come."""
        self.type(text + "\r")
        return self.until(*needles, "\n", PROMPT, seconds=seconds) if needles else self.until("\n", PROMPT, seconds=seconds)

    def leave(self, seconds=10):
        """Waits for the end; answers the exit code."""
        end = time.monotonic() + seconds
        while not self.is_over():
            assert time.monotonic() < end, f"the program did not leave: {self.seen[-2000:]!r}"
            self.read(0.05)
        while self.read(0):
            pass
        code = os.waitstatus_to_exitcode(os.waitpid(self.process, 0)[1])
        self.process = None
        return code


def file_of(name, text, mode):
    path = os.path.join(FOLDER, name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    os.chmod(path, mode)
    return path


@check
def statements_of_one_and_of_several_lines():
    with Terminal() as terminal:
        text = terminal.run("SELECT 7 AS seven, 'ab' AS text;", "seven", "varchar", "ab", "(1 row)", "time: ", "1 row")
        assert "bigint" in text, text
        terminal.type("SELECT ';\r")
        terminal.until("->")
        terminal.run("', 41 + 1 AS answer -- ;\r;", "42", "(1 row)")
        terminal.run("SELECT 1 AS a; SELECT 2 AS b;", "(1 row)", "(1 row)")
        text = terminal.run("SELECT '東京' AS city, 'x' AS y UNION ALL SELECT 'ab', 'z' ORDER BY y;", "(2 rows)")
        rows = [line for line in text.splitlines() if line.startswith((" 東京", " ab"))]
        assert rows == [" 東京    | x", " ab      | z"], rows
        # A table for people, whose columns are as wide as their types' names.
        terminal.run("SELECT nothing;", "error: ", "nothing")
        terminal.run("SELECT 3 AS three;", "3")
        terminal.type(CTRL_D)
        assert terminal.leave() == 0


@check
def control_c_cancels_the_statement_and_the_next_one_works():
    with Terminal() as terminal:
        terminal.type(ENDLESS + "\r")
        progress = terminal.until("running", " stage", "Ctrl-C cancels")
        assert re.search(r"running \d+\.\d s, \d+ stages?, ", progress), progress
        began = time.monotonic()
        terminal.type(CTRL_C)
        terminal.until("canceled", PROMPT)
        assert time.monotonic() - began < 5
        terminal.run("SELECT 5 AS five;", "5", "(1 row)")
        terminal.run(f"SELECT state FROM system.runtime.queries WHERE query LIKE '%AS of\\_{os.getpid()} FROM small%' AND query LIKE 'SELECT max%';", "CANCELED", "(1 row)")
        # At the prompt it throws the text away.
        terminal.type("SELECT 'never" + CTRL_C)
        terminal.until("^C", PROMPT)
        terminal.run("SELECT 6 AS six;", "6", "(1 row)")


@check
def names_and_keywords_are_completed():
    with Terminal() as terminal:
        terminal.run("SELECT 1;", "(1 row)")
        # The names come beside the prompt: asked for until they are there.
        for _ in range(100):
            terminal.type("\x15SELECT n_name FR" + TAB + " sma" + TAB + ".t" + TAB + ".nat" + TAB)
            while terminal.read(0.2):
                pass
            if "small.tpch.nation" in CONTROL.sub("", terminal.seen[terminal.at :]):
                break
        terminal.run(" WHERE n_nationkey = 3;", "CANADA", "(1 row)")
        assert "FROM small.tpch.nation WHERE" in CONTROL.sub("", terminal.seen)
        # Columns of the table that the statement names, a list where there are several.
        terminal.type("SELECT  FROM small.tpch.region" + "\x1b[D" * 23 + "r_" + TAB + TAB)
        terminal.until("r_comment", "r_name", "r_regionkey")
        terminal.type(CTRL_C)
        terminal.until("^C", PROMPT)
        terminal.type("\\tim" + TAB + "\r")
        terminal.until("timing is off", PROMPT)


@check
def commands_do_what_their_help_says():
    with Terminal() as terminal:
        terminal.run("\\?", "\\timing", "\\watch", "Ctrl-R")
        terminal.run("help", "\\timing")
        terminal.run("\\l", "small", "system")
        terminal.run("\\dn small", "tpch")
        terminal.run("\\dt small.tpch", "nation", "region")
        terminal.run("\\d small.tpch.nation", "n_nationkey", "n_name", "varchar")
        terminal.run("\\c small.tpch")
        terminal.run("\\d", "nation")
        terminal.run("\\d nation", "n_nationkey")
        terminal.run("\\df date_tr%", "date_trunc")
        assert "time: " not in terminal.run("\\timing off", "timing is off")
        assert "time: " not in terminal.run("SELECT 1 AS a;", "(1 row)")
        terminal.run("\\timing", "timing is on")
        terminal.run("SELECT 1 AS a;", "time: ")
        terminal.run("\\x", "the format is VERTICAL")
        terminal.run("SELECT 1 AS a, 2 AS b;", "RECORD 1", "b | 2")
        terminal.run("\\x", "the format is ALIGNED")
        terminal.run("\\format json", "the format is JSON")
        terminal.run("SELECT 1 AS a;", '{"a":1}')
        terminal.run("\\format parquet", "error: ", "\\o result.parquet")
        terminal.run("\\format aligned")
        terminal.run("\\tming", "error: ", "did you mean `\\timing`?")
        terminal.run("\\nothing_at_all", "error: ", "`\\?` lists them all")
        terminal.run("\\i " + file_of("two.sql", "SELECT 'first' AS a;\nSELECT 'second' AS b", 0o644), "first", "second")
        terminal.run("\\i /no/such.sql", "error: ", "/no/such.sql")
        terminal.type("quit\r")
        assert terminal.leave() == 0


@check
def results_go_to_a_file():
    with Terminal() as terminal:
        path = os.path.join(FOLDER, "out.csv")
        terminal.run("\\format csv")
        terminal.run(f"\\o {path}")
        assert "12" not in terminal.run("SELECT 11 + 1 AS n;", "time: ", "1 row").split("\n", 1)[1]
        terminal.run("\\o")
        with open(path, encoding="utf-8") as file:
            assert file.read() == "n\n12\n"
        terminal.run("SELECT 11 + 2 AS n;", "13")
        terminal.run("\\o /no/such/folder/file", "error: ", "/no/such/folder/file")
        parquet = os.path.join(FOLDER, "out.parquet")
        terminal.run(f"\\o {parquet}")
        terminal.run("\\format parquet", "the format is PARQUET")
        terminal.run("SELECT 1 AS n;", "1 row")
        terminal.run("SELECT 1 AS n;", "error: ", "one result set")
        terminal.run("\\o")
        with open(parquet, "rb") as file:
            assert file.read(4) == b"PAR1"
        terminal.run("SELECT 14 AS n;", "14", "(1 row)")


@check
def watching_goes_on_until_control_c():
    with Terminal() as terminal:
        terminal.run("\\watch", "error: ", "no statement to watch")
        terminal.run("SELECT 'again' AS word;", "again")
        terminal.type("\\watch 0.2\r")
        terminal.until("again", "(1 row)", "again", "(1 row)", "again", "(1 row)")
        terminal.type(CTRL_C)
        terminal.until(PROMPT)
        terminal.run("SELECT 9 AS nine;", "9")


@check
def a_long_result_goes_to_the_pager():
    pager = file_of("pager", '#!/bin/sh\necho PAGER BEGINS\nhead -n 3\necho PAGER ENDS\n', 0o755)
    with Terminal(environment={"PAGER": pager}) as terminal:
        assert "PAGER" not in terminal.run("SELECT 1 AS n;", "(1 row)")
        text = terminal.run("SELECT n_name FROM small.tpch.nation ORDER BY n_name;", "PAGER BEGINS", "n_name", "PAGER ENDS")
        assert "VIETNAM" not in text, "the pager has shown three lines"
        # A reader that leaves early ends the query and is no error.
        text = terminal.run("SELECT a.l_orderkey FROM small.tpch.lineitem a, small.tpch.lineitem b;", "PAGER BEGINS", "PAGER ENDS", seconds=60)
        assert "error" not in text, text
        terminal.run("SELECT 2 AS n;", "(1 row)")


@check
def history_is_kept_for_its_owner_only():
    home = os.path.join(FOLDER, "state")
    with Terminal(environment={"XDG_STATE_HOME": home}) as terminal:
        terminal.run("SELECT 'remembered' AS a;", "(1 row)")
        terminal.run(" SELECT 'with a space' AS a;", "(1 row)")
        terminal.run("SELECT 'my password' AS a;", "(1 row)")
        terminal.run("SELECT\r  'two lines' AS a;", "(1 row)")
        terminal.type("\\q\r")
        assert terminal.leave() == 0
    path = os.path.join(home, "minerva/history")
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    with open(path, encoding="utf-8") as file:
        text = file.read()
    assert "remembered" in text and "two lines" in text, text
    assert "with a space" not in text and "password" not in text, text
    with Terminal(environment={"XDG_STATE_HOME": home}) as terminal:
        terminal.type(UP + UP)
        terminal.until("two lines")
        terminal.type(CTRL_C)
        terminal.until("^C", PROMPT)
        terminal.type(CTRL_R + "remem")
        terminal.until("search `remem`", "remembered")
        terminal.run("", "(1 row)")


@check
def profiles_say_where_and_who():
    text = f"[default]\nserver = {SERVER}\nuser = {USER}\nkey = {KEY}\ncatalog = small\nschema = tpch\n\n[wrong]\nserver = {SERVER}\nuser = {USER}\nkey = no\n"
    folder = os.path.join(FOLDER, "config")
    path = file_of("config/minerva/profiles", text, 0o600)
    environment = {"MINERVA_SERVER": None, "MINERVA_DATA": os.path.join(FOLDER, "none"), "XDG_CONFIG_HOME": folder}

    def start(*arguments, **more):
        return Terminal(*arguments, environment={**environment, **more}, wait=False)

    with start() as terminal:
        terminal.until(PROMPT)
        terminal.run("SELECT count(*) AS n FROM nation;", "25", "(1 row)")
    with start("--profile", "wrong") as terminal:
        terminal.until(PROMPT)
        terminal.run("SELECT 1;", "error: ", "INVALID_CREDENTIALS")
    with start("--profile", "wrong", MINERVA_APIKEY=KEY) as terminal:
        terminal.until(PROMPT)
        terminal.run("SELECT 1 AS one;", "(1 row)")
    with start("--user", "somebody") as terminal:
        terminal.until(PROMPT)
        terminal.run("SELECT 1;", "error: ", "no API key for `somebody`")
    with start("--profile", "nowhere") as terminal:
        terminal.until("there is no profile `nowhere`", "`default`, `wrong`")
        assert terminal.leave() == 2
    os.chmod(path, 0o644)
    with start() as terminal:
        terminal.until("can be read by others (mode 0644)", "chmod 600")
        assert terminal.leave() == 2
    os.remove(path)


@check
def colours_are_shown_unless_they_are_not_wanted():
    with Terminal() as terminal:
        terminal.run("SELECT 'a' AS a, 12 AS n; -- so", "(1 row)")
        for style in ("\x1b[0;1;34mSELECT", "\x1b[0;32m'a'", "\x1b[0;36m12", "\x1b[0;2m-- so"):
            assert style in terminal.seen, f"{style!r} is not in {terminal.seen!r}"
    for variable in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
        with Terminal(environment=variable) as terminal:
            terminal.run("SELECT 'a' AS a, 12 AS n; -- so", "(1 row)")
            terminal.run("\\d small.tpch.nation", "n_name")
            assert not COLOUR.search(terminal.seen), terminal.seen


@check
def a_narrow_terminal_shows_the_same():
    with Terminal(size=(10, 20)) as terminal:
        terminal.type("SELECT 'a text that is much wider than this' AS a")
        terminal.type(" ;\x1b[D\x1b[D" + "\r")
        terminal.until("(1 row)", PROMPT)


@check
def the_terminal_is_left_as_it_was():
    for leaving in ("\\q\r", CTRL_D, signal.SIGTERM):
        with Terminal() as terminal:
            assert not termios.tcgetattr(terminal.terminal)[3] & termios.ICANON, "keys are read one by one"
            if isinstance(leaving, str):
                terminal.type(leaving)
            else:
                os.kill(terminal.process, leaving)
            assert terminal.leave() == (0 if isinstance(leaving, str) else 143), leaving
            modes = termios.tcgetattr(terminal.terminal)[3]
            assert modes & termios.ICANON and modes & termios.ECHO, leaving


@check
def who_cannot_connect_is_told_with_the_first_statement():
    with Terminal("--user", "x", "--apikey", "y", environment={"MINERVA_SERVER": "127.0.0.1:1"}) as terminal:
        terminal.run("SELECT 1;", "error: cannot connect to `127.0.0.1:1`")
        terminal.run("SELECT 2;", "error: cannot connect to `127.0.0.1:1`")
        terminal.type(CTRL_D)
        assert terminal.leave() == 0


@check
def the_first_line_is_there_at_once():
    # The measure is in the benchmarks; here only that nothing is waited for, a server that does not answer least of all.
    silent = socket.create_server(("127.0.0.1", 0))
    address = f"127.0.0.1:{silent.getsockname()[1]}"
    with Terminal("--user", "x", "--apikey", "y", environment={"MINERVA_SERVER": address}) as terminal:
        assert terminal.ready < 2, terminal.ready
        terminal.type("SELECT 1;\r")
        terminal.until("connecting")
        terminal.type(CTRL_C)
        terminal.until("canceled", PROMPT, seconds=5)
        terminal.type(CTRL_D)
        assert terminal.leave() == 0


if __name__ == "__main__":
    failed = 0
    wanted = sys.argv[6:]
    for function in CHECKS:
        if wanted and function.__name__ not in wanted:
            continue
        try:
            function()
            print(f"ok      {function.__name__}", flush=True)
        except Exception as error:  # Every check is tried, and all that is wrong is told.
            failed += 1
            print(f"FAILED  {function.__name__}: {type(error).__name__}: {error}", flush=True)
    sys.exit(1 if failed else 0)
