"Package metadata, read from settings.ini."
from configparser import ConfigParser
from pathlib import Path
from setuptools import setup

config = ConfigParser(delimiters=['='])
config.read(Path(__file__).parent/'settings.ini', encoding='utf-8')
cfg = config['DEFAULT']

CLASSIFIERS = [
    'Development Status :: 3 - Alpha',
    'Intended Audience :: Science/Research',
    'Operating System :: POSIX', # the module `resource`, which measures memory, is not there on Windows
    'Programming Language :: Python :: 3 :: Only',
    'Programming Language :: Python :: 3.10',
    'Programming Language :: Python :: 3.11',
    'Programming Language :: Python :: 3.12',
    'Programming Language :: Python :: 3.13',
    'Topic :: Scientific/Engineering :: Artificial Intelligence']

EXTRAS = [key.removesuffix('_requirements') for key in cfg if key.endswith('_requirements')]

setup(
    name=cfg['lib_name'], version=cfg['version'], description=cfg['description'], keywords=cfg['keywords'],
    long_description=(Path(__file__).parent/'README.md').read_text(encoding='utf-8'), long_description_content_type='text/markdown',
    classifiers=CLASSIFIERS,
    author=cfg['author'], author_email=cfg['author_email'], url=cfg['git_url'], license='Apache-2.0',
    packages=[cfg['lib_name']], python_requires=f'>={cfg["min_python"]}', zip_safe=False,
    package_data={cfg['lib_name']: ['assets/*.json', 'assets/*.safetensors']}, include_package_data=False,
    install_requires=cfg['requirements'].split(),
    extras_require={extra: cfg[f'{extra}_requirements'].split() for extra in EXTRAS},
    entry_points=dict(console_scripts=cfg['console_scripts'].split(), nbdev=[f'{cfg["lib_name"]}={cfg["lib_name"]}._modidx:d']),
)
