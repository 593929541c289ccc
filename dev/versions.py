"Which versions the repository was tested with: data/results/versions.csv, written by dev/check.py --record."
import csv
import platform
import re
from importlib.metadata import version
import readme

COLUMNS = 'python', 'package', 'version', 'passed', 'failed' # the last two are of the whole run, on each of its lines

def installed():
    "The packages that settings.ini requires, as they are installed here: {name: version}."
    return {name: version(name) for name in re.findall(r'(\S+?)[<>=]\S+', readme.settings()['requirements'])}

def read(path):
    "What was recorded, line by line."
    if not path.is_file(): return []
    with path.open(encoding='utf-8', newline='') as file: return list(csv.DictReader(file))

def merged(before, here, results):
    "(passed, failed names) of a run, after some of its pages were run again; `before` counts only with the same versions."
    if {line['package']: line['version'] for line in before} != here: before = []
    failed = {name for line in before[:1] for name in line['failed'].split(', ') if name}
    count = len(results) if not before else int(before[0]['passed']) + len(failed)
    failed = failed - results.keys() | {name for name, good in results.items() if not good}
    return count - len(failed), ', '.join(sorted(failed))

def record(path, results, whole):
    "Put a run's {page: whether it passed} under this interpreter; `whole`: the run left nothing out."
    python, here, lines = platform.python_version(), installed(), read(path)
    before = [] if whole else [line for line in lines if line['python'] == python]
    passed, failed = merged(before, here, results)
    new = [dict(zip(COLUMNS, (python, name, number, passed, failed))) for name, number in here.items()]
    lines = [line for line in lines if line['python'] != python] + new
    with path.open('w', encoding='utf-8', newline='') as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator='\n')
        writer.writeheader()
        writer.writerows(sorted(lines, key=lambda line: [int(n) for n in re.findall(r'\d+', line['python'])]))
