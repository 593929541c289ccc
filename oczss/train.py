#| export
from dataclasses import asdict
from pathlib import Path
import pickle
import zipfile
import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator
from torch import nn
from torch.utils.data import Dataset
from tqdm.auto import tqdm
from oczss.core import IGNORE, seed_everything
from oczss.data import SegmentationFolder, atomic, batches, dataset, reduce_zero, train_transform
from oczss.losses import pseudo_labels, segmentation_loss, strict_pseudo_labels
from oczss.model import OCZSS, Config, data_split, variant
from oczss.protocol import Split
from oczss.shapes import WORLDS

#| export
def load_part(
    cfg:Config,
    root:str|Path, # the data set's folder
    part:str, # name of a list: 'train', 'val', 'test', ...
    training:bool=False, # augment, and hide what the mode must not see
)->Dataset:
    "A part of a config's data set."
    split = data_split(cfg)
    transform = train_transform(cfg.crop, cfg.short_side) if training and cfg.short_side else None
    hide = training and cfg.mode in ('inductive', 'strict')
    if cfg.data in WORLDS: return SegmentationFolder(root, part, split, reduce_zero(split.k), transform=transform, inductive=hide)
    return dataset(cfg.data.split()[0], root, part, split, transform, hide)

#| export
def seen_numbers(
    target:torch.Tensor, # (b H W) class ids or IGNORE
    split:Split,
)->torch.Tensor: # (b H W) positions in split.seen_ids, or IGNORE
    "Number the seen classes through, as the training logits are; everything else is ignored."
    table = torch.full((256,), IGNORE, device=target.device)
    table[split.seen_ids] = torch.arange(len(split.seen_ids), device=target.device)
    return table[target]

def training_loss(
    model:nn.Module, # OCZSS, or what Accelerate made of it
    batch:dict, # image (b 3 H W) in [0, 1], target (b H W)
    cfg:Config,
    split:Split,
    text:torch.Tensor, # (k p d), of all classes
)->dict: # parts of the loss and 'total'
    "One step's loss, in the config's mode."
    image, target = batch['image'], batch['target']
    if cfg.mode == 'inductive':
        decoded, target = model(image, text[split.seen_ids]), seen_numbers(target, split)
    else:
        decoded = model(image, text)
        relabel = dict(transductive=pseudo_labels, strict=strict_pseudo_labels).get(cfg.mode)
        if relabel: target = relabel(decoded, target, split.unseen_ids)
    return segmentation_loss(decoded, target, cfg.focal, cfg.dice, cfg.ignored_as_negative)

#| export
def make_optimiser(
    model:nn.Module,
    cfg:Config,
)->torch.optim.Optimizer:
    "AdamW over the trained parts."
    params = [p for p in model.parameters() if p.requires_grad]
    groups = [dict(params=[p for p in params if p.ndim > 1]), dict(params=[p for p in params if p.ndim <= 1], weight_decay=0.)]
    return torch.optim.AdamW(groups, lr=cfg.lr*cfg.lr_mult, weight_decay=cfg.weight_decay)

def learning_rate(
    step:int, # 0 to cfg.iterations - 1
    cfg:Config,
)->float:
    "Linear warm-up, then polynomial decay (OTSeg)."
    top = cfg.lr*cfg.lr_mult
    decayed = cfg.min_lr + max(0., top - cfg.min_lr)*(1 - step/cfg.iterations)**cfg.power
    return decayed*min(1., (step + 1)/(cfg.warmup + 1))

#| export
KIND = 'oczss checkpoint 1'

def save_checkpoint(
    path:str|Path, # .pt
    model:nn.Module, # OCZSS
    opt:torch.optim.Optimizer,
    step:int, # steps done
    seed:int,
    losses:list, # a row a logged step
):
    "Write a checkpoint, whole or not at all."
    state = dict(kind=KIND, config=asdict(model.cfg), classes=asdict(model.trained_on), step=step, seed=seed, losses=losses,
                 model={n: p.detach().cpu() for n, p in model.trainable().items()}, optimiser=opt.state_dict())
    with atomic(path) as draft: torch.save(state, draft)

def read_checkpoint(
    path:str|Path, # written by `save_checkpoint`
)->dict:
    "Read a checkpoint; ValueError if it is damaged or not ours."
    if not Path(path).is_file(): raise FileNotFoundError(f'there is no checkpoint {path}')
    try: state = torch.load(path, map_location='cpu', weights_only=True)
    except pickle.UnpicklingError: raise ValueError(f'{path} is not a checkpoint of oczss: it holds other objects than tensors and was not opened') from None
    except (RuntimeError, EOFError, zipfile.BadZipFile, OSError): raise ValueError(f'{path} is damaged or cut off: train again, or use an earlier copy') from None
    if not isinstance(state, dict) or state.get('kind') != KIND:
        raise ValueError(f'{path} is not a checkpoint of oczss; those of OTSeg and ZegCLIP are read by oczss.compat.load_checkpoint')
    return state

#| export
def differing(
    a:dict, # config fields
    b:dict, # config fields
)->str: # '' if they are the same
    "Which fields of two configs differ, in words."
    found = [f'{k} {a.get(k)!r} there and {b.get(k)!r} here' for k in sorted(a.keys() | b.keys()) if a.get(k) != b.get(k)]
    return ', '.join(found[:4]) + (f' and {len(found) - 4} more' if len(found) > 4 else '')

