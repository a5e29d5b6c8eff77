"""PairFlow: closed-form source-target coupling for few-step discrete generative models.

The library, by itself: data sets, couplings, networks, training, sampling, metrics. It imports neither `storage` nor
`flows`, and no Prefect, Ray or MLflow. The mathematics is in docs/method.md.
"""

__version__ = "0.1.0"
