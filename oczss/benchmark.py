#| export
import json
import platform
from dataclasses import asdict
from pathlib import Path
from time import perf_counter
import numpy as np
import pandas as pd
import torch
from matplotlib import pyplot as plt
from torch.nn import functional as F
from tqdm.auto import tqdm
from oczss.baselines import METHODS, ORACLE, TRAINING_FREE, OracleCells, TrainingFree
from oczss.core import IGNORE, colour_mask, overlay, show_images
from oczss.data import SegmentationFolder, atomic, read_list, write_list, write_sample
from oczss.model import count_trainable, preset, variant
from oczss.shapes import WORLDS, draw_world, world_split
from oczss.ssl import principal_colours
from oczss.train import differing, fit, load_model, load_part, read_checkpoint

#| export
COUNTS = dict(train=1600, val=120, test=240) # images in each part of a world

def write_world(
    root:str|Path, # folder to write to
    world:str='things', # a key of shapes.WORLDS
    counts:dict|None=None, # images by part; None: COUNTS
    progress:bool=True,
)->Path: # root
    "Write a world in the layout of PASCAL VOC; parts that are complete are left alone."
    root = Path(root)
    world_split(world) # refuses an unknown name
    for part, count in (counts or COUNTS).items():
        names = [f'{part}_{i:05}' for i in range(count)]
        listed = root/'ImageSets/Segmentation'/f'{part}.txt'
        if listed.exists() and read_list(listed) == names: continue
        for i, name in enumerate(tqdm(names, desc=f'{world} {part}', disable=not progress)):
            if not (root/'SegmentationObject'/f'{name}.png').exists(): write_sample(root, name, *draw_world(world, part, i), quality=95)
        write_list(root, part, names) # last: a list promises that its files are there
    return root

#| export
def slug(method:str)->str: # letters, digits and dashes
    "A file name for a method."
    return '-'.join(''.join(c if c.isalnum() else ' ' for c in method.lower()).split())

def method_config(
    method:str, # a key of METHODS or TRAINING_FREE, or ORACLE
    world:str='things',
    **changes, # of the config, for every method alike
):
    "The config of a method on a world."
    known = [*METHODS, *TRAINING_FREE, ORACLE]
    if method not in known: raise ValueError(f'no method {method!r}: choose one of {", ".join(known)}')
    return preset('toy', data=world, **METHODS.get(method, {}) | changes)

def run(
    method:str, # see `method_config`
    seed:int,
    data:str|Path, # folder of the world on disk
    out:str|Path, # folder for checkpoints and results
    world:str='things',
    part:str='test',
    progress:bool=True,
    **changes, # of the config
)->dict: # a row of the table
    "Train (or finish training) and evaluate a method; a result that exists is read."
    cfg, out = method_config(method, world, **changes), Path(out)
    stem = f'{slug(method)}-{world}-{seed}'
    result, checkpoint = out/f'{stem}-{part}.json', out/f'{stem}.pt'
    config = json.loads(json.dumps(asdict(cfg)))
    if result.exists():
        row = json.loads(result.read_text())
        if found := differing(row['config'], config): raise ValueError(f'{result} was made with another config: {found}; give another folder to start anew')
        return row
    start = perf_counter()
    oracle = None if method != ORACLE else OracleCells({p: load_part(cfg, data, p) for p in ('train', part)}, cfg.m)
    if method in TRAINING_FREE: model = TrainingFree(cfg, TRAINING_FREE[method])
    else: model = fit(cfg, load_part(cfg, data, 'train', training=True), checkpoint, seed, progress=progress, prepare=oracle and oracle.install)
    trained = perf_counter()
    tested = load_part(cfg, data, part)
    found = model.measure(tested, batch_size=16, progress=progress)
    model.cfg = variant(cfg, maps='logits')
    alone = model.measure(tested, batch_size=16, progress=progress) if method not in TRAINING_FREE else found
    row = dict(method=method, world=world, seed=seed, part=part, mIoU_S=found['mIoU_S'], mIoU_U=found['mIoU_U'], hIoU=found['hIoU'], pAcc=found['pAcc'], hIoU_logits=alone['hIoU'],
               trainable=0 if method in TRAINING_FREE else count_trainable(model)['total'], train_seconds=trained - start, test_seconds=perf_counter() - trained,
               iou=found['iou'], config=config, machine=f'{platform.machine()}, {torch.get_num_threads()} threads' if model.text.device.type == 'cpu' else torch.cuda.get_device_name())
    with atomic(result) as draft: draft.write_text(json.dumps(row, indent=1))
    return row

#| export
def collect(
    out:str|Path, # folder of results
)->pd.DataFrame: # a row a run
    "All results in a folder."
    rows = [json.loads(p.read_text()) for p in sorted(Path(out).glob('*.json'))]
    if not rows: raise FileNotFoundError(f'there are no results in {out}: run a method first')
    return pd.DataFrame(rows).drop(columns=['iou', 'config'])

