"""The words of a metric's name say whether more of it is better."""

import pytest

from lib.better import better_when

pytestmark = pytest.mark.unittest

LOWER = """rmse MAE mse log_loss logLoss val_loss brier_score mean_absolute_error error_rate
    max_deviation cross_entropy false_positive_rate davies_bouldin_score neg_log_likelihood
    hamming_loss rmse_usd mean_squared_log_error wape errors MASE RMSSE crps pinball_0.9
    winkler_score hausdorff_distance ECE aic
    davies_bouldin_index KL-divergence total_cost latency_ms loss1 false_neg
    false_neg_rate mae_neg"""
HIGHER = """accuracy roc_auc ROC-AUC precision precision@10 precision@0.5 recall_rare f1
    F1Score r2 R2 r2_score explained_variance_score top5_accuracy mAP@50 ndcg@10
    neg_mean_squared_error neg_log_loss log_likelihood balanced_accuracy mean_iou recall.0 hits@10
    hit_rate concordance_index c_index val_c_index C-Index jaccard_index
    adjusted_rand_index spearman_corr profit IoU mIoU mean_IoU systemIoU rouge1 bleu4 acc1
    ndcg10 gini"""
NOT_JUDGED = """rows best_epoch size_bytes learning_rate seconds precision_threshold accuracy_std
    accuracy_loss brier_skill_score d2_absolute_error_score error_count loss_weight auc_drop
    support cluster index xyz gini_impurity"""


@pytest.mark.parametrize(
    ("name", "direction"),
    [
        *((name, -1) for name in LOWER.split()),
        *((name, 1) for name in HIGHER.split()),
        *((name, 0) for name in NOT_JUDGED.split()),
    ],
)
def test_the_words_of_a_name_say_whether_more_is_better(name, direction):
    assert better_when(f"loss.accuracy.{name}") == direction


@pytest.mark.parametrize(
    ("key", "direction"),
    [
        ("validation.recall.false", 1),
        ("validation.recall_by_class.error", 1),
        ("validation.precision.setosa", 1),
        ("validation.accuracy.False", 1),
        ("validation.log_loss.true", -1),
        ("validation.recall.std", 0),
        ("validation.recall.rmse.seconds", 0),
        ("recall_model.log_loss", -1),
        ("missing_share.credit_score", 0),
        ("rows.accuracy", 0),
        ("market_share.test.rmse", -1),
    ],
)
def test_a_parent_key_decides_for_names_of_classes_and_columns(key, direction):
    assert better_when(key) == direction
