"What `make test` runs: is the repository in order, and does every page run alone, top to bottom? A check counts one, a page counts one."
import argparse
import ast
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from configparser import ConfigParser
from pathlib import Path
from time import perf_counter
import readme

ROOT = readme.ROOT
SLOWEST = ('17_model', '21_benchmark', '18_train', '28_bad_input', '26_cost', '27_cli', '19_methods') # started first, so that no worker ends alone
IGNORED = {'.git', '.venv', 'runs', '_docs', '_proc', 'build', 'dist', '__pycache__', '.ipynb_checkpoints'}
WEIGHTS = {'.safetensors'} # files that may be larger than LARGEST
LARGEST, ALL = 5, 50 # MB, of a file and of the repository
MACHINE = re.compile(r'/(?:root|work|home/\w+|Users/\w+)/[\w.]+|[A-Z]:\\\\Users')

def files():
    "Paths of the repository, relative to its root: what git tracks, and what it would if it were added."
    found = subprocess.run(['git', 'ls-files', '-z', '--cached', '--others', '--exclude-standard'], cwd=ROOT, capture_output=True, text=True)
    if found.returncode == 0: names = [Path(name) for name in set(found.stdout.split('\0')) if name]
    else: names = [p.relative_to(ROOT) for p in ROOT.rglob('*') if not IGNORED & set(p.relative_to(ROOT).parts)]
    return sorted(p for p in names if (ROOT/p).is_file())

def copy(folder):
    "A copy of the repository as a fresh clone would have it."
    for path in files():
        (folder/path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT/path, folder/path)
    return folder

def environment(folder):
    "Of a process that runs in a copy: its package, one thread, no network and no cache of weights."
    env = {k: v for k, v in os.environ.items() if not k.startswith(('OCZSS_', 'PYTHONPATH', 'IN_TEST'))}
    one = {name: '1' for name in ('OMP_NUM_THREADS', 'MKL_NUM_THREADS', 'OPENBLAS_NUM_THREADS', 'HF_HUB_OFFLINE', 'PYTHONDONTWRITEBYTECODE')}
    return env | one | dict(PYTHONPATH=str(folder), HF_HOME=str(folder/'no cache'), TORCH_HOME=str(folder/'no cache'))

def nbdev(command, folder):
    "Run an nbdev command in a copy; RuntimeError if it fails."
    code = f'import sys; sys.argv = [{command!r}]; from nbdev.{dict(nbdev_clean="clean", nbdev_export="doclinks")[command]} import {command}; {command}()'
    done = subprocess.run([sys.executable, '-c', code], cwd=folder, env=environment(folder), capture_output=True, text=True)
    if done.returncode: raise RuntimeError(f'{command} failed:\n{done.stderr[-2000:]}')

def different(folder, names):
    "Which of the named files are not the same here and in a copy."
    read = lambda path: path.read_bytes() if path.is_file() else None
    return [str(name) for name in sorted(names) if read(ROOT/name) != read(folder/name)]

def modules():
    "Exported modules by number: {name: number of its page}."
    found = {}
    for page in sorted((ROOT/'nbs').glob('[0-9]*.ipynb')):
        names = re.findall(r'#\|\s*default_exp\s+(\w+)', page.read_text(encoding='utf-8'))
        if names: found[names[0]] = int(page.name.split('_')[0])
    return found

# The checks: each returns a list of complaints.

def clean(folder):
    "Notebooks are clean (nbdev_clean)"
    copy(folder)
    nbdev('nbdev_clean', folder)
    return [f'{name}: nbdev_clean changes it' for name in different(folder, [p for p in files() if p.suffix == '.ipynb'])]

def exported(folder):
    "The package is what the pages export (nbdev_export)"
    copy(folder)
    shutil.rmtree(folder/'oczss')
    nbdev('nbdev_export', folder)
    names = {p.relative_to(base) for base in (ROOT, folder) for p in (base/'oczss').glob('*.py')}
    return [f'{name}: nbdev_export writes it differently, or not at all' for name in different(folder, names)]

def readme_in_step(folder):
    "README.md is what dev/readme.py writes"
    copy(folder)
    shutil.rmtree(folder/readme.PICTURES, ignore_errors=True)
    readme.write(folder)
    names = {Path('README.md')} | {p.relative_to(base) for base in (ROOT, folder) for p in (base/readme.PICTURES).glob('*')}
    return [f'{name}: make readme writes it differently' for name in different(folder, names)]

def imports(tree):
    "What a module imports: (module, names, lines up from its package)."
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names: yield alias.name, [], 0
        if isinstance(node, ast.ImportFrom): yield node.module or '', [alias.name for alias in node.names], node.level

def ladder(folder):
    "Modules import from lower pages only"
    order, found = modules(), []
    for path in sorted((ROOT/'oczss').glob('*.py')):
        name = path.stem
        if name in ('__init__', '_modidx'): continue
        if name not in order:
            found.append(f'oczss/{path.name}: no page exports it')
            continue
        for module, names, level in imports(ast.parse(path.read_text(encoding='utf-8'))):
            if '*' in names: found.append(f'oczss/{path.name}: star import from {module}')
            if module.split('.')[0] in ('fastcore', 'nbdev', 'IPython'): found.append(f'oczss/{path.name}: imports {module}, which only pages may')
            if not level and module.split('.')[0] != 'oczss': continue
            inside = module if level else module.partition('.')[2]
            for target in [inside] if inside else names:
                if order.get(target, 99) >= order[name]: found.append(f'oczss/{path.name} (page {order[name]:02}) imports {target} (page {order.get(target, "none")})')
    return found

