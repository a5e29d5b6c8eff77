"""PairFlow: closed-form source-target coupling for few-step discrete generative models."""

__version__ = "0.1.0"
