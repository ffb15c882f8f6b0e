"""UFNRec inside RecTools: negatives outside of whole histories, and false negatives mined.

    SASRecModel(
        loss="BCE",
        n_negatives=100,
        data_preparator_type=UFNBatches,
        lightning_module_type=UFNModule,
        lightning_module_kwargs={"threshold": 5, "start": 2000},
    )

`UFNBatches` alone, with any of RecTools' sampled losses, changes the negatives and nothing else.
"""

import torch
from rectools import Columns
from rectools.models.nn.transformers.lightning import TransformerLightningModule
from rectools.models.nn.transformers.sasrec import SASRecDataPreparator
from torch.nn.functional import binary_cross_entropy_with_logits as bce

from lmcore.recsys import FalseNegativeMiner, SequenceSampler, StepStart


class UFNBatches(SASRecDataPreparator):
    """RecTools' batches with their users, and negatives that these have never had."""

    def _filter_train_interactions(self, train_interactions):
        self.whole = train_interactions  # before it is cut to the last items of each user
        return super()._filter_train_interactions(train_interactions)

    def process_dataset_train(self, dataset):
        super().process_dataset_train(dataset)
        users, items = self.train_dataset.user_id_map, self.train_dataset.item_id_map
        pairs = self.whole[[Columns.User, Columns.Item]].copy()
        pairs[Columns.User] = pairs[Columns.User].map(users.to_internal)
        pairs[Columns.Item] = pairs[Columns.Item].map(items.to_internal)
        pairs = pairs.dropna().astype(int).sort_values(Columns.User, kind="stable")
        ends = pairs[Columns.User].value_counts(sort=False).reindex(range(users.size)).cumsum()
        self.sampler = SequenceSampler([0, *ends], pairs[Columns.Item], items.size - 1)
        # A column of users that batches keep; RecTools counts them from 0.
        self.train_dataset.interactions.df.eval("row = user_id + 1", inplace=True)

    def _collate_fn_train(self, batch):
        rows = super()._collate_fn_train(batch)
        rows["users"] = torch.tensor([extras["row"][0] for _, _, extras in batch])
        seed = int(torch.randint(2**62, ()))
        drawn = self.sampler.draw(rows["users"], rows["y"], count=self.n_negatives, seed=seed)
        return rows | {"negatives": torch.from_numpy(drawn)}


class UFNModule(TransformerLightningModule):
    """RecTools' BCE, with the labels that the miner turns."""

    def __init__(self, *args, threshold=5, start=0, **kwargs):
        super().__init__(*args, **kwargs)
        self.miner = FalseNegativeMiner(threshold=threshold, start=StepStart(start))

    def training_step(self, batch, batch_idx):
        users, y = batch["users"], batch["y"]
        injection = self.miner.inject(users, y, batch["negatives"])
        logits = self.get_batch_logits(batch | {"negatives": injection.negatives})
        self.miner.update_start(self.current_epoch + 1, self.global_step + 1, [])
        self.miner.observe(users, y, injection, logits)
        loss = bce(logits, injection.labels, reduction="none").mean(-1) * (y != 0) * batch["yw"]
        loss = loss.sum() / (y != 0).sum()
        self.log(self.train_loss_name, loss, on_step=False, on_epoch=True)
        return loss
