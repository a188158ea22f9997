"""Networks by name: functions (image_shape, num_classes, ...) -> nn.Sequential, one block a child."""

from targetprop.models.invertible_mlp import invertible_mlp
from targetprop.models.lenet import lenet
from targetprop.models.mlp import mlp
from targetprop.models.norm_vgg import norm_vgg
from targetprop.models.resnet import resnet
from targetprop.models.simple_vgg import simple_vgg
from targetprop.models.whitened_vgg import whitened_vgg

__all__ = ["invertible_mlp", "lenet", "mlp", "norm_vgg", "resnet", "simple_vgg", "whitened_vgg"]
