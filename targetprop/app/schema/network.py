"""Settings of the networks."""

from __future__ import annotations

from targetprop.app.schema.keys import Key, Keys
from targetprop.app.schema.kinds import NULL, TRUTH, WORD, Kind, choice, list_of, number, whole

SIZES = list_of(whole(1), "whole numbers, 1 or more")
SOME_SIZES = Kind(f"{SIZES.expected}, not empty", lambda given: bool(given) and SIZES.takes(given))
ACTIVATION = Key(WORD, "a name such as `elu` or `relu`, or a class among torch's activations, such as `Softsign`")
NORMS = ("hidden", "all")
"""Those of `models.mlp`, which would have torch imported for them."""

TARGETS: dict[str, Keys] = {
    "targetprop.models.simple_vgg.simple_vgg": {
        "channels": Key(SIZES, "of each block"),
        "activation": ACTIVATION,
    },
    "targetprop.models.norm_vgg.norm_vgg": {
        "channels": Key(SOME_SIZES, "of each block"),
        "activation": ACTIVATION,
    },
    "targetprop.models.whitened_vgg.whitened_vgg": {
        "channels": Key(SOME_SIZES, "of each stage"),
        "depth": Key(whole(1), "convolutions in a stage"),
        "patch": Key(whole(1), "size of the patches whose covariance over training images becomes the identity"),
        "logit_scale": Key(number(above=0), "what the output of the linear layer is multiplied by"),
        "activation": ACTIVATION,
    },
    "targetprop.models.lenet.lenet": {
        "channels": Key(SIZES, "of each convolution"),
        "hidden": Key(whole(1), "units of the hidden layer"),
        "activation": ACTIVATION,
        "pool_padding": Key(whole(0, 1), "of pooling: 1 as in scalingDTP, 0 as in distributed-dtp"),
    },
    "targetprop.models.mlp.mlp": {
        "hidden": Key(SIZES, "units of each hidden layer"),
        "activation": ACTIVATION,
        "norm": Key(choice(*NORMS) | NULL, "which units are standardised over the batch, behind their activation"),
    },
    "targetprop.models.invertible_mlp.invertible_mlp": {
        "depth": Key(whole(1), "number of layers, each as wide as the image has pixels"),
        "widths": Key(SIZES | NULL, "of each layer, falling, in place of the depth"),
        "slope": Key(number(above=0, most=1), "of the leaky ReLU below zero"),
    },
    "targetprop.models.resnet.resnet": {
        "channels": Key(SOME_SIZES, "of each stage"),
        "blocks": Key(SOME_SIZES, "residual blocks in each stage"),
        "norm": Key(TRUTH, "whether a batch norm stands behind every convolution"),
        "activation": ACTIVATION,
        "bias": Key(TRUTH | NULL, "whether convolutions have a bias; null is where there is no batch norm"),
        "whole_stages": Key(TRUTH, "whether a stage is one block, with targets only at its end"),
        "head": Key(choice("average", "flatten"), "what the last linear layer sees of each channel"),
    },
}
