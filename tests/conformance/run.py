"""Run transformers' own shared tests over our classes and over stock ones, and show where ours are worse.

    python tests/conformance/run.py

The tests are those of the source distribution of the installed transformers, which pip fetches once into
`.pytest_cache/conformance`; there also lie the logs of the last run. The status is 0 when no test is worse for ours (a
failure is worse than a skip, and a skip than a pass), 1 when one is, 2 when the tests cannot be run, and 75 when no
package index can be reached.
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

from shapes import SHAPES
from tqdm import tqdm

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
FOLDER = ROOT / ".pytest_cache" / "conformance"

# Helpers of the tests that the source distribution leaves out.
LEFT_OUT = ("distributed_testing_utils", "exporters/test_export", "generation/test_utils", "utils/test_configuration_utils")
OUTCOMES = ("passed", "skipped", "failed")  # from good to bad


class CannotRun(Exception):
    status = 2


class IndexUnreachable(CannotRun):
    status = os.EX_TEMPFAIL


def fetch(release: str) -> Path:
    """The source distribution of transformers, from the package indexes that pip is configured for."""
    archive = FOLDER / f"transformers-{release}.tar.gz"
    if archive.exists():
        return archive
    FOLDER.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=FOLDER) as place:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", "transformers", "--dest", place]
        done = subprocess.run([*command, f"transformers=={release}"], capture_output=True, text=True)
        if done.returncode:
            reason = next((line for line in done.stderr.splitlines() if "ERROR" in line), done.stderr.strip())
            # No version at all, where every index has many: there was no index.
            if re.search(r"from versions: none|connection|timed out", done.stderr, re.IGNORECASE):
                raise IndexUnreachable(f"no package index can be reached: {reason}")
            raise CannotRun(f"pip cannot fetch the source of transformers {release}: {reason}")
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
            _, folder, *parts = PurePosixPath(member.name).parts + ("",) * 2
            if folder == "tests" and member.isfile() and ".." not in parts:
                path = package.joinpath(*parts)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(files.extractfile(member).read())


def run_side(side: str, shapes: list[str], bar: tqdm) -> dict[tuple[str, str], tuple[str, str]]:
    """Run the tests of `ours` or `stock`: (shape, test) to (outcome, reason)."""
    report, log = FOLDER / f"{side}.xml", FOLDER / f"{side}.log"
    report.unlink(missing_ok=True)
    settings = {
        "PYTHONPATH": os.pathsep.join(map(str, (FOLDER, HERE, ROOT, os.environ.get("PYTHONPATH", "")))),
        "CUDA_VISIBLE_DEVICES": "",  # the parallel tests are for processors
        "OMP_NUM_THREADS": "1",  # networks this small are slower on several threads
        "HF_HOME": str(FOLDER / "home"),
        "HF_HUB_OFFLINE": "1",
    }
    command = [sys.executable, "-m", "pytest", "-v", "-c", os.devnull, "--rootdir", str(HERE), "--noconftest"]
    command += ["-p", "no:cacheprovider", f"--junitxml={report}"]
    command += [f"{HERE / 'cases.py'}::{side}_{shape}" for shape in shapes]
    with subprocess.Popen(
        command, cwd=HERE, env=os.environ | settings, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as running, log.open("w") as lines:
        for line in running.stdout:
            lines.write(line)
            if found := re.match(r"collect.* (\d+) items", line):
                bar.total += int(found[1])
            bar.update(bool(re.search(r"::\w+ (PASSED|SKIPPED|FAILED)", line)))
    if running.returncode not in (0, 1):  # 1 is pytest's for failed tests
        raise CannotRun(f"pytest ended with {running.returncode}, see {log}")
    return read_report(report, prefix=f"{side}_")


def read_report(report: Path, prefix: str) -> dict[tuple[str, str], tuple[str, str]]:
    results = {}
    for case in ElementTree.parse(report).iter("testcase"):
        marks = {child.tag: child for child in case if child.tag in ("skipped", "failure", "error")}
        outcome = "failed" if marks.keys() & {"failure", "error"} else "skipped" if marks else "passed"
        mark = marks.get("failure", marks.get("error", marks.get("skipped")))
        shape = case.get("classname").rpartition(".")[2].removeprefix(prefix)
        reason = "" if mark is None else f"{mark.get('message').strip().splitlines()[0]} ({mark.text.splitlines()[-1]})"
        results[shape, case.get("name")] = outcome, reason
    return results


def worse(ours: dict, stock: dict) -> dict[tuple[str, str], tuple[str, str]]:
    """The tests whose outcome is worse for ours, or that ours has not: how it ended for either, and why."""
    found = {}
    for key, (expected, _) in stock.items():
        outcome, reason = ours.get(key, ("failed", "it is missing"))
        if OUTCOMES.index(outcome) > OUTCOMES.index(expected):
            found[key] = (f"{outcome}, {expected} for stock", reason)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shapes", nargs="*", metavar="SHAPE", help=f"of {', '.join(SHAPES)} (default: all)")
    shapes = parser.parse_args().shapes or list(SHAPES)
    if unknown := set(shapes) - set(SHAPES):
        parser.error(f"unknown shape '{min(unknown)}'; known: {', '.join(SHAPES)}")
    release = version("transformers")
    try:
        unpack(fetch(release))
        with tqdm(total=0, desc=f"tests of transformers {release}", unit="test") as bar, ThreadPoolExecutor() as pool:
            sides = [pool.submit(run_side, side, shapes, bar) for side in ("ours", "stock")]
            ours, stock = (side.result() for side in sides)
    except CannotRun as error:
        print(error, file=sys.stderr)
        return error.status

    print(f"{'':18}" + "".join(f"{side + ': ' + outcome:>15}" for side in ("ours", "stock") for outcome in OUTCOMES))
    for shape in shapes:
        row = [f"{shape:18}"]
        for results in (ours, stock):
            counts = Counter(outcome for (other, _), (outcome, _) in results.items() if other == shape)
            row += [f"{counts[outcome]:15}" for outcome in OUTCOMES]
        print("".join(row), f" {SHAPES[shape].stock}")
    found = worse(ours, stock)
    for (shape, test), (outcomes, reason) in found.items():
        print(f"{shape}: {test} {outcomes}: {reason}")
    print(f"{len(found)} of {len(stock)} tests are worse for ours than for stock; logs: {FOLDER}")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
