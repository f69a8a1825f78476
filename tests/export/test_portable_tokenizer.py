"""A tokenizer.json gives the tokens that a model was trained on."""

import pytest
import text_families
from text_runs import TEXTS
from tokenizers import Tokenizer

from tfsft import models
from tfsft.export.portable_tokenizer import write_tokenizer

MORE = ["[CLS] <s> </s>", "İstanbul ẞ ﬁ ½ ａｂ", "  two  spaces ", "x" * 120, "don't 123,456.7 a_b"]


def loaded(family, folder):
    text_families.save_tiny(family, folder / family)
    tokenizer = models.load_text_backbone(str(folder / family)).tokenizer
    write_tokenizer(tokenizer, folder / "tokenizer.json")
    return tokenizer, Tokenizer.from_file(str(folder / "tokenizer.json"))


@pytest.mark.parametrize(
    "family", ["bert", "roberta", "albert", "deberta_v3", "xlm_roberta", "distil_bert"]
)
def test_the_tokens_are_the_same(family, tmp_path):
    ours, theirs = loaded(family, tmp_path)
    different = {}
    for text in [*TEXTS, *MORE]:
        expected, _ = ours.encode([text])
        found = theirs.encode(text, add_special_tokens=False).ids
        if found != expected.tolist():
            different[text] = (found, expected.tolist())
    assert different == {}


def test_special_tokens_are_put_around_texts(tmp_path):
    ours, theirs = loaded("bert", tmp_path)
    (a, b) = (ours.encode([text])[0].tolist() for text in ("the fox", "a dog"))
    expected = [*ours.start, *a, *ours.separator, *b, *ours.end]
    assert theirs.encode("the fox", "a dog").ids == expected
