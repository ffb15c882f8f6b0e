"""From made-up texts to a small OpenBA that goes on with a text: pack, denoise, train, generate."""

import tempfile
from pathlib import Path

import torch

from lmcore import openba
from lmcore.ops.denoising import SpecialIds, ul2
from lmcore.worlds.openba import make_world, write_piece_file

STEPS, LENGTH, SEED, RATE = 120, 46, 0, 0.01
PROMPTS = ["Ada the baker lived in Kelp.", "大海是住在茶乡的铁匠。"]


def make_batches(folder: Path) -> tuple[openba.OpenBATokenizer, openba.DenoisedBatches]:
    """Returns a tokenizer, and batches of texts that the seven denoisers of UL2 took words from."""
    (folder / "texts.txt").write_text(make_world(SEED, documents=3000).to_text(), encoding="utf-8")
    write_piece_file(folder / "spiece.model")
    tokenizer = openba.OpenBATokenizer(folder / "spiece.model")
    openba.pack_files([folder / "texts.txt"], tokenizer, folder / "texts", length=LENGTH)
    data = openba.IndexedDataset(folder / "texts", vocabulary_size=len(tokenizer))
    ids = SpecialIds(vocabulary_size=len(tokenizer), first_sentinel=tokenizer.sentinel_ids[0])
    kinds = ul2(*tokenizer.prefix_ids.values())
    texts = data.read_sources(range(len(data)))
    return tokenizer, openba.DenoisedBatches(texts, 32, 16, seed=SEED, denoisers=kinds, ids=ids)


if __name__ == "__main__":
    torch.set_num_threads(1)  # its matrices are too small to be shared out
    torch.manual_seed(SEED)
    with tempfile.TemporaryDirectory() as name:
        tokenizer, batches = make_batches(Path(name))
    config = openba.OpenBAConfig(
        vocab_size=tokenizer.padded_size(), hidden_size=64, kv_channels=20, num_heads=4,
        ffn_hidden_size=256, encoder_layers=1, decoder_layers=2, tie_word_embeddings=False,
        hidden_dropout=0.0, attention_dropout=0.0, initializer_range=0.1,
        pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    model = openba.OpenBAForConditionalGeneration(config)
    optimizer = torch.optim.AdamW(model.parameters(), RATE, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, STEPS, pct_start=0.1)
    for step in range(1, STEPS + 1):
        # Samples of like lengths come together: the mixture, and the loss, are the whole step's.
        parts, total = batches(step), 0.0
        count = sum(int(part.decoder_lengths.sum()) for part in parts)
        for part in parts:
            ids, labels, mask = map(torch.from_numpy, (part.encoder, part.labels, part.masks()[0]))
            loss = model(ids, mask, labels=labels, num_items_in_batch=count).loss
            loss.backward()
            total += loss.item()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        if step in (1, STEPS):
            print(f"step {step:3}: loss {total:.2f} for each token")
    generate = openba.TextGenerator(model, tokenizer, openba.Generation(max_new_tokens=24))
    for prompt, answer in zip(PROMPTS, generate(PROMPTS), strict=True):
        print(f"{prompt} ...{answer.text}")
