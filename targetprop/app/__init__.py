"""The Lightning side: module, trainer, callbacks, and a run from configuration to results."""
