"""Settings of the networks."""

from __future__ import annotations

from targetprop.app.schema.keys import Key, Keys
from targetprop.app.schema.kinds import NULL, TRUTH, WORD, Kind, choice, list_of, number, whole

SIZES = list_of(whole(1), "whole numbers, 1 or more")
SOME_SIZES = Kind(f"{SIZES.expected}, not empty", lambda given: bool(given) and SIZES.takes(given))
ACTIVATION = Key(WORD, "a name such as `elu` or `relu`, or a class among torch's activations, such as `Softsign`")
NORMS = ("hidden", "all")
CELLS = ("elman", "gru")
BLOCKS = ("basic", "bottleneck")
STEMS = ("imagenet", "cifar")
"""Names of `models.mlp`, `models.rnn` and `models.torchvision_resnet`, which would have torch imported for them."""

DEPTH = Key(whole(1), "number of blocks")
PATCH = Key(whole(1), "sides of a patch, in pixels")
TRANSFORMER: Keys = {
    "depth": DEPTH,
    "width": Key(whole(1), "of every place"),
    "heads": Key(whole(1), "of attention; they divide the width"),
    "hidden": Key(whole(1), "units of the hidden layer of each block"),
    "activation": ACTIVATION,
    "dropout": Key(number(least=0, below=1), "share of what a block adds that is dropped"),
}
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
    "targetprop.models.torchvision_resnet.torchvision_resnet": {
        "layers": Key(SOME_SIZES, "residual blocks in each of the four stages"),
        "block": Key(choice(*BLOCKS), "two 3x3 convolutions, or one between two of 1x1"),
        "stem": Key(choice(*STEMS), "a 7x7 convolution and pooling, or a 3x3 convolution for small images"),
        "width": Key(whole(1), "channels of the first stage; each further one has twice as many"),
        "groups": Key(whole(1), "of the 3x3 convolutions of bottlenecks"),
        "width_per_group": Key(whole(1), "channels of each group, of 64 in the first stage"),
    },
    "targetprop.models.conv_mixer.conv_mixer": {
        "patch": PATCH,
        "depth": DEPTH,
        "width": Key(whole(1), "channels"),
        "kernel": Key(whole(1), "sides of the convolutions of single channels, odd"),
        "activation": ACTIVATION,
    },
    "targetprop.models.mlp_mixer.mlp_mixer": {
        "patch": PATCH,
        "depth": DEPTH,
        "width": Key(whole(1), "channels of every place"),
        "token_hidden": Key(whole(1), "hidden units by which places are mixed"),
        "channel_hidden": Key(whole(1), "hidden units by which channels are mixed"),
        "activation": ACTIVATION,
    },
    "targetprop.models.vit.vit": {"patch": PATCH, **TRANSFORMER},
    "targetprop.models.decoder.decoder": {
        **TRANSFORMER,
        "tied": Key(TRUTH, "whether the last layer has the embeddings as its weights"),
    },
    "targetprop.models.rnn.rnn": {
        "width": Key(whole(1), "of the state"),
        "cell": Key(choice(*CELLS), "tanh units, or gated ones"),
    },
}
