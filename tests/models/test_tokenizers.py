import json
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest
import text_families
from text_families import FAMILIES

from tfsft import models
from tfsft.errors import UserError
from tfsft.models.tokenizers import TextTokenizer, hugging_face_tokenizer

SENTENCES = [
    "The quick brown fox, it's said, jumps over the lazy dogs!",
    "Crème brûlée à la façon d'Élodie: naïve Ærø, İstanbul, Ångström, Straße, ΑΒΓ λόγος",
    "我们在北京吃饭。你好，世界！\u3000中文mixed混合abc",
    "مرحبا بالعالم، كيف حالك؟ می\u200cخواهم",
    "emoji 😀👩‍👩‍👧 ❤️ 🇩🇪 done",
    "no\u00a0break\u2009thin\u200bzero\ufeffbom\u00adsoft\ttab\nline\r\nend\x00nul\x07bell\u2028sep",
    "https://example.org/?q=1&b=[x]_y^z`~|{}  $5.00 100% C++ a_b",
    "안녕하세요 세계 こんにちは、世界 カタカナ Привет, мир שלום हिन्दी ไทย",
    "",
    "   ",
]


def rows(encoded):
    flat, offsets = encoded
    return [row.tolist() for row in np.split(flat, offsets[1:-1])]


def pieces(tokenizer, row):
    return [tokenizer.keras_tokenizer.id_to_token(int(i)) for i in row]


@pytest.fixture(params=FAMILIES)
def backbone(request, load_text):
    return load_text(request.param)


def test_packing_is_that_of_the_familys_preprocessor(backbone):
    """Token and segment ids of one text and of a pair, against KerasHub's own preprocessor."""
    import keras_hub

    tokenizer = backbone.tokenizer
    first, second = "the quick fox, it is new", "a lazy dog!"
    a, b = rows(tokenizer.encode([first, second]))
    start, separator, end = (list(x) for x in (tokenizer.start, tokenizer.separator, tokenizer.end))
    single, pair = start + a + end, start + a + separator + b + end
    family = type(backbone.model).__name__.removesuffix("Backbone")
    # ELECTRA has none of its own; it was trained on BERT's packing.
    name = f"{family}TextClassifierPreprocessor"
    made_by = getattr(keras_hub.models, name, keras_hub.models.TextClassifierPreprocessor)
    preprocessor = made_by(tokenizer.keras_tokenizer, sequence_length=len(pair) + 3)
    for tokens, texts in ((single, first), (pair, (first, second))):
        expected, _ = preprocessor(texts, [0])  # a pair alone would be taken for text and label
        pad = len(pair) + 3 - len(tokens)
        assert np.asarray(expected["token_ids"]).tolist() == tokens + [tokenizer.pad] * pad
        mask = np.asarray(expected["padding_mask"]).astype(int).tolist()
        assert mask == [1] * len(tokens) + [0] * pad
    has_segments = "segment_ids" in expected
    assert tokenizer.uses_segments == has_segments
    if has_segments:
        second_half = len(b) + len(end)
        segments = [0] * (len(pair) - second_half) + [1] * second_half + [0, 0, 0]
        assert np.asarray(expected["segment_ids"]).tolist() == segments


def test_a_saved_tokenizer_is_the_same(backbone, tmp_path):
    tokenizer = backbone.tokenizer
    tokenizer.save(tmp_path)
    again = models.load_tokenizer(tmp_path)
    assert again.settings == tokenizer.settings
    assert again.fingerprint == tokenizer.fingerprint
    assert again.vocabulary_size == tokenizer.vocabulary_size
    assert rows(again.encode(SENTENCES)) == rows(tokenizer.encode(SENTENCES))


def test_special_tokens_in_a_text_are_text(backbone):
    tokenizer = backbone.tokenizer
    layer = tokenizer.keras_tokenizer
    special = {*tokenizer.start, *tokenizer.end, tokenizer.pad, tokenizer.mask} - {None}
    texts = [f"the {layer.id_to_token(i)} fox" for i in special]
    texts += [layer.id_to_token(i) for i in special]
    for row in rows(tokenizer.encode(texts)):
        assert row
        assert not special.intersection(row)


