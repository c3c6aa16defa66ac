"""The training loop: what it may see, that it learns, repeats itself, keeps the best epoch and follows its protocol."""

import inspect
import math
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from model_helpers import SMALL, protocol, synthetic

import tmtlib.training.fit as fit_module
from tmtlib.common import MODALITIES, pick_device
from tmtlib.data.schema import Dataset, DataShape, Split
from tmtlib.data.text import encode_transcripts
from tmtlib.models import build_model
from tmtlib.models.tmt import TMTConfig
from tmtlib.stats import metrics
from tmtlib.training.batches import OnDevice
from tmtlib.training.fit import Fit, fit, predict

AMW = replace(SMALL, weighting="static")
NO_DROPOUT = replace(SMALL, dropout=0.0, embedding_dropout=0.0)
CPU = torch.device("cpu")
has_cuda = torch.cuda.is_available()


def train(config: TMTConfig = SMALL, data: Dataset | None = None, seeds=(0,), device="cpu", **changes) -> list[Fit]:
    data = data or synthetic()
    return fit(config, protocol(**changes), data.train, data.valid, data.shape, seeds, device)


def restored(done: Fit, config: TMTConfig = SMALL, data: Dataset | None = None):
    model = build_model(config, data or synthetic())
    model.load_state_dict(done.state)
    return model


def column(done: Fit, name: str) -> list[float]:
    return [row[name] for row in done.history]


def assert_same(a: Fit, b: Fit) -> None:
    assert a.history == b.history and a.best_epoch == b.best_epoch
    assert a.state.keys() == b.state.keys()
    assert all(value.equal(b.state[name]) for name, value in a.state.items())


# --- What it may see -------------------------------------------------------------------------------------------------


def test_no_argument_can_hold_the_test_split():
    assert list(inspect.signature(fit).parameters) == [
        "config",
        "training",
        "train",
        "held_out",
        "shape",
        "seeds",
        "device",
        "checkpoint",
    ]
    splits = [p for p in inspect.signature(fit).parameters.values() if "Split" in str(p.annotation)]
    assert [p.name for p in splits] == ["train", "held_out"]
    assert not [p for p in inspect.signature(fit).parameters.values() if "Dataset" in str(p.annotation)]
    assert {f.name for f in fields(DataShape)} == {"shapes", "family", "emotions"}, (
        "sizes and names, nothing of the content"
    )


def test_nothing_is_learned_from_validation():
    data = synthetic()
    other = replace(data, valid=replace(data.valid, labels=data.valid.labels[::-1].copy()))
    (a,), (b,) = train(), train(data=other)
    assert column(a, "train_loss") == column(b, "train_loss")
    assert column(a, "valid_loss") != column(b, "valid_loss")


# --- Learning and repeating ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [SMALL, AMW], ids=["tmt", "amw"])
def test_learns_more_than_the_best_constant(config):
    data = synthetic("mosi", (300, 150, 8), (8, 8, 8))
    (done,) = train(config, data, epochs=8, batch_size=32)
    constant = np.abs(data.valid.labels - np.median(data.train.labels)).mean()
    assert min(column(done, "valid_loss")) < 0.92 * constant
    assert min(column(done, "valid_mae")) > 0.9 * data.truth.best_mae, "nobody is better than the truth"


def original(**changes) -> TMTConfig:
    """The original's ways at a small size."""
    return TMTConfig.original(**{"width": 16, "head_width": 4, "encoder_hidden": 32, "cross_hidden": 16} | changes)


def test_learns_classes_in_the_originals_model():
    data = synthetic("mosi", (300, 150, 8), (8, 8, 8))
    # Dropout, mix-up and warm-up as released are too strong for so few utterances and epochs
    (done,) = train(
        original(raw_dropout=0.0, dropout=0.1, mixup="off", schedule="constant"), data, epochs=14, batch_size=32
    )
    shares = np.bincount(metrics.classes5(data.valid.labels, "mosi")) / len(data.valid)
    entropy = -(shares * np.log(shares)).sum()  # the loss of the best constant prediction
    assert min(column(done, "valid_loss")) < 0.96 * entropy
    assert max(column(done, "valid_acc5")) > shares.max() + 0.03


