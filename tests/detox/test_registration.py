"""The Auto classes know Segment-CNN, though its sizes are read beside those of all models."""

import subprocess
import sys

CODE = """
from lmcore.detox import SegmentCNNConfig
import lmcore.openba
from transformers import AutoConfig, AutoModel
config = AutoConfig.for_model("segment_cnn", hidden_size=8, num_attention_heads=2, vocab_size=9,
                              num_hidden_layers=1, intermediate_size=8)
print(type(config) is SegmentCNNConfig, type(AutoModel.from_config(config)).__name__)
"""


def test_the_auto_classes() -> None:
    command = [sys.executable, "-W", "error", "-c", CODE]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stdout == "True SegmentCNNModel\n"
