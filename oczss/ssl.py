#| export
from pathlib import Path
import timm
import torch
from safetensors.torch import load_file
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from torch.nn import functional as F
from oczss.clip import Stem, local_weights, missing_weights, shipped
from oczss.data import normalise

#| export
SOURCES = {'dino-b16': 'vit_base_patch16_224.dino', 'dino-b8': 'vit_base_patch8_224.dino', 'dino-s16': 'vit_small_patch16_224.dino',
           'dinov2-b14': 'vit_base_patch14_dinov2.lvd142m', 'dinov3-b16': 'vit_base_patch16_dinov3.lvd1689m'}

#| export
def new_toy_ssl(
    d:int=128, # width
    depth:int=4, # blocks
)->nn.Module: # timm VisionTransformer
    "The embedded self-supervised ViT, untrained (ours)."
    vit = VisionTransformer(img_size=128, patch_size=8, embed_dim=d, depth=depth, num_heads=d//32, num_classes=0, pos_embed='none')
    vit.patch_embed.proj = Stem(d, border='replicate')
    vit.patch_embed.strict_img_size = False
    return vit

def build_ssl(
    name:str='toy', # 'toy', a key of SOURCES, or any timm ViT
    weights:str='pretrained', # 'pretrained', a path, or 'random'; the toy's own are used unless 'random' is asked for
)->nn.Module: # frozen, in eval mode
    "A frozen self-supervised ViT by name."
    if name == 'toy':
        model = new_toy_ssl()
        if weights != 'random': model.load_state_dict({k: v.float() for k, v in load_file(shipped('ssl_toy.safetensors')).items()})
    else: model = _timm(SOURCES.get(name, name), weights)
    return model.eval().requires_grad_(False)

#| export
def _timm(name, weights):
    if not timm.is_model(name.split('.')[0]):
        raise ValueError(f"no self-supervised model named {name!r}: use 'toy', {', '.join(SOURCES)}, or a name from timm.list_models()")
    options = dict(num_classes=0, dynamic_img_size=True)
    if weights == 'random': return timm.create_model(name, pretrained=False, **options)
    source = weights if Path(weights).is_file() else local_weights(name, name.split('.')[0])
    try:
        if source: return timm.create_model(name, pretrained=True, pretrained_cfg_overlay=dict(file=str(source)), **options)
        return timm.create_model(name, pretrained=True, **options)
    except (OSError, RuntimeError) as error:
        if source: raise ValueError(f'{source} does not hold the weights of {name}: {str(error).splitlines()[0]}') from None
        raise missing_weights(name, 'timm', 'ssl_weights') from None

#| export
class SSLFeatures(nn.Module):
    "Patch features of a frozen ViT."
    def __init__(self,
        name:str='toy', # see `build_ssl`
        weights:str='pretrained', # see `build_ssl`
    ):
        super().__init__()
        self.vit = build_ssl(name, weights)
        self.patch = self.vit.patch_embed.patch_size[0]

    def train(self, mode:bool=True): return super().train(False) # frozen: always in eval mode

    @torch.no_grad()
    def forward(self,
        image:torch.Tensor, # (b 3 H W) float in [0, 1]
    )->torch.Tensor: # (b d h w), the last layer's patch tokens
        "Features of every patch."
        h, w = (max(1, round(side/self.patch)) for side in image.shape[-2:])
        size = (h*self.patch, w*self.patch)
        if image.shape[-2:] != size: image = F.interpolate(image, size, mode='bilinear', align_corners=False, antialias=True)
        tokens = self.vit.forward_features(normalise(image, 'imagenet'))
        return tokens[:, self.vit.num_prefix_tokens:].mT.unflatten(2, (h, w))

#| export
def principal_colours(
    features:torch.Tensor, # (b d h w)
)->torch.Tensor: # (b 3 h w) in [0, 1]
    "The first three principal components of every image's features, scaled to colours."
    x = F.normalize(features.flatten(2).mT.float(), dim=-1)
    x = x - x.mean(1, keepdim=True) # b n d
    u, s, _ = torch.linalg.svd(x, full_matrices=False)
    colours = u[..., :3]*s[:, None, :3]
    sign = colours.sum(1, keepdim=True).sign()
    low, high = (colours*sign).amin(1, keepdim=True), (colours*sign).amax(1, keepdim=True)
    return ((colours*sign - low)/(high - low + 1e-6)).mT.unflatten(2, features.shape[2:])
