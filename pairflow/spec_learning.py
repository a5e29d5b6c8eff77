"""Specs of training, distillation and sampling (docs/method.md §3 to §6)."""

from typing import Literal, Self

from pydantic import Field, model_validator

from pairflow.spec_base import Seed, Spec

FinalStep = Literal["ancestral", "greedy", "argmax"]
ImageFeatures = Literal["auto", "inception", "own"]
ObjectiveName = Literal["elbo", "cross_entropy", "mixed"]


class OptimizerSpec(Spec):
    """How weights are trained, whatever the loss: AdamW without weight decay, clipped gradients, averaged weights."""

    num_steps: int = Field(1500, ge=1, description="Optimiser steps.")
    batch_size: int = Field(128, ge=1, description="Rows a step.")
    accumulate: int = Field(
        1,
        ge=1,
        description="Parts (1 or more; must divide batch_size) that a batch is computed in, for memory; the gradient "
        "is the whole batch's.",
    )
    learning_rate: float = Field(3e-4, gt=0, le=1, description="Peak learning rate of AdamW.")
    lr_schedule: Literal["cosine", "constant"] = Field("cosine", description="After the warm-up.")
    min_learning_rate: float = Field(3e-6, ge=0, description="Where the cosine ends.")
    warmup_steps: int = Field(100, ge=0, description="Linear warm-up steps.")
    gradient_clip: float = Field(1.0, gt=0, description="Largest gradient norm.")
    ema_decay: float = Field(0.999, ge=0, lt=1, description="Decay of the averaged weights.")
    seed: Seed = Field(0, description="Seed of weights, data order, times and noise.")

    @model_validator(mode="after")
    def _parts_divide_the_batch(self) -> Self:
        if self.batch_size % self.accumulate:
            raise ValueError(f"accumulate must divide batch_size, got {self.accumulate} and {self.batch_size}")
        return self


class TrainingSpec(OptimizerSpec):
    """How the denoiser is trained (docs/method.md §3)."""

    process: Literal["uniform", "absorbing", "marginal"] = Field(
        "uniform",
        description="Noise: uniform replaces a token by any (UDLM, PairFlow), absorbing by a mask (MDLM), marginal by "
        "one of the data's at that position.",
    )
    coupling: Literal["paired", "independent"] = Field(
        "paired",
        description="paired: each row's stored source (PairFlow). independent: a fresh one (UDLM, MDLM).",
    )
    time_epsilon: float = Field(1e-3, gt=0, lt=0.5, description="t is drawn from [ε, 1 − ε].")
    objective: ObjectiveName = Field(
        "elbo",
        # The default is not written: specs from before there were others keep their JSON and their fingerprints.
        exclude_if=lambda value: value == "elbo",
        description="Loss. elbo: the bound on the likelihood. cross_entropy: −log p(x_1 | x_t), for the fewest network "
        "calls; sample it with an argmax end. mixed: the bound, and cross-entropy the more the nearer t is to 0.",
    )

    @property
    def predicts(self) -> Literal["others", "all"]:
        """From which positions of x_t the network learns to predict a token: see `pairflow.processes.Prediction`."""
        return "all" if self.objective == "cross_entropy" else "others"

    @model_validator(mode="after")
    def _masks_have_no_pairs(self) -> Self:
        if self.process == "absorbing" and self.coupling != "independent":
            raise ValueError(
                f"process 'absorbing' needs coupling 'independent', got '{self.coupling}': every source is all mask, "
                "so there is nothing to pair"
            )
        return self


class DistillationSpec(OptimizerSpec):
    """Discrete consistency distillation of a trained model (DCD; docs/method.md §5)."""

    num_steps: int = Field(10_000, ge=1, description="Optimiser steps.")
    learning_rate: float = Field(6e-5, gt=0, le=1, description="Learning rate of AdamW.")
    lr_schedule: Literal["cosine", "constant"] = Field("constant", description="After the warm-up.")
    warmup_steps: int = Field(0, ge=0, description="Linear warm-up steps.")
    states: Literal["gaussian", "paired"] = Field(
        "gaussian",
        description="Where a row's two states come from. gaussian: argmax of one noised one-hot trajectory. paired: "
        "the path between the stored source and the target, with shared uniform draws.",
    )
    num_intervals: int = Field(
        64, ge=1, le=65_536, description="T: the gap between student and teacher is 2^n/T in round n."
    )
    update_teacher_every: int = Field(
        2000, ge=1, description="Steps a round; after each the teacher is replaced by the student's averaged weights."
    )
    gamma_noisiest: float = Field(-1.0, ge=-20, le=20, description="Negative log-SNR γ̃ at the noisiest state.")
    gamma_cleanest: float = Field(-4.0, ge=-20, le=20, description="γ̃ at the least noisy state; below gamma_noisiest.")

    @model_validator(mode="after")
    def _gamma_falls_towards_the_data(self) -> Self:
        if self.gamma_cleanest >= self.gamma_noisiest:
            raise ValueError(
                f"gamma_cleanest must be below gamma_noisiest, got {self.gamma_cleanest} and {self.gamma_noisiest}"
            )
        return self


