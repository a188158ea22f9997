"""Networks by name: functions (image_shape, num_classes, ...) -> nn.Module; of a Sequential every child is a block."""

from targetprop.models.conv_mixer import conv_mixer
from targetprop.models.decoder import decoder
from targetprop.models.invertible_mlp import invertible_mlp
from targetprop.models.lenet import lenet
from targetprop.models.mlp import mlp
from targetprop.models.mlp_mixer import mlp_mixer
from targetprop.models.norm_vgg import norm_vgg
from targetprop.models.resnet import resnet
from targetprop.models.rnn import rnn
from targetprop.models.simple_vgg import simple_vgg
from targetprop.models.torchvision_resnet import torchvision_resnet
from targetprop.models.vit import vit
from targetprop.models.whitened_vgg import whitened_vgg

__all__ = [
    "conv_mixer",
    "decoder",
    "invertible_mlp",
    "lenet",
    "mlp",
    "mlp_mixer",
    "norm_vgg",
    "resnet",
    "rnn",
    "simple_vgg",
    "torchvision_resnet",
    "vit",
    "whitened_vgg",
]
