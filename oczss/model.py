#| export
from dataclasses import asdict, dataclass, fields, replace
from difflib import get_close_matches
from typing import NamedTuple
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn
from torch.utils.data import Dataset
from torchvision.transforms.v2 import functional as V
from oczss.clip import build_clip, text_features
from oczss.data import normalise, open_image
from oczss.decoder import Decoded, SinkhornDecoder, ZegCLIPDecoder
from oczss.evaluate import evaluate, predict_labels
from oczss.prompts import PromptedEncoder
from oczss.protocol import TEMPLATES, Split, check_names, fully_supervised, split
from oczss.refine import ORA, RandomObjects
from oczss.shapes import WORLDS, world_split
from oczss.ssl import SSLFeatures
from oczss.voronoi import grid_cells, resample_cells, voronoi

#| export
@dataclass(frozen=True)
class Config:
    "Every number of an experiment."
    # data
    data: str = 'things'              # data set: a world of shapes, or voc12, context A, context B, coco_stuff
    # frozen networks
    clip: str = 'toy'                 # see clip.build_clip; P: ViT-B-16
    clip_weights: str = 'openai'      # tag, path, or 'random'; the toy brings its own
    ssl: str = 'toy'                  # see ssl.SOURCES; P: dino-b16
    ssl_weights: str = 'pretrained'   # 'pretrained', path, or 'random'
    # cells and object prompts
    cells: str = 'ssl'                # ssl, clip, colour, grid, or none: what the object prompts are masked by
    m: int = 8                        # objects; P: 6 on VOC and COCO-Stuff, 8 on Context
    lloyd: int = 3                    # Lloyd steps after the seeds
    position: float = 0.              # weight of patch positions in the clustering; 0 as published
    # visual prompts
    visual_prompts: int = 10          # C: 10 on VOC and Context, 100 on COCO-Stuff
    dropout: float = .1               # C: on visual prompts and transport plans
    # object refinement
    rounds: int = 2                   # S; 0 leaves ORA out; P: 4
    objects: str = 'prompts'          # start of the objects: prompts, or random (ablation)
    heads: int = 8                    # of ORA's attentions
    granularity: bool = True          # P
    dilations: tuple = (1, 2, 3, 4)   # of the granularity attention
    # decoder
    decoder: str = 'sinkhorn'         # sinkhorn (OTSeg) or zegclip
    layers: int = 3                   # C
    eps: float = .05                  # C: Sinkhorn's entropy
    templates: str = 'toy'            # key of protocol.TEMPLATES
    # loss
    focal: float = 100.               # C: weight
    dice: float = 1.                  # C: weight
    ignored_as_negative: bool = True  # C: a pixel of no class is a negative of every class
    # training
    mode: str = 'inductive'           # inductive, transductive, strict (transductive without the oracle) or supervised
    iterations: int = 300             # steps; P: 20k on VOC
    batch: int = 16                   # images a step, over all processes
    lr: float = 1e-3                  # AdamW; P: 2.5e-5
    lr_mult: float = 1.               # of prompts and head; C: 10
    weight_decay: float = .01         # C: none on norms and biases of norms
    warmup: int = 50                  # steps; C: 1,500
    power: float = .9                 # C: of the polynomial decay
    min_lr: float = 1e-6              # C
    clip_grad: float = 1.             # largest norm of the gradient
    crop: int = 128                   # side of a training crop, pixels
    short_side: int | None = None     # resize of training images before the crop; None: no augmentation at all
    # test
    window: int = 128                 # side of the sliding window, pixels
    stride: int = 128                 # from window to window, pixels
    test_side: int | None = None      # short side at test; None: as the image is
    maps: str = 'mean'                # what is read at test: the mean of both maps (C), or the logits alone
    bias: float = .1                  # C: taken off the seen classes at test; 0 in transductive mode