def test_originals_recipe_runs_as_released():
    data = synthetic("sims", (48, 24, 8), (24, 40, 30))
    (done,) = train(original(), data, epochs=10, learning_rate=1e-4)
    assert column(done, "learning_rate")[:4] == pytest.approx([0, 1e-4, 1e-4, 1e-4 * (1 + math.cos(math.pi / 9)) / 2])
    assert np.isfinite([column(done, name) for name in ("train_loss", "valid_loss")]).all()
    torch.manual_seed(0)
    untrained = predict(build_model(original(), data), data.valid, protocol(), "cpu")
    assert column(done, "valid_mae")[0] == pytest.approx(metrics.score(untrained, data.valid.labels, "sims")["mae"])


def test_same_seed_gives_the_identical_result_and_another_seed_another():
    (a,), (b,), (c,) = train(AMW), train(AMW), train(AMW, seeds=(1,))
    assert_same(a, b)
    np.testing.assert_array_equal(a.weights, b.weights)
    assert a.history != c.history and c.seed == 1


def test_a_seed_does_not_depend_on_the_others():
    together = train(AMW, seeds=(3, 0, 1))
    assert [done.seed for done in together] == [3, 0, 1]
    for done in together:
        assert_same(done, train(AMW, seeds=(done.seed,))[0])
    assert train(seeds=()) == []


def test_training_leaves_the_callers_random_numbers_alone():
    before = torch.get_rng_state()
    train(epochs=1)
    assert torch.get_rng_state().equal(before)


def test_dropout_acts_in_training_and_not_in_validation():
    (a,), (b,) = (train(config, epochs=2, learning_rate=0.0) for config in (SMALL, NO_DROPOUT))  # the same parameters
    assert all(x != y for x, y in zip(column(a, "train_loss"), column(b, "train_loss"), strict=True))
    assert column(a, "valid_loss") == column(b, "valid_loss")


def test_methods_are_paired():
    """AMW at R1M with W held at 0 is TMT; trained from one seed, the two stay equal to the last bit."""
    held = replace(AMW, placement="R1M", weighting_lr=0.0)
    (plain,), (weighted,) = train(), train(held)
    assert weighted.history == plain.history


# --- The best epoch --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("select_by", ["accuracy", "loss"])
def test_best_epoch_by_the_history_is_the_one_restored(select_by):
    data = synthetic()
    fits = train(seeds=range(4), epochs=6, learning_rate=1e-2, select_by=select_by)
    for done in fits:
        if select_by == "accuracy":
            best = max(done.history, key=lambda row: (row["valid_acc5"], -row["valid_loss"]))
        else:
            best = min(done.history, key=lambda row: row["valid_loss"])
        assert done.best_epoch == best["epoch"]
        values = predict(restored(done), data.valid, protocol(), "cpu")
        for name, value in metrics.score(values, data.valid.labels, "mosi").items():
            assert best[f"valid_{name}"] == pytest.approx(value, rel=1e-5)
    assert any(done.best_epoch < 6 for done in fits), "else the last epoch would pass too"


def scripted(monkeypatch, accuracies, losses) -> list[torch.Tensor]:
    """Makes validation say what is given, epoch by epoch; returns the label tokens as they were at each."""
    label = synthetic().valid.labels
    right = [round(a * len(label)) for a in (0, *accuracies)]
    script = iter(zip(right, (9.0, *losses), strict=True))
    seen = []

    def evaluate(models, data, protocol):
        k, loss = next(script)
        seen.append(models[0].state_dict()["tokens"].clone())
        wrong = np.where(label < 0, 3, -3)
        return [np.where(np.arange(len(label)) < k, label, wrong).astype(np.float32)], [loss], [None]

    monkeypatch.setattr("tmtlib.training.fit.evaluate", evaluate)
    return seen


