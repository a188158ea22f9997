"""Networks by name: functions (image_shape, num_classes, ...) -> nn.Sequential, one block a child."""

from targetprop.networks.lenet import lenet
from targetprop.networks.mlp import mlp
from targetprop.networks.norm_vgg import norm_vgg
from targetprop.networks.resnet import resnet
from targetprop.networks.simple_vgg import simple_vgg

__all__ = ["lenet", "mlp", "norm_vgg", "resnet", "simple_vgg"]