def table(
    results:pd.DataFrame, # from `collect`, or data/results/benchmark.csv
    world:str='things',
    part:str='test',
)->pd.DataFrame: # percentages as text, a row a method
    "Mean ± standard deviation over seeds, in per cent."
    r = results[(results.world == world) & (results.part == part)]
    if r.empty: raise ValueError(f'no results for {world} {part}: there are {sorted(set(zip(results.world, results.part)))}')
    shown = {}
    for method, g in r.groupby('method', sort=False):
        cell = lambda name: f'{100*g[name].mean():.1f}' + (f' ± {100*g[name].std():.1f}' if len(g) > 1 else '')
        shown[method] = {'mIoU(S)': cell('mIoU_S'), 'mIoU(U)': cell('mIoU_U'), 'hIoU': cell('hIoU'), 'hIoU, logits alone': cell('hIoU_logits'), 'pAcc': cell('pAcc'), 'seeds': len(g),
                         'trainable': f'{g.trainable.iloc[0]:,}', 'seconds': f'{(g.train_seconds + g.test_seconds).mean():.0f}'}
    order = [m for m in (*TRAINING_FREE, *METHODS, ORACLE) if m in shown]
    return pd.DataFrame(shown).T.loc[order]

#| export
@torch.no_grad()
def show_predictions(
    models:dict, # name to model
    data, # a data set
    indices, # images to show
):
    "Image, truth and every model's prediction, a row an image."
    pictures, titles = [], []
    for i in indices:
        item, names = data[i], data.split.classes
        image, target = item['image'], np.asarray(item['target'])
        pictures += [image, colour_mask(target)]
        titles += [item['name'], 'truth: ' + ', '.join(names[j] for j in np.unique(target) if j != IGNORE)]
        for name, model in models.items():
            labels = model.segment(np.asarray(image).transpose(1, 2, 0)).labels
            pictures.append(np.where((target == IGNORE)[..., None], 255, colour_mask(labels)).astype(np.uint8)); titles.append(name)
    return show_images(pictures, titles, ncols=2 + len(models), size=2)

@torch.no_grad()
def show_inside(
    model, # an OCZSS with cells and refinement
    data, # a data set
    indices, # images to show
):
    "Image, cells, and patch features before and after refinement."
    pictures, titles = [], []
    for i in indices:
        image = (data[i]['image']/255)[None].as_subclass(torch.Tensor)
        encoded, (refined, _) = model.eval().features(image)
        h, w = encoded.patches.shape[2:]
        big = lambda x: F.interpolate(x, image.shape[2:], mode='nearest')[0]
        cells = big(model.cells(image).view(1, 1, h, w).float())[0].long()
        pictures += [image[0], overlay(image[0], cells, .65), big(principal_colours(encoded.patches)), big(principal_colours(refined))]
        titles += ['image', 'cells', 'patches before', 'patches after']
    return show_images(pictures, titles, ncols=4, size=2)

def show_losses(
    checkpoints:dict, # name to checkpoint
):
    "Training loss against steps."
    fig, ax = plt.subplots(figsize=(5, 3))
    for name, path in checkpoints.items():
        rows = pd.DataFrame(read_checkpoint(path)['losses'])
        ax.plot(rows.step, rows.total, label=name)
    ax.set_xlabel('step'); ax.set_ylabel('training loss'); ax.legend(fontsize=8)
    fig.tight_layout()
    return fig

#| export
def workbook(
    out:str|Path='runs/workbook', # everything goes here
    methods:tuple=('OTSeg', 'OC-ZSS'), # the second must have cells and refinement
    seed:int=0,
    counts:dict|None=None, # images by part; None: COUNTS
    **changes, # of the config
)->pd.DataFrame: # the table
    "Data, training, evaluation, table and figures in one go; started again, it goes on where it stopped."
    out = Path(out)
    data = write_world(out/'things', 'things', counts)
    for method in methods:
        print(f'{method}, seed {seed}')
        run(method, seed, data, out, **changes)
    shown = table(collect(out))
    with atomic(out/'table.csv') as draft: shown.to_csv(draft)
    models = {m: load_model(out/f'{slug(m)}-things-{seed}.pt') for m in methods}
    test = load_part(models[methods[-1]].cfg, data, 'test')
    figures = dict(predictions=show_predictions(models, test, range(4)), inside=show_inside(models[methods[-1]], test, range(4)),
                   losses=show_losses({m: out/f'{slug(m)}-things-{seed}.pt' for m in methods}))
    for name, figure in figures.items():
        with atomic(out/f'{name}.png') as draft: figure.savefig(draft, dpi=110)
        plt.close(figure)
    print(shown.to_string(), f'\n\nfigures, checkpoints and results: {out.resolve()}')
    return shown

#| export
GRID = [(m, s) for s in (0, 1, 2) for m in ('OTSeg', 'OC-ZSS', 'OTSeg, widened', ORACLE)] + [(m, 0) for m in (*TRAINING_FREE, 'ZegCLIP', 'CLIP-RC grid')]

def run_grid(
    out:str|Path='../runs/bench', # folder for data, checkpoints and results
    grid:list=GRID, # pairs of method and seed
    csv:str|Path|None='../data/results/benchmark.csv', # where the table goes; None: nowhere
):
    "Run a list of methods and seeds on the things world, and write down what came out."
    data = write_world(Path(out)/'things', 'things')
    for method, seed in grid: run(method, seed, data, out)
    results = collect(out).sort_values(['world', 'method', 'seed']).round(5)
    if csv:
        with atomic(csv) as draft: results.to_csv(draft, index=False)
    return results