@pytest.mark.parametrize(("select_by", "best"), [("accuracy", 3), ("loss", 5)])
def test_ties_in_accuracy_go_to_the_lower_loss_then_to_the_earlier_epoch(monkeypatch, select_by, best):
    seen = scripted(monkeypatch, (0.5, 0.75, 0.75, 0.75, 0.5), (1.0, 2.0, 1.5, 1.5, 0.1))
    (done,) = train(epochs=5, select_by=select_by)
    assert column(done, "valid_acc5") == [0.5, 0.75, 0.75, 0.75, 0.5]
    assert done.best_epoch == best
    assert [done.state["tokens"].equal(x) for x in seen[1:]] == [e == best for e in range(1, 6)]


@pytest.mark.parametrize(
    ("patience", "select_by", "epochs", "best"),
    [(2, "accuracy", 4, 2), (3, "accuracy", 6, 5), (2, "loss", 6, 6), (None, "accuracy", 6, 5)],
)
def test_stops_after_patience_epochs_without_a_better_one(monkeypatch, patience, select_by, epochs, best):
    scripted(monkeypatch, (0.5, 0.75, 0.5, 0.5, 1.0, 0.5), (1.0, 0.9, 0.8, 0.7, 0.6, 0.5))
    (done,) = train(epochs=6, patience=patience, select_by=select_by)
    assert (len(done.history), done.best_epoch) == (epochs, best)


def test_both_rules_of_selection_come_from_one_training(monkeypatch):
    fits = []
    for rule in ("accuracy", "loss"):
        scripted(monkeypatch, (0.5, 1.0, 0.5, 0.5, 0.5), (1.0, 0.9, 0.8, 0.3, 0.6))
        fits += train(epochs=5, select_by=rule)
    by_accuracy, by_loss = fits
    assert (by_accuracy.best_epoch, by_accuracy.other_epoch) == (2, 4)
    assert (by_loss.best_epoch, by_loss.other_epoch) == (4, 2)
    assert all(value.equal(by_loss.other_state[name]) for name, value in by_accuracy.state.items())
    assert any(not value.equal(by_accuracy.other_state[name]) for name, value in by_accuracy.state.items())


@pytest.mark.parametrize(
    ("utterances", "batch", "epochs", "steps", "wanted"),
    [(32, 16, 3, 0, 3), (32, 16, 3, 300, 150), (33, 16, 3, 300, 150), (34, 16, 3, 300, 100), (1200, 32, 8, 300, 8)],
)
def test_small_splits_get_more_epochs_for_their_steps(utterances, batch, epochs, steps, wanted):
    training = protocol(batch_size=batch, epochs=epochs, least_steps=steps)
    assert training.epochs_for(utterances) == wanted


def test_as_many_steps_are_taken_as_asked_for():
    (done,) = train(epochs=2, batch_size=16, least_steps=7)  # two batches of 16 utterances
    assert len(done.history) == 4


# --- The protocol ----------------------------------------------------------------------------------------------------


def test_schedule_of_30_epochs_is_the_originals():
    data = synthetic("mosi", (4, 4, 4), (3, 3, 3))
    config = replace(AMW, schedule="warmup_cosine", weighting_lr=1e-2)
    (done,) = train(config, data, epochs=30, learning_rate=1e-4)
    rates = column(done, "learning_rate")
    assert rates[:5] == pytest.approx([0, 1e-4 / 3, 2e-4 / 3, 1e-4, 1e-4])
    assert rates[-1] == pytest.approx(1.3e-6, abs=0.05e-6)
    assert sum(rates) / 1e-4 == pytest.approx(16.0, abs=0.05), "full-rate epochs"
    assert all(a > b for a, b in zip(rates[4:], rates[5:], strict=False))
    np.testing.assert_array_equal(done.weights[1], done.weights[0])  # W's own rate warms up from 0 too
    assert (done.weights[2] != done.weights[1]).any()


