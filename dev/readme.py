"Write README.md, and the pictures it shows, from the saved outputs of nbs/index.ipynb."
import base64
import json
import re
from configparser import ConfigParser
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PICTURES = 'data/readme' # where pictures of the page's outputs go
PICTURE_KINDS = {'image/png', 'image/jpeg'} # an output has one of them
DIRECTIVE = re.compile(r'^#\|\s*([\w-]+)(.*)$', re.M)
ANSI = re.compile(r'\x1b\[[0-9;]*m')

def text_of(value):
    "A notebook's text: a string, or a list of its lines."
    return value if isinstance(value, str) else ''.join(value)

def settings(root=ROOT):
    "settings.ini, as nbdev reads it."
    config = ConfigParser(delimiters=['='])
    config.read(root/'settings.ini', encoding='utf-8')
    return config['DEFAULT']

def from_root(markdown):
    "Links as they are from the repository's root instead of nbs/."
    markdown = re.sub(r'\]\(\.\./', '](', markdown)
    return re.sub(r'\]\((\w+\.ipynb)', r'](nbs/\1', markdown)

def fenced(text, language=''):
    return f'```{language}\n{text.strip(chr(10)).rstrip()}\n```'

def directives(source):
    "A cell's directives, as #| echo: false, by name."
    return {name: rest.strip(': ') for name, rest in DIRECTIVE.findall(source)}

def render_output(output, pictures, alt=''):
    "One saved output as markdown, '' if there is nothing to show; a picture is added to `pictures`."
    if output['output_type'] == 'stream':
        return fenced(ANSI.sub('', text_of(output['text']))) if output['name'] == 'stdout' else ''
    data = output.get('data', {})
    for kind in PICTURE_KINDS & data.keys():
        name = f'{PICTURES}/index_{len(pictures) + 1}.{kind.partition("/")[2]}'
        pictures[name] = base64.b64decode(text_of(data[kind]))
        return f'![{alt}]({name})'
    if 'text/markdown' in data: return from_root(text_of(data['text/markdown']))
    return fenced(ANSI.sub('', text_of(data['text/plain']))) if 'text/plain' in data else ''

def render(notebook):
    "README's text, and its pictures as bytes by path."
    blocks, pictures = [], {}
    for cell in json.loads(Path(notebook).read_text(encoding='utf-8'))['cells']:
        source = text_of(cell['source'])
        said = directives(source)
        source = DIRECTIVE.sub('', source).strip('\n')
        if 'hide' in said: continue
        if cell['cell_type'] == 'markdown': blocks.append(from_root(source))
        if cell['cell_type'] != 'code': continue
        if source and said.get('echo') != 'false':
            blocks.append(fenced(re.sub(r"(['\"])\.\./", r'\1', source), 'python')) # paths from the root, too
        blocks += [render_output(output, pictures, said.get('fig-alt', '')) for output in cell['outputs']]
    head = '<!-- Written by dev/readme.py from nbs/index.ipynb: edit that page. -->'
    return '\n\n'.join([head] + [block for block in blocks if block]) + '\n', pictures

def write(root=ROOT):
    "Write README.md and its pictures, and remove pictures that it no longer shows."
    text, pictures = render(root/'nbs'/'index.ipynb')
    (root/'README.md').write_text(text, encoding='utf-8', newline='\n')
    for old in (root/PICTURES).glob('index_*'): old.unlink()
    for name, content in pictures.items():
        (root/name).parent.mkdir(parents=True, exist_ok=True)
        (root/name).write_bytes(content)

if __name__ == '__main__': write()
