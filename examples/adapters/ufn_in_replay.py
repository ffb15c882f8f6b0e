"""UFNRec inside RePlay: negatives outside of whole histories, and false negatives mined.

    transforms = make_default_sasrec_transforms(schema)
    transforms["train"].append(UFNNegatives(sampler, count=100))
    model = SasRec(body, loss=UFNLoss(threshold=5, start=2000))

`sampler` is a `SequenceSampler` over the items of all users, each id of RePlay's plus 1, as 0 is
none here. `UFNNegatives` alone, with any of RePlay's sampled losses, changes the negatives and
nothing else. The schema has a feature of users; only the last item of a position is a positive.
"""

import torch
from replay.nn.loss import BCESampled
from torch.nn.functional import binary_cross_entropy_with_logits as bce

from lmcore.recsys import FalseNegativeMiner, StepStart


class UFNNegatives(torch.nn.Module):
    """The last of the transforms for training: negatives that a user has never had."""

    def __init__(self, sampler, count, user="user_id"):
        super().__init__()
        self.sampler, self.count, self.user = sampler, count, user

    def forward(self, batch):
        users = batch["feature_tensors"][self.user].cpu() + 1
        valid = batch["target_padding_mask"][..., 0].long()
        seed = int(torch.randint(2**62, ()))
        drawn = self.sampler.draw(users, valid.cpu(), count=self.count, seed=seed)
        negatives = torch.from_numpy(drawn).to(valid.device) - 1
        return batch | {"negative_labels": negatives.clamp_min(0)}


class UFNLoss(BCESampled):
    """RePlay's sampled BCE, with the labels that the miner turns."""

    def __init__(self, threshold=5, start=0, user="user_id"):
        super().__init__()
        self.miner = FalseNegativeMiner(threshold=threshold, start=StepStart(start))
        self.user, self.step = user, 0

    def forward(self, model_embeddings, feature_tensors, positive_labels, negative_labels, **masks):
        self.step += 1
        users, valid = feature_tensors[self.user] + 1, masks["target_padding_mask"][..., 0]
        positives = (positive_labels[..., 0] + 1) * valid
        injection = self.miner.inject(users, positives, negative_labels[valid] + 1)
        items = torch.cat([positives[valid][:, None], injection.negatives], 1) - 1
        logits = self.logits_callback(model_embeddings[valid], items)
        self.miner.update_start(1, self.step, [])
        self.miner.observe(users, positives, injection, logits)
        return bce(logits, injection.labels, reduction="sum") / len(logits)
