"""Metrics with intervals, and tests between models whose error rates are known.

Pure functions, one module per named method; no I/O, no state. ``evaluate`` measures one model,
``compare`` and ``not_worse`` judge a challenger offline, ``msprt``, ``RateTest``, ``ScoreSkew`` and
``sequential_noninferiority`` judge a canary at any look.
"""

from modelyard.evaluation.bayesian_t import Posterior, bayesian_correlated_t
from modelyard.evaluation.compare import Comparison, compare, not_worse
from modelyard.evaluation.delong import PairedAuc, delong, delong_paired
from modelyard.evaluation.estimate import Estimate, Insufficient, Measured, wilson
from modelyard.evaluation.evaluate import evaluate
from modelyard.evaluation.impact_ratio import GroupRate, ImpactRatio, impact_ratio
from modelyard.evaluation.inputs import Sample, Task, read_sample
from modelyard.evaluation.latency import Latency, measure_latency
from modelyard.evaluation.mcnemar import McNemar, mcnemar
from modelyard.evaluation.metrics import METRICS, Metric, metric_names, metric_of
from modelyard.evaluation.msprt import Arm, SequentialTest, default_tau, msprt
from modelyard.evaluation.nadeau_bengio import ResampledT, nadeau_bengio
from modelyard.evaluation.noninferiority import NonInferiority, judge_margin, sequential_noninferiority
from modelyard.evaluation.paired_bootstrap import (
    BootstrapDifference,
    bootstrap_linear,
    bootstrap_means,
    bootstrap_weighted,
)
from modelyard.evaluation.score_skew import ScoreSkew, effective_control, expected_shares, rank_bins
from modelyard.evaluation.sprt import RateTest, rate_to_catch
from modelyard.evaluation.srm import SplitCheck, split_check

__all__ = [
    "METRICS",
    "Arm",
    "BootstrapDifference",
    "Comparison",
    "Estimate",
    "GroupRate",
    "ImpactRatio",
    "Insufficient",
    "Latency",
    "McNemar",
    "Measured",
    "Metric",
    "NonInferiority",
    "PairedAuc",
    "Posterior",
    "RateTest",
    "ResampledT",
    "Sample",
    "ScoreSkew",
    "SequentialTest",
    "SplitCheck",
    "Task",
    "bayesian_correlated_t",
    "bootstrap_linear",
    "bootstrap_means",
    "bootstrap_weighted",
    "compare",
    "default_tau",
    "delong",
    "delong_paired",
    "effective_control",
    "evaluate",
    "expected_shares",
    "impact_ratio",
    "judge_margin",
    "mcnemar",
    "measure_latency",
    "metric_names",
    "metric_of",
    "msprt",
    "nadeau_bengio",
    "not_worse",
    "rank_bins",
    "rate_to_catch",
    "read_sample",
    "sequential_noninferiority",
    "split_check",
    "wilson",
]
