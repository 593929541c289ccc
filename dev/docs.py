"Build a plain site of the pages, _docs/ (make docs), with Sphinx, MyST-NB and Furo; nothing is loaded from elsewhere."
import argparse
import importlib.util
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
import headers
import readme
from readme import text_of

SITE = '_docs'
NEEDED = dict(sphinx='sphinx', myst_nb='myst-nb', furo='furo', latex2mathml='latex2mathml') # module: package
CONF = '''
import sys
sys.path.insert(0, {dev!r})
from docs import add_mathml
project, author, copyright, html_title = 'oczss', {author!r}, {copyright!r}, 'oczss'
extensions = ['myst_nb']
html_theme, html_show_sphinx, html_copy_source = 'furo', False, False
html_static_path, html_css_files = ['_static'], ['site.css']
nb_execution_mode, nb_merge_streams, nb_number_source_lines = 'off', True, False
nb_code_prompt_show, nb_code_prompt_hide = '▸ code', '▾ code'
nb_ipywidgets_js = {{}}                                 # no script from elsewhere
myst_enable_extensions, myst_heading_anchors = ['dollarmath', 'html_image'], 3
suppress_warnings = ['misc.highlighting_failure', 'mystnb.unknown_mime_type']
def setup(app): add_mathml(app)
'''
CSS = '''
pre { white-space: pre-wrap; overflow-wrap: anywhere; }       /* no line is cut off */
.cell_output img { max-width: 100%; height: auto; background: white; }
math { font-family: "STIX Two Math", "Latin Modern Math", "Cambria Math", math; }
div.math { overflow-x: auto; font-size: .95em; }               /* long ones fit, or scroll */
.cell_output { overflow-x: auto; }                            /* wide tables scroll by themselves */
.cell_output table { border-collapse: collapse; border: none; font-size: .9em; }
.cell_output table :is(td, th) { padding: .1em .6em; border: none; text-align: right; }
.cell_output table tr { border-bottom: 1px solid var(--color-background-border); }
.cell_output table tbody th { text-align: left; font-weight: normal; }
details { margin: 1em 0; }
details.hide, details.hide summary, details.hide summary * {  /* folded code, small and quiet */
  background: none !important; border: none !important; box-shadow: none !important; margin: 0; padding: 0 !important;
  color: var(--color-foreground-muted) !important;
}
details.hide summary::before, details.hide summary *::before { display: none !important; }
'''

def add_mathml(app):
    "Teach Sphinx to write formulas as MathML, which browsers draw without a script."
    from docutils.nodes import SkipNode
    from latex2mathml.converter import convert as converted

    def convert(latex, **how): return converted(latex.replace(r'\arg', r'\operatorname{arg}'), **how) # not known to it

    def inline(self, node):
        self.body.append(convert(node.astext()))
        raise SkipNode

    def display(self, node):
        self.body.append(f'<div class="math">{convert(node.astext(), display="block")}</div>')
        raise SkipNode

    app.add_html_math_renderer('mathml', (inline, None), (display, None))
    app.config.html_math_renderer = 'mathml'

def missing():
    "Why the site cannot be built here; None if it can."
    lacking = [package for module, package in NEEDED.items() if importlib.util.find_spec(module) is None]
    if lacking: return f"not installed: {', '.join(lacking)} (pip install -e '.[docs]')"

def shown(cell):
    "A code cell as the site shows it: without its directives, its figures with their alternative text; None: hidden."
    source = text_of(cell['source'])
    said = readme.directives(source)
    if 'hide' in said or 'default_exp' in said: return None
    tags = [tag for tag, shown in (('remove-input', said.get('echo') == 'false'),
                                   ('hide-input', said.get('code-fold') == 'true')) if shown]
    metadata = dict(tags=tags, mystnb=dict(image=dict(alt=said.get('fig-alt', ''))))
    for output in cell['outputs']: output.get('data', {}).pop('application/vnd.jupyter.widget-view+json', None)
    return cell | dict(source=readme.DIRECTIVE.sub('', source).strip('\n'), metadata=metadata)

def anchor(found):
    "A link to a heading, as the site names headings: in small letters, without punctuation."
    name = re.sub(r'[^\w-]', '', found[2].lower())
    return f']({found[1]}#{name})'

