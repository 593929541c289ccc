#| export
from dataclasses import dataclass
import json
import math
from multiprocessing import get_context
from pathlib import Path
import numpy as np
import open_clip
import pandas as pd
import torch
import torch.nn.functional as F
from tqdm.auto import tqdm
from torch import nn
from safetensors.torch import save_file
from oczss.clip import load_toy, new_toy_clip, save_toy, text_features
from oczss.core import seed_everything
from oczss.data import atomic, normalise
from oczss.prompts import image_tokens, run_block
from oczss.protocol import prompts
from oczss.shapes import STUFF, THINGS, draw_scene, draw_world, world_split
from oczss.ssl import new_toy_ssl
from oczss.voronoi import best_iou, oracle_cells, rand_index

#| export
NAMES = tuple(THINGS) + STUFF # every class of every world

def draw_sample(kind, size, i):
    "Image i of a pool (s s 3) uint8 and which of NAMES its captions mention (35,) bool."
    style = 'paper' if i % 5 == 0 else 'photo'
    options = dict(clean=dict(count=(1, 1), scale=(.5, .98), plain=True, scraps=(0, 0)),
                   single=dict(count=(0, 0) if i % 10 == 1 else (1, 1), scale=(.32, .97), scraps=(0, 3)),
                   scene=dict(count=(1, 4)))[kind]
    s = draw_scene(f'pretraining/{kind}/{size}/{i}', tuple(THINGS), size, style=style, **options)
    named = s.names + (s.grounds if kind == 'scene' or not s.names else [])
    return s.image, np.isin(NAMES, named)

def _draw_range(job):
    kind, size, start, stop = job
    images, labels = zip(*(draw_sample(kind, size, i) for i in range(start, stop)))
    return np.stack(images), np.stack(labels)

def draw_pool(
    kind:str, # 'clean', 'single' or 'scene'
    size:int, # pixels a side
    count:int, # images
    cache:Path, # folder; a pool is drawn once
    processes:int=2, # that draw
): # images (count 3 s s) uint8, labels (count 35) bool
    "Draw a pool of images, or read it back."
    path = Path(cache)/f'{kind}_{size}_{count}.npz'
    if not path.exists():
        jobs = [(kind, size, start, min(start + 500, count)) for start in range(0, count, 500)]
        with get_context('spawn').Pool(processes) as pool: parts = list(pool.imap(_draw_range, jobs))
        images, labels = (np.concatenate(p) for p in zip(*parts))
        with atomic(path) as draft:
            with open(draft, 'wb') as file: np.savez(file, images=images, labels=labels)
    pool = np.load(path)
    return torch.from_numpy(pool['images']).permute(0, 3, 1, 2).contiguous(), torch.from_numpy(pool['labels'])

#| export
@dataclass(frozen=True)
class Stage:
    "A stretch of training on one pool."
    kind: str   # see `draw_pool`
    size: int   # pixels a side
    images: int # in the pool
    steps: int
    batch: int
CLIP_STAGES = (Stage('clean', 64, 20_000, 900, 64), Stage('single', 64, 40_000, 2000, 64), Stage('scene', 128, 16_000, 500, 32))
CLIP_AGAIN = (Stage('single', 64, 40_000, 1500, 64), Stage('scene', 128, 16_000, 500, 32)) # a second pass
CLIP_LAST = (Stage('scene', 128, 16_000, 350, 32),) # and a third, on scenes alone

#| export
def caption_loss(
    logits:torch.Tensor, # (b k) scaled cosine similarity of images and names
    labels:torch.Tensor, # (b k) bool: the image shows the class
    both:bool=True, # names find their images too; False: only images find their names
)->torch.Tensor: # scalar
    "Contrastive loss in which every agreeing pair is a positive."
    y = labels.float()
    images, names = y.sum(1) > 0, y.sum(0) > 0
    a = F.cross_entropy(logits[images], y[images]/y[images].sum(1, keepdim=True))
    if not both: return a
    b = F.cross_entropy(logits[:, names].T, (y[:, names]/y[:, names].sum(0)).T)
    return (a + b)/2

#| export
def jolt(
    images:torch.Tensor, # (b 3 s s) uint8
    shift:int=6, # largest shift, pixels; 0: nothing but the flip
)->torch.Tensor: # (b 3 s s) float in [0, 1]
    "Random flip and shift of a batch, random channels of every image."
    x, b, s = images.float()/255, len(images), images.shape[-1]
    if torch.rand(()) < .5: x = x.flip(-1)
    if not shift: return x
    dy, dx = torch.randint(0, 2*shift + 1, (2,)).tolist()
    x = F.pad(x, (shift,)*4, mode='replicate')[..., dy:dy+s, dx:dx+s]
    if torch.rand(()) < .8: x = x[:, torch.randperm(3)]
    return (x*(.7 + .6*torch.rand(b, 3, 1, 1)) + .15*(torch.rand(b, 3, 1, 1) - .5)).clamp(0, 1)