def test_schedule_of_200_epochs_is_the_originals():
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1e-4)
    scheduler = fit_module._scheduler(optimiser, "warmup_cosine", 200)
    rates = [1e-4 * scheduler.lr_lambdas[0](e) for e in range(200)]
    assert rates[:22] == pytest.approx([5e-6 * e for e in range(21)] + [1e-4])
    assert (rates[99], rates[199]) == (pytest.approx(6.0e-5, abs=0.05e-5), pytest.approx(3e-8, abs=0.5e-8))
    assert sum(rates) / 1e-4 == pytest.approx(101, abs=0.5)


@pytest.mark.parametrize("epochs", [1, 2, 8, 9, 30, 200])
def test_cosine_is_the_originals_schedule_without_its_epoch_at_rate_0(epochs):
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    cosine, original = (
        fit_module._scheduler(optimiser, name, epochs).lr_lambdas[0] for name in ("cosine", "warmup_cosine")
    )
    rates = [cosine(epoch) for epoch in range(epochs)]
    assert rates == [original(epoch + 1) for epoch in range(epochs)]
    assert min(rates) > 0 and max(rates) == 1


def test_constant_schedule_is_constant():
    assert column(train(epochs=3)[0], "learning_rate") == [3e-3] * 3


@pytest.mark.parametrize("mixup", ["off", "original", "correct"])
def test_mixup_mixes_inputs_and_labels_as_named(mixup):
    data = OnDevice(synthetic().train, CPU, SMALL, "mosi")
    torch.manual_seed(0)
    model = build_model(replace(SMALL, mixup=mixup), synthetic()).eval()
    batch, target = data.batch(torch.arange(32)), data.targets
    generator = torch.Generator().manual_seed(5)
    lam, order = torch.rand((), generator=generator), torch.randperm(32, generator=generator)
    mix = () if mixup == "off" else (lam, order)
    found = fit_module.loss_on(model, batch, target, *mix, training=protocol())
    assert 0.1 < lam < 0.9 and len(set(order.tolist())) == 32
    mixed = replace(
        batch,
        features={m: lam * x + (1 - lam) * x[order] for m, x in batch.features.items()},
        lengths={m: torch.stack([n, n[order]]).amax(0) for m, n in batch.lengths.items()},
    )
    prediction, trace = model(batch if mixup == "off" else mixed)
    first, second = model.loss(prediction, target, trace), model.loss(prediction, target[order], trace)
    expected = lam * first + (1 - lam) * second if mixup == "correct" else first
    torch.testing.assert_close(found, expected)
    assert (first - second).abs() > 1e-3


def test_mixup_acts_in_training_only():
    runs = {mixup: train(replace(SMALL, mixup=mixup), epochs=1)[0] for mixup in ("off", "original", "correct")}
    assert len({column(done, "train_loss")[0] for done in runs.values()}) == 3
    values = [
        predict(restored(runs["off"], replace(SMALL, mixup=mixup)), synthetic().valid, protocol(), "cpu")
        for mixup in runs
    ]
    assert np.array_equal(values[0], values[1]) and np.array_equal(values[0], values[2])


@pytest.mark.parametrize("seed", [0, 1])
def test_lone_last_utterance_is_left_out_and_the_mean_loss_is_exact(seed):
    data = synthetic("mosi", (33, 8, 8), (6, 6, 6))
    (done,) = train(NO_DROPOUT, data, (seed,), epochs=1, learning_rate=0.0)  # at rate 0 all batches meet one model
    torch.manual_seed(seed)
    model, whole = build_model(NO_DROPOUT, data), OnDevice(data.train, CPU, NO_DROPOUT, "mosi")
    order = torch.randperm(33, generator=torch.Generator().manual_seed(seed))
    losses = []
    for index in (order[:16], order[16:32]):
        prediction, trace = model(whole.batch(index))
        losses.append(model.loss(prediction, whole.targets[index], trace).item())
    assert column(done, "train_loss") == [pytest.approx(np.mean(losses), rel=1e-6)]


