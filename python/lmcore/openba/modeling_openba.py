"""OpenBA: an encoder-decoder with rotary positions whose decoder may be deeper than its encoder.

Shapes: B rows, S source tokens, T target tokens, D hidden size, V vocabulary.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import GenerationMixin
from transformers.cache_utils import EncoderDecoderCache
from transformers.modeling_outputs import BaseModelOutput, Seq2SeqLMOutput, Seq2SeqModelOutput
from transformers.modeling_utils import slice_logits_to_keep
from transformers.utils.generic import can_return_tuple

from lmcore.openba.attention import place
from lmcore.openba.checkpoints import EMBEDDING, register_names
from lmcore.openba.configuration_openba import OpenBAConfig
from lmcore.openba.masks import read_mask
from lmcore.openba.stacks import OpenBADecoder, OpenBAEncoder, OpenBAPreTrainedModel

IGNORED_LABEL = -100
"""What a label is that the loss leaves out."""

# What parts of the model do not read from a file of the whole.
_NO_HEAD = [r"^lm_head\."]
_NO_DECODER = [r"^decoder\.", *_NO_HEAD]
_TIED = {"lm_head.weight": EMBEDDING}
_HEAD_PLAN = {"lm_head": "colwise_gather_output"}

register_names()


class _EncoderDecoder(OpenBAPreTrainedModel):
    """Both stacks; the encoder holds the embedding, which the decoder's input passes as well."""

    def __init__(self, config: OpenBAConfig) -> None:
        super().__init__(config)
        self.encoder = OpenBAEncoder(config)
        self.decoder = OpenBADecoder(config)

    def get_input_embeddings(self) -> nn.Module:
        """Returns the embedding of both stacks."""
        return self.encoder.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Takes another embedding for both stacks.

        Args:
            value: the embedding.
        """
        self.encoder.set_input_embeddings(value)

    def get_encoder(self, modality: str | None = None) -> OpenBAEncoder:
        """Returns the encoder.

        Args:
            modality: text, the only one.
        """
        return self.encoder

    def get_decoder(self) -> OpenBADecoder:
        """Returns the decoder."""
        return self.decoder

    def _run(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        decoder_position_ids: Tensor | None = None,
        encoder_outputs: Any = None,
        cache: EncoderDecoderCache | None = None,
        inputs_embeds: Tensor | None = None,
        decoder_inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        **kwargs: Any,
    ) -> Seq2SeqModelOutput:
        if (decoder_input_ids is None) == (decoder_inputs_embeds is None):
            raise ValueError(
                "give decoder_input_ids or decoder_inputs_embeds, and not both; labels give them "
                "to OpenBAForConditionalGeneration"
            )
        if encoder_outputs is None:
            encoder_outputs = self.encoder(
                input_ids=input_ids,
                attention_mask=attention_mask,
                position_ids=position_ids,
                inputs_embeds=inputs_embeds,
                **kwargs,
            )
        elif not isinstance(encoder_outputs, BaseModelOutput):
            encoder_outputs = BaseModelOutput(*encoder_outputs)
        if decoder_inputs_embeds is None:
            decoder_inputs_embeds = self.encoder.embed_tokens(decoder_input_ids)
        output = self.decoder(
            inputs_embeds=decoder_inputs_embeds,
            encoder_hidden_states=encoder_outputs.last_hidden_state,
            attention_mask=decoder_attention_mask,
            encoder_attention_mask=attention_mask,
            position_ids=decoder_position_ids,
            cache=cache,
            use_cache=use_cache,
            **kwargs,
        )
        return Seq2SeqModelOutput(
            last_hidden_state=output.last_hidden_state,
            cache=output.cache,
            decoder_hidden_states=output.hidden_states,
            decoder_attentions=output.attentions,
            cross_attentions=output.cross_attentions,
            encoder_last_hidden_state=encoder_outputs.last_hidden_state,
            encoder_hidden_states=encoder_outputs.hidden_states,
            encoder_attentions=encoder_outputs.attentions,
        )


class OpenBAModel(_EncoderDecoder):
    """Returns the decoder's states, without the output layer.

    Args:
        config: the sizes.

    Example:
        >>> config = OpenBAConfig(
        ...     vocab_size=9, hidden_size=8, encoder_layers=1, decoder_layers=2
        ... )
        >>> model = OpenBAModel(config)
        >>> ids = torch.tensor([[3, 1]])
        >>> model(ids, decoder_input_ids=ids).last_hidden_state.shape
        torch.Size([1, 2, 8])
    """

    _keys_to_ignore_on_load_unexpected = _NO_HEAD

    def __init__(self, config: OpenBAConfig) -> None:
        super().__init__(config)
        self.post_init()  # type: ignore[no-untyped-call]

    @can_return_tuple  # type: ignore[untyped-decorator]
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        **kwargs: Any,
    ) -> Seq2SeqModelOutput:
        """Returns the states of both stacks.

        Args:
            input_ids: `[B, S]` int64.
            attention_mask: `[B, S]`, visible where at least 0.5; None hides nothing: padding is
                not told from the ids.
            decoder_input_ids: `[B, T]` int64.
            decoder_attention_mask: `[B, T]`, as the source's; later tokens are hidden anyway.
            kwargs: as for `OpenBAForConditionalGeneration`, except labels.

        Raises:
            ValueError: ids and embeddings are both given or both absent, or a mask's shape is
                another.
        """
        return self._run(
            input_ids, attention_mask, decoder_input_ids, decoder_attention_mask, **kwargs
        )


class OpenBAForConditionalGeneration(_EncoderDecoder, GenerationMixin):
    """Returns logits of the next target tokens; generates, trains, and loads released folders.

    Args:
        config: the sizes.

    Example:
        >>> config = OpenBAConfig(
        ...     vocab_size=9, hidden_size=8, encoder_layers=1, decoder_layers=2
        ... )
        >>> model = OpenBAForConditionalGeneration(config)
        >>> ids = torch.tensor([[3, 4, 1]])
        >>> model(ids, labels=ids).logits.shape
        torch.Size([1, 3, 9])
        >>> model.generate(ids, max_new_tokens=1).shape
        torch.Size([1, 2])
    """

    _tied_weights_keys = _TIED
    _tp_plan = _HEAD_PLAN

    def __init__(self, config: OpenBAConfig) -> None:
        super().__init__(config)
        size, bias = config.vocab_size, config.add_lm_head_bias
        self.lm_head = nn.Linear(config.hidden_size, size, bias=bias)
        self.loss_type = "ForMaskedLM"
        self.post_init()  # type: ignore[no-untyped-call]

    @can_return_tuple  # type: ignore[untyped-decorator]
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        decoder_position_ids: Tensor | None = None,
        encoder_outputs: Any = None,
        cache: EncoderDecoderCache | None = None,
        inputs_embeds: Tensor | None = None,
        decoder_inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        num_items_in_batch: int | Tensor | None = None,
        **kwargs: Any,
    ) -> Seq2SeqLMOutput:
        """Returns logits, and the mean loss of the labels where they are given.

        Args:
            input_ids: `[B, S]` int64.
            attention_mask: `[B, S]`, visible where at least 0.5; None hides nothing: padding is
                not told from the ids.
            decoder_input_ids: `[B, T]` int64, new ones where a cache is given; the labels
                shifted to the right if None.
            decoder_attention_mask: `[B, past + T]`, as the source's, later tokens being hidden
                anyway; `[B, T, past + T]` bool is taken as it is.
            position_ids: `[B or 1, S]` int64; as the configuration says if None.
            decoder_position_ids: `[B or 1, T]` int64, likewise.
            encoder_outputs: of an earlier call, in place of the source's ids.
            cache: keys and values of earlier target tokens; it is extended.
            inputs_embeds: `[B, S, D]` in place of `input_ids`.
            decoder_inputs_embeds: `[B, T, D]` in place of `decoder_input_ids`.
            labels: `[B, T]` int64, -100 where the loss leaves a token out.
            use_cache: whether to return a cache; as the configuration says if None, and not where
                labels are given.
            logits_to_keep: number of last positions whose logits are returned, or their indices;
                0 is all.
            num_items_in_batch: what the sum of losses is divided by, in place of the number of
                labels here.
            kwargs: of transformers, such as `output_hidden_states`.

        Returns:
            `logits` `[B, T, V]` float32 and `loss`, beside states, attentions and cache.

        Raises:
            ValueError: ids and embeddings are both given or both absent, or a mask's shape is
                another.
            IndexError: an id lies outside the vocabulary.
        """
        if labels is not None:
            use_cache = False if use_cache is None else use_cache
            if decoder_input_ids is None and decoder_inputs_embeds is None:
                decoder_input_ids = self.prepare_decoder_input_ids_from_labels(labels)
        output = self._run(
            input_ids,
            attention_mask,
            decoder_input_ids,
            decoder_attention_mask,
            position_ids,
            decoder_position_ids,
            encoder_outputs,
            cache,
            inputs_embeds,
            decoder_inputs_embeds,
            use_cache,
            **kwargs,
        )
        last: Any = output.last_hidden_state
        states = slice_logits_to_keep(last, logits_to_keep)
        if self.config.tie_word_embeddings:
            states = states * self.config.hidden_size**-0.5
        logits = self.lm_head(states).float()
        loss = None
        if labels is not None:
            loss = self.loss_function(
                logits, labels, self.config.vocab_size, num_items_in_batch=num_items_in_batch
            )
        return Seq2SeqLMOutput(
            loss=loss,
            logits=logits,
            cache=output.cache,
            decoder_hidden_states=output.decoder_hidden_states,
            decoder_attentions=output.decoder_attentions,
            cross_attentions=output.cross_attentions,
            encoder_last_hidden_state=output.encoder_last_hidden_state,
            encoder_hidden_states=output.encoder_hidden_states,
            encoder_attentions=output.encoder_attentions,
        )

    def prepare_decoder_input_ids_from_labels(self, labels: Tensor) -> Tensor:
        """Returns labels shifted to the right, behind the start token, -100 as padding.

        Args:
            labels: `[B, T]` int64.
        """
        start = torch.full_like(labels[:, :1], self.config.decoder_start_token_id)
        shifted = torch.cat([start, labels[:, :-1]], 1)
        return shifted.masked_fill(shifted == IGNORED_LABEL, self.config.pad_token_id)

    def prepare_inputs_for_generation(self, input_ids: Tensor, **kwargs: Any) -> dict[str, Any]:
        """Returns what `generate` calls the model with.

        A static cache gets a mask of four dimensions, from which shifted positions cannot be told,
        so they are counted before.

        Args:
            input_ids: `[B, T]` int64, target tokens so far.
            kwargs: what else `generate` keeps.
        """
        mask = kwargs.get("decoder_attention_mask")
        if self.config.shift_positions and mask is not None and mask.ndim == 2:
            length = mask.shape[1]
            positions = place(length, 0, read_mask(mask), shift=True, device=mask.device)
            kwargs.setdefault("decoder_position_ids", positions)
        inputs: dict[str, Any] = super().prepare_inputs_for_generation(input_ids, **kwargs)
        return inputs


class OpenBAEncoderModel(OpenBAPreTrainedModel):
    """Returns the encoder's states alone; released folders load into it.

    Args:
        config: the sizes.

    Example:
        >>> config = OpenBAConfig(vocab_size=9, hidden_size=8, encoder_layers=1)
        >>> OpenBAEncoderModel(config)(torch.tensor([[3, 1]])).last_hidden_state.shape
        torch.Size([1, 2, 8])
    """

    _keys_to_ignore_on_load_unexpected = _NO_DECODER

    def __init__(self, config: OpenBAConfig) -> None:
        super().__init__(config)
        self.encoder = OpenBAEncoder(config)
        self.post_init()  # type: ignore[no-untyped-call]

    def get_input_embeddings(self) -> nn.Module:
        """Returns the embedding."""
        return self.encoder.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Takes another embedding.

        Args:
            value: the embedding.
        """
        self.encoder.set_input_embeddings(value)

    @can_return_tuple  # type: ignore[untyped-decorator]
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        **kwargs: Any,
    ) -> BaseModelOutput:
        """Returns the states of the source tokens.

        Args:
            input_ids: `[B, S]` int64.
            attention_mask: `[B, S]`, visible where at least 0.5; None hides nothing.
            kwargs: as for the encoder.

        Raises:
            ValueError: ids and embeddings are both given or both absent, or the mask's shape is
                another.
        """
        output: BaseModelOutput = self.encoder(input_ids, attention_mask, **kwargs)
        return output
