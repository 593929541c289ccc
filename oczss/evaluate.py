#| export
from collections.abc import Callable, Sequence
from pathlib import Path
import numpy as np
import torch
import torch.nn.functional as F
import torch.distributed as dist
from matplotlib.font_manager import findfont
from PIL import Image, ImageDraw, ImageFont
from torch import nn
from torch.utils.data import DataLoader, Dataset, Subset
from tqdm import tqdm
from oczss.core import colour_mask, overlay
from oczss.protocol import SegmentationMetrics, Split
from oczss.data import MEANS, atomic, collate, resize_scale, save_mask

#| export
def window_starts(
    length:int, # pixels along one side, at least `window`
    window:int, # width of a window
    stride:int, # from one start to the next, at most `window`
)->list[int]:
    "Where windows start so that they cover a side exactly"
    return [*range(0, length - window, stride), length - window]

#| export
def _at_least(image, side):
    "Pad right and bottom with the mean colour up to `side`"
    b, c, H, W = image.shape
    if H >= side and W >= side: return image
    mean = torch.tensor(MEANS['clip'][0], dtype=image.dtype, device=image.device)
    padded = mean[None, :, None, None].repeat(b, 1, max(H, side), max(W, side))
    padded[..., :H, :W] = image
    return padded

def slide(
    predict:Callable,   # (b 3 window window) -> (b k window window)
    image:torch.Tensor, # (b 3 H W) in [0, 1], any size
    window:int,         # side of the window, pixels; a multiple of the model's patch
    stride:int,         # from one window to the next, pixels; at most `window`
)->torch.Tensor: # (b k H W) float32
    "Scores of an image of any size from windows of one size"
    if not 1 <= stride <= window: raise ValueError(f'stride {stride} must be between 1 and the window, {window}: a larger one leaves gaps')
    if image.ndim != 4 or 0 in image.shape: raise ValueError(f'expected images (b 3 H W), not {tuple(image.shape)}')
    H, W = image.shape[-2:]
    image = _at_least(image, window)
    total = count = None
    for y in window_starts(image.shape[-2], window, stride):
        for x in window_starts(image.shape[-1], window, stride):
            here = ..., slice(y, y + window), slice(x, x + window)
            scores = predict(image[here])
            if scores.shape[-2:] != (window, window): raise ValueError(f'scores of a {window}×{window} window are {tuple(scores.shape)}')
            if total is None:
                total = image.new_zeros(*scores.shape[:2], *image.shape[-2:], dtype=torch.float32)
                count = image.new_zeros(image.shape[-2:], dtype=torch.float32)
            total[here] += scores
            count[here] += 1
    return (total / count)[..., :H, :W]