def test_Ws_own_learning_rate_moves_it_by_about_that_rate_a_step():
    (done,) = train(replace(AMW, weighting_lr=1e-2), epochs=5, batch_size=32)  # one step an epoch
    assert done.weights.shape == (6, 3, SMALL.width)
    np.testing.assert_allclose(done.weights[0], 1 / 3, rtol=1e-6)
    logits = np.log(done.weights)
    contrast = np.abs(np.diff(logits[1], axis=0)).max(0)  # between modalities: 0 or 2 rates, by the gradients' signs
    assert np.median(contrast) == pytest.approx(2e-2, rel=0.02)
    assert np.abs(np.diff(logits[5], axis=0)).max() == pytest.approx(10e-2, rel=0.1)
    W = done.state["weighting.W"]
    assert 0.9e-2 < W.abs().max() / done.best_epoch < 1.1e-2
    np.testing.assert_allclose(done.weights[done.best_epoch], W.softmax(0).numpy(), rtol=1e-5)


def test_at_the_papers_learning_rate_W_hardly_moves():
    (done,) = train(AMW, epochs=30, learning_rate=1e-4)  # 60 steps
    distance = np.abs(done.weights - 1 / 3).max((1, 2))
    assert 0 < distance[-1] < 0.003  # 60 steps of 1e-4 up for one modality and down for the others give 0.0027


@pytest.mark.parametrize(("name", "value", "least"), [("epochs", 0, 1), ("batch_size", 1, 2), ("patience", 0, 1)])
def test_protocol_that_could_learn_nothing_is_refused(name, value, least):
    with pytest.raises(ValueError, match=f"{name} is {value}; wanted at least {least}"):
        train(**{name: value})


# --- Batches and predictions -----------------------------------------------------------------------------------------


def test_batch_holds_the_asked_utterances_and_no_needless_frames():
    split = synthetic().train
    index = torch.tensor([5, 0, 17])
    batch = OnDevice(split, CPU, SMALL, "mosi").batch(index)
    unmasked = OnDevice(split, CPU, replace(SMALL, masked=False), "mosi").batch(index)
    for m in MODALITIES:
        longest = split.lengths[m][index].max()
        assert batch.features[m].shape[1] == longest < split.shapes[m][0]
        np.testing.assert_array_equal(batch.features[m], split.features[m][index, :longest])
        np.testing.assert_array_equal(batch.lengths[m], split.lengths[m][index])
        np.testing.assert_array_equal(unmasked.features[m], split.features[m][index])  # padding is seen there


@pytest.mark.parametrize("masked", [True, False])
def test_window_is_cut_once_whatever_the_neighbours_and_before_mixup(masked):
    split = synthetic("mosi", (8, 8, 8), (50, 50, 50)).train
    x = np.where((np.arange(50) < 15)[None, :, None], 0, split.features["audio"])
    split = replace(split, features={**split.features, "audio": x.astype(np.float32)})
    data = OnDevice(split, CPU, replace(SMALL, window=20, masked=masked), "mosi")
    assert {m: x.shape[1] for m, x in data.features.items()} == dict.fromkeys(MODALITIES, 20)
    loud = x.any((1, 2))
    assert loud.any()
    np.testing.assert_array_equal(data.features["audio"][loud], x[loud, 15:35])
    np.testing.assert_array_equal(data.lengths["audio"][loud], np.clip(split.lengths["audio"][loud] - 15, 0, 20))


def test_targets_are_labels_or_their_classes():
    split = synthetic("sims").train
    regression = OnDevice(split, CPU, SMALL, "sims").targets
    np.testing.assert_array_equal(regression, split.labels)
    classes = OnDevice(split, CPU, replace(SMALL, task="classification"), "sims").targets
    np.testing.assert_array_equal(classes, metrics.classes5(split.labels, "sims"))


