"""Batches of one image, which a network with batch norm may not be able to train on."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import Tensor, nn

from targetprop.data.loader import BatchLoader
from targetprop.utils.errors import UserError


def refuse_single_images(loader: BatchLoader, batches: int, network: nn.Module) -> None:
    """Raise `UserError` if one of the first so many batches of an epoch is of one image and the network takes none."""
    least = loader.least(batches)
    if least > 1:
        return
    last, noun = loader.least(1) > 1, loader.images.noun
    one = noun.removesuffix("s")
    which = f"the last batch of {len(loader.images)} {noun} has" if last else "every batch has"
    several = f" for one of {loader.rows} groups" if loader.rows > 1 else ""
    mend = "set datamodule.drop_last=true, or another datamodule.batch_size"
    if not last:
        mend = "set datamodule.batch_size=2 or more, and datamodule.drop_last=true"
    if least == 0:
        raise UserError(f"{which} no {one} left{several}; {mend}.", key="datamodule.drop_last")
    refused = _refused(network, loader.blank(2))
    if refused is not None:
        message = f"{which} one {one}{several}, which this network cannot train on ({refused}); {mend}."
        raise UserError(message, key="datamodule.drop_last" if last else "datamodule.batch_size")


def _refused(network: nn.Module, blank: Tensor) -> Exception | None:
    """What a copy of the network in training mode says of one image, if two are no trouble; random numbers stay."""
    tried = deepcopy(network).train()
    like = next(iter(tried.parameters()), torch.zeros(1))
    images = blank.to(like.device, like.dtype if blank.is_floating_point() else blank.dtype)
    with torch.random.fork_rng([like.device] if like.is_cuda else []), torch.no_grad():
        refused = _error(tried, images[:1])
        return refused if refused is None or _error(tried, images) is None else None


def _error(network: nn.Module, images: Tensor) -> Exception | None:
    try:
        network(images)
    except Exception as error:  # whatever a layer raises
        return error
    return None
