"""Who answers before, during and after a training, against answers of a generator made anew."""

import numpy as np
from chat_families import tiny_causal_lm

from tfsft import data, models
from tfsft.training.answering import Answerer
from tfsft.training.examiner import Examiner

QUESTIONS = [[{"role": "user", "content": text}] for text in ("Who is Ada?", "Where?", "Why not?")]


def test_answers_are_those_of_the_layers_that_are_there(tmp_path):
    loaded = models.load_causal_lm(str(tiny_causal_lm(tmp_path / "llama")))
    template = data.choose_template("auto", loaded.template, loaded.tokenizer)
    encoder = data.ChatEncoder(loaded.tokenizer, template, 64)
    model = loaded.model
    examiner = Examiner(None, model, encoder, [], {}, {}, max_new_tokens=8)

    def answers():
        found = examiner._answerer().answer(QUESTIONS)[0]
        assert found == Answerer(model, encoder, max_new_tokens=8).answer(QUESTIONS)[0]
        return found

    original = answers()
    models.add_lora(model, 4, 64.0, models.parse_targets("query,value"))
    random = np.random.default_rng(0)
    for variable in model.trainable_variables:
        variable.assign(random.normal(size=variable.shape))
    trained = answers()
    assert trained != original
    with models.lora_off(model):
        assert answers() == original
    models.merge_lora(model)
    assert answers() == trained
    assert len(examiner._answerers) == 2
