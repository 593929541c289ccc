"What `make test` runs: is the repository in order, and does every page run alone? A check counts one, a page too."
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
from pathlib import Path
from time import perf_counter
from zipfile import ZipFile
import browser
import docs
import headers
import readme
import versions

ROOT = readme.ROOT
HANDWRITTEN = {'__main__.py'} # the only part of the package that no page exports
IGNORED = {'.git', '.venv', '.venv-plots', 'runs', '_docs', '_proc', 'build', 'dist', '__pycache__',
           '.ipynb_checkpoints'}
WEIGHTS = {'.safetensors'} # files that may be larger than LARGEST
LARGEST, ALL = 5, 50 # MB, of a file and of the repository
WIDE, LONG = 120, 45 # characters in a line of code, lines in an exported cell: more is hard to read
BARS = ('%|', 'it/s]', '"IProgress', 'HBox(children', 'FloatProgress(') # what progress bars leave behind
CONTROL = re.compile(r'[\x00-\x08\x0b-\x1f\x7f-\x9f]') # all but tab and line feed
MACHINE = re.compile(r'/(?:root|work|home/\w+|Users/\w+)/[\w.]+|[A-Z]:\\\\Users')

def files():
    "Paths of the repository, relative to its root: what git tracks, and what it would if it were added."
    command = ['git', 'ls-files', '-z', '--cached', '--others', '--exclude-standard']
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
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
    ones = ('OMP_NUM_THREADS', 'MKL_NUM_THREADS', 'OPENBLAS_NUM_THREADS', 'HF_HUB_OFFLINE', 'PYTHONDONTWRITEBYTECODE')
    own = dict(PYTHONPATH=str(folder), HF_HOME=str(folder/'no cache'), TORCH_HOME=str(folder/'no cache'))
    return env | dict.fromkeys(ones, '1') | own

def nbdev(command, folder):
    "Run an nbdev command in a copy; RuntimeError if it fails."
    home = dict(nbdev_clean='clean', nbdev_export='doclinks')[command]
    code = f'import sys; sys.argv = [{command!r}]; from nbdev.{home} import {command}; {command}()'
    process = [sys.executable, '-c', code]
    done = subprocess.run(process, cwd=folder, env=environment(folder), capture_output=True, text=True)
    if done.returncode: raise RuntimeError(f'{command} failed:\n{done.stderr[-2000:]}')

def different(folder, names):
    "Which of the named files are not the same here and in a copy."
    read = lambda path: path.read_bytes() if path.is_file() else None
    return [str(name) for name in sorted(names) if read(ROOT/name) != read(folder/name)]

def cells(page, kind='code'):
    "The cells of a page: (number, source, saved outputs)."
    for i, cell in enumerate(json.loads(page.read_text(encoding='utf-8'))['cells']):
        if cell['cell_type'] == kind: yield i, ''.join(cell['source']), cell.get('outputs', [])

def texts(output):
    "What a saved output says, in all its forms but pictures."
    if output['output_type'] == 'stream': return [readme.text_of(output['text'])]
    if output['output_type'] == 'error': return [readme.text_of(output['traceback'])]
    return [readme.text_of(text) for kind, text in output['data'].items() if kind.startswith('text/')]

def pages():
    "All pages, in their order."
    return sorted((ROOT/'nbs').glob('*.ipynb'))

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
    notebooks = [path for path in files() if path.suffix == '.ipynb']
    return [f'{name}: nbdev_clean changes it' for name in different(folder, notebooks)]

def exported(folder):
    "The package is what the pages export (nbdev_export)"
    copy(folder)
    shutil.rmtree(folder/'oczss')
    nbdev('nbdev_export', folder)
    written = {p.relative_to(base) for base in (ROOT, folder) for p in (base/'oczss').glob('*.py')}
    names = {p for p in written if p.name not in HANDWRITTEN}
    return [f'{name}: nbdev_export writes it differently, or not at all' for name in different(folder, names)]

