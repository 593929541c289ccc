"Write the header of every page and the ways on the index, from dev/pages.ini, dev/times.csv and the pages."
import argparse
import csv
import json
import re
import sys
from configparser import ConfigParser
from pathlib import Path
import readme
from readme import text_of

MARK = '<!-- Written by dev/headers.py from dev/pages.ini and dev/times.csv. -->' # first line of a generated cell
SKIPPED = re.compile(r'^#\|\s*(?:slow|gpu)\b', re.M) # cells that the tests leave out
FROM_CLONE = re.compile(r'\bgolden\(|\.\./(?:data|oczss|runs)\b') # files that an installed package does not bring

def short(page):
    "A page's name without number and ending: what dev/pages.ini and dev/times.csv call it."
    return re.sub(r'^\d+_', '', Path(page).stem)

def numbered(root):
    "The pages in the order of their numbers, the index left out."
    return sorted((root/'nbs').glob('[0-9]*.ipynb'))

def load(page): return json.loads(page.read_text(encoding='utf-8'))

def save(page, notebook):
    "Written as nbdev_clean writes it."
    text = json.dumps(notebook, sort_keys=True, indent=1, ensure_ascii=False) + '\n'
    page.write_text(text, encoding='utf-8', newline='\n')

def table(root):
    "dev/pages.ini: {page: its fields}, with the titles of the ways under 'ways'. ValueError if a page has no way."
    config = ConfigParser(delimiters=['='])
    config.read(root/'dev'/'pages.ini', encoding='utf-8')
    found = {name: dict(config[name]) for name in config.sections()}
    for page in numbered(root):
        way = found.get(short(page), {}).get('way')
        if way in found['ways']: continue
        raise ValueError(f'dev/pages.ini gives {short(page)!r} the way {way!r}: add a section [{short(page)}] '
                         f'with way = one of {", ".join(found["ways"])}')
    return found

def times(root):
    "dev/times.csv: {page: seconds of its last test run}, written by dev/check.py --times."
    path = root/'dev'/'times.csv'
    if not path.is_file(): return {}
    with path.open(encoding='utf-8', newline='') as file:
        return {row['page']: float(row['seconds']) for row in csv.DictReader(file)}

def write_times(root, measured):
    "Put measured seconds {page: seconds} into dev/times.csv, and drop pages that are no more."
    known = times(root) | measured
    rows = [(name, f'{known[name]:.1f}') for name in sorted(map(short, numbered(root))) if name in known]
    with (root/'dev'/'times.csv').open('w', encoding='utf-8', newline='') as file:
        csv.writer(file, lineterminator='\n').writerows([('page', 'seconds'), *rows])

def title(page):
    "What a page calls itself, in its first heading."
    cells = (text_of(cell['source']) for cell in load(page)['cells'] if cell['cell_type'] == 'markdown')
    return next(source for source in cells if source.startswith('# ')).splitlines()[0][2:].strip()

def link(page): return f'[{title(page)}]({page.name})'

def ways(root):
    "The pages of each way, in order: {title of the way: pages}."
    fields = table(root)
    return {name: [page for page in numbered(root) if fields[short(page)]['way'] == way]
            for way, name in fields['ways'].items()}

def spoken(seconds):
    "A time as a reader wants it: to 5 seconds, or to minutes."
    if seconds < 10: return 'less than 10 seconds'
    return f'about {5*round(seconds/5)} seconds' if seconds < 90 else f'about {round(seconds/60)} minutes'

def needs(fields, notebook):
    "What a page needs, in words: from dev/pages.ini, and from what its cells read."
    code = [text_of(cell['source']) for cell in notebook['cells'] if cell['cell_type'] == 'code']
    place = 'a clone of the repository' if any(map(FROM_CLONE.search, code)) else 'the package'
    said = [f'Needs {place}; no data, no weights, no GPU.', fields.get('needs', '')]
    skipped = sum(bool(SKIPPED.search(source)) for source in code)
    if skipped: said.append(f'Notebook cells that the tests do not run: {skipped}.')
    return ' '.join(filter(None, said))

COLAB = '''<details><summary>In Colab, run this first, in a cell of its own</summary>

```
!git clone -q {url} && pip install -q ./{name} fastcore
%cd {name}/nbs
import sys; sys.path.insert(0, '..')
```

</details>'''

