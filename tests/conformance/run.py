"""Run transformers' own shared tests over our classes and over its Llama, and show where ours are worse.

The tests are those of the source distribution of the installed transformers, which pip fetches once into
.pytest_cache/conformance, where the logs of the last run lie too.

Llama is asked only where ours does not pass: elsewhere ours cannot be worse.

Status: 0 when no test is worse for ours (a failure is worse than a skip, and a skip than a pass), 1 when one is, 2 when
the tests cannot be run, 75 when no package index can be reached.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from xml.etree import ElementTree

from shapes import OURS
from tqdm import tqdm

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
FOLDER = ROOT / ".pytest_cache" / "conformance"

# Helpers of the tests that the source distribution leaves out.
LEFT_OUT = (
    "distributed_testing_utils",
    "exporters/test_export",
    "generation/test_utils",
    "utils/test_configuration_utils",
)
OUTCOMES = ("passed", "skipped", "failed")  # from good to bad

Results = dict[tuple[str, str], tuple[str, str]]  # (class, test) to (outcome, reason)


class CannotRun(Exception):
    status = 2


class IndexUnreachable(CannotRun):
    status = os.EX_TEMPFAIL


def fetch(release: str, folder: Path) -> Path:
    """The source distribution of a release of transformers, from the package indexes that pip is configured for."""
    archive = folder / f"transformers-{release}.tar.gz"
    if archive.exists():
        return archive
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder) as place:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", "transformers", "--dest", place]
        done = subprocess.run([*command, f"transformers=={release}"], capture_output=True, text=True)
        if done.returncode:
            reason = next((line for line in done.stderr.splitlines() if "ERROR" in line), done.stderr.strip())
            # An index has many versions: where there is none, no index has answered.
            if re.search(r"from versions: none|connection|timed out", done.stderr, re.IGNORECASE):
                raise IndexUnreachable(f"no package index can be reached: {reason}")
            raise CannotRun(f"pip cannot fetch the source distribution of transformers {release}: {reason}")
        (Path(place) / archive.name).rename(archive)
    return archive


def unpack(archive: Path) -> None:
    """Lay out the archive's tests as the package `upstream`, with stand-ins for the helpers that it leaves out."""
    package = FOLDER / "upstream"
    shutil.rmtree(package, ignore_errors=True)
    for name in LEFT_OUT:
        path = package / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(HERE / "stand_ins.py", path)
    (package / "__init__.py").touch()
    with tarfile.open(archive) as files:
        for member in files:
            parts = PurePosixPath(member.name).parts
            if parts[1:2] == ("tests",) and member.isfile() and ".." not in parts:
                path = package.joinpath(*parts[2:])
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(files.extractfile(member).read())


def settings() -> dict[str, str]:
    """The environment of the processes that import the tests."""
    own = {
        "PYTHONPATH": os.pathsep.join(map(str, (FOLDER, HERE, ROOT, os.environ.get("PYTHONPATH", "")))),
        "CUDA_VISIBLE_DEVICES": "",  # the parallel tests are for processors
        "OMP_NUM_THREADS": "1",  # networks this small are slower on several threads
        "HF_HOME": str(FOLDER / "home"),
        "HF_HUB_OFFLINE": "1",
    }
    return os.environ | own


PYTEST = [sys.executable, "-m", "pytest", "-c", os.devnull, "--rootdir", str(HERE), "--noconftest"]
PYTEST += ["-p", "no:cacheprovider"]


def names_of_tests(classes: list[str]) -> list[tuple[str, str]]:
    """(class, test) of all tests that these classes of `cases.py` have; none of them is run."""
    command = [*PYTEST, "--collect-only", "-q", *(f"cases.py::{name}" for name in classes)]
    done = subprocess.run(command, cwd=HERE, env=settings(), capture_output=True, text=True)
    found = re.findall(r"^cases\.py::(\w+)::(\w+)$", done.stdout, re.MULTILINE)
    if done.returncode or not found:
        raise CannotRun(f"pytest cannot collect the tests: {done.stdout[-500:]}")
    return found


