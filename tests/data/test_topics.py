"""Topics of utterances that are always at hand."""

import pytest
import yaml

from tfsft.data.text_loading import load_texts
from tfsft.data.topics import topic_files
from tfsft.errors import UsageError


@pytest.mark.parametrize("data", ["topics", "topics:chinese"])
def test_every_utterance_once_under_the_name_of_its_file(data):
    wanted: dict[str, set] = {}
    for path in topic_files(data):
        for conversation in yaml.load(path.read_text("utf8"), yaml.BaseLoader)["conversations"]:
            for text in conversation if isinstance(conversation, list) else [conversation]:
                if isinstance(text, str) and text.strip():
                    wanted.setdefault(" ".join(text.split()), set()).add(path.stem)
    splits = load_texts(data)
    everything = splits.everything()
    texts = everything.column("text")
    assert len(set(texts)) == len(texts)
    assert {text for text, names in wanted.items() if len(names) == 1} <= set(texts)
    for text, label in zip(texts, everything.labels, strict=True):
        assert wanted.get(text, {splits.class_names[label]}) == {splits.class_names[label]}
    assert len(splits.class_names) == len(topic_files(data))
    assert all(len(set(source.labels)) > 10 for source in splits.sources().values())
    assert any("more than one topic" in note for note in splits.notes)


def test_an_unknown_language():
    with pytest.raises(UsageError, match="Did you mean 'chinese'"):
        load_texts("topics:chinees")