def link_out(markdown, address):
    "Links to headings as the site names them; links to files beside the pages lead to the repository."
    markdown = re.sub(r'\]\(([\w.]*)#([^)]+)\)', anchor, markdown)
    return re.sub(r'\]\(\.\./([^)]*)\)', rf']({address}/\1)', markdown)

def write_page(page, folder, address):
    "A page as Sphinx shall read it."
    notebook = headers.load(page)
    cells = []
    for cell in notebook['cells']:
        if cell['cell_type'] == 'markdown': cell['source'] = link_out(text_of(cell['source']), address)
        cell = shown(cell) if cell['cell_type'] == 'code' else cell
        if cell: cells.append(cell)
    (folder/page.name).write_text(json.dumps(notebook | dict(cells=cells)), encoding='utf-8')

def sidebar(root):
    "The three ways and the appendices, as the menus of the site."
    def menu(name, pages):
        head = f'```{{toctree}}\n:hidden:\n:caption: {name.partition(":")[0]}\n\n'
        return head + '\n'.join(page.stem for page in pages) + '\n```'
    menus = [menu(name, pages) for name, pages in headers.ways(root).items()]
    return dict(cell_type='markdown', id='menus', metadata={}, source='\n\n'.join(menus))

def write_source(root, folder):
    "All that Sphinx needs: pages, the menus on the index, settings and style."
    settings = readme.settings(root)
    address = f'{settings["git_url"]}/blob/{settings["branch"]}'
    for page in [*headers.numbered(root), root/'nbs'/'index.ipynb']: write_page(page, folder, address)
    index = headers.load(folder/'index.ipynb')
    index['cells'].append(sidebar(root))
    (folder/'index.ipynb').write_text(json.dumps(index), encoding='utf-8')
    conf = CONF.format(dev=str(root/'dev'), author=settings['author'], copyright=settings['copyright'])
    (folder/'conf.py').write_text(conf, encoding='utf-8')
    (folder/'_static').mkdir()
    (folder/'_static'/'site.css').write_text(CSS, encoding='utf-8')

def build(root, out):
    "Build the site; its warnings. RuntimeError if it fails."
    with tempfile.TemporaryDirectory() as folder:
        write_source(root, Path(folder))
        shutil.rmtree(out, ignore_errors=True)
        command = [sys.executable, '-m', 'sphinx', '-q', '-b', 'html', '-d', f'{folder}/doctrees', folder, str(out)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode: raise RuntimeError(f'Sphinx failed:\n{done.stderr[-3000:]}')
        return [line.replace(folder, 'nbs') for line in done.stderr.splitlines() if line.strip()]

REMOTE = re.compile(r'<(?:script|link|img|iframe)\b[^>]*(?:src|href)="(?:https?:)?//[^"]*"')

def faults(out):
    "What a built site must not have: anything loaded from elsewhere, figures without a text, formulas not drawn."
    found = []
    for file in sorted(out.glob('*.html')):
        text = file.read_text(encoding='utf-8')
        found += [f'{file.name}: loaded from elsewhere: {hit[:100]}' for hit in REMOTE.findall(text)]
        found += [f'{file.name}: a figure without alternative text' for hit in re.findall(r'<img\b[^>]*>', text)
                  if not re.search(r'alt="[^"]+"', hit)]
        formulas = ' '.join(re.findall(r'<math.*?</math>', text, re.S))
        unknown = re.findall(r'\\[a-zA-Z]+', formulas)
        found += [f'{file.name}: {word} was not understood in a formula' for word in unknown]
        if '%|' in text: found.append(f'{file.name}: a progress bar')
    return found

def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--out', type=Path, default=readme.ROOT/SITE, help=f'where the site goes ({SITE})')
    args = parser.parse_args()
    if missing(): sys.exit(missing())
    try: warnings = build(readme.ROOT, args.out)
    except (RuntimeError, ValueError) as error: sys.exit(str(error))
    print('\n'.join(warnings + faults(args.out) + [f'the site is in {args.out}: open {args.out/"index.html"}']))

if __name__ == '__main__': main()