def image_features(
    visual:nn.Module, # image tower of the embedded CLIP
    image:torch.Tensor, # (b 3 H W) normalised, any size
)->torch.Tensor: # (b d) of unit length
    "The image feature at any size, positions resized."
    x, _ = image_tokens(visual, image)
    for block in visual.transformer.resblocks: x = run_block(block, x)
    return F.normalize(visual.ln_post(x[:, 0]) @ visual.proj, dim=-1)

#| export
def optimisers(
    model:nn.Module, # to train
    blocks:str, # part of the name of the parameters inside its blocks
    lr:float, # of Muon; AdamW uses half
)->list:
    "Muon for the matrices of the blocks, AdamW for the rest."
    named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    matrices = [p for n, p in named if blocks in n and p.ndim == 2]
    rest = [p for n, p in named if not (blocks in n and p.ndim == 2)]
    return [torch.optim.Muon(matrices, lr=lr, weight_decay=.05, adjust_lr_fn='match_rms_adamw'), torch.optim.AdamW(rest, lr=lr/2, weight_decay=.01)]

def set_rate(opts, lr, step, steps, warmup=60):
    "Linear warm-up, then a cosine to 3 %."
    factor = min(1, (step + 1)/warmup)*(.03 + .97*.5*(1 + math.cos(math.pi*step/steps)))
    for opt, rate in zip(opts, (lr, lr/2)):
        for group in opt.param_groups: group['lr'] = rate*factor

#| export
def text_parameters(model:nn.Module)->list:
    "Parameters of the text tower, and the logit scale."
    return [p for n, p in model.named_parameters() if not n.startswith('visual')]

def spread_names(
    model:nn.Module, # open_clip.CLIP
    tokens:torch.Tensor, # (p k t) every name in every template
    steps:int=150,
    lr:float=1e-3,
)->float: # last loss
    "Teach the text tower that different names are different."
    opt, target = torch.optim.AdamW(text_parameters(model), lr=lr), torch.arange(tokens.shape[1])
    for step in range(steps):
        a, b = (F.normalize(model.encode_text(tokens[i]), dim=-1) for i in torch.randperm(len(tokens))[:2])
        loss = F.cross_entropy(14*a @ b.T, target)
        opt.zero_grad(); loss.backward(); opt.step()
    return loss.item()


#| export
class Log:
    "Rows of a training log, written as CSV while the run goes on."
    def __init__(self, path, every=25): self.path, self.every, self.rows = Path(path), every, []
    def __call__(self, step, **values):
        if step % self.every: return
        self.rows.append(dict(step=step, **{k: round(float(v), 4) for k, v in values.items()}))
        with atomic(self.path) as draft: pd.DataFrame(self.rows).to_csv(draft, index=False)

def pretrain_clip(
    out:str|Path, # .safetensors to write
    log:str|Path, # .csv to write
    cache:str|Path, # folder for the pools
    stages:tuple=CLIP_STAGES,
    start:str|Path|None=None, # weights to go on from; None: from scratch
    lr:float=2e-3, # of Muon
    seed:int=0,
    compiled:bool=True, # torch.compile the image tower
):
    "Train the embedded CLIP on captions."
    seed_everything(seed)
    model, note = (load_toy(start) if start else new_toy_clip()).train(), Log(log)
    tokens = torch.stack([open_clip.SimpleTokenizer(context_length=model.context_length)(list(t)) for t in zip(*prompts(NAMES, 'toy'))]) # p k t
    encode = torch.compile(image_features, dynamic=False) if compiled else image_features
    if not start: spread_names(model, tokens)
    opts, step, steps = optimisers(model.visual, 'resblocks', lr), 0, sum(s.steps for s in stages)
    text_opt = torch.optim.AdamW(text_parameters(model), lr=0., weight_decay=.01)
    bar = tqdm(total=steps, desc='clip')
    for stage in stages:
        images, labels = draw_pool(stage.kind, stage.size, stage.images, cache)
        for _ in range(stage.steps):
            i = torch.randint(len(images), (stage.batch,))
            set_rate(opts, lr, step, steps)
            first = stage.kind == 'clean'
            with torch.autocast('cpu', torch.bfloat16):
                x = encode(model.visual, normalise(jolt(images[i], 0 if first else 6)))
                text = F.normalize(model.encode_text(tokens[step % len(tokens)]), dim=-1)
            scale = model.logit_scale.exp().clamp(max=100)
            loss = caption_loss(scale*x.float() @ text.float().T, labels[i], both=not first)
            model.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.)
            for opt in opts: opt.step()
            text_opt.param_groups[0]['lr'] = 0. if first else opts[1].param_groups[0]['lr']/10
            text_opt.step()
            note(step, loss=loss.detach(), scale=scale.detach(), size=stage.size)
            step, _ = step + 1, bar.update()
            if step % 200 == 0 or step == steps: save_toy(model, tokens.unique(), out)
    return model