def run_tests(tests: list[str], name: str, bar: tqdm) -> Results:
    """Run tests of `cases.py` (`CLASS` or `CLASS::TEST`) in one process; `name` is that of its log and report."""
    if not tests:
        return {}
    report, log = FOLDER / f"{name}.xml", FOLDER / f"{name}.log"
    command = [*PYTEST, "-v", f"--junitxml={report}", *(f"cases.py::{test}" for test in tests)]
    with (
        log.open("w+") as lines,
        subprocess.Popen(
            command, cwd=HERE, env=settings(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as running,
    ):
        for line in running.stdout:
            lines.write(line)
            if collected := re.match(r"collect.* (\d+) items", line):
                bar.total += int(collected[1])
            bar.update(bool(re.search(r"::\w+ (PASSED|SKIPPED|FAILED)", line)))
        running.wait()
        if running.returncode not in (0, 1):  # 1 is pytest's for failed tests
            lines.seek(0)
            error = [line.strip() for line in lines if line.startswith("E  ")][-1:]
            raise CannotRun(f"pytest ended with {running.returncode}: {''.join(error)} (see {log})")
    return read_report(report)


def read_report(report: Path) -> Results:
    """The outcomes in a JUnit report. One failure or skip among the subtests of a test is the test's."""
    results = {}
    for case in ElementTree.parse(report).iter("testcase"):
        marks = {child.tag: child for child in case if child.tag in ("failure", "error", "skipped")}
        mark = next((marks[tag] for tag in ("failure", "error", "skipped") if tag in marks), None)
        outcome = "passed" if mark is None else "skipped" if mark.tag == "skipped" else "failed"
        reason = "" if mark is None else f"{mark.get('message').strip().splitlines()[0]} ({mark.text.splitlines()[-1]})"
        results[case.get("classname").rpartition(".")[2], case.get("name")] = outcome, reason
    return results


def in_parallel(tests: list[str], name: str, bar: tqdm) -> Results:
    """Deal the tests out to one process a core."""
    jobs = min(os.cpu_count(), max(1, len(tests)))
    results = {}
    with ThreadPoolExecutor() as pool:
        for done in pool.map(lambda job: run_tests(tests[job::jobs], f"{name}{job}", bar), range(jobs)):
            results |= done
    return results


def to_ask_llama(ours: Results, names: list[tuple[str, str]], shapes: list[str]) -> list[str]:
    """The tests of Llama that can show a difference: where ours passes, it cannot be worse."""
    return [
        f"{name}::{test}"
        for name, test in names
        if any(
            name == f"llama_{OURS[shape].beside}" and ours.get((f"ours_{shape}", test), ("failed", ""))[0] != "passed"
            for shape in shapes
        )
    ]


def compare(results: Results, names: list[tuple[str, str]], shape: str) -> tuple[list[int], dict[str, str]]:
    """The row of a shape in the table, and how and why tests end worse for ours than for the Llama beside it.

    Args:
        results: of all tests of ours, and of Llama where ours did not pass.
        names: of all tests of Llama.
    """
    beside, lacks = OURS[shape].beside, OURS[shape].lacks
    counts, worse = Counter(), {}
    for name, test in names:
        if name == f"llama_{beside}" and not (lacks and lacks in test):
            outcome, reason = results.get((f"ours_{shape}", test), ("failed", "there is no such test"))
            counts[outcome] += 1
            if outcome == "passed":
                continue
            expected, _ = results[name, test]
            if OUTCOMES.index(outcome) > OUTCOMES.index(expected):
                worse[test] = f"{outcome} for ours, {expected} for Llama: {reason}"
    return [counts[outcome] for outcome in OUTCOMES], worse


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shapes", nargs="*", metavar="SHAPE", help=f"some of {', '.join(OURS)} (default: all)")
    shapes = parser.parse_args().shapes or list(OURS)
    if unknown := set(shapes) - set(OURS):
        parser.error(f"unknown shape '{min(unknown)}'; known: {', '.join(OURS)}")

    release = version("transformers")
    besides = dict.fromkeys(OURS[shape].beside for shape in shapes)
    try:
        unpack(fetch(release, FOLDER))
        with tqdm(total=0, desc=f"transformers {release}", unit="test", disable=None) as bar:
            results = in_parallel([f"ours_{shape}" for shape in shapes], "ours", bar)
            names = names_of_tests([f"llama_{shape}" for shape in besides])
            results |= in_parallel(to_ask_llama(results, names, shapes), "llama", bar)
    except CannotRun as error:
        print(error, file=sys.stderr)
        return error.status

    print("shape".ljust(20) + "".join(f"{outcome:>10}" for outcome in OUTCOMES))
    found = 0
    for shape in shapes:
        row, worse = compare(results, names, shape)
        print(shape.ljust(20) + "".join(f"{count:10}" for count in row))
        for test, text in worse.items():
            print(f"  {test} {text}")
        found += len(worse)
    print(f"transformers {release}: {found} tests are worse for ours than for Llama (logs: {FOLDER.relative_to(ROOT)})")
    return int(found > 0)


if __name__ == "__main__":
    sys.exit(main())
