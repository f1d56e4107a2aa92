import numpy as np
import pytest

from modelyard.evaluation import Insufficient, bayesian_correlated_t, nadeau_bengio

stats = pytest.importorskip("scipy.stats")
DIFFERENCES = np.array([0.012, 0.03, -0.004, 0.021, 0.017, 0.008, 0.025, 0.011, -0.002, 0.019])


def test_without_shared_training_rows_it_is_the_t_test():
    found = nadeau_bengio(DIFFERENCES, test_share=1e-12)
    plain = stats.ttest_1samp(DIFFERENCES, 0)
    assert found.t == pytest.approx(plain.statistic)
    assert found.p_value == pytest.approx(plain.pvalue)
    assert found.bounds(confidence=0.9) == pytest.approx(tuple(plain.confidence_interval(0.9)))


def test_ten_folds_correct_the_variance():
    found = nadeau_bengio(DIFFERENCES, test_share=0.1)
    se = np.sqrt((1 / 10 + 1 / 9) * DIFFERENCES.var(ddof=1))
    assert found.se == pytest.approx(se)
    assert found.p_greater == pytest.approx(stats.t.sf(DIFFERENCES.mean() / se, 9))
    assert found.df == 9


def test_posterior_is_the_shifted_student():
    found = bayesian_correlated_t(DIFFERENCES, test_share=0.1, rope=0.01)
    student = stats.t(9, loc=DIFFERENCES.mean(), scale=np.sqrt((1 / 10 + 1 / 9) * DIFFERENCES.var(ddof=1)))
    assert found.worse == pytest.approx(student.cdf(-0.01))
    assert found.better == pytest.approx(student.sf(0.01))
    assert found.equivalent == pytest.approx(student.cdf(0.01) - student.cdf(-0.01))


def test_equal_differences_leave_no_doubt():
    assert nadeau_bengio([0.0] * 5, test_share=0.2).p_greater == 0.5
    assert nadeau_bengio([0.25] * 5, test_share=0.2).p_greater == 0.0
    assert nadeau_bengio([-0.25] * 5, test_share=0.2).p_greater == 1.0
    sure = bayesian_correlated_t([0.25] * 5, test_share=0.2, rope=0.1)
    assert (sure.worse, sure.equivalent, sure.better) == (0.0, 0.0, 1.0)


@pytest.mark.parametrize("differences", [[], [0.1], [0.1, np.nan]])
def test_too_few_folds_are_an_answer(differences):
    assert isinstance(nadeau_bengio(differences, test_share=0.1), Insufficient)
    assert isinstance(bayesian_correlated_t(differences, test_share=0.1, rope=0.0), Insufficient)