@pytest.mark.parametrize("config", [SMALL, replace(SMALL, task="classification")], ids=["regression", "classes"])
def test_predictions_follow_the_order_of_the_utterances_whatever_the_batches(config):
    split = synthetic().train
    data = replace(synthetic(), valid=split)  # selected where it fits well: an untrained model says always the same
    (done,) = train(config, data, epochs=20, learning_rate=1e-2)
    model = restored(done, config)
    values = predict(model, split, protocol(), "cpu")
    assert values.shape == (32,) and values.std() > 0
    np.testing.assert_allclose(predict(model, split, protocol(batch_size=2), "cpu"), values, atol=1e-6)
    order = np.random.default_rng(0).permutation(32)
    np.testing.assert_allclose(predict(model, split.take(order), protocol(), "cpu"), values[order], atol=1e-6)


def test_weights_follow_the_order_of_the_utterances():
    split, model = synthetic().train, build_model(replace(SMALL, weighting="gated"), synthetic())
    torch.nn.init.normal_(model.weighting.scorer[2].weight)
    weights = fit_module.utterance_weights(model, split, protocol(), "cpu")
    assert np.ptp(weights, axis=0).min() > 1e-4
    one = [fit_module.utterance_weights(model, split.take([i]), protocol(), "cpu")[0] for i in range(len(split))]
    np.testing.assert_allclose(weights, one, atol=1e-5)


def test_models_predicted_together_say_what_each_says_alone(monkeypatch):
    split, made = synthetic().test, []
    configs = SMALL, replace(SMALL, weighting="static"), replace(SMALL, modalities=("text",)), SMALL
    models = [build_model(config, synthetic()).eval() for config in configs]
    alone = [predict(model, split, protocol(), "cpu") for model in models]
    on_device = fit_module.on_device
    monkeypatch.setattr(fit_module, "on_device", lambda *a: made.append(1) or on_device(*a))
    together = fit_module.predict_together(models, split, protocol(), "cpu")
    assert all(np.array_equal(*pair) for pair in zip(alone, together, strict=True))
    assert len(made) == 2, "one set of batches for all modalities, one for text alone"


# --- A BERT that is fine-tuned ---------------------------------------------------------------------------------------

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad", "film"]


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    from transformers import BertConfig, BertModel

    folder = tmp_path_factory.mktemp("bert")
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=16,
    )
    BertModel(config).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(WORDS), encoding="utf-8")
    return str(folder)


def spoken(split: Split, folder: str, seed: int) -> Split:
    """The split with transcripts whose one telling word decides the label, encoded by the BERT."""
    rng = np.random.default_rng(seed)
    good = rng.random(len(split)) < 0.5
    texts = tuple(" ".join(["film"] * rng.integers(0, 4) + ["good" if g else "bad"]) for g in good)
    text = encode_transcripts(texts, folder, max_length=8)
    return replace(
        split,
        raw_text=texts,
        labels=np.where(good, 2, -2).astype(np.float32),
        features={**split.features, "text": text.features},
        lengths={**split.lengths, "text": text.lengths},
        text_bert=text.text_bert,
    )


def test_bert_is_fine_tuned_end_to_end(bert):
    data = synthetic("mosi", (64, 32, 8))
    data = replace(data, **{s: spoken(data[s], bert, i) for i, s in enumerate(("train", "valid", "test"))})
    config = replace(SMALL, bert=bert, bert_lr=1e-3)
    model = build_model(config, data)
    frozen = build_model(SMALL, data)
    before = model.state_dict()
    frozen.load_state_dict({k: v for k, v in before.items() if not k.startswith("bert.")})
    tuned, fixed = (predict(m, data.valid, protocol(), "cpu") for m in (model, frozen))
    np.testing.assert_allclose(tuned, fixed, atol=1e-5)  # before training, the same as the features it wrote

    (done,) = train(config, data, epochs=8, select_by="loss")
    moved = {k: (v - before[k]).abs().max() for k, v in done.state.items() if k.startswith("bert.")}
    assert all(v > 1e-4 for k, v in moved.items() if k.endswith(("word_embeddings.weight", "dense.weight")))
    values = predict(restored(done, config, data), data.valid, protocol(), "cpu")
    assert np.abs(values - data.valid.labels).mean() < 1, "a constant reaches 2, and nothing but the ids says more"

    (slow,) = train(replace(config, bert_lr=0.0), data, epochs=1)
    kept = [k for k in slow.state if k.startswith("bert.")]
    original = build_model(config, data).state_dict()
    assert kept and all(slow.state[k].equal(original[k]) for k in kept), "BERT has a learning rate of its own"