def test_flat_ids_offsets_and_empty_texts(backbone):
    flat, offsets = backbone.tokenizer.encode(["the fox", "", "a dog", ""])
    assert (flat.dtype, offsets.dtype) == (np.int32, np.int64)
    assert len(offsets) == 5
    assert offsets[1] == offsets[2] > 0
    assert offsets[3] == offsets[4] == len(flat)
    flat, offsets = backbone.tokenizer.encode([])
    assert (len(flat), offsets.tolist()) == (0, [0])


def test_words_are_encoded_as_inside_a_sentence(backbone):
    tokenizer = backbone.tokenizer
    words = ["a", "quick", "brown", "fox", "learned"]
    inside = rows(tokenizer.encode(["the " + " ".join(words)]))[0]
    first = rows(tokenizer.encode(["the"]))[0]
    split = [token for row in rows(tokenizer.encode_words(words)) for token in row]
    assert first + split == inside


@pytest.mark.parametrize("family", ["bert", "roberta", "deberta_v3"])
def test_several_threads_encode_at_once(family, load_text):
    tokenizer = load_text(family).tokenizer
    texts = [f"{i} quick foxes learned {chr(97 + i % 26)}{i}" for i in range(200)]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(tokenizer.encode, [texts] * 8))
    for flat, offsets in results:
        np.testing.assert_array_equal(flat, results[0][0])
        np.testing.assert_array_equal(offsets, results[0][1])


def test_a_new_seed_does_not_lose_the_vocabulary(load_text):
    """It drops TensorFlow's kernels, and SentencePiece's model with its kernel."""
    tokenizer = load_text("albert").tokenizer
    before = rows(tokenizer.encode(["the fox"]))
    keras.utils.set_random_seed(0)
    assert rows(tokenizer.encode(["the fox"])) == before


def test_an_invisible_word_has_no_pieces(load_text):
    tokenizer = load_text("bert").tokenizer
    assert rows(tokenizer.encode_words(["fox", "\u200b", "\x07"]))[1:] == [[], []]


def test_half_a_surrogate_pair_is_one_unknown_character(load_text):
    tokenizer = load_text("bert").tokenizer
    assert rows(tokenizer.encode(["a \ud83d dog"])) == rows(tokenizer.encode(["a ? dog"]))


@pytest.mark.parametrize("lowercase", [True, False])
@pytest.mark.parametrize("strip_accents", [None, True, False])
@pytest.mark.parametrize("chinese", [True, False])
def test_a_bert_folder_tokenizes_as_hugging_face_does(lowercase, strip_accents, chinese, tmp_path):
    """Token ids against the `tokenizers` library, on the vocabulary of all that occurs."""
    tokenizers = pytest.importorskip("tokenizers")
    specials = text_families.BERT_SPECIALS
    reference = tokenizers.BertWordPieceTokenizer(
        handle_chinese_chars=chinese, strip_accents=strip_accents, lowercase=lowercase
    )
    reference.train_from_iterator(
        [*SENTENCES, *text_families.SENTENCES],
        vocab_size=400,
        min_frequency=1,
        special_tokens=specials,
        show_progress=False,
    )
    hugging_face_folder(
        tmp_path,
        reference,
        do_lower_case=lowercase,
        strip_accents=strip_accents,
        tokenize_chinese_chars=chinese,
    )
    check_same_ids(folder_tokenizer(tmp_path), reference)


def test_the_vocabulary_may_be_in_tokenizer_json_alone(tmp_path):
    tokenizers = pytest.importorskip("tokenizers")
    reference = tokenizers.BertWordPieceTokenizer(
        dict(zip(text_families.word_pieces(), range(1000), strict=False)), lowercase=False
    )
    hugging_face_folder(tmp_path, reference)
    (tmp_path / "vocab.txt").unlink()
    check_same_ids(folder_tokenizer(tmp_path), reference)


@pytest.mark.slow
def test_minilm_tokenizes_as_hugging_face_does():
    tokenizers = pytest.importorskip("tokenizers")
    folder = models.starter_path("minilm")
    reference = tokenizers.BertWordPieceTokenizer(str(folder / "vocab.txt"), lowercase=True)
    check_same_ids(folder_tokenizer(folder), reference)


