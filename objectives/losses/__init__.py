"""What losses are made of: log-ratios, clips, KL estimators, terms by level, reductions, metrics."""