#| export
def relight(
    view:torch.Tensor, # (b 3 H W) float in [0, 1]
)->torch.Tensor: # the same shape
    "Random brightness, cast, gradient of light, grey and noise for every image."
    b, s = len(view), view.shape[-1]
    across = torch.linspace(-.5, .5, s)
    slope = .8*(2*torch.rand(2, b, 3, 1, 1) - 1)
    light = 1 + slope[0]*across + slope[1]*across[:, None]
    view = view*light*(.6 + .8*torch.rand(b, 1, 1, 1))*(.85 + .3*torch.rand(b, 3, 1, 1)) + .12*(torch.rand(b, 1, 1, 1) - .5)
    grey = (torch.rand(b, 1, 1, 1) < .2).float()
    view = view + grey*(view.mean(1, keepdim=True) - view) + .025*torch.rand(b, 1, 1, 1)*torch.randn_like(view)
    return view.clamp(0, 1)

def two_crops(
    images:torch.Tensor, # (b 3 s s) uint8
    side:int=8, # of a crop, patches
    apart:int=3, # largest shift between the two, patches
    patch:int=8, # pixels
): # two batches (b 3 H H) float in [0, 1], and their corners in patches, [(row, column), (row, column)]
    "Two crops of one neighbourhood on the patch grid, each in its own light."
    room, views, corners = images.shape[-1]//patch - side, [], []
    corner = torch.randint(0, room + 1, (2,))
    if torch.rand(()) < .5: images = images.flip(-1)
    for _ in range(2):
        y, x = (corner + torch.randint(-apart, apart + 1, (2,))).clamp(0, room).tolist()
        views.append(relight(images[..., y*patch:(y+side)*patch, x*patch:(x+side)*patch].float()/255))
        corners.append((y, x))
    return views, corners

def neighbours(
    corners, # of the two crops, in patches
    side:int=8, # of a crop, patches
    reach:int=1, # farthest neighbour, patches
    count:int=24, # pairs
): # two (count,) numbers of patches, in the first and the second crop
    "Random pairs of patches that lie next to each other in the scene, one from each crop."
    (y1, x1), (y2, x2) = corners
    places = torch.cartesian_prod(torch.arange(side), torch.arange(side)) # in the first crop
    places = places[torch.randint(len(places), (8*count,))]
    others = places + torch.tensor([y1 - y2, x1 - x2]) + torch.randint(-reach, reach + 1, places.shape)
    inside = ((others >= 0) & (others < side)).all(1)
    a, b = places[inside][:count], others[inside][:count]
    return a[:, 0]*side + a[:, 1], b[:, 0]*side + b[:, 1]

#| export
class SSLStudent(nn.Module):
    "The embedded ViT with DINO's heads; the teacher is one too."
    def __init__(self, prototypes:int=512):
        from lightly.models.modules import DINOProjectionHead
        super().__init__()
        self.vit = new_toy_ssl()
        self.cls_head, self.patch_head = (DINOProjectionHead(self.vit.embed_dim, 256, 64, prototypes, norm_last_layer=True) for _ in range(2))

