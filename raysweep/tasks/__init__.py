"""One file per downstream task: head, loss, metrics, evaluation."""
