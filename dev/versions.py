"Which versions the pages were run with: versions.csv and tested.csv in data/results, written by dev/check.py --record."
import csv
import platform
import re
from importlib.metadata import version
import readme

VERSIONS, TESTED = ('python', 'package', 'version'), ('python', 'page', 'passed')

def installed():
    "The packages that settings.ini requires, as they are installed here: {name: version}."
    return {name: version(name) for name in re.findall(r'(\S+?)[<>=]\S+', readme.settings()['requirements'])}

def read(path):
    "The lines of a table; none if it is not there."
    if not path.is_file(): return []
    with path.open(encoding='utf-8', newline='') as file: return list(csv.DictReader(file))

def put(path, columns, lines):
    "Write a table, the oldest interpreter first."
    lines = sorted(lines, key=lambda line: [int(n) for n in re.findall(r'\d+', line['python'])])
    with path.open('w', encoding='utf-8', newline='') as file:
        writer = csv.DictWriter(file, columns, lineterminator='\n')
        writer.writeheader()
        writer.writerows(lines)

def record(folder, results):
    "Put {page: whether it ran} under this interpreter; its other pages stay if they ran with the same versions."
    folder.mkdir(parents=True, exist_ok=True)
    python, here = platform.python_version(), installed()
    known, tested = read(folder/'versions.csv'), read(folder/'tested.csv')
    same = here == {line['package']: line['version'] for line in known if line['python'] == python}
    kept = [line for line in tested if line['python'] != python or same and line['page'] not in results]
    new = [dict(python=python, page=page, passed=results[page]) for page in sorted(results)]
    put(folder/'tested.csv', TESTED, kept + new)
    others = [line for line in known if line['python'] != python]
    put(folder/'versions.csv', VERSIONS, others + [dict(python=python, package=p, version=v) for p, v in here.items()])