def ssl_step(student, teacher, cls_loss, patch_loss, images, warm):
    "Both losses on two views; `warm` is the epoch that DINO's teacher temperature has reached."
    views, corners = two_crops(images)
    pairs = neighbours(corners, views[0].shape[-1]//8)
    inputs = [normalise(v, 'imagenet') for v in views]
    with torch.autocast('cpu', torch.bfloat16):
        with torch.no_grad(): taught = [teacher.vit.forward_features(x).float() for x in inputs]
        learned = [student.vit.forward_features(x).float() for x in inputs]
    at = lambda tokens: [t[:, 1:][:, i].flatten(0, 1) for t, i in zip(tokens, pairs)] # both views, patch beside patch
    with torch.no_grad():
        views_say, patches_say = [teacher.cls_head(t[:, 0]) for t in taught], [teacher.patch_head(t) for t in at(taught)]
    return (cls_loss(views_say, [student.cls_head(s[:, 0]) for s in learned], epoch=warm),
            patch_loss(patches_say, [student.patch_head(s) for s in at(learned)], epoch=warm))

#| export
def pretrain_ssl(
    out:str|Path, # .safetensors to write
    log:str|Path, # .csv to write
    cache:str|Path, # folder for the pool
    steps:int=1000,
    batch:int=64,
    lr:float=2e-3, # of Muon
    images:int=16_000, # in the pool
    seed:int=0,
    compiled:bool=True, # torch.compile its blocks
):
    "Train the embedded self-supervised ViT on pixels alone; needs lightly."
    from lightly.loss import DINOLoss
    seed_everything(seed)
    student, teacher, note = SSLStudent(), SSLStudent().requires_grad_(False), Log(log)
    teacher.load_state_dict(student.state_dict())
    prototypes = student.cls_head.last_layer.out_features
    cls_loss, patch_loss = (DINOLoss(prototypes, warmup_teacher_temp=.04, teacher_temp=.06, warmup_teacher_temp_epochs=10) for _ in range(2))
    if compiled: student.vit.blocks.compile(), teacher.vit.blocks.compile()
    pool, _ = draw_pool('scene', 128, images, cache)
    opts = optimisers(student, 'blocks', lr)
    for step in tqdm(range(steps), desc='ssl'):
        set_rate(opts, lr, step, steps, warmup=100)
        a, b = ssl_step(student, teacher, cls_loss, patch_loss, pool[torch.randint(len(pool), (batch,))], min(step//50, 9))
        for opt in opts: opt.zero_grad()
        (a + b).backward()
        nn.utils.clip_grad_norm_(student.parameters(), 1.)
        for opt in opts: opt.step()
        rate = .01*.5*(1 + math.cos(math.pi*step/steps)) # of the teacher, towards the student
        with torch.no_grad():
            for t, s in zip(teacher.parameters(), student.parameters()): t.lerp_(s, rate)
        note(step, views=a.detach(), patches=b.detach())
        if (step + 1) % 100 == 0 or step + 1 == steps:
            with atomic(out) as draft: save_file({k: v.half().contiguous() for k, v in teacher.vit.state_dict().items()}, draft)
    return teacher.vit

#| export
@torch.no_grad()
def zero_shot_top1(
    clip:nn.Module, # an embedded CLIP
    count:int=400, # images
    size:int=128, # pixels a side
    style:str='photo', # or 'paper'
)->dict: # share of right answers: all, seen, unseen
    "Zero-shot accuracy on held-out images of one thing."
    classes = world_split('things')
    text = text_features(clip, classes.classes).mean(1)
    scenes = [draw_scene(f'held out/{style}/{i}', classes.classes, size, (1, 1), (.35, .95), style, scraps=(0, 3)) for i in range(count)]
    scenes = [s for s in scenes if s.names]
    images = torch.stack([torch.from_numpy(s.image) for s in scenes]).permute(0, 3, 1, 2)/255
    guess = torch.cat([image_features(clip.visual, normalise(x)) @ text.T for x in images.split(50)]).argmax(1)
    true = torch.tensor([classes.classes.index(s.names[0]) for s in scenes])
    right, unseen = (guess == true).float(), torch.isin(true, torch.tensor(classes.unseen_ids))
    return dict(all=right.mean().item(), seen=right[~unseen].mean().item(), unseen=right[unseen].mean().item())

#| export
def judge_cells(
    sources:dict, # name to a function from images (b 3 H W) in [0, 1] to cells (b n) on a 16x16 grid
    count:int=200, # images
    world:str='things',
)->pd.DataFrame: # a row a source
    "Best IoU and adjusted Rand index of cells, on held-out images."
    drawn = [draw_world(world, 'held out', i) for i in range(count)]
    drawn = [d for d in drawn if d[2].any()]
    images = torch.stack([torch.from_numpy(d[0]) for d in drawn]).permute(0, 3, 1, 2)/255
    objects = torch.stack([torch.from_numpy(d[2]) for d in drawn]).long()
    cells = {name: torch.cat([source(x) for x in images.split(50)]) for name, source in sources.items()}
    cells['true objects'] = oracle_cells(objects, (16, 16), 8)
    return pd.DataFrame({name: {'best IoU': best_iou(c, (16, 16), objects), 'ARI': rand_index(c, (16, 16), objects)} for name, c in cells.items()}).T
