"""What each token of a conversation is shown as."""

import json

from chat_families import CONTROL, byte_pairs

from tfsft.data import ChatEncoder, choose_template
from tfsft.data.token_xray import draw_xray, legend, token_xray
from tfsft.models.chat_tokenizer import from_hugging_face

TALK = [
    {"role": "user", "content": "Hello there"},
    {"role": "assistant", "content": "My name is Ada."},
]


def encoder(max_length):
    options = {"eos_token": CONTROL[2], "unk_token": CONTROL[0]}
    tokenizer = from_hugging_face(json.loads(byte_pairs().to_str()), options, "tiny")
    return ChatEncoder(tokenizer, choose_template("chatml", None, tokenizer), max_length)


def test_tokens_are_learned_read_or_cut():
    tokens = token_xray(encoder(512), TALK)
    learned = [token for token in tokens if token.state == "learned"]
    assert "".join(token.text for token in learned) == "My name is Ada.<|im_end|>"
    assert learned[-1].control
    assert {token.state for token in tokens} == {"learned", "read"}
    assert sum(token.control for token in tokens) == 4
    plain = draw_xray(tokens, colours=False).plain
    assert "assistant\n[My name is Ada.<|im_end|>]\n" in plain
    assert draw_xray(tokens).plain == "".join(token.text for token in tokens)
    assert "[learned]" in legend(colours=False).plain


def test_what_is_learned_here_is_what_a_batch_learns():
    for max_length in (9, 20, 23, 512):
        some = encoder(max_length)
        tokens = token_xray(some, TALK)
        columns, rows, _ = some.encode({"messages": [TALK]}, 0)
        assert sum(token.state == "learned" for token in tokens) == rows["trained"][0]
        targets = columns["targets"].values
        learned = [t for t in tokens if t.state == "learned"]
        assert some.tokenizer.pieces(targets[targets >= 0]) == [t.text for t in learned]
    assert any(token.state == "cut" for token in token_xray(encoder(20), TALK))
