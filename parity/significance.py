"""Writes fixtures/statistics.json: tests, corrections and quantiles of scipy.stats and statsmodels.

Pinned: scipy 1.17.1, statsmodels 0.15.0, numpy 2.4.6. Seed 0.
`python parity/significance.py` (a script called statistics.py would hide the standard library's module from its neighbours)

`wilcoxon`: differences, options, and what scipy returns; null where scipy's p-value is no number (all differences 0).
"""

import itertools
import json
import pathlib
import warnings

import numpy as np
from scipy import stats
from statsmodels.stats.multitest import multipletests

ROOT = pathlib.Path(__file__).resolve().parent.parent
ZEROS = ("wilcox", "pratt", "zsplit")
ALTERNATIVES = ("two-sided", "greater", "less")


def samples(rng):
    for n in (1, 2, 3, 5, 6, 9, 13, 14, 25, 50, 51, 80):
        yield f"continuous_{n}", rng.normal(0.25, 1, n)
    for n in (2, 4, 7, 12, 13, 14, 40, 60):
        yield f"ties_{n}", np.round(rng.normal(0.6, 1.5, n)) + 0.5  # halves: many ties, no zeros
        yield f"zeros_{n}", np.round(rng.normal(0.4, 1.2, n))
    for n in (1, 5, 13, 14, 60):
        yield f"all_zero_{n}", np.zeros(n)
    yield "one_sided_8", rng.uniform(0.01, 1, 8)
    yield "symmetric_6", np.array([-3.0, -2, -1, 1, 2, 3])
    yield "far_80", rng.normal(3, 1, 80)


def number(value):
    return float(value) if np.isfinite(value) else None


def wilcoxon_cases(rng):
    for name, differences in samples(rng):
        for zero_method, alternative in itertools.product(ZEROS, ALTERNATIVES):
            for method, correction in (("auto", False), ("asymptotic", False), ("asymptotic", True), ("exact", False)):
                options = dict(zero_method=zero_method, alternative=alternative, method=method, correction=correction)
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    try:
                        found = stats.wilcoxon(differences, **options)
                    except ValueError:
                        assert len(differences) == 1 and differences[0] == 0, name  # too few to permute
                        continue
                yield dict(
                    name=name,
                    **options,
                    statistic=number(found.statistic),
                    p=number(found.pvalue),
                    z=number(found.zstatistic) if method == "asymptotic" else None,
                )


def main():
    rng = np.random.default_rng(0)
    named = {name: values.tolist() for name, values in samples(np.random.default_rng(0))}
    out = {"samples": named, "wilcoxon": list(wilcoxon_cases(np.random.default_rng(0)))}

    out["corrections"] = []
    for p in ([0.3], [0.04, 0.01, 0.03], [0.0, 1.0, 0.5, 0.5], rng.uniform(0, 1, 21).tolist(), (rng.uniform(0, 1, 15) ** 3).tolist()):
        holm = multipletests(p, method="holm")[1]
        fdr = multipletests(p, method="fdr_bh")[1]
        np.testing.assert_allclose(fdr, stats.false_discovery_control(p), rtol=1e-12)
        out["corrections"].append(dict(p=p, holm=holm.tolist(), benjamini_hochberg=fdr.tolist()))

    out["friedman"] = []
    for n, k, digits in ((3, 3, 6), (10, 3, 6), (61, 5, 6), (20, 4, 1), (14, 8, 2), (7, 4, 0)):
        scores = np.round(rng.uniform(0, 1, (n, k)) + np.linspace(0, 0.4, k), digits)
        statistic, p = stats.friedmanchisquare(*scores.T)
        ranks = stats.rankdata(-scores, axis=1).mean(axis=0)
        out["friedman"].append(dict(scores=scores.tolist(), statistic=statistic, p=p, average_ranks=ranks.tolist()))

    out["normal"] = [dict(z=z, cdf=stats.norm.cdf(z)) for z in (-9.5, -3, -1.2, -0.1, 0.0, 0.7, 2.5, 6)]
    out["chi_squared"] = [
        dict(x=x, degrees=d, sf=stats.chi2.sf(x, d)) for x in (0.01, 0.7, 3, 11, 45, 200) for d in (1, 2, 3, 4, 5, 6, 7, 12, 35)
    ]
    out["studentized_range"] = [
        dict(groups=k, probability=p, q=stats.studentized_range.ppf(p, k, np.inf)) for k in (2, 3, 4, 5, 8, 12, 36) for p in (0.5, 0.9, 0.95, 0.99)
    ]

    out["cliffs_delta"] = []
    for n, m in ((4, 4), (7, 12), (30, 30)):
        a, b = np.round(rng.normal(0.3, 1, n), 1), np.round(rng.normal(0, 1, m), 1)
        u = stats.mannwhitneyu(a, b).statistic
        out["cliffs_delta"].append(dict(a=a.tolist(), b=b.tolist(), delta=2 * u / (n * m) - 1))

    out["hodges_lehmann"] = []
    for n in (1, 2, 5, 6, 12, 33):
        d = np.round(rng.normal(0.2, 1, n), 2)
        walsh = np.sort([(d[i] + d[j]) / 2 for i in range(n) for j in range(i + 1)])
        # The null distribution by convolution; the interval leaves out what a two-sided test at 0.05 rejects.
        mass = np.ones(1)
        for rank in range(1, n + 1):
            mass = 0.5 * (np.pad(mass, (0, rank)) + np.pad(mass, (rank, 0)))
        cut = max(int(np.searchsorted(np.cumsum(mass), 0.025, side="right")), 1)
        out["hodges_lehmann"].append(
            dict(differences=d.tolist(), value=float(np.median(walsh)), low=walsh[cut - 1], high=walsh[len(walsh) - cut])
        )

    for values in (rng.uniform(0, 1, 40), rng.normal(0.01, 0.05, 100)):
        found = stats.bootstrap((values,), np.mean, n_resamples=20000, method="percentile", rng=1).confidence_interval
        out.setdefault("bootstrap", []).append(dict(values=values.tolist(), low=found.low, high=found.high))

    path = ROOT / "fixtures" / "statistics.json"
    path.write_text(json.dumps(out, separators=(",", ":"), allow_nan=False).replace("},{", "},\n{") + "\n")


if __name__ == "__main__":
    main()
