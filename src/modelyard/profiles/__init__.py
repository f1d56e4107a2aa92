"""The one statistical summary: what is kept of the rows of a table, how it adds and how far two differ.

``learn_specs`` fixes bins and levels on reference rows, ``profile`` counts rows into them, ``merge`` adds
profiles exactly in any order, and ``DISTANCES`` compare two of them without the rows. The same object is
training baseline, data check, serving window, feature statistic and table in a document.
"""

from modelyard.profiles import count_distances
from modelyard.profiles.columns import Column, Columns
from modelyard.profiles.counting import profile, profile_column
from modelyard.profiles.describe import describe, describe_table, quantile
from modelyard.profiles.distances import (
    DISTANCES,
    Distance,
    EmptyProfile,
    NotOrdered,
    TwoSampleTest,
    chi_square_statistic,
    chi_square_test,
    expected_psi,
    hellinger_distance,
    jensen_shannon_distance,
    kolmogorov_smirnov_distance,
    kolmogorov_smirnov_test,
    l_infinity_distance,
    population_stability_index,
    wasserstein_distance,
)
from modelyard.profiles.exact import ExactSum
from modelyard.profiles.inputs import read_columns
from modelyard.profiles.learning import infer_kind, learn_column, learn_specs
from modelyard.profiles.model import (
    ColumnProfile,
    TableProfile,
    Unseen,
    empty,
    empty_column,
    merge,
    merge_columns,
)
from modelyard.profiles.spec import ColumnSpec, EdgesDiffer, Kind, TableSpec
from modelyard.profiles.wire import from_bytes, to_bytes

__all__ = [
    "DISTANCES",
    "Column",
    "ColumnProfile",
    "ColumnSpec",
    "Columns",
    "Distance",
    "EdgesDiffer",
    "EmptyProfile",
    "ExactSum",
    "Kind",
    "NotOrdered",
    "TableProfile",
    "TableSpec",
    "TwoSampleTest",
    "Unseen",
    "chi_square_statistic",
    "chi_square_test",
    "count_distances",
    "describe",
    "describe_table",
    "empty",
    "empty_column",
    "expected_psi",
    "from_bytes",
    "hellinger_distance",
    "infer_kind",
    "jensen_shannon_distance",
    "kolmogorov_smirnov_distance",
    "kolmogorov_smirnov_test",
    "l_infinity_distance",
    "learn_column",
    "learn_specs",
    "merge",
    "merge_columns",
    "population_stability_index",
    "profile",
    "profile_column",
    "quantile",
    "read_columns",
    "to_bytes",
    "wasserstein_distance",
]