def version_alone(folder):
    "oczss/__init__.py holds the version alone"
    config = ConfigParser(delimiters=['='])
    config.read(ROOT/'settings.ini', encoding='utf-8')
    wanted, text = f'__version__ = "{config["DEFAULT"]["version"]}"', (ROOT/'oczss'/'__init__.py').read_text().strip()
    return [] if text == wanted else [f'oczss/__init__.py is {text[:200]!r}, not {wanted!r}']

def no_errors(folder):
    "Pages are saved executed, without errors"
    found = []
    for page in sorted((ROOT/'nbs').glob('*.ipynb')):
        cells = [c for c in json.loads(page.read_text(encoding='utf-8'))['cells'] if c['cell_type'] == 'code']
        if not any(c['outputs'] for c in cells): found.append(f'{page.name}: no output is saved')
        found += [f'{page.name}: a saved output is an error, {o["ename"]}' for c in cells for o in c['outputs'] if o['output_type'] == 'error']
    return found

def sizes(folder):
    "No file is too large"
    size = {path: (ROOT/path).stat().st_size/1e6 for path in files()}
    found = [f'{path}: {mb:.1f} MB, more than {LARGEST}' for path, mb in size.items() if mb > LARGEST and path.suffix not in WEIGHTS]
    return found + ([f'the repository has {sum(size.values()):.0f} MB, more than {ALL}'] if sum(size.values()) > ALL else [])

def no_machine_paths(folder):
    "No file names a folder of somebody's machine"
    found = []
    for path in files():
        if path.suffix not in ('.py', '.ipynb', '.md', '.ini', '.csv', '.txt', '') or path.parts[0] == 'dev': continue
        hits = MACHINE.findall(re.sub(r'"image/(?:png|jpeg)": "[^"]*"', '', (ROOT/path).read_text(encoding='utf-8', errors='replace')))
        if hits: found.append(f'{path}: {hits[0]}' + (f' and {len(hits) - 1} more' if len(hits) > 1 else ''))
    return found

CHECKS = (clean, exported, readme_in_step, ladder, version_alone, no_errors, sizes, no_machine_paths)

def report(good, label, seconds, details=()):
    print(f'{"ok  " if good else "FAIL"} {seconds:6.1f} s  {label}', flush=True)
    for line in details: print(f'       {line}', flush=True)
    return good

def run_check(check):
    start = perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        try: found = check(Path(folder))
        except Exception as e: found = [f'{type(e).__name__}: {e}']
    return report(not found, check.__doc__, perf_counter() - start, found[:20])

PAGE = '''
import sys
from pathlib import Path
from nbdev.config import get_config
from nbdev.test import test_nb
sys.exit(0 if test_nb(Path(sys.argv[1]).absolute(), skip_flags=get_config().tst_flags.split())[0] else 1)
'''

RUNNING = set() # processes of pages, to be stopped with us

def stop(process):
    "End a page with everything it started."
    if process.poll() is None: os.killpg(process.pid, signal.SIGKILL)

def run_page(page, limit):
    "Run one page in a fresh copy and a process of its own, as nbdev_test does."
    start = perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        copy(Path(folder))
        process = subprocess.Popen([sys.executable, '-c', PAGE, f'nbs/{page}'], cwd=folder, env=environment(Path(folder)), text=True, errors='replace',
                                   stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)
        RUNNING.add(process)
        try: tail = process.communicate(timeout=limit)[0]
        except subprocess.TimeoutExpired:
            stop(process)
            tail = process.communicate()[0] + f'\nstopped after {limit} s'
        RUNNING.discard(process)
    good = process.returncode == 0
    return good, perf_counter() - start, [] if good else tail.strip().splitlines()[-40:]

def run_pages(names, workers, limit):
    "Run pages side by side, the slowest first; returns whether each passed."
    size = {p.name: p.stat().st_size for p in (ROOT/'nbs').glob('*.ipynb')}
    pages = sorted((n for n in size if not names or any(word in n for word in names)), key=lambda n: (SLOWEST.index(n[:-6]) if n[:-6] in SLOWEST else 99, -size[n]))
    passed, start = [], perf_counter()
    def one(page):
        good, seconds, tail = run_page(page, limit)
        passed.append(report(good, f'{page} ({len(passed) + 1} of {len(pages)})', seconds, tail))
    with ThreadPoolExecutor(workers) as pool:
        try: list(pool.map(one, pages))
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in list(RUNNING): stop(process)
            raise
    print(f'pages: {sum(passed)} of {len(pages)} run, {perf_counter() - start:.0f} s with {workers} workers', flush=True)
    return passed

def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('pages', nargs='*', help='run only pages whose names contain one of these, and no other check')
    parser.add_argument('--workers', type=int, default=2, help='pages run at a time, one core each (2)')
    parser.add_argument('--limit', type=int, default=300, help='seconds a page may take (300)')
    args = parser.parse_args()
    results = [] if args.pages else [run_check(check) for check in CHECKS]
    try: results += run_pages(args.pages, args.workers, args.limit)
    except KeyboardInterrupt: sys.exit('stopped')
    print(f'{sum(results)} passed, {len(results) - sum(results)} failed')
    sys.exit(not all(results))

if __name__ == '__main__': main()
