"""Text encoding with a tiny random BERT and twelve tokens, made here; nothing is downloaded."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from tmtlib.data.text import encode_text, encode_transcripts, last_hidden, load_bert
from tmtlib.models.bert import BertText

VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "good", "film", "not", "##ly", "bad", "."]
TEXTS = ["a good film.", "", "badly", "not a bad film. not a good film. a film. not bad.", "unseen"]
WIDTH, LENGTH = 16, 10


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    from transformers import BertConfig, BertModel

    path = tmp_path_factory.mktemp("bert")
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=24,
    )
    BertModel(config).save_pretrained(path)
    (path / "vocab.txt").write_text("\n".join(VOCABULARY), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def encoded(folder):
    return encode_transcripts(TEXTS, folder, max_length=LENGTH, batch_size=2)


def test_layout_of_mmsa(encoded):
    assert encoded.features.shape == (5, LENGTH, WIDTH) and encoded.features.dtype == np.float32
    assert encoded.text_bert.shape == (5, 3, LENGTH) and encoded.text_bert.dtype == np.int64
    assert encoded.lengths.dtype == np.int64
    ids, mask, segments = encoded.text_bert.transpose(1, 0, 2)
    assert ids[0].tolist() == [2, 5, 6, 7, 11, 3, 0, 0, 0, 0], "[CLS] a good film . [SEP] and padding"
    assert ids[2].tolist()[:4] == [2, 10, 9, 3], "word pieces"
    assert ids[3, -1] == 3, "a long transcript is cut and still ends in [SEP]"
    assert ids[4].tolist()[:3] == [2, 1, 3]
    assert encoded.lengths.tolist() == [6, 2, 4, LENGTH, 3] == mask.sum(1).tolist()
    assert not segments.any()


def test_features_alone(folder, encoded):
    assert np.array_equal(encode_text(TEXTS, model=folder, max_length=LENGTH, batch_size=2), encoded.features)


def test_features_are_zero_exactly_beyond_each_length(encoded):
    for features, length in zip(encoded.features, encoded.lengths, strict=True):
        assert not features[length:].any()
        assert np.abs(features[:length]).sum(1).min() > 0


def test_deterministic_and_independent_of_batch_size(folder, encoded):
    again = encode_transcripts(TEXTS, str(folder), max_length=LENGTH, batch_size=2)
    assert np.array_equal(again.features, encoded.features)
    one = encode_transcripts(TEXTS, folder, max_length=LENGTH, batch_size=99)
    np.testing.assert_allclose(one.features, encoded.features, atol=1e-6)


def test_padding_does_not_change_valid_tokens(folder, encoded):
    longer = encode_transcripts(TEXTS[:3], folder, max_length=LENGTH + 5)
    np.testing.assert_allclose(longer.features[:, :LENGTH], encoded.features[:3], atol=1e-6)


def test_fine_tunable_bert_agrees_with_the_frozen_one(folder, encoded):
    bert = BertText(folder).eval()
    assert bert.width == WIDTH
    with torch.no_grad():
        hidden = bert(torch.from_numpy(encoded.text_bert).int())
    np.testing.assert_allclose(hidden.numpy(), encoded.features, atol=1e-6)


def test_features_are_the_last_hidden_state_of_transformers(folder, encoded):
    from transformers import AutoModel

    ids, mask, segments = torch.from_numpy(encoded.text_bert).unbind(1)
    with torch.no_grad():
        model = AutoModel.from_pretrained(folder, local_files_only=True).eval()
        hidden = model(input_ids=ids, attention_mask=mask, token_type_ids=segments).last_hidden_state.numpy()
    valid = mask.bool().numpy()
    np.testing.assert_allclose(encoded.features[valid], hidden[valid], atol=1e-6)


def test_gradient_reaches_every_parameter(folder, encoded):
    bert = BertText(folder)
    assert all(m.training for m in bert.modules()), "a new module trains, dropout included"
    bert(torch.from_numpy(encoded.text_bert)).pow(2).sum().backward()
    assert bert.bert.embeddings.word_embeddings.weight.grad.abs().sum() > 0
    assert not [name for name, p in bert.named_parameters() if p.grad is None]


def test_utterance_without_any_token_is_zero_and_finite(folder):
    bert = BertText(folder)
    hidden = bert(torch.zeros(2, 3, 4, dtype=torch.long))
    hidden.sum().backward()
    assert not hidden.any()
    assert all(p.grad.isfinite().all() for p in bert.parameters())


@pytest.mark.parametrize("use", [BertText, lambda path: encode_transcripts(["a"], path)], ids=["tuned", "frozen"])
def test_missing_folder_or_model_says_how_to_get_one(tmp_path, use):
    with pytest.raises(FileNotFoundError, match=r"no folder .*nowhere.*save_pretrained.*bert-base-uncased"):
        use(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"no config\.json in the folder .*bert-base-chinese"):
        use(tmp_path)


def test_model_without_tokenizer_is_refused(folder, tmp_path):
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    with pytest.raises(FileNotFoundError, match=r"no tokenizer in .*tokenizer\.json"):
        encode_transcripts(["a"], tmp_path)


def test_tokenizer_of_another_model_is_refused(folder, tmp_path):
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    (tmp_path / "vocab.txt").write_text("\n".join([*VOCABULARY, "more"]), encoding="utf-8")
    with pytest.raises(ValueError, match="tokenizer has 13 tokens but the model 12"):
        encode_transcripts(["a"], tmp_path)


def test_unusable_arguments_are_refused(folder):
    with pytest.raises(TypeError, match="one string"):
        encode_transcripts("a good film", folder)
    with pytest.raises(TypeError, match="transcript 1 is NoneType"):
        encode_transcripts(["a", None], folder)
    with pytest.raises(ValueError, match="at least one transcript"):
        encode_transcripts([], folder)
    with pytest.raises(ValueError, match="max_length 2"):
        encode_transcripts(["a"], folder, max_length=2)
    with pytest.raises(ValueError, match="25 tokens an utterance, but the model has 24 positions"):
        encode_transcripts(["a"], folder, max_length=25)
    with pytest.raises(ValueError, match=r"shape \(2, 4\); wanted \(B, 3, T\)"):
        last_hidden(load_bert(folder), torch.zeros(2, 4, dtype=torch.long))


def test_import_is_light():
    code = "import sys, tmtlib.data.text; print('transformers' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"