def readme_in_step(folder):
    "README.md is what dev/readme.py writes"
    copy(folder)
    shutil.rmtree(folder/readme.PICTURES, ignore_errors=True)
    readme.write(folder)
    pictures = {p.relative_to(base) for base in (ROOT, folder) for p in (base/readme.PICTURES).glob('*')}
    return [f'{name}: make readme writes it differently' for name in different(folder, {Path('README.md')} | pictures)]

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
        if name in ('__init__', '_modidx') or path.name in HANDWRITTEN: continue
        if name not in order:
            found.append(f'oczss/{path.name}: no page exports it')
            continue
        for module, names, level in imports(ast.parse(path.read_text(encoding='utf-8'))):
            if '*' in names: found.append(f'oczss/{path.name}: star import from {module}')
            library = module.split('.')[0]
            if library in ('fastcore', 'nbdev', 'IPython'):
                found.append(f'oczss/{path.name}: imports {module}, which only pages may')
            if not level and library != 'oczss': continue
            inside = module if level else module.partition('.')[2]
            for target in [inside] if inside else names:
                if order.get(target, 99) < order[name]: continue
                theirs = order.get(target, 'none')
                found.append(f'oczss/{path.name} (page {order[name]:02}) imports {target} (page {theirs})')
    return found

def short(folder):
    "Lines of code are short, and so are exported cells"
    found, sources = [], {path.name: path.read_text(encoding='utf-8') for path in (ROOT/'dev').glob('*.py')}
    for page in pages():
        for i, source, _ in cells(page):
            sources[place := f'{page.name}, cell {i}'] = source = source.strip()
            count = source.count('\n') + 1
            if count > LONG and re.search(r'^#\|\s*exporti?\b', source, re.M):
                found.append(f'{place}: {count} lines, more than {LONG}')
    wide = ((place, line) for place, source in sources.items() for line in source.split('\n') if len(line) > WIDE)
    return found + [f'{place}: {len(line)} characters in {line.strip()[:40]!r}...' for place, line in wide]

def no_litter(folder):
    "Pages hold no control characters, progress bars or states of widgets"
    found = []
    for page in pages():
        if 'widgets' in json.loads(page.read_text(encoding='utf-8'))['metadata']:
            found.append(f'{page.name}: the state of its widgets was saved: delete "widgets" from its metadata')
        for kind in ('code', 'markdown'):
            for i, source, outputs in cells(page, kind):
                saved = [text for output in outputs for text in texts(output)]
                for place, text in [('cell', source), *(('output of cell', text) for text in saved)]:
                    hits = CONTROL.findall(text)
                    if hits: found.append(f'{page.name}, {place} {i}: control character {hits[0]!r}')
                if any(word in text for text in saved for word in BARS):
                    found.append(f'{page.name}, output of cell {i}: a progress bar was saved')
    return found

def headed(folder):
    "Every page has the header, and the index the ways, that dev/headers.py writes"
    try: found = headers.update(ROOT, write=False)
    except ValueError as error: return [str(error)]
    return [f'{name}: dev/headers.py writes it differently' for name in found]

def described(folder):
    "Every figure has an alternative text (#| fig-alt: in its cell)"
    found = []
    for page in pages():
        for i, source, outputs in cells(page):
            if not any(kind.startswith('image/') for output in outputs for kind in output.get('data', {})): continue
            text = readme.directives(source).get('fig-alt', '')
            if len(text.split()) >= 4: continue
            found.append(f'{page.name}, cell {i}: fig-alt is {text!r}, say what is to be seen')
    return found

def version_alone(folder):
    "oczss/__init__.py holds the version alone"
    wanted = f'__version__ = "{readme.settings()["version"]}"'
    text = (ROOT/'oczss'/'__init__.py').read_text(encoding='utf-8').strip()
    return [] if text == wanted else [f'oczss/__init__.py is {text[:200]!r}, not {wanted!r}']

def no_errors(folder):
    "Pages are saved executed, without errors"
    found = []
    for page in pages():
        outputs = [output for _, _, saved in cells(page) for output in saved]
        if not outputs: found.append(f'{page.name}: no output is saved')
        errors = [output['ename'] for output in outputs if output['output_type'] == 'error']
        found += [f'{page.name}: a saved output is an error, {name}' for name in errors]
    return found

def sizes(folder):
    "No file is too large"
    size = {path: (ROOT/path).stat().st_size/1e6 for path in files()}
    large = {path: mb for path, mb in size.items() if mb > LARGEST and path.suffix not in WEIGHTS}
    found, total = [f'{path}: {mb:.1f} MB, more than {LARGEST}' for path, mb in large.items()], sum(size.values())
    return found + ([f'the repository has {total:.0f} MB, more than {ALL}'] if total > ALL else [])