def load_model(
    path:str|Path, # a checkpoint
    cfg:Config|None=None, # what it must have been made with; None: whatever it was
)->OCZSS: # in eval mode
    "The trained model in a checkpoint."
    state = read_checkpoint(path)
    try: stored = variant(Config(), **{k: tuple(v) if isinstance(v, list) else v for k, v in state['config'].items()})
    except ValueError as error: raise ValueError(f'{path} holds a config that this version cannot use: {error}') from None
    if cfg and (found := differing(asdict(stored), asdict(cfg))): raise ValueError(f'{path} was made with another config: {found}')
    model = OCZSS(stored, Split(**{k: tuple(v) if isinstance(v, list) else v for k, v in state['classes'].items()}))
    restore(model, state, path)
    return model.eval()

def restore(model, state, path):
    "Copy a checkpoint's parameters into a model; ValueError unless every one fits."
    mine = model.trainable()
    wrong = [n for n in mine.keys() | state['model'].keys() if n not in mine or n not in state['model'] or mine[n].shape != state['model'][n].shape]
    if wrong: raise ValueError(f'{path} does not fit this model: {len(wrong)} parameters differ, first {sorted(wrong)[0]}')
    with torch.no_grad():
        for n, p in mine.items(): p.copy_(state['model'][n])

#| export
def kept(
    path:str|Path, # of the checkpoint
    step:int,
)->Path:
    "Where `fit` keeps the state of a step: name-step.pt."
    return Path(path).with_stem(f'{Path(path).stem}-{step}')

#| export
def fit(
    cfg:Config,
    train_set:Dataset, # see `load_part`
    path:str|Path, # the checkpoint: read if it exists, written as training goes on
    seed:int=0,
    start:str|Path|None=None, # a checkpoint whose parameters to begin with, e.g. the inductive one
    every:int=25, # steps between saves
    keep:tuple=(), # steps whose state is kept beside it too, see `kept`
    precision:str='no', # 'no', 'bf16' or 'fp16'
    workers:int=0, # processes that load images
    progress:bool=True,
    prepare=None, # called with the new model before training, e.g. to replace its cells
)->OCZSS: # trained, in eval mode
    "Train a model, or finish training it."
    accelerator = Accelerator(mixed_precision=precision)
    world, rank = accelerator.num_processes, accelerator.process_index
    if cfg.batch % world: raise ValueError(f'batch is {cfg.batch}, which {world} processes cannot share evenly')
    seed_everything(seed)
    model = OCZSS(cfg)
    if prepare: prepare(model)
    if start: restore(model, read_checkpoint(start), start)
    model.to(accelerator.device) # before the optimiser's state is read, which follows its parameters
    step, losses, opt = 0, [], make_optimiser(model, cfg)
    if Path(path).exists(): step, losses = _resume(path, model, opt, cfg, seed)
    split, text = model.split, model.text
    wrapped, opt = accelerator.prepare(model.train(), opt)
    draw = batches(train_set, cfg.batch//world, seed, step, workers, rank, world)
    bar = tqdm(range(step, cfg.iterations), initial=step, total=cfg.iterations, desc='train', disable=not progress or not accelerator.is_main_process)
    for step in bar:
        torch.manual_seed(seed*1_000_003 + step*world + rank) # dropout depends on the step alone: resuming changes nothing
        for group in opt.param_groups: group['lr'] = learning_rate(step, cfg)
        batch = {k: v.to(accelerator.device, non_blocking=True) for k, v in next(draw).items() if torch.is_tensor(v)}
        try:
            with accelerator.autocast(): parts = training_loss(wrapped, batch, cfg, split, text)
        except FloatingPointError: _check_finite(dict(loss=torch.tensor(torch.nan)), model, step, path) # the decoder saw it first
        opt.zero_grad()
        accelerator.backward(parts['total'])
        accelerator.clip_grad_norm_(model.trainable().values(), cfg.clip_grad)
        saving = (step + 1) % every == 0 or step + 1 in (*keep, cfg.iterations)
        if saving: _check_finite(parts, model, step, path)
        opt.step()
        if saving:
            losses.append(dict(step=step + 1, **{k: v.item() for k, v in parts.items()}))
            bar.set_postfix(loss=f"{losses[-1]['total']:.3f}")
            if accelerator.is_main_process:
                for place in [path] + [kept(path, step + 1)]*(step + 1 in keep): save_checkpoint(place, model, opt, step + 1, seed, losses)
    return model.eval()

#| export
def _resume(path, model, opt, cfg, seed):
    "Restore parameters and optimiser; returns steps done and losses so far."
    state = read_checkpoint(path)
    here = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(cfg).items()}
    there = {k: list(v) if isinstance(v, tuple) else v for k, v in state['config'].items()}
    if found := differing(there, here): raise ValueError(f'{path} was made with another config: {found}; give another path to start anew')
    if state['seed'] != seed: raise ValueError(f'{path} was made with seed {state["seed"]}, not {seed}; give another path to start anew')
    restore(model, state, path)
    opt.load_state_dict(state['optimiser'])
    return state['step'], state['losses']

def _check_finite(parts, model, step, path):
    "Stop before a broken state is saved."
    broken = [k for k, v in parts.items() if not torch.isfinite(v)] or [n for n, p in model.trainable().items() if not torch.isfinite(p).all()]
    if broken:
        kept = f'the last good state is {path}' if Path(path).exists() else 'nothing had been saved yet'
        raise FloatingPointError(f'{broken[0]} is not finite at step {step + 1}: training stopped, {kept}; try a lower lr, or precision "no"')
