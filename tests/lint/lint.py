"""Lint of the source tree: include arrows, one-door libraries, banned calls, file size, writable globals.

Called by ctest as: lint.py SOURCE_DIR BUILD_DIR. Prints every offence with file and line; exit 1 when there is one.
"""
import pathlib
import re
import subprocess
import sys

SRC, BUILD = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])

# folder -> folders it may include (its own is always allowed)
ARROWS = {
    "base": set(),
    "store": {"base"},
    "gpu": {"base"},
    "llm": {"base", "store"},
    "jobs": {"base", "store", "gpu"},
    "gateway": {"base", "store", "llm", "jobs", "gpu"},
    "routes": {"base", "store", "llm", "jobs", "gateway", "gpu", "web-assets"},
    "server": {"base", "store", "llm", "jobs", "gateway", "gpu", "routes", "web-assets"},
}
# library header -> where it may be included
DOORS = {
    "microhttpd.h": r"server/http\w*\.[ch]",
    "curl/curl.h": r"base/httpc\w*\.[ch]",
    "cjson/cJSON.h": r"base/json\w*\.[ch]",
    "sqlite3.h": r"store/\w+\.[ch]",
    "gnutls/": r"base/crypto\w*\.c",
}
BANNED = ("strcpy strcat strncpy sprintf vsprintf strtok atoi atol sscanf gets alloca system popen sleep usleep rand "
          "localtime gmtime signal").split()
BANNED_EXCEPT = {"strerror": r"jobs/shim/\w+\.c", "getenv": r"base/config\w*\.c", "malloc": r"base/mem\.c", "calloc": r"base/mem\.c", "realloc": r"base/mem\.c",
                 "free": r"base/mem\.c", "strdup": r"base/mem\.c", "pthread_create": r"base/thread\.c",
                 "pthread_mutex_lock": r"base/thread\.c"}
MAX_LINES = 600
# The few names that may be writable: process-wide hooks, counters, and the log. Each says why at its definition.
GLOBALS = set((SRC / "tests/lint/globals.txt").read_text().split())

offences = []


def offend(path, line, text):
    offences.append(f"{path}:{line}: {text}")


def strip(text):
    """Blank out comments, strings and character literals, keeping the lines."""
    pattern = r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\''
    return re.sub(pattern, lambda m: re.sub(r"[^\n]", " ", m.group()), text, flags=re.S)


def check_source(path):
    rel = path.relative_to(SRC).as_posix()
    folder = rel.split("/")[0]
    text = path.read_text()
    lines = text.splitlines()
    if len(lines) > MAX_LINES:
        offend(rel, len(lines), f"{len(lines)} lines of at most {MAX_LINES}")
    for number, line in enumerate(lines, 1):
        own = re.match(r'\s*#\s*include\s+"([^"]+)"', line)
        if own:
            target = own.group(1).split("/")[0]
            if "/" not in own.group(1):
                offend(rel, number, f'include "{own.group(1)}" names no folder')
            elif target != folder and target not in ARROWS[folder]:
                offend(rel, number, f"{folder} may not include {target}")
        for header, where in DOORS.items():
            if re.match(r"\s*#\s*include\s+<" + re.escape(header), line) and not re.fullmatch(where, rel):
                offend(rel, number, f"<{header}> has one door: {where}")
    for number, line in enumerate(strip(text).splitlines(), 1):
        for call in BANNED:
            if re.search(r"(?<![\w.>])" + call + r"\s*\(", line):
                offend(rel, number, f"{call}() is banned")
        for call, where in BANNED_EXCEPT.items():
            if re.search(r"(?<![\w.>])" + call + r"\s*\(", line) and not re.fullmatch(where, rel):
                offend(rel, number, f"{call}() only in {where}")


def check_globals():
    """Writable data in our libraries, against the list of few names. What is only relocated (.data.rel.ro) is const."""
    for archive in sorted(BUILD.glob("*/libmswarm_*.a")):
        out = subprocess.run(["objdump", "-t", str(archive)], capture_output=True, text=True, check=True).stdout
        member = ""
        for line in out.splitlines():
            if "file format" in line:
                member = line.split(":")[0]
            m = re.match(r"[0-9a-f]+ .{7} (\.(?:data|bss|tdata|tbss)\S*)\s+[0-9a-f]+ (?:\.\w+ )?(\S+)$", line)
            if not m or m.group(1).startswith(".data.rel.ro") or m.group(2).startswith(".") or m.group(2) == m.group(1):
                continue
            name = re.sub(r"\.\d+$", "", m.group(2))
            if name not in GLOBALS and not name.startswith("__"):
                offend(archive.name, 0, f"writable global {name} in {member}: not in tests/lint/globals.txt")


def check_tests():
    for path in [*(SRC / "tests").rglob("*.py"), *(SRC / "tests").rglob("*.sh"), SRC / "tests/fault/kill"]:
        if path.name == "lint.py":
            continue
        for number, line in enumerate(path.read_text().splitlines(), 1):
            pause = r"\bsleep\b" if path.suffix == ".sh" else r"\bsleep\("      # a job under test may well sleep
            if re.search(pause, line) and "lint: wait_until" not in line:
                offend(path.relative_to(SRC), number, "tests wait with wait_until, they do not pause")


def check_pages():
    """Each route is shown by a page of curl lines."""
    pages = "".join(p.read_text() for p in (SRC / "tests/curl").glob("*.sh"))
    for pattern in re.findall(r'^ROUTE(?:_LARGE)?\("[A-Z]+", "([^"]+)"', (SRC / "routes/routes.def").read_text(), re.M):
        shown = re.sub(r":\w+", "[^/\\\\s\"?]+", re.escape("$url" + pattern.split("*")[0]).replace(r"\:", ":"))
        if not re.search(shown + (r"" if "*" in pattern else r"(?![\w/-])"), pages):
            offend("routes/routes.def", 0, f"{pattern} has no page in tests/curl")


def check_weaknesses():
    """The tests that tests/weaknesses.md names are there."""
    texts = {p.name: p.read_text() for p in (SRC / "tests").glob("*/test_*.*")}
    for number, line in enumerate((SRC / "tests/weaknesses.md").read_text().splitlines(), 1):
        for file, test in re.findall(r"`(test_\w+\.\w+)::(test_\w+)`", line):
            if not re.search(r"\b" + test + r"\(", texts.get(file, "")):
                offend("tests/weaknesses.md", number, f"there is no {file}::{test}")


for folder in ARROWS:
    for path in sorted((SRC / folder).glob("**/*.[ch]")):
        check_source(path)
check_globals()
check_tests()
check_pages()
check_weaknesses()
print("\n".join(offences) or "lint: clean")
sys.exit(1 if offences else 0)
