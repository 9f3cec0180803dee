"""Whether a metric is better when it is larger: one rule, for training, comparison and reports."""

import re
from collections.abc import Sequence

# Words in the names of metrics that are better when lower, or higher.
LOWER = """loss losses logloss crossentropy brier error errors deviation deviance rmse rmsle mae mse
    msle mape smape wape rmspe mase rmsse mdape medae crps pinball winkler nll perplexity hinge wer
    cer fid eer ece fpr fnr false misclassification bouldin hausdorff distance divergence regret
    aic bic cost costs latency impurity"""
HIGHER = """accuracy acc auc auroc auprc rocauc ap map precision recall sensitivity specificity f1
    f2 fbeta r2 d2 explained ndcg mrr hit hits dice iou miou jaccard kappa mcc matthews bleu rouge
    psnr ssim silhouette likelihood skill tpr tnr gini lift concordance cindex correlation corr
    pearson spearman kendall rand ari nmi ami homogeneity completeness calinski purity meteor reward
    profit revenue throughput"""
NOT_QUALITY = """count n num number support size rows samples epoch epochs step steps iteration
    iterations threshold weight std stddev stderr drop gap difference diff delta"""
# Below a key made of the first words only, keys are classes; below one with any of the second, keys
# are no metrics.
BY_CLASS = "precision recall f1 sensitivity specificity iou dice jaccard by per class score scores"
NOT_METRICS = "share shares rows count counts missing"
LOWER_WORDS, HIGHER_WORDS, NEUTRAL_WORDS, BY_CLASS_WORDS, NOT_METRICS_WORDS = (
    frozenset(words.split()) for words in (LOWER, HIGHER, NOT_QUALITY, BY_CLASS, NOT_METRICS)
)
KNOWN_WORDS = LOWER_WORDS | HIGHER_WORDS
# Higher, unless another word says lower: brier_score.
GENERIC_WORDS = frozenset({"score", "scores"})


def better_when(key: str) -> int:
    """1 if a larger value of a metric is better, -1 if a smaller one is, 0 if its name is unclear.

    The last part of the key with letters decides: `precision` in `test.precision@0.5`. For a
    measure by class, the measure decides: `recall` in `test.recall.false`. Unclear are also names
    with words of both kinds, counts, thresholds and deviations of a metric, and keys below a count
    or a share: `credit_score` in `missing_share.credit_score`.
    """
    parts = [part for part in key.split(".") if re.search("[a-zA-Z]", part)]
    names = [words_of(part) for part in parts if part.lower() not in ("true", "false")]
    words, above = (*reversed(names), [], [])[:2]
    if NEUTRAL_WORDS & set(words) or NOT_METRICS_WORDS & set(above):
        return 0
    if HIGHER_WORDS & set(above) and set(above) <= BY_CLASS_WORDS:
        words = above
    words = [w if w in KNOWN_WORDS else w.rstrip("0123456789") for w in words]  # f1; ndcg10
    lower, higher = LOWER_WORDS & set(words), HIGHER_WORDS & set(words)
    if lower and higher:
        return 0
    found = -1 if lower else 1 if higher or GENERIC_WORDS & set(words) else 0
    return -found if is_negated(words) else found


def words_of(name: str) -> list[str]:
    """The words of a name in any style: `log_loss`, `logLoss`, `Log-Loss`, `R2`, `ROC AUC`."""
    name = re.sub("cross[_ -]?entropy", "crossentropy", name, flags=re.IGNORECASE)
    name = re.sub(r"(?<![a-z])c[_ -]?index", "cindex", name, flags=re.IGNORECASE)
    name = re.sub(r"(?<![A-Za-z])mIoU|IoU", lambda found: found[0].title(), name)
    parts = re.findall(r"[A-Z]+(?![a-z])\d*|[A-Z]?[a-z]+\d*|\d+", name)
    return [part.lower() for part in parts]


def is_negated(words: Sequence[str]) -> bool:
    """Whether it is a negated loss, as in scikit-learn, or a negative likelihood."""
    if "likelihood" in words:
        return bool({"neg", "negative"} & set(words))
    return "neg" in words and bool(LOWER_WORDS & set(words[words.index("neg") :]))
