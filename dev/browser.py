"Open JupyterLab as `make lab` does, run pages in a real browser, look at what was saved, and move widgets by mouse."
import argparse
import importlib.util
import json
import shutil
import socket
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep
from urllib.request import urlopen
import headers
from readme import text_of

PAGES = ('shapes', 'voronoi', 'sinkhorn') # run here: quick, with figures, without cells that take long
WIDGETS = 'explore' # this page's widgets are moved by mouse
BROWSERS = ('chromium', 'chromium-browser', 'google-chrome', 'chrome')
TOKEN, LIMIT = 'oczss', 600 # of the server, which listens to this machine alone; seconds a page may take

def executable():
    "The browser on this machine, or None."
    return next(filter(None, map(shutil.which, BROWSERS)), None)

def missing():
    "Why no browser can be driven here; None if one can."
    if importlib.util.find_spec('playwright') is None: return "no playwright (pip install -e '.[browser]')"
    if executable() is None: return f'none of {", ".join(BROWSERS)} is installed'

@contextmanager
def chromium():
    "A headless browser."
    from playwright.sync_api import sync_playwright
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable(), args=['--no-sandbox'])
        try: yield browser
        finally: browser.close()

@contextmanager
def lab(folder, env):
    "JupyterLab on the pages of a copy of the repository; its address."
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    own = {f'JUPYTER_{kind}_DIR': str(folder/'jupyter'/kind) for kind in ('CONFIG', 'RUNTIME')}
    command = [sys.executable, '-m', 'jupyter', 'lab', 'nbs', '--no-browser', '--allow-root', '--ip=127.0.0.1',
               f'--port={port}', '--ServerApp.port_retries=0', f'--IdentityProvider.token={TOKEN}']
    with (folder/'jupyter.log').open('w') as log:
        server = subprocess.Popen(command, cwd=folder, env=env | own, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    address, start = f'http://127.0.0.1:{port}', monotonic()
    try:
        while True:
            try:
                urlopen(f'{address}/api/status?token={TOKEN}', timeout=5).close()
                break
            except OSError:
                if server.poll() is not None or monotonic() - start > 120:
                    said = (folder/'jupyter.log').read_text()[-2000:]
                    raise RuntimeError(f'JupyterLab did not start:\n{said}') from None
                sleep(.5)
        yield address
    finally:
        server.terminate()
        try: server.wait(20)
        except subprocess.TimeoutExpired: server.kill()

def saved(path):
    "The code cells of a notebook on disk, None while it is being written."
    try: return [cell for cell in headers.load(path)['cells'] if cell['cell_type'] == 'code' and cell['source']]
    except json.JSONDecodeError: return None

def outputs(cells): return [output for cell in cells for output in cell['outputs']]

def figures(cells): return sum('image/' in kind for output in outputs(cells) for kind in output.get('data', {}))

def errors(cells): return [f'{o["ename"]}: {o["evalue"]}' for o in outputs(cells) if o['output_type'] == 'error']

def has_kernel(address, path):
    "Whether the server has an idle kernel for a page."
    with urlopen(f'{address}/api/sessions?token={TOKEN}', timeout=60) as answer: sessions = json.load(answer)
    return any(path.name in (one['path'], one['name']) and (one['kernel'] or {}).get('execution_state') == 'idle'
               for one in sessions)

def open_page(tab, address, path):
    "Open a page beside no other, and wait for its kernel."
    tab.goto(f'{address}/lab/workspaces/{path.stem}/tree/{path.name}?token={TOKEN}')
    tab.locator('.jp-NotebookPanel .jp-Cell').first.wait_for(timeout=1000*LIMIT)
    start = monotonic()
    while not has_kernel(address, path): # else a dialog asks for one, where the machine is slow
        if monotonic() - start > LIMIT: raise RuntimeError(f'{path.name}: after {LIMIT} s there was no kernel')
        sleep(1)
    tab.locator('.jp-Notebook-ExecutionIndicator[data-status=idle]').first.wait_for(timeout=1000*LIMIT)

def from_menu(tab, words):
    "Choose something in the menu Run, as a person would."
    tab.get_by_role('menuitem', name='Run', exact=True).click()
    tab.locator('.lm-Menu-itemLabel').get_by_text(words, exact=True).click()
    sleep(2)
    asked = tab.locator('.jp-Dialog .jp-mod-accept') # which kernel? the page has not heard yet of the one it has
    if asked.count(): asked.click()

def run_all(tab, address, path):
    "Run a page from the menu and save it; what is wrong with what was saved."
    cells, start = saved(path), monotonic()
    before = figures(cells)
    open_page(tab, address, path)
    from_menu(tab, 'Run All Cells')
    while monotonic() - start < LIMIT:
        tab.keyboard.press('Control+s')
        sleep(2)
        cells = saved(path)
        if cells is None: continue
        if errors(cells): return [f'{path.name}: {error[:300]}' for error in errors(cells)]
        if all(cell['execution_count'] for cell in cells) and figures(cells) >= before:
            order = [cell['execution_count'] for cell in cells]
            return [] if order == sorted(order) else [f'{path.name}: cells ran out of order']
    waiting, came = sum(not cell['execution_count'] for cell in cells or []), figures(cells or [])
    return [f'{path.name}: after {LIMIT} s {waiting} cells had not run, and of {before} figures {came} had come']

def with_widgets(path):
    "Cut a page off below the cell that shows its widgets: what comes after is for the page's own test."
    notebook = headers.load(path)
    ends = [i for i, cell in enumerate(notebook['cells']) if 'w.Tab(' in text_of(cell['source'])]
    if len(ends) != 1: raise ValueError(f'{path.name} has {len(ends)} cells with widgets in tabs, not one')
    headers.save(path, notebook | dict(cells=notebook['cells'][:ends[0] + 1]))

def changed(tab, picture, before):
    "Wait until the widget's picture is another one than before; its address, which differs with what it shows."
    tab.wait_for_function('([e, old]) => e.src && e.src != old && e.complete && e.naturalWidth > 100',
                          arg=[picture.element_handle(), before], timeout=1000*LIMIT)
    return picture.get_attribute('src')

def drag(tab, slider, share):
    "Drag the handle of a slider to a share of its way, by mouse."
    handle, way = slider.locator('.noUi-handle'), slider.locator('.noUi-base')
    handle.scroll_into_view_if_needed()
    at, whole = handle.bounding_box(), way.bounding_box()
    y = at['y'] + at['height']/2
    tab.mouse.move(at['x'] + at['width']/2, y)
    tab.mouse.down()
    tab.mouse.move(whole['x'] + share*whole['width'], y, steps=8)
    tab.mouse.up()

def move_widgets(tab, address, path):
    "Run the page with widgets, choose other cells, drag two sliders, and see whether the picture follows."
    with_widgets(path)
    open_page(tab, address, path)
    from_menu(tab, 'Run All Cells')
    picture = tab.locator('.jp-OutputArea-output img.widget-image').first
    picture.wait_for(timeout=1000*LIMIT)
    shown = [changed(tab, picture, '')]
    row = lambda name: tab.locator('.widget-inline-hbox').filter(has=tab.get_by_text(name, exact=True)).first
    row('cells').locator('select').select_option('grid')
    shown.append(changed(tab, picture, shown[-1]))
    for name, share in (('m', .2), ('image', .7)):
        drag(tab, row(name), share)
        shown.append(changed(tab, picture, shown[-1]))
    said = tab.locator('.jp-OutputArea-output .widget-html-content b:visible').all_inner_texts() # not of the other tab
    return [f'{path.name}: the widgets say {words}' for words in said if words]

def run(folder, env, names=PAGES, widgets=WIDGETS):
    "Run pages in JupyterLab in a browser, and move widgets, in a copy of the repository; a list of complaints."
    paths = [page for page in headers.numbered(folder) if headers.short(page) in names]
    if len(paths) < len(names): return [f'not all of the pages {", ".join(names)} are there']
    with lab(folder, env) as address, chromium() as browser:
        found = []
        for path in paths:
            with browser.new_context() as context: found += run_all(context.new_page(), address, path)
        for path in (page for page in headers.numbered(folder) if headers.short(page) == widgets):
            with browser.new_context(viewport=dict(width=1600, height=1200)) as context:
                found += move_widgets(context.new_page(), address, path)
    return found

def too_wide(site, widths=(380, 1300)):
    "Pages of a built site that a phone or a desk has to scroll sideways; a list of complaints."
    found = []
    with chromium() as browser:
        for width in widths:
            tab = browser.new_page(viewport=dict(width=width, height=900))
            for page in sorted(site.glob('*.html')):
                tab.goto(page.as_uri())
                wide = tab.evaluate('document.documentElement.scrollWidth')
                if wide > width: found.append(f'{page.name}: {wide} pixels wide in a window of {width}')
    return found

def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('pages', nargs='*', default=PAGES, help=f'names without number ({", ".join(PAGES)})')
    parser.add_argument('--widgets-alone', action='store_true', help='run no page, move widgets only')
    args = parser.parse_args()
    if missing(): sys.exit(missing())
    import check
    with tempfile.TemporaryDirectory() as folder:
        pages = () if args.widgets_alone else tuple(args.pages)
        found = run(check.copy(Path(folder)), check.environment(Path(folder)), pages)
    print('\n'.join(found) or f'{len(pages)} pages ran, and widgets were moved, in {executable()}')
    sys.exit(bool(found))

if __name__ == '__main__': main()