def test_byte_pairs_are_those_of_hugging_face(load_text):
    tokenizers = pytest.importorskip("tokenizers")
    vocabulary, merges = text_families.byte_pairs()
    reference = tokenizers.ByteLevelBPETokenizer(vocabulary, [tuple(m.split()) for m in merges])
    tokenizer = load_text("roberta").tokenizer
    texts = [text for text in SENTENCES if "\x00" not in text]
    texts.append("हिन्दी")
    for text, row in zip(texts, rows(tokenizer.encode(texts)), strict=True):
        assert row == reference.encode(text).ids, text


def test_sentence_pieces_are_those_of_the_library(load_text):
    import sentencepiece

    layer = load_text("deberta_v3").tokenizer
    reference = sentencepiece.SentencePieceProcessor(model_proto=layer.keras_tokenizer.proto)
    texts = [text for text in SENTENCES if "\x00" not in text]
    assert rows(layer.encode(texts)) == reference.encode(texts)


def test_an_albert_folder_is_lower_cased_as_hugging_face_does(tmp_path):
    controls = {"control_symbols": ["[CLS]", "[SEP]", "[MASK]"]}
    specials = {"pad_id": 0, "unk_id": 1, "bos_id": -1, "eos_id": -1}
    (tmp_path / "spiece.model").write_bytes(text_families.sentence_pieces(**specials, **controls))
    (tmp_path / "config.json").write_text('{"model_type": "albert"}')
    plain = rows(folder_tokenizer(tmp_path).encode(["the creme fox"]))
    assert rows(folder_tokenizer(tmp_path).encode(["The CRÈME Fox"])) == plain
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    assert rows(folder_tokenizer(tmp_path).encode(["The CRÈME Fox"])) != plain


def test_fingerprints_tell_vocabularies_and_settings_apart(load_text, tmp_path):
    fingerprints = {load_text(family).tokenizer.fingerprint for family in FAMILIES}
    assert len(fingerprints) == len(FAMILIES)
    tokenizer = load_text("bert").tokenizer
    for key, value in (("lowercase", False), ("split_on_cjk", False), ("name", "other")):
        tokenizer.save(tmp_path / key)
        path = tmp_path / key / "settings.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
        same = models.load_tokenizer(tmp_path / key).fingerprint == tokenizer.fingerprint
        assert same == (key == "name")


def test_keras_hub_reads_the_folder_with_the_same_rules(load_text, tmp_path):
    """The layer's own lower-casing is off while ours is on, but not in what is saved."""
    load_text("bert").tokenizer.save(tmp_path)
    config = json.loads((tmp_path / "tokenizer.json").read_text())
    assert config["config"]["lowercase"] is True
    assert load_text("bert").tokenizer.keras_tokenizer.lowercase is False


def test_a_folder_without_the_vocabulary_says_so(load_text, tmp_path):
    load_text("bert").tokenizer.save(tmp_path)
    (tmp_path / "assets" / "tokenizer" / "vocabulary.txt").unlink()
    with pytest.raises(UserError, match=r"cannot be read: .*vocabulary\.txt"):
        models.load_tokenizer(tmp_path)
    with pytest.raises(UserError, match="cannot be read"):
        models.load_tokenizer(tmp_path / "nowhere")


def hugging_face_folder(folder, reference, **options):
    (folder / "config.json").write_text('{"model_type": "bert"}')
    (folder / "tokenizer_config.json").write_text(json.dumps(options))
    reference.save(str(folder / "tokenizer.json"))
    vocabulary = reference.get_vocab()
    (folder / "vocab.txt").write_text("\n".join(sorted(vocabulary, key=vocabulary.get)) + "\n")


def folder_tokenizer(folder):
    model_type = json.loads((folder / "config.json").read_text())["model_type"]
    layer, normalization = hugging_face_tokenizer(str(folder), model_type)
    return TextTokenizer(layer, name="x", uses_segments=True, **normalization)


def check_same_ids(tokenizer, reference):
    for text, row in zip(SENTENCES, rows(tokenizer.encode(SENTENCES)), strict=True):
        expected = reference.encode(text, add_special_tokens=False)
        assert pieces(tokenizer, row) == expected.tokens
        assert row == expected.ids