#| export
def _best(
    scores,   # (b k h w)
    size,     # (H W) wanted
):
    "Arg-max over classes of the resized scores, a few classes at a time so that memory does not grow with k"
    at_once = max(1, 2**26 // (scores.shape[0] * size[0] * size[1]))
    best = labels = None
    for start in range(0, scores.shape[1], at_once):
        part = F.interpolate(scores[:, start:start + at_once], size=size, mode='bilinear', align_corners=False)
        value, index = part.max(1)
        if best is None: best, labels = value, index
        else: best, labels = torch.maximum(best, value), torch.where(value > best, index + start, labels)
    return labels

#| export
@torch.inference_mode()
def predict_labels(
    model:nn.Module,            # has `scores(image)`, in the state it shall be used in
    image:torch.Tensor,         # (b 3 H W) float in [0, 1]
    split:Split,                # names of the model's channels; `bias` is for the seen ones
    window:int,                 # side of the window, pixels
    stride:int,                 # from one window to the next, pixels
    short_side:int|None=None,   # resize to this first (the long side stays within four times it); None: as it is
    bias:float=.1,              # taken off seen scores; 0 for a transductive model
)->torch.Tensor: # (b H W) int64 class ids
    "The class of every pixel"
    size = image.shape[-2:]
    if short_side:
        scale = resize_scale(*size, short_side)
        image = F.interpolate(image, [max(1, round(side*scale)) for side in size], mode='bilinear', align_corners=False, antialias=True)
    scores = slide(model.scores, image, window, stride)
    if scores.shape[1] != split.k:
        raise ValueError(f'the model scores {scores.shape[1]} classes, but {split.name} has {split.k}: '
                         'give it the names of the split first')
    if not scores.isfinite().all(): raise ValueError('the model\'s scores are not finite: its weights are damaged')
    scores[:, split.seen_ids] -= bias
    return _best(scores, size)

#| export
def _process(): return (dist.get_rank(), dist.get_world_size()) if dist.is_available() and dist.is_initialized() else (0, 1)

def evaluate(
    model:nn.Module,               # has `scores(image)`
    dataset:Dataset,               # items with image, target and name
    split:Split,                   # names of both the model's channels and the data set's labels
    device:str|torch.device,       # where images go; the model is there already
    window:int,                    # side of the window, pixels
    stride:int,                    # from one window to the next, pixels
    short_side:int|None=None,      # resize images to this first; None: as they are
    bias:float=.1,                 # taken off seen scores; 0 for a transductive model
    batch_size:int=1,              # more than 1 needs images of one size
    workers:int=0,                 # processes that load images
    progress:bool=True,            # a bar on the first process
)->dict: # see `protocol.scores`
    "The protocol's numbers of a model on a data set"
    if not len(dataset): raise ValueError('the data set is empty: there is nothing to evaluate')
    rank, world = _process()
    mine = Subset(dataset, range(rank, len(dataset), world))
    loader = DataLoader(mine, batch_size, num_workers=workers, collate_fn=collate)
    metrics, training = SegmentationMetrics(split).to(device), model.training
    model.eval()
    try:
        for batch in tqdm(loader, desc=split.name, disable=not progress or rank > 0):
            labels = predict_labels(model, batch['image'].to(device), split, window, stride, short_side, bias)
            metrics.update(labels, batch['target'].to(device))
    finally: model.train(training)
    return metrics.compute()

#| export
def _legend(labels, names, height, most=18):
    "A white panel naming the classes in `labels`, largest first"
    found, counts = np.unique(labels, return_counts=True)
    found, step = found[np.argsort(-counts, kind='stable')], 18
    lines = [(colour, f'{i} {names[i]}') for i, colour in zip(found[:most], colour_mask(found[None, :most] % 255)[0])]
    if len(found) > most: lines.append(((255, 255, 255), f'and {len(found) - most} more'))
    font = ImageFont.truetype(findfont('DejaVu Sans'), 12)
    panel = Image.new('RGB', (round(max(font.getlength(text) for _, text in lines)) + 32, max(height, step*len(lines) + 6)), 'white')
    draw = ImageDraw.Draw(panel)
    for row, (colour, text) in enumerate(lines):
        draw.rectangle([6, 5 + step*row, 20, 17 + step*row], fill=tuple(int(c) for c in colour))
        draw.text((25, 4 + step*row), text, fill='black', font=font)
    return panel

#| export
def save_prediction(
    path_overlay:str|Path,  # a picture for people: any suffix PIL writes
    path_labels:str|Path,   # a .png of class ids
    image:Image.Image,      # RGB, W×H
    labels:np.ndarray,      # (H W) class ids
    names:Sequence[str],    # k class names
):
    "Write the labels of an image, and the image under their colours with a legend"
    labels = np.asarray(labels)
    if labels.shape != image.size[::-1]:
        raise ValueError(f'labels {labels.shape[::-1]} and image {image.size} differ in size (width, height)')
    if labels.min() < 0 or labels.max() >= len(names):
        raise ValueError(f'labels reach {labels.max()}, but there are only {len(names)} names')
    panel = _legend(labels, names, image.height)
    sheet = Image.new('RGB', (image.width + panel.width, panel.height), 'white')
    sheet.paste(Image.fromarray(overlay(image, labels % 255)), (0, 0))       # 255 colours: more names share them
    sheet.paste(panel, (image.width, 0))
    save_mask(path_labels, labels)
    with atomic(path_overlay) as draft: sheet.save(draft)