class SamplingSpec(Spec):
    """How samples are drawn from a denoiser (docs/method.md §4)."""

    sampler: Literal["ancestral", "euler", "psi"] = Field(
        "ancestral",
        description="ancestral: the process's exact posterior. euler: flow matching's jumps. psi: ancestral steps "
        "mixed with renoised predictions (predictor-corrector).",
    )
    final_step: FinalStep = Field(
        "greedy",
        description="End. ancestral: the last step as any other. greedy: after it the argmax of p_θ, one more network "
        "call. argmax: the last step is the argmax of p(x_1 | x_t) itself, so one step is one call.",
    )
    top_p: float = Field(
        1.0,
        gt=0,
        le=1,
        description="Nucleus: draw from the likeliest tokens of p_θ that together hold this much (above 0; 1: all).",
    )
    corrections: float | None = Field(
        None,
        gt=0,
        le=1024,
        description="Only for 'psi': how often a token is drawn anew on the way, on average (above 0 to 1,024); a step "
        "renoises with weight corrections / steps, at most 1.",
    )

    @classmethod
    def suited_to(cls, objective: ObjectiveName) -> "SamplingSpec":
        """What a model that was trained by an objective is sampled with where nobody says otherwise (docs/results.md).

        Cross-entropy teaches p_{1|t} itself: Euler's jumps and an argmax end ask for nothing else, and a greedy end
        would divide it by odds of some thousands.
        """
        if objective == "cross_entropy":
            return SamplingSpec(sampler="euler", final_step="argmax")
        return SamplingSpec()

    @model_validator(mode="after")
    def _psi_has_corrections(self) -> Self:
        if (self.sampler == "psi") != (self.corrections is not None):
            expected = "needs corrections, such as 1" if self.sampler == "psi" else "takes no corrections; leave it out"
            raise ValueError(f"sampler '{self.sampler}' {expected}")
        return self


class RediSpec(Spec):
    """The pairs of rectified discrete flow: a model's own sources and samples (ReDi; docs/method.md §5)."""

    num_pairs: int = Field(20_000, ge=1, le=2**40, description="Pairs to draw (1 or more).")
    num_steps: int = Field(256, ge=1, le=1024, description="Sampling steps a pair (1 to 1,024).")
    sampling: SamplingSpec = Field(
        default_factory=lambda: SamplingSpec(sampler="euler", final_step="greedy"), description="How they are drawn."
    )
    seed: Seed = Field(0, description="Seed of sources and draws; pair i depends on the seed and i alone.")

    @property
    def title(self) -> str:
        """What tells such pairs of one dataset apart, in a word or two."""
        return f"redi T{self.num_steps}"


class EvaluationSpec(SamplingSpec):
    """What is sampled, how, and measured, by number of sampling steps."""

    steps: tuple[int, ...] = Field(
        (1, 2, 4, 8, 16, 32),
        description="Numbers of sampling steps to compare (1 to 1,024 each; 0: a greedy end alone, one network call).",
    )
    num_samples: int = Field(1024, ge=2, description="Samples a trial.")
    num_trials: int = Field(1, ge=1, le=100, description="Trials; the table shows mean and deviation.")
    seed: Seed = Field(0, description="Seed of all sampling draws.")
    image_features: ImageFeatures = Field(
        "auto",
        description="How images are compared with the data. inception: FID and Inception Score, which need Inception's "
        "weights in PAIRFLOW_DATA_DIR. own: Fréchet distance in a small network's features. auto: the first where the "
        "weights are.",
    )

    @model_validator(mode="after")
    def _steps_in_range(self) -> Self:
        if not self.steps or any(not 0 <= step <= 1024 for step in self.steps):
            raise ValueError(f"steps must be numbers from 1 to 1,024 (0: a greedy end alone), got {list(self.steps)}")
        if 0 in self.steps and self.final_step != "greedy":
            raise ValueError(
                f"steps 0 is a greedy end alone, got final_step '{self.final_step}'"
                + ("; there 1 step is one network call" if self.final_step == "argmax" else "")
            )
        return self