def no_machine_paths(folder):
    "No file names a folder of somebody's machine"
    found = []
    for path in files():
        if path.suffix not in ('.py', '.ipynb', '.md', '.ini', '.csv', '.txt', '') or path.parts[0] == 'dev': continue
        text = (ROOT/path).read_text(encoding='utf-8', errors='replace')
        hits = MACHINE.findall(re.sub(r'"image/(?:png|jpeg)": "[^"]*"', '', text))
        if hits: found.append(f'{path}: {hits[0]}' + (f' and {len(hits) - 1} more' if len(hits) > 1 else ''))
    return found

def built(source, out, *only):
    "Build without a network what is to be installed; returns the wheel. RuntimeError if it fails."
    process = [sys.executable, '-m', 'build', '--no-isolation', *only, '--outdir', str(out), str(source)]
    env = environment(source)
    done = subprocess.run(process, cwd=source.parent, env=env, capture_output=True, text=True, timeout=300)
    if done.returncode: raise RuntimeError(f'python -m build failed:\n{(done.stdout + done.stderr)[-2000:]}')
    return next(out.glob('*.whl'))

def contents(wheel):
    "What a wheel holds, by name."
    with ZipFile(wheel) as archive: return {name: archive.read(name) for name in archive.namelist()}

INSTALLED = '''
from importlib.metadata import distribution
from pathlib import Path
import oczss
from PIL import Image
from oczss.benchmark import workbook
from oczss.core import golden
from oczss.shapes import draw_world

assert Path(oczss.__file__).parent.parent.name == 'installed', f'{oczss.__file__} was imported, not the wheel'
[script] = distribution('oczss').entry_points.select(group='console_scripts')
command, options = script.load(), ['picture.png', '--training-free', '--classes', 'cat', 'house']
picture = Image.fromarray(draw_world('things', 'a picture for the wheel', 0)[0])
picture.save('picture.png')
assert command(['segment', *options]) == 0, 'oczss segment failed'
labels = Image.open('segmented/picture_labels.png')
assert labels.size == picture.size and labels.getextrema()[1] <= 1, 'there are other labels than cat and house'
workbook(counts=dict(train=16, test=6), iterations=4, batch=4, warmup=1)
try: golden('sinkhorn')
except FileNotFoundError as error: assert 'run from a clone' in str(error), error
else: raise AssertionError('a recording of the repository was found')
'''

def packaged(folder):
    "The wheel holds the package, works without the repository, and is what the source archive makes"
    source, installed, empty = (folder/name for name in ('source', 'installed', 'empty'))
    copy(source)
    empty.mkdir()
    wheel = contents(built(source, folder/'direct', '--wheel'))
    again = contents(built(source, folder/'archive')) # the source archive, then a wheel from it
    found = [f'{name}: not in the wheel as it is here' for name in map(Path.as_posix, files())
             if name.startswith('oczss/') and wheel.get(name) != (ROOT/name).read_bytes()]
    found += [f'{name}: the wheel made from the source archive differs' for name in sorted(wheel.keys() | again.keys())
              if wheel.get(name) != again.get(name)]
    with ZipFile(next((folder/'archive').glob('*.whl'))) as archive: archive.extractall(installed)
    done = subprocess.run([sys.executable, '-c', INSTALLED], cwd=empty, env=environment(installed), capture_output=True,
                          text=True, timeout=300)
    return found + ([f'without the repository: {done.stderr[-2000:]}'] if done.returncode else [])

def in_browser(folder):
    "Pages run in JupyterLab, in a real browser, and widgets follow the mouse"
    why = browser.missing()
    if why: return print(f'       skipped: {why}') or []
    return browser.run(copy(folder), environment(folder))

def site(folder):
    "The site is built without a warning, loads nothing from elsewhere, and fits a phone"
    why = docs.missing()
    if why: return print(f'       skipped: {why}') or []
    found = docs.build(ROOT, folder/'site') + docs.faults(folder/'site')
    return found if browser.missing() else found + browser.too_wide(folder/'site')