def header(root, page):
    "The header of a page, as markdown. ValueError where its time was never measured."
    url, branch, name = (readme.settings(root)[key] for key in ('git_url', 'branch', 'lib_name'))
    repository, measured, order, at = url.removeprefix('https://github.com/'), times(root), numbered(root), short(page)
    if at not in measured: raise ValueError(f'{page.name} has no time in dev/times.csv: run dev/check.py --times {at}')
    fields, i = table(root), order.index(page)
    way = fields['ways'][fields[at]['way']].partition(':')[0]
    sides = [('previous', one) for one in order[:i][-1:]] + [('next', one) for one in order[i+1:][:1]]
    file = f'{repository}/{{}}{branch}/nbs/{page.name}'
    lines = [' · '.join([f'**{way}**', *(f'{side}: {link(one)}' for side, one in sides),
                         '[all pages](index.ipynb)']),
             needs(fields[at], load(page)),
             f'Runs in {spoken(measured[at])} on one core.']
    if 'paper' in fields[at]: lines[-1] += f' Part of the paper: {fields[at]["paper"]}.'
    lines.append(f'[Download this page](https://raw.githubusercontent.com/{file.format("")}) · '
                 f'[open it in Colab](https://colab.research.google.com/github/{file.format("blob/")})')
    return '\n\n'.join([MARK, '  \n'.join(lines), COLAB.format(url=url, name=name)])

def overview(root):
    "The ways with their pages: markdown for the index, a cell a way, so that a picture can stand below each."
    texts = []
    for name, pages in ways(root).items():
        head, _, rest = name.partition(':')
        title = [] if texts else ['## Three ways through']
        texts.append('\n\n'.join([MARK, *title, f'**{head}**:{rest}.  \n' + ' · '.join(map(link, pages))]))
    return texts

TITLE = re.compile(r'(# .*\n\n(?:>.*\n?)+)\n+(?=\S)') # heading and promise, where a cell goes on below them

def titled(notebook):
    "The place below a page's heading and promise, which get a cell of their own if they have none."
    cells = notebook['cells']
    at, source = next((i, text_of(cell['source'])) for i, cell in enumerate(cells)
                      if cell['cell_type'] == 'markdown' and text_of(cell['source']).startswith('# '))
    found = TITLE.match(source)
    if found:
        head, rest = found[1].rstrip('\n'), source[found.end():]
        cells[at] = cells[at] | dict(source=head.splitlines(True))
        cells.insert(at + 1, dict(cell_type='markdown', id='opening', metadata={}, source=rest.splitlines(True)))
    return at + 1

def put(notebook, texts, place):
    "Put generated cells where the last ones are, one for one, else together at `place`; whether that changed anything."
    cells = notebook['cells']
    old = [cell for cell in cells if text_of(cell['source']).startswith(MARK)]
    if [text_of(cell['source']) for cell in old] == texts: return False
    ids = ['header', *(f'header-{i}' for i in range(1, len(texts)))]
    new = [dict(cell_type='markdown', id=name, metadata={}, source=text.splitlines(True))
           for name, text in zip(ids, texts)]
    if len(old) == len(new):
        for before, after in zip(old, new): cells[cells.index(before)] = after | dict(id=before['id'])
        return True
    if old: place = cells.index(old[0])
    notebook['cells'] = [cell for cell in cells if cell not in old]
    notebook['cells'][place:place] = new
    return True

def update(root, write=True):
    "Bring all generated cells up to date; the names of the pages that were not."
    changed = []
    for page in [*numbered(root), root/'nbs'/'index.ipynb']:
        notebook = load(page)
        index = page.stem == 'index'
        texts = overview(root) if index else [header(root, page)]
        if not put(notebook, texts, titled(notebook) + index): continue # on the index below its first paragraphs
        changed.append(page.name)
        if write: save(page, notebook)
    return changed

def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--root', type=Path, default=readme.ROOT, help='the repository (this one)')
    args = parser.parse_args()
    try: print('\n'.join(update(args.root)) or 'all headers are up to date')
    except ValueError as error: sys.exit(str(error))

if __name__ == '__main__': main()