#| export
CHOICES = dict(cells=('ssl', 'clip', 'colour', 'grid', 'none'), objects=('prompts', 'random'), decoder=('sinkhorn', 'zegclip'),
               mode=('inductive', 'transductive', 'strict', 'supervised'), templates=tuple(TEMPLATES), maps=('mean', 'logits'))
LEAST = dict(m=1, lloyd=0, position=0, visual_prompts=0, dropout=0, rounds=0, heads=1, layers=1, focal=0, dice=0, iterations=1, batch=1, lr=0,
             lr_mult=0, weight_decay=0, warmup=0, power=0, min_lr=0, crop=1, window=1, stride=1, bias=0)
ABOVE = ('eps', 'clip_grad') # strictly positive

def check_config(
    cfg:Config,
):
    "ValueError for the first field that is out of range."
    for f in fields(Config):
        value, kind = getattr(cfg, f.name), float | int if f.type is float else f.type
        if not isinstance(value, kind) or isinstance(value, bool) and kind is not bool: raise ValueError(f'{f.name} is {value!r}: it must be {getattr(kind, "__name__", kind)}')
    for name, allowed in CHOICES.items():
        if getattr(cfg, name) not in allowed: raise ValueError(f'{name} is {getattr(cfg, name)!r}: choose one of {", ".join(allowed)}')
    for name, least in LEAST.items():
        value = getattr(cfg, name)
        if not value >= least: raise ValueError(f'{name} is {value!r}: it must be at least {least}')
    for name in ABOVE:
        if not getattr(cfg, name) > 0: raise ValueError(f'{name} is {getattr(cfg, name)!r}: it must be above 0')
    if cfg.dropout >= 1: raise ValueError(f'dropout is {cfg.dropout}: it must be below 1')
    if cfg.stride > cfg.window: raise ValueError(f'stride is {cfg.stride}, more than the window of {cfg.window}: pixels would be left out')
    if cfg.rounds and cfg.objects == 'prompts' and cfg.cells == 'none': raise ValueError("objects='prompts' needs cells: choose their source, or objects='random', or rounds=0")

#| export
def variant(
    cfg:Config, # to start from
    **changes, # fields and their new values
)->Config:
    "A checked copy of a config with some fields changed."
    names = [f.name for f in fields(Config)]
    for name in changes:
        if name not in names:
            near = get_close_matches(name, names, 3)
            raise ValueError(f'no config field {name!r}' + (f': did you mean {" or ".join(near)}?' if near else '; the fields are those of oczss.model.Config'))
    cfg = replace(cfg, **changes)
    check_config(cfg)
    return cfg

#| export
_real = dict(clip='ViT-B-16-quickgelu', ssl='dino-b16', rounds=4, m=6, lloyd=0, lr=2.5e-5, lr_mult=10., warmup=1500, window=512, stride=426, crop=512, short_side=512, test_side=512)
PRESETS = dict(
    toy=Config(lr=3e-3, ignored_as_negative=False, bias=0.),
    voc12=Config(data='voc12', templates='otseg_6', iterations=20_000, **_real),
    context=Config(data='context A', templates='otseg_8', iterations=40_000, **_real | dict(m=8, crop=480, short_side=520, window=480, stride=80, test_side=520)),
    coco_stuff=Config(data='coco_stuff', templates='otseg_8', iterations=80_000, visual_prompts=100, **_real))
BASELINE = dict(cells='none', rounds=0) # OTSeg: no object prompts, no refinement

def preset(
    name:str='toy', # a key of PRESETS
    **changes, # fields to change
)->Config:
    "A preset by name."
    if name not in PRESETS: raise ValueError(f'no preset {name!r}: choose one of {", ".join(PRESETS)}')
    return variant(PRESETS[name], **changes)

#| export
def colour_features(
    image:torch.Tensor, # (b 3 H W) in [0, 1]
    patch:int, # pixels
)->torch.Tensor: # (b 3 h w)
    "Mean colour of every patch: the simplest features there are."
    return F.avg_pool2d(image, patch)

