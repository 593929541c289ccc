#| export
import json
import os
from pathlib import Path
import open_clip
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn
from oczss.protocol import prompts

#| export
def shipped(
    file:str, # file name, as 'clip_toy.safetensors'
)->Path: # where it is
    "A file that comes with the workbook, in `data/` or in the folder that OCZSS_DATA names."
    folders = [Path(f) for f in (os.environ.get('OCZSS_DATA'), Path(__file__).parent.parent/'data') if f]
    found = [folder/file for folder in folders if (folder/file).is_file()]
    if not found:
        raise FileNotFoundError(f'{file} is not in {" or ".join(map(str, folders))}: run from a clone of the repository, or set OCZSS_DATA to its data/ folder')
    return found[0]

#| export
def missing_weights(
    what:str, # the weights' name
    hub:str, # who downloads them: 'open_clip' or 'timm'
    option:str, # the config field that takes a path
)->FileNotFoundError: # to be raised
    "The error for weights that are neither here nor to be had: what, where it was looked for, and three ways out."
    folder = os.environ.get('OCZSS_WEIGHTS')
    return FileNotFoundError(
        f'the weights {what} are not here: looked in {f"OCZSS_WEIGHTS={folder}" if folder else "OCZSS_WEIGHTS (not set)"} and asked {hub}, which could not download them. '
        f'(1) connect to the network and run again, so that {hub} caches them; (2) set {option} to the path of a file that holds them; '
        f"(3) put the file into a folder and set OCZSS_WEIGHTS to it. To go on without them, ask for {option}='random'.")

def local_weights(
    *names:str, # possible file stems
)->Path|None: # the first that exists
    "A file of that name in the folder that OCZSS_WEIGHTS names."
    folder = os.environ.get('OCZSS_WEIGHTS')
    files = sorted(Path(folder).glob('*')) if folder and Path(folder).is_dir() else []
    return next((f for f in files if f.stem in names), None)

#| export
class Stem(nn.Sequential):
    "Three strided convolutions in place of the patch embedding; patch 8."
    kernel_size = stride = (8, 8)
    def __init__(self,
        d:int, # width of the tokens, a multiple of 4
        c:int=3, # colour channels
        border:str='zeros', # what lies outside the image, see nn.Conv2d's padding_mode
    ):
        self.in_channels, self.out_channels = c, d
        step = lambda i, o: nn.Conv2d(i, o, 3, stride=2, padding=1, padding_mode=border)
        super().__init__(step(c, d//4), nn.GroupNorm(1, d//4), nn.GELU(),
                         step(d//4, d//2), nn.GroupNorm(1, d//2), nn.GELU(), step(d//2, d))

#| export
def toy_config()->dict: # open_clip's model config
    "The JSON config of the embedded CLIP."
    return json.loads(shipped('clip_toy.json').read_text())

def new_toy_clip()->nn.Module: # open_clip.CLIP
    "The embedded CLIP, untrained."
    model = open_clip.CLIP(**toy_config())
    model.visual.conv1 = Stem(model.visual.conv1.out_channels)
    return model

#| export
def save_toy(
    model:nn.Module, # a CLIP made by `new_toy_clip`
    rows:torch.Tensor, # token numbers that were trained
    path:str|Path, # a .safetensors file
):
    "Write an embedded CLIP in half precision, with only the vocabulary it knows."
    state = {name: value.half().contiguous() for name, value in model.state_dict().items() if not name.endswith('attn_mask')}
    state['token_rows'], state['token_embedding.weight'] = rows, state['token_embedding.weight'][rows].contiguous()
    save_file(state, path)

def load_toy(
    path:str|Path, # written by `save_toy`
)->nn.Module: # open_clip.CLIP
    "Read an embedded CLIP."
    state, model = load_file(path), new_toy_clip()
    rows = state.pop('token_rows')
    table = torch.zeros_like(model.token_embedding.weight.data)
    table[rows] = state['token_embedding.weight'].float()
    model.load_state_dict({name: value.float() for name, value in state.items()} | {'token_embedding.weight': table}, strict=True)
    return model

#| export
def build_clip(
    name:str='toy', # 'toy', or an open_clip model name such as 'ViT-B-16-quickgelu'
    weights:str='openai', # an open_clip tag, a path, or 'random'; the toy's own are used unless 'random' is asked for
)->nn.Module: # an open_clip model, frozen, in eval mode
    "A frozen CLIP by name."
    if name == 'toy': model = new_toy_clip() if weights == 'random' else load_toy(shipped('clip_toy.safetensors'))
    elif name not in open_clip.list_models(): raise ValueError(f"no CLIP named {name!r}: use 'toy' or one of open_clip.list_models()")
    else: model = _open_clip(name, weights)
    return model.eval().requires_grad_(False)

def _open_clip(name, weights):
    if weights == 'random': return open_clip.create_model(name, pretrained=None)
    source = weights if Path(weights).is_file() else local_weights(weights, name, f'{name}-{weights}')
    try: return open_clip.create_model(name, pretrained=str(source or weights))
    except (OSError, RuntimeError) as error:
        if source: raise ValueError(f'{source} does not hold the weights of {name}: {str(error).splitlines()[0]}') from None
        raise missing_weights(f'{name}/{weights}', 'open_clip', 'clip_weights') from None

#| export
@torch.no_grad()
def text_features(
    clip:nn.Module, # an open_clip model
    names, # k class names
    templates='toy', # a key of protocol.TEMPLATES, or p sentences with one {}
    at_once:int=512, # sentences a batch
)->torch.Tensor: # (k p d) of unit length, on the model's device
    "Text features of every class in every template."
    sentences = prompts(names, templates)
    tokens = open_clip.SimpleTokenizer(context_length=clip.context_length)([s for group in sentences for s in group])
    device = clip.text_projection.device
    features = torch.cat([F.normalize(clip.encode_text(t.to(device)), dim=-1) for t in tokens.split(at_once)])
    return features.view(len(sentences), -1, features.shape[-1])

#| export
@torch.no_grad()
def classify(
    clip:nn.Module, # an open_clip model
    image:torch.Tensor, # (b 3 H W), normalised for CLIP, of the model's image size
    text:torch.Tensor, # (k p d)
)->torch.Tensor: # (b k) cosine similarity, averaged over prompts
    "Zero-shot classification of whole images."
    return F.normalize(clip.encode_image(image), dim=-1) @ text.mean(1).T