CHECKS = (clean, exported, readme_in_step, ladder, short, version_alone, no_errors, no_litter, headed, described, sizes,
          no_machine_paths, packaged, site, in_browser)
SHOWN = 20 # complaints of one check

def report(good, label, seconds, details=()):
    print(f'{"ok  " if good else "FAIL"} {seconds:6.1f} s  {label}', flush=True)
    for line in details: print(f'       {line}', flush=True)
    return good

def run_check(check):
    start = perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        try: found = check(Path(folder))
        except Exception as e: found = [f'{type(e).__name__}: {e}']
    more = [f'and {len(found) - SHOWN} more'] if len(found) > SHOWN else []
    return report(not found, check.__doc__, perf_counter() - start, found[:SHOWN] + more)

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

SOLUTION = re.compile(r'<details><summary>Solution</summary>.*?```python\n(.*?)```', re.S)

def solve(page):
    "Put the folded solutions of a page's exercises where they stand as cells, to be run like the others."
    notebook = headers.load(page)
    for i, cell in reversed(list(enumerate(notebook['cells']))):
        for code in SOLUTION.findall(readme.text_of(cell['source'])) if cell['cell_type'] == 'markdown' else ():
            new = dict(cell_type='code', id=f'solution-{i}', metadata={}, execution_count=None, outputs=[], source=code)
            notebook['cells'].insert(i + 1, new)
    headers.save(page, notebook)

def run_page(page, limit):
    "Run one page, its solutions too, in a fresh copy and a process of its own, as nbdev_test does."
    start = perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        solve(copy(Path(folder))/'nbs'/page)
        process = subprocess.Popen(
            [sys.executable, '-c', PAGE, f'nbs/{page}'], cwd=folder, env=environment(Path(folder)), text=True,
            errors='replace', stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            start_new_session=True)
        RUNNING.add(process)
        try: tail = process.communicate(timeout=limit)[0]
        except subprocess.TimeoutExpired:
            stop(process)
            tail = process.communicate()[0] + f'\nstopped after {limit} s'
        RUNNING.discard(process)
    good = process.returncode == 0
    return good, perf_counter() - start, [] if good else tail.strip().splitlines()[-40:]

def run_pages(names, workers, limit):
    "Run pages side by side, the slowest first; returns (page, whether it passed, seconds) of each."
    wanted = [p for p in pages() if not names or any(word in p.name for word in names)]
    known = headers.times(ROOT)
    todo = [p.name for p in sorted(wanted, key=lambda p: known.get(headers.short(p), limit), reverse=True)]
    done, start = [], perf_counter()
    def one(page):
        good, seconds, tail = run_page(page, limit)
        done.append((page, report(good, f'{page} ({len(done) + 1} of {len(todo)})', seconds, tail), seconds))
    with ThreadPoolExecutor(workers) as pool:
        try: list(pool.map(one, todo))
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in list(RUNNING): stop(process)
            raise
    spent = perf_counter() - start
    passed = sum(good for _, good, _ in done)
    print(f'pages: {passed} of {len(todo)} run, {spent:.0f} s with {workers} workers', flush=True)
    return done

def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('pages', nargs='*', help='run only pages whose names contain one of these, and no other check')
    parser.add_argument('--workers', type=int, default=2, help='pages run at a time, one core each (2)')
    parser.add_argument('--limit', type=int, default=600, help='seconds a page may take (600)')
    parser.add_argument('--times', action='store_true', help='write the seconds of the pages run into dev/times.csv')
    parser.add_argument('--record', type=Path, metavar='FOLDER',
                        help='write the versions installed here, and which pages ran, into tables in this folder')
    args = parser.parse_args()
    results = [] if args.pages else [run_check(check) for check in CHECKS]
    try: done = run_pages(args.pages, args.workers, args.limit)
    except KeyboardInterrupt: sys.exit('stopped')
    ran = {headers.short(page): good for page, good, _ in done}
    if args.record: versions.record(args.record, ran)
    if args.times: headers.write_times(ROOT, {headers.short(page): seconds for page, good, seconds in done if good})
    outcomes = [*results, *ran.values()]
    print(f'{sum(outcomes)} passed, {len(outcomes) - sum(outcomes)} failed')
    sys.exit(not all(outcomes))

if __name__ == '__main__': main()