class CellSource(nn.Module):
    "Cells of an image, from the source a config names."
    def __init__(self,
        cfg:Config,
        visual:nn.Module, # CLIP's image tower
    ):
        super().__init__()
        self.cfg, self.patch = cfg, visual.conv1.kernel_size[0]
        if cfg.cells == 'ssl': self.features = SSLFeatures(cfg.ssl, cfg.ssl_weights)
        elif cfg.cells == 'clip': self.features = _ClipPatches(visual)
        elif cfg.cells == 'colour': self.features = lambda image: colour_features(image, self.patch)

    @torch.no_grad()
    def forward(self,
        image:torch.Tensor, # (b 3 H W) in [0, 1]
    )->torch.Tensor: # (b n) on CLIP's grid
        H, W = image.shape[-2:]
        if 0 in (H, W) or H % self.patch or W % self.patch: raise ValueError(f'the image is {H}x{W}, but its sides must be multiples of the patch, {self.patch}x{self.patch}; resize or pad it')
        grid = (H//self.patch, W//self.patch)
        if self.cfg.cells == 'grid': return grid_cells(len(image), grid, self.cfg.m).to(image.device)
        features = self.features(image)
        cells = voronoi(features, self.cfg.m, self.cfg.lloyd, self.cfg.position)
        return resample_cells(cells, tuple(features.shape[2:]), grid, self.cfg.m)

class _ClipPatches:
    "CLIP's own patch features as a source of cells; holds no weights of its own."
    def __init__(self, visual): self.encoder = PromptedEncoder(visual, visual_prompts=0)
    def __call__(self, image): return self.encoder(normalise(image)).patches

#| export
def data_split(
    cfg:Config,
)->Split:
    "Class names of a config's data set, and which of them are unseen in its mode."
    found = world_split(cfg.data) if cfg.data in WORLDS else split(cfg.data)
    return fully_supervised(found) if cfg.mode == 'supervised' else found

#| export
class Named(nn.Module):
    "A config, and class names with their text features."
    def __init__(self,
        cfg:Config,
        clip:nn.Module|None, # whose text tower reads class names; None: it cannot
        classes:Split|None=None, # names and which of them are unseen; None: those of the config's data
    ):
        super().__init__()
        check_config(cfg)
        self.cfg, self._clip = cfg, [clip] # in a list: the text tower is no part of this module
        self.register_buffer('text', torch.empty(0), persistent=False)
        self.trained_on = classes or data_split(cfg)

    def set_classes(self,
        classes:Split|list, # a Split, or names: those the model was trained on are seen, the others unseen
    ):
        "Segment these classes from now on."
        if not isinstance(classes, Split):
            names = check_names(classes)
            classes = Split('your classes', names, tuple(n for n in names if n not in self.trained_on.seen))
        text = text_features(self._clip[0].to(self.text.device), classes.classes, self.cfg.templates)
        self.split, self.text = classes, text[:, :1] if self.cfg.decoder == 'zegclip' else text
        return self

    @property
    def bias(self)->float: return self.cfg.bias if self.cfg.mode == 'inductive' else 0. # off the seen classes at test

#| export
class Segmentation(NamedTuple):
    "What `segment` returns."
    labels: np.ndarray # (H W) uint8, index into names
    names: list        # k class names
    image: Image.Image # the picture as it was understood: RGB, upright

class Segmenter(Named):
    "What can be done with named classes."
    def scores(self, image:torch.Tensor)->torch.Tensor: # (b k H W) in [0, 1]
        "Probability of every class at every pixel: the mean of both maps, enlarged, then the sigmoid (OTSeg)."
        logits, score = self(image)
        mean = logits if score is None or self.cfg.maps == 'logits' else (logits + score)/2
        return F.interpolate(mean.float(), image.shape[-2:], mode='bilinear', align_corners=False).sigmoid()

    def segment(self,
        image, # path, PIL image, array or tensor, of any size and mode
        names:list|None=None, # classes; None: those of `set_classes`
    )->Segmentation:
        "Segment one picture, by sliding window, into any classes."
        picture, split, text, cfg, training = open_image(image), self.split, self.text, self.cfg, self.training
        pixels = V.to_dtype(V.pil_to_tensor(picture), torch.float32, scale=True)[None].to(self.text.device)
        try:
            if names is not None: self.set_classes(names)
            labels = predict_labels(self.eval(), pixels, self.split, cfg.window, cfg.stride, cfg.test_side or cfg.window, self.bias)
            return Segmentation(labels[0].cpu().numpy().astype(np.uint16 if self.split.k > 256 else np.uint8), list(self.split.classes), picture)
        finally:
            self.split, self.text = split, text
            self.train(training)

    def measure(self,
        dataset:Dataset, # items with image, target and name; labels are positions in `split.classes`
        bias:float|None=None, # off the seen classes; None: the config's, and 0 unless inductive
        **options, # of `evaluate`: batch_size, workers, progress
    )->dict: # see `protocol.scores`
        "The protocol's numbers on a data set, with the config's window."
        cfg = self.cfg
        return evaluate(self, dataset, self.split, self.text.device, cfg.window, cfg.stride, cfg.test_side, self.bias if bias is None else bias, **options)

#| export
class OCZSS(Segmenter):
    "Object-centric refinement for zero-shot segmentation; with parts taken out, OTSeg or ZegCLIP."
    def __init__(self,
        cfg:Config=Config(),
        classes:Split|None=None, # names and which of them are unseen; None: those of the config's data
    ):
        check_config(cfg)
        clip = build_clip(cfg.clip, cfg.clip_weights)
        super().__init__(cfg, clip, classes)
        self.encoder = PromptedEncoder(clip.visual, cfg.visual_prompts, dropout=cfg.dropout)
        self.cells = None if cfg.cells == 'none' else CellSource(cfg, clip.visual)
        d = clip.visual.output_dim
        self.start = RandomObjects(cfg.m, d) if cfg.rounds and cfg.objects == 'random' else None
        self.refine = ORA(d, cfg.heads, cfg.rounds, cfg.granularity, cfg.dilations) if cfg.rounds else None
        self.decoder = SinkhornDecoder(d, cfg.layers, cfg.eps, cfg.dropout) if cfg.decoder == 'sinkhorn' else ZegCLIPDecoder(d, cfg.layers, cfg.heads, cfg.dropout)
        self.set_classes(self.trained_on)

    def forward(self,
        image:torch.Tensor, # (b 3 H W) float in [0, 1]; H and W multiples of CLIP's patch
        text:torch.Tensor|None=None, # (k p d); None: of all classes
    )->Decoded: # logits and score map on the patch grid
        "Decode refined patches."
        encoded, objects = self.features(image)
        return self.decoder(encoded.patches if objects is None else objects[0], encoded.cls, self.text if text is None else text)

    def features(self, image:torch.Tensor):
        "What the encoder says, and (patches, objects) after refinement, None without it."
        encoded = self.encoder(normalise(image), *((None, 0) if self.cells is None else (self.cells(image), self.cfg.m)))
        if self.refine is None: return encoded, None
        start = encoded.objects if self.start is None else self.start(len(image))
        return encoded, self.refine(encoded.patches, start)

    def trainable(self)->dict: # name to parameter
        "What training changes: everything but the frozen networks."
        return {name: p for name, p in self.named_parameters() if p.requires_grad}

#| export
def count_trainable(
    model:nn.Module, # an OCZSS
)->dict: # part to number of parameters, and 'total'
    "Trainable parameters by part."
    counts = {}
    for name, p in model.trainable().items():
        part = dict(encoder='visual prompts', start='random objects', refine='refinement', decoder='decoder')[name.split('.')[0]]
        counts[part] = counts.get(part, 0) + p.numel()
    return counts | dict(total=sum(counts.values()))
