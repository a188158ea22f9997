"""Networks that other people defined, written anew in small sizes, as their users write them: plain modules.

Each is made in float32 after `torch.manual_seed`, and comes with the shape of a sample, or a number of tokens.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

IMAGE = (3, 16, 16)
TOKENS, LENGTH, WIDTH, CLASSES = 11, 6, 8, 5


class AlexNet(nn.Module):
    """Krizhevsky et al. 2012."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 6, 5, stride=2, padding=2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2),
            nn.Conv2d(6, 8, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(8, 6, 3, padding=1), nn.ReLU(inplace=True),
        )  # fmt: skip
        self.avgpool = nn.AdaptiveAvgPool2d((2, 2))
        self.classifier = nn.Sequential(nn.Dropout(), nn.Linear(24, 12), nn.ReLU(inplace=True), nn.Linear(12, CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        x = self.avgpool(self.features(x))
        return self.classifier(torch.flatten(x, 1))


class VGG(nn.Module):
    """Simonyan and Zisserman 2014."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for width in (4, "M", 6, 6, "M"):
            if width == "M":
                layers.append(nn.MaxPool2d(2, 2))
            else:
                layers += [nn.Conv2d(channels, int(width), 3, padding=1), nn.BatchNorm2d(int(width)), nn.ReLU(True)]
                channels = int(width)
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(6 * 16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(x)
        return self.classifier(x.view(x.size(0), -1))


class LeNet(nn.Module):
    """LeCun et al. 1998, as courses write it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 6, 3)
        self.fc1, self.fc2 = nn.Linear(24, 12), nn.Linear(12, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(torch.tanh(self.conv2(x)), 2)
        x = x.view(-1, 24)
        x = F.dropout(F.elu(self.fc1(x)), 0.3, training=self.training)
        return F.log_softmax(self.fc2(x), dim=1)


class BasicBlock(nn.Module):
    """Of a ResNet, as in torchvision."""

    def __init__(self, inside: int, outside: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inside, outside, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outside)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(outside, outside, 3, 1, 1, groups=groups, bias=False)
        self.bn2 = nn.BatchNorm2d(outside)
        self.downsample: nn.Module | None = None
        if stride != 1 or inside != outside:
            self.downsample = nn.Sequential(nn.Conv2d(inside, outside, 1, stride, bias=False), nn.BatchNorm2d(outside))

    def forward(self, x: Tensor) -> Tensor:
        identity = x
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        if self.downsample is not None:
            identity = self.downsample(x)
        out += identity
        return self.relu(out)


class SqueezeExcite(nn.Module):
    """Hu et al. 2018."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc = nn.Sequential(nn.Linear(channels, 2), nn.ReLU(), nn.Linear(2, channels), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        b, c, _, _ = x.size()
        return x * self.fc(F.adaptive_avg_pool2d(x, 1).view(b, c)).view(b, c, 1, 1).expand_as(x)


class Bottleneck(nn.Module):
    """Of ResNet-50, ResNeXt (groups), Wide ResNet (width), RegNet and SE-ResNet (squeeze)."""

    def __init__(
        self, inside: int, width: int, outside: int, stride: int = 1, groups: int = 1, squeeze: bool = False
    ) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inside, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, groups=groups, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, outside, 1, bias=False), nn.BatchNorm2d(outside)
        self.se = SqueezeExcite(outside) if squeeze else None
        self.shortcut = nn.Sequential()
        if stride != 1 or inside != outside:
            self.shortcut = nn.Sequential(nn.Conv2d(inside, outside, 1, stride, bias=False), nn.BatchNorm2d(outside))

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = F.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        if self.se is not None:
            out = self.se(out)
        return F.relu(out + self.shortcut(x))


class ResNet(nn.Module):
    """He et al. 2016: a stem, stages of blocks, a head."""

    def __init__(self, *blocks: nn.Module, channels: int = 8) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.layer1 = nn.Sequential(*blocks)
        self.avgpool, self.fc = nn.AdaptiveAvgPool2d((1, 1)), nn.Linear(channels, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer1(F.relu(self.bn1(self.conv1(x))))
        return self.fc(torch.flatten(self.avgpool(x), 1))


class PreActBlock(nn.Module):
    """He et al., "Identity Mappings", 2016."""

    def __init__(self, inside: int, outside: int, stride: int = 1) -> None:
        super().__init__()
        self.bn1, self.bn2 = nn.BatchNorm2d(inside), nn.BatchNorm2d(outside)
        self.conv1 = nn.Conv2d(inside, outside, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(outside, outside, 3, 1, 1, bias=False)
        self.project = stride != 1 or inside != outside
        if self.project:
            self.shortcut = nn.Conv2d(inside, outside, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(x))
        shortcut = self.shortcut(out) if self.project else x
        out = self.conv1(out)
        return self.conv2(F.relu(self.bn2(out))) + shortcut


class DenseNet(nn.Module):
    """Huang et al. 2017."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.norms = nn.ModuleList([nn.BatchNorm2d(4 + 3 * i) for i in range(3)])
        self.convs = nn.ModuleList([nn.Conv2d(4 + 3 * i, 3, 3, padding=1) for i in range(3)])
        self.transition = nn.Sequential(nn.BatchNorm2d(13), nn.ReLU(), nn.Conv2d(13, 6, 1), nn.AvgPool2d(2))
        self.head = nn.Linear(6, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        features = [self.stem(x)]
        for norm, conv in zip(self.norms, self.convs, strict=True):
            features.append(conv(F.relu(norm(torch.cat(features, 1)))))
        return self.head(self.transition(torch.cat(features, dim=1)).mean((2, 3)))


class Inception(nn.Module):
    """Szegedy et al. 2015: two modules of four branches."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.mixed = nn.ModuleList([self._module(6), self._module(10)])
        self.head = nn.Linear(10, CLASSES)

    @staticmethod
    def _module(channels: int) -> nn.ModuleDict:
        return nn.ModuleDict(
            {
                "one": nn.Conv2d(channels, 2, 1),
                "three": nn.Sequential(nn.Conv2d(channels, 3, 1), nn.ReLU(), nn.Conv2d(3, 4, 3, padding=1)),
                "five": nn.Sequential(nn.Conv2d(channels, 2, 1), nn.ReLU(), nn.Conv2d(2, 2, 5, padding=2)),
                "pool": nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1), nn.Conv2d(channels, 2, 1)),
            }
        )

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        for module in self.mixed:
            assert isinstance(module, nn.ModuleDict)
            x = F.relu(torch.cat([branch(x) for branch in module.values()], dim=1))
        return self.head(F.adaptive_avg_pool2d(x, 1).flatten(1))


class Fire(nn.Module):
    """Iandola et al. 2016."""

    def __init__(self, inside: int) -> None:
        super().__init__()
        self.squeeze, self.one, self.three = nn.Conv2d(inside, 3, 1), nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 3, padding=1)
        self.activation = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.activation(self.squeeze(x))
        return torch.cat([self.activation(self.one(x)), self.activation(self.three(x))], 1)


class SqueezeNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 6, 3, stride=2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, ceil_mode=True), Fire(6), Fire(8)
        )
        self.classifier = nn.Sequential(nn.Dropout(0.0), nn.Conv2d(8, CLASSES, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.flatten(self.classifier(self.features(x)), 1)


class InvertedResidual(nn.Module):
    """MobileNetV2 (ReLU6), MobileNetV3 and EfficientNet (Hardswish or SiLU, squeezed)."""

    def __init__(self, inside: int, outside: int, activation: Callable[..., nn.Module], squeeze: bool) -> None:
        super().__init__()
        wide = 2 * inside
        layers = [nn.Conv2d(inside, wide, 1, bias=False), nn.BatchNorm2d(wide), activation(inplace=True)]
        layers += [nn.Conv2d(wide, wide, 3, 1, 1, groups=wide, bias=False), nn.BatchNorm2d(wide), activation()]
        layers += [SqueezeExcite(wide)] if squeeze else []
        self.conv = nn.Sequential(*layers, nn.Conv2d(wide, outside, 1, bias=False), nn.BatchNorm2d(outside))
        self.use_res_connect = inside == outside

    def forward(self, x: Tensor) -> Tensor:
        if self.use_res_connect:
            return x + self.conv(x)
        return self.conv(x)


class MobileNet(nn.Module):
    def __init__(self, activation: Callable[..., nn.Module], squeeze: bool) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 4, 3, 2, 1), nn.BatchNorm2d(4), activation(),
            InvertedResidual(4, 4, activation, squeeze), InvertedResidual(4, 6, activation, squeeze),
        )  # fmt: skip
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(6, CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(x)
        return self.classifier(x.mean([2, 3]))


class ShuffleNet(nn.Module):
    """Ma et al. 2018: one unit that splits its channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, 1)
        self.branch = nn.Sequential(
            nn.Conv2d(4, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 3, 1, 1, groups=4), nn.Conv2d(4, 4, 1), nn.ReLU()
        )
        self.fc = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for _ in range(2):
            x1, x2 = x.chunk(2, dim=1)
            x = torch.cat((x1, self.branch(x2)), dim=1)
            b, c, h, w = x.size()
            x = x.view(b, 2, c // 2, h, w)
            x = torch.transpose(x, 1, 2).contiguous().view(b, c, h, w)
        return self.fc(x.mean([2, 3]))


class LayerNorm2d(nn.LayerNorm):
    """Of channels, as ConvNeXt has it: a subclass with a forward of its own."""

    def forward(self, x: Tensor) -> Tensor:
        x = x.permute(0, 2, 3, 1)
        x = F.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)
        return x.permute(0, 3, 1, 2)


class ConvNeXt(nn.Module):
    """Liu et al. 2022: with a layer scale."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 6, 4, 4), LayerNorm2d(6)
        self.depthwise, self.inner = nn.Conv2d(6, 6, 3, padding=1, groups=6), nn.LayerNorm(6)
        self.up, self.down = nn.Linear(6, 12), nn.Linear(12, 6)
        self.layer_scale = nn.Parameter(torch.full((6,), 0.3))
        self.head = nn.Linear(6, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.stem(x))
        y = self.inner(self.depthwise(x).permute(0, 2, 3, 1))
        y = self.layer_scale * self.down(F.gelu(self.up(y)))
        x = x + y.permute(0, 3, 1, 2)
        return self.head(x.mean((-2, -1)))


class ConvMixer(nn.Sequential):
    """Trockman and Kolter 2022, as its authors wrote it."""

    class Skip(nn.Module):
        def __init__(self, fn: nn.Module) -> None:
            super().__init__()
            self.fn = fn

        def forward(self, x: Tensor) -> Tensor:
            return self.fn(x) + x

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(3, 6, 4, stride=4), nn.GELU(), nn.BatchNorm2d(6),
            *[nn.Sequential(
                self.Skip(nn.Sequential(nn.Conv2d(6, 6, 3, groups=6, padding="same"), nn.GELU(), nn.BatchNorm2d(6))),
                nn.Conv2d(6, 6, 1), nn.GELU(), nn.BatchNorm2d(6),
            ) for _ in range(2)],
            nn.AdaptiveAvgPool2d((1, 1)), nn.Flatten(), nn.Linear(6, CLASSES),
        )  # fmt: skip


class MLPMixer(nn.Module):
    """Tolstikhin et al. 2021."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, WIDTH, 4, 4)
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.tokens = nn.Sequential(nn.Linear(16, 6), nn.GELU(), nn.Linear(6, 16))
        self.channels = nn.Sequential(nn.Linear(WIDTH, 12), nn.GELU(), nn.Linear(12, WIDTH))
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = x + self.tokens(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        x = x + self.channels(self.norm2(x))
        return self.head(x.mean(dim=1))


class Attention(nn.Module):
    """By products that are written out, as in timm."""

    def __init__(self, dim: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.heads, self.scale = heads, (dim // heads) ** -0.5
        self.qkv, self.proj = nn.Linear(dim, 3 * dim, bias=False), nn.Linear(dim, dim)
        self.attn_drop = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        B, N, C = x.shape  # noqa: N806
        qkv = self.qkv(x).reshape(B, N, 3, self.heads, C // self.heads).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        attn = (q @ k.transpose(-2, -1)) * self.scale
        attn = self.attn_drop(attn.softmax(dim=-1))
        return self.proj((attn @ v).transpose(1, 2).reshape(B, N, C))


class ViT(nn.Module):
    """Dosovitskiy et al. 2021."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, WIDTH, 8, 8)
        self.cls_token = nn.Parameter(0.1 * torch.randn(1, 1, WIDTH))
        self.pos_embed = nn.Parameter(0.1 * torch.randn(1, 5, WIDTH))
        self.norm1 = nn.ModuleList([nn.LayerNorm(WIDTH) for _ in range(2)])
        self.norm2 = nn.ModuleList([nn.LayerNorm(WIDTH) for _ in range(2)])
        self.attention = nn.ModuleList([Attention(WIDTH, 2) for _ in range(2)])
        self.mlp = nn.ModuleList(
            [nn.Sequential(nn.Linear(WIDTH, 12), nn.GELU(), nn.Linear(12, WIDTH)) for _ in range(2)]
        )
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        B = x.shape[0]  # noqa: N806
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat((self.cls_token.expand(B, -1, -1), x), dim=1)
        x = x + self.pos_embed
        for norm1, norm2, attention, mlp in zip(self.norm1, self.norm2, self.attention, self.mlp, strict=True):
            x = x + attention(norm1(x))
            x = x + mlp(norm2(x))
        return self.head(self.norm(x)[:, 0])


class Swin(nn.Module):
    """Liu et al. 2021: attention within shifted windows, with a bias by relative position."""

    index: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, WIDTH, 4, 4)
        self.norms = nn.ModuleList([nn.LayerNorm(WIDTH) for _ in range(2)])
        self.qkvs = nn.ModuleList([nn.Linear(WIDTH, 3 * WIDTH) for _ in range(2)])
        self.projs = nn.ModuleList([nn.Linear(WIDTH, WIDTH) for _ in range(2)])
        self.table = nn.Parameter(0.1 * torch.randn(9, 2))
        places = torch.stack(torch.meshgrid(torch.arange(2), torch.arange(2), indexing="ij")).flatten(1)
        relative = places[:, :, None] - places[:, None, :] + 1
        self.register_buffer("index", relative[0] * 3 + relative[1])
        self.head = nn.Linear(WIDTH, CLASSES)

    def window_attention(self, x: Tensor, qkv: nn.Module, proj: nn.Module, shift: int) -> Tensor:
        b, h, w, c = x.shape
        if shift:
            x = torch.roll(x, (-shift, -shift), (1, 2))
        x = x.view(b, h // 2, 2, w // 2, 2, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, 4, c)
        q, k, v = qkv(x).reshape(-1, 4, 3, 2, c // 2).permute(2, 0, 3, 1, 4).unbind(0)
        bias = self.table[self.index.view(-1)].view(4, 4, 2).permute(2, 0, 1)
        attention = torch.softmax(q @ k.transpose(-2, -1) / math.sqrt(4) + bias, dim=-1)
        x = proj((attention @ v).transpose(1, 2).reshape(-1, 4, c))
        x = x.view(b, h // 2, w // 2, 2, 2, c).permute(0, 1, 3, 2, 4, 5).reshape(b, h, w, c)
        return torch.roll(x, (shift, shift), (1, 2)) if shift else x

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).permute(0, 2, 3, 1)
        for number, (norm, qkv, proj) in enumerate(zip(self.norms, self.qkvs, self.projs, strict=True)):
            x = x + self.window_attention(norm(x), qkv, proj, number % 2)
        return self.head(x.flatten(1, 2).mean(1))


class BERT(nn.Module):
    """Devlin et al. 2019, by torch's own encoder layers."""

    def __init__(self, norm_first: bool) -> None:
        super().__init__()
        self.words, self.positions = nn.Embedding(TOKENS, WIDTH), nn.Embedding(LENGTH, WIDTH)
        self.norm = nn.LayerNorm(WIDTH)
        layer = nn.TransformerEncoderLayer(
            WIDTH, 2, 12, dropout=0.0, activation="gelu", batch_first=True, norm_first=norm_first
        )
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.classifier = nn.Linear(WIDTH, CLASSES)

    def forward(self, ids: Tensor) -> Tensor:
        positions = torch.arange(ids.shape[1], device=ids.device).unsqueeze(0)
        x = self.norm(self.words(ids) + self.positions(positions))
        return self.classifier(torch.tanh(self.encoder(x)[:, 0]))


class CausalBlock(nn.Module):
    """Of GPT-2."""

    def __init__(self) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.c_attn, self.c_proj = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.c_fc, self.c_out = nn.Linear(WIDTH, 12), nn.Linear(12, WIDTH)
        self.dropout = 0.1

    def attend(self, x: Tensor) -> Tensor:
        B, T, C = x.size()  # noqa: N806
        q, k, v = self.c_attn(x).split(WIDTH, dim=2)
        q, k, v = (each.view(B, T, 2, C // 2).transpose(1, 2) for each in (q, k, v))
        p = self.dropout if self.training else 0
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=None, dropout_p=p, is_causal=True)
        return self.c_proj(y.transpose(1, 2).contiguous().view(B, T, C))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attend(self.ln_1(x))
        return x + self.c_out(F.gelu(self.c_fc(self.ln_2(x)), approximate="tanh"))


class GPT(nn.Module):
    """Radford et al. 2019, with the output's weights those of the embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.transformer = nn.ModuleDict({
            "wte": nn.Embedding(TOKENS, WIDTH), "wpe": nn.Embedding(LENGTH, WIDTH), "drop": nn.Dropout(0.1),
            "h": nn.ModuleList([CausalBlock() for _ in range(2)]), "ln_f": nn.LayerNorm(WIDTH),
        })  # fmt: skip
        self.lm_head = nn.Linear(WIDTH, TOKENS, bias=False)
        self.lm_head.weight = self.transformer["wte"].weight  # type: ignore[assignment]

    def forward(self, idx: Tensor, targets: Tensor | None = None) -> Tensor:
        _, t = idx.size()
        assert t <= LENGTH, f"no sequence of length {t}"
        pos = torch.arange(0, t, dtype=torch.long, device=idx.device)
        net: Any = self.transformer
        x = net.drop(net.wte(idx) + net.wpe(pos))
        for block in net.h:
            x = block(x)
        logits: Tensor = self.lm_head(net.ln_f(x))
        if targets is not None:
            return F.cross_entropy(logits.flatten(0, 1), targets.flatten())
        return logits


class LLaMA(nn.Module):
    """Touvron et al. 2023: RMSNorm, rotary positions, grouped queries, SwiGLU; a mask made once for all layers."""

    cos: Tensor
    sin: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(TOKENS, WIDTH)
        self.norms = nn.ModuleList([nn.RMSNorm(WIDTH) for _ in range(4)])
        self.wq = nn.ModuleList([nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(2)])
        self.wkv = nn.ModuleList([nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(2)])
        self.wo = nn.ModuleList([nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(2)])
        self.w1, self.w3 = (nn.ModuleList([nn.Linear(WIDTH, 12, bias=False) for _ in range(2)]) for _ in range(2))
        self.w2 = nn.ModuleList([nn.Linear(12, WIDTH, bias=False) for _ in range(2)])
        angles = torch.outer(torch.arange(16.0), 100.0 ** -torch.arange(0, 1, 0.5))
        self.register_buffer("cos", angles.cos().repeat_interleave(2, 1), persistent=False)
        self.register_buffer("sin", angles.sin().repeat_interleave(2, 1), persistent=False)
        self.norm, self.output = nn.RMSNorm(WIDTH), nn.Linear(WIDTH, TOKENS, bias=False)

    @staticmethod
    def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        a, b = x[..., ::2], x[..., 1::2]
        return x * cos + torch.stack((-b, a), dim=-1).flatten(-2) * sin

    def forward(self, tokens: Tensor) -> Tensor:
        bsz, seqlen = tokens.shape
        h = self.embed(tokens)
        cos, sin = self.cos[:seqlen], self.sin[:seqlen]
        mask = torch.full((seqlen, seqlen), float("-inf"), device=tokens.device).triu(diagonal=1)
        for n in range(2):
            x = self.norms[2 * n](h)
            q = self.wq[n](x).view(bsz, seqlen, 2, 4).transpose(1, 2)
            k, v = (each.view(bsz, seqlen, 1, 4).transpose(1, 2) for each in self.wkv[n](x).chunk(2, dim=-1))
            q, k = self.rotate(q, cos, sin), self.rotate(k, cos, sin)
            k, v = (each.repeat_interleave(2, dim=1) for each in (k, v))
            scores = torch.matmul(q, k.transpose(2, 3)) / math.sqrt(4) + mask
            out = torch.matmul(F.softmax(scores.float(), dim=-1).type_as(q), v)
            h = h + self.wo[n](out.transpose(1, 2).reshape(bsz, seqlen, -1))
            x = self.norms[2 * n + 1](h)
            h = h + self.w2[n](F.silu(self.w1[n](x)) * self.w3[n](x))
        return self.output(self.norm(h))


class UNet(nn.Module):
    """Ronneberger et al. 2015."""

    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2 = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 6, 3, padding=1)
        self.middle = nn.Conv2d(6, 8, 3, padding=1)
        self.up2, self.up1 = nn.ConvTranspose2d(8, 6, 2, 2), nn.ConvTranspose2d(6, 4, 2, 2)
        self.out2, self.out1 = nn.Conv2d(12, 6, 3, padding=1), nn.Conv2d(8, 4, 3, padding=1)
        self.last = nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        d1 = F.relu(self.down1(x))
        d2 = F.relu(self.down2(F.max_pool2d(d1, 2)))
        m = F.relu(self.middle(F.max_pool2d(d2, 2)))
        u2 = F.relu(self.out2(torch.cat([self.up2(m), d2], dim=1)))
        u1 = F.relu(self.out1(torch.cat([self.up1(u2), d1], dim=1)))
        return self.last(u1)


class Segmenter(nn.Module):
    """Long et al. 2015, as torchvision writes it: scores of a coarse map, enlarged to the size of the image."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 6, 3, 2, 1), nn.ReLU())
        self.classifier = nn.Conv2d(6, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        input_shape = x.shape[-2:]
        x = self.classifier(self.backbone(x))
        return F.interpolate(x, size=input_shape, mode="bilinear", align_corners=False)


class Autoencoder(nn.Module):
    """Hinton and Salakhutdinov 2006."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(WIDTH, 6), nn.Tanh(), nn.Linear(6, 3))
        self.decoder = nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(self.encoder(x))


class TiedAutoencoder(nn.Module):
    """With the transposed weights of the encoder in the decoder (Vincent et al. 2010)."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(0.4 * torch.randn(6, WIDTH))
        self.b, self.c = nn.Parameter(torch.zeros(6)), nn.Parameter(torch.zeros(WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        h = torch.sigmoid(F.linear(x, self.w, self.b))
        return F.linear(h, self.w.t(), self.c)


class Highway(nn.Module):
    """Srivastava et al. 2015."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(WIDTH, 7)
        self.transforms = nn.ModuleList([nn.Linear(7, 7) for _ in range(3)])
        self.gates = nn.ModuleList([nn.Linear(7, 7) for _ in range(3)])
        self.last = nn.Linear(7, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.first(x))
        for transform, gate in zip(self.transforms, self.gates, strict=True):
            t = gate(x).sigmoid()
            x = t * F.relu(transform(x)) + (1 - t) * x
        return self.last(x)


class FractalNet(nn.Module):
    """Larsson et al. 2017: f2(x) = (conv(x) + f1(f1(x))) / 2."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, 2, 1)
        self.convs = nn.ModuleList([nn.Conv2d(4, 4, 3, padding=1) for _ in range(7)])
        self.norms = nn.ModuleList([nn.BatchNorm2d(4) for _ in range(7)])
        self.head = nn.Linear(4, CLASSES)

    def unit(self, x: Tensor, n: int) -> Tensor:
        return F.elu(self.norms[n](self.convs[n](x)))

    def fractal(self, x: Tensor, depth: int, n: int) -> tuple[Tensor, int]:
        if depth == 1:
            return self.unit(x, n), n + 1
        y, n = self.fractal(x, depth - 1, n)
        y, n = self.fractal(y, depth - 1, n)
        return torch.stack([y, self.unit(x, n)]).mean(dim=0), n + 1

    def forward(self, x: Tensor) -> Tensor:
        x, _ = self.fractal(self.stem(x), 3, 0)
        return self.head(F.adaptive_max_pool2d(x, 1).flatten(1))


class Siamese(nn.Module):
    """Bromley et al. 1993: one encoder for both halves of the input, and the distance of what it gives."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 5))
        self.head = nn.Linear(5, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        left, right = x.split(4, dim=1)
        return self.head((self.encoder(left) - self.encoder(right)).abs())


class DeepSets(nn.Module):
    """Zaheer et al. 2017."""

    def __init__(self) -> None:
        super().__init__()
        self.phi = nn.Sequential(nn.Linear(WIDTH, 7), nn.ELU(), nn.Linear(7, 7), nn.ELU())
        self.rho = nn.Sequential(nn.Linear(7, 6), nn.ELU(), nn.Linear(6, CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        return self.rho(self.phi(x).sum(dim=1))


class RNN(nn.Module):
    """Elman 1990, unrolled over a known number of steps."""

    def __init__(self) -> None:
        super().__init__()
        self.i2h, self.h2h, self.out = nn.Linear(WIDTH, 6), nn.Linear(6, 6), nn.Linear(6, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.zeros(x.size(0), 6, dtype=x.dtype)
        for t in range(LENGTH):
            h = torch.tanh(self.i2h(x[:, t]) + self.h2h(h))
        return self.out(h)


class LSTM(nn.Module):
    """Hochreiter and Schmidhuber 1997, a cell by hand: two states, and the last of one is what counts."""

    def __init__(self) -> None:
        super().__init__()
        self.gates, self.out = nn.Linear(WIDTH + 5, 20), nn.Linear(5, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        h = c = x.new_zeros(x.size(0), 5)
        for t in range(3):
            i, f, g, o = self.gates(torch.cat([x[:, t], h], 1)).chunk(4, 1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
        return self.out(h)


class GRU(nn.Module):
    """Cho et al. 2014, by torch's own cell."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.out = nn.GRUCell(WIDTH, 5), nn.Linear(5, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        h = None
        for t in range(3):
            h = self.cell(x[:, t], h)
        return self.out(h)


class GCN(nn.Module):
    """Kipf and Welling 2017: nodes of a fixed graph."""

    adjacency: Tensor

    def __init__(self) -> None:
        super().__init__()
        a = torch.eye(LENGTH) + torch.eye(LENGTH).roll(1, 0) + torch.eye(LENGTH).roll(-1, 0)
        self.register_buffer("adjacency", a / 3)
        self.w1 = nn.Parameter(0.4 * torch.randn(WIDTH, 7))
        self.w2, self.bias = nn.Linear(7, 6), nn.Parameter(torch.zeros(7))
        self.head = nn.Linear(6, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.adjacency @ (x @ self.w1) + self.bias)
        x = F.relu(torch.matmul(self.adjacency, self.w2(x)))
        return self.head(x.mean(1))


class Encoder(nn.Module):
    """Vaswani et al. 2017 with torch's own attention, which takes time first."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(WIDTH, WIDTH)
        self.attention, self.norm = nn.MultiheadAttention(WIDTH, 2, dropout=0.0), nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x).transpose(0, 1)
        y, _ = self.attention(x, x, x, need_weights=False)
        return self.head(self.norm(x + y).transpose(0, 1))


class CrossAttention(nn.Module):
    """Lee et al., "Set Transformer", 2019: elements ask elements of another width."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = nn.Linear(WIDTH, 6), nn.Linear(WIDTH, 4), nn.Linear(6, CLASSES)
        self.attention = nn.MultiheadAttention(6, 2, kdim=4, vdim=4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        keys = torch.relu(self.b(x))
        y, _ = self.attention(torch.relu(self.a(x)), keys, keys)
        return self.head(y.mean(1))


class WeightStandardized(nn.Conv2d):
    """Qiao et al. 2019: a convolution whose kernel is computed."""

    def forward(self, x: Tensor) -> Tensor:
        w = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        w = w / (w.std((1, 2, 3), keepdim=True) + 1e-5)
        return F.conv2d(x, w, self.bias, self.stride, self.padding, self.dilation, self.groups)


class BiT(nn.Module):
    """Kolesnikov et al. 2020: weight standardisation and group norm."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = WeightStandardized(3, 4, 3, 2), WeightStandardized(4, 4, 3, padding=1)
        self.norm, self.head = nn.GroupNorm(2, 4), nn.Linear(4, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv1(x))
        x = x + self.conv2(self.norm(x))
        return self.head(x.amax((2, 3)))


class Maxout(nn.Module):
    """Goodfellow et al. 2013."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(WIDTH, 12), nn.Linear(6, 2 * CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x).view(-1, 6, 2).max(dim=2).values
        return self.b(x).view(-1, CLASSES, 2).max(2)[0]


class WaveNet(nn.Module):
    """van den Oord et al. 2016: dilated convolutions, gates, skips that are summed up."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.first = nn.Embedding(TOKENS, WIDTH), nn.Conv1d(WIDTH, 6, 1)
        self.filters = nn.ModuleList([nn.Conv1d(6, 12, 2, dilation=2**i) for i in range(2)])
        self.skips = nn.ModuleList([nn.Conv1d(6, 5, 1) for _ in range(2)])
        self.residuals = nn.ModuleList([nn.Conv1d(6, 6, 1) for _ in range(2)])
        self.last = nn.Conv1d(5, TOKENS, 1)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.first(self.embed(ids).mT)
        total: Any = 0
        for i in range(2):
            a, b = self.filters[i](F.pad(x, (2**i, 0))).chunk(2, dim=1)
            z = torch.tanh(a) * torch.sigmoid(b)
            total = total + self.skips[i](z)
            x = x + self.residuals[i](z)
        return self.last(F.relu(total)).transpose(1, 2)


Foreign = tuple[Callable[[], nn.Module], tuple[int, ...] | int]
FOREIGN: dict[str, Foreign] = {
    "AlexNet": (AlexNet, IMAGE),
    "VGG": (VGG, IMAGE),
    "LeNet": (LeNet, IMAGE),
    "ResNet-18": (lambda: ResNet(BasicBlock(4, 4), BasicBlock(4, 8, 2)), IMAGE),
    "ResNet-50": (lambda: ResNet(Bottleneck(4, 4, 8), Bottleneck(8, 4, 8)), IMAGE),
    "ResNeXt": (lambda: ResNet(Bottleneck(4, 8, 8, groups=4), Bottleneck(8, 8, 8, groups=4)), IMAGE),
    "WideResNet": (lambda: ResNet(BasicBlock(4, 12), BasicBlock(12, 12), channels=12), IMAGE),
    "SE-ResNet": (lambda: ResNet(Bottleneck(4, 4, 8, 2, squeeze=True)), IMAGE),
    "RegNet": (lambda: ResNet(Bottleneck(4, 8, 8, 2, 2, True), Bottleneck(8, 8, 8, 1, 2, True)), IMAGE),
    "PreActResNet": (lambda: ResNet(PreActBlock(4, 4), PreActBlock(4, 8, 2)), IMAGE),
    "DenseNet": (DenseNet, IMAGE),
    "Inception": (Inception, IMAGE),
    "SqueezeNet": (SqueezeNet, IMAGE),
    "MobileNetV2": (lambda: MobileNet(nn.ReLU6, squeeze=False), IMAGE),
    "MobileNetV3": (lambda: MobileNet(nn.Hardswish, squeeze=True), IMAGE),
    "EfficientNet": (lambda: MobileNet(nn.SiLU, squeeze=True), IMAGE),
    "ShuffleNet": (ShuffleNet, IMAGE),
    "ConvNeXt": (ConvNeXt, IMAGE),
    "ConvMixer": (ConvMixer, IMAGE),
    "MLP-Mixer": (MLPMixer, IMAGE),
    "ViT": (ViT, IMAGE),
    "Swin": (Swin, IMAGE),
    "BERT": (lambda: BERT(norm_first=False), LENGTH),
    "BERT, norm first": (lambda: BERT(norm_first=True), LENGTH),
    "GPT": (GPT, LENGTH),
    "LLaMA": (LLaMA, LENGTH),
    "UNet": (UNet, IMAGE),
    "Segmenter": (Segmenter, IMAGE),
    "Autoencoder": (Autoencoder, (WIDTH,)),
    "TiedAutoencoder": (TiedAutoencoder, (WIDTH,)),
    "Highway": (Highway, (WIDTH,)),
    "FractalNet": (FractalNet, IMAGE),
    "Siamese": (Siamese, (WIDTH,)),
    "DeepSets": (DeepSets, (LENGTH, WIDTH)),
    "RNN": (RNN, (LENGTH, WIDTH)),
    "LSTM": (LSTM, (LENGTH, WIDTH)),
    "GRU": (GRU, (LENGTH, WIDTH)),
    "GCN": (GCN, (LENGTH, WIDTH)),
    "Encoder": (Encoder, (LENGTH, WIDTH)),
    "CrossAttention": (CrossAttention, (LENGTH, WIDTH)),
    "BiT": (BiT, IMAGE),
    "Maxout": (Maxout, (WIDTH,)),
    "WaveNet": (WaveNet, LENGTH),
}


def made(name: str, dtype: torch.dtype = torch.float32) -> tuple[nn.Module, Tensor]:
    """A network, and a batch for it; the same for every call."""
    make, shape = FOREIGN[name]
    torch.manual_seed(0)
    network = make().to(dtype)
    if isinstance(shape, int):
        return network, torch.randint(TOKENS, (4, shape))
    return network, torch.randn(4, *shape, dtype=dtype)