# --- Devices and precision -------------------------------------------------------------------------------------------


def test_bfloat16_runs_and_is_close_and_parameters_stay_float32():
    torch.manual_seed(0)
    model, split = build_model(SMALL, synthetic()), synthetic().train
    inner = []
    model.encoder[0].attention.query.register_forward_hook(lambda module, args, output: inner.append(output.dtype))
    exact, half = (predict(model, split, protocol(precision=p), "cpu") for p in ("float32", "bfloat16"))
    assert set(inner[: len(inner) // 2]) == {torch.float32} and set(inner[len(inner) // 2 :]) == {torch.bfloat16}
    assert 0 < np.abs(exact - half).max() < 0.05 * np.ptp(exact)
    coarse = torch.from_numpy(half).bfloat16().float().numpy()
    assert (coarse != half).mean() > 0.5, "the head computes in float32, so values do not clump"

    (a,), (b,) = (train(NO_DROPOUT, precision=p) for p in ("float32", "bfloat16"))
    assert column(b, "valid_loss") == pytest.approx(column(a, "valid_loss"), rel=0.02)
    assert column(b, "train_loss") == pytest.approx(column(a, "train_loss"), rel=0.02)
    assert all(
        x != y for name in ("train_loss", "valid_loss") for x, y in zip(column(a, name), column(b, name), strict=True)
    )
    assert {v.dtype for v in b.state.values()} == {torch.float32}


def test_auto_precision_is_float32_on_a_cpu():
    assert_same(train(precision="auto", epochs=1)[0], train(precision="float32", epochs=1)[0])


def test_a_loss_that_is_not_finite_is_refused():
    with pytest.raises(ValueError, match=r"the training loss is (nan|inf) in epoch \d of seed 0 \(.*float32\); lower"):
        train(learning_rate=1e30, epochs=4)


@pytest.mark.skipif(not has_cuda, reason="torch finds no NVIDIA GPU")
@pytest.mark.parametrize("config", [NO_DROPOUT, replace(NO_DROPOUT, window=6, masked=False, mixup="correct")])
def test_cuda_gives_the_cpus_results(config):
    config = replace(config, weighting="static")
    (cpu,), (cuda,), (auto,) = (
        train(config),
        train(config, device="cuda"),
        train(config, device="auto", precision="auto"),
    )
    assert cuda.device == torch.cuda.get_device_name() and cuda.peak_memory_mb > 0
    assert {v.device.type for v in cuda.state.values()} == {"cpu"}
    for name in ("train_loss", "valid_loss"):
        assert column(cuda, name) == pytest.approx(column(cpu, name), rel=1e-3)
        assert column(auto, name) == pytest.approx(column(cpu, name), rel=0.05)  # bfloat16
    np.testing.assert_allclose(cuda.weights, cpu.weights, atol=1e-3)
    values = predict(restored(cuda, config), synthetic().valid, protocol(), "cuda")
    assert np.isfinite(values).all()


@pytest.mark.skipif(has_cuda, reason="there is a GPU here")
def test_cuda_without_a_gpu_is_refused():
    with pytest.raises(ValueError, match="device is 'cuda' but torch finds no NVIDIA GPU"):
        train(device="cuda")
    assert pick_device("auto") == CPU


def test_unknown_device_is_refused():
    with pytest.raises(ValueError, match="device is 'tpu'; wanted auto, cpu or cuda"):
        pick_device("tpu")
    assert pick_device("cpu") == CPU


def test_fit_says_what_it_took():
    (done,) = train(epochs=1)
    assert done.device == "cpu" and done.seconds > 0
    assert done.peak_memory_mb > 10 or math.isnan(done.peak_memory_mb)  # NaN on Windows
    assert done.weights is None, "plain TMT has no weights"
