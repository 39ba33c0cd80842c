import pytest
import torch
from torch import nn

from heads.training.callbacks import AveragedWeights
from heads.training.config import TrainConfig
from heads.training.epoch_means import EpochMeans
from heads.training.module import HeadModule, parameter_groups, rate_at


class Mixed(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear, self.norm, self.table = nn.Linear(3, 4), nn.LayerNorm(4), nn.Embedding(5, 4)
        self.query, self.frozen = nn.Parameter(torch.zeros(2, 4)), nn.Parameter(torch.zeros(2, 2), requires_grad=False)
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))


def test_norms_biases_and_embeddings_do_not_decay():
    head = Mixed()
    names = {id(parameter): name for name, parameter in head.named_parameters()}
    decayed, plain = ({names[id(parameter)] for parameter in group} for group in parameter_groups(head))
    assert decayed == {"linear.weight", "query"}
    assert plain == {"linear.bias", "norm.weight", "norm.bias", "table.weight"}


def test_the_rate_rises_and_falls():
    rates = [rate_at(step, 5, 25) for step in range(26)]
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert rates[5] == 1 and rates[15] == pytest.approx(0.5) and rates[25] == pytest.approx(0)
    assert rate_at(0, 0, 10) == 1 and 0 <= rate_at(99, 0, 10) < 1e-9


class Wrapped(nn.Module):
    def __init__(self, head):
        super().__init__()
        self.head = head


def test_weights_are_averaged_with_a_rising_decay():
    module = Wrapped(Mixed())
    average = AveragedWeights(0.5)
    average.on_fit_start(None, module)
    expected = module.head.linear.weight.detach().clone()
    for step in range(1, 20):
        with torch.no_grad():
            module.head.linear.weight += 1
        module.head.count += 1
        average.on_train_batch_end(None, module)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * module.head.linear.weight.detach()
    weights = average.weights()
    assert torch.allclose(weights["linear.weight"], expected, atol=1e-5)
    assert weights["count"] == 19, "buffers are copied"


def test_validation_sees_the_average_and_training_goes_on_unchanged():
    module = Wrapped(Mixed())
    average = AveragedWeights(0.9)
    average.on_fit_start(None, module)
    with torch.no_grad():
        module.head.linear.weight += 1
    trained = module.head.linear.weight.detach().clone()
    average.on_train_batch_end(None, module)
    average.on_validation_start(None, module)
    assert torch.equal(module.head.linear.weight, average.weights()["linear.weight"])
    assert not torch.equal(module.head.linear.weight, trained)
    average.on_validation_end(None, module)
    assert torch.equal(module.head.linear.weight, trained)


def test_the_average_survives_a_restart():
    module = Wrapped(Mixed())
    average, later = AveragedWeights(0.9), AveragedWeights(0.9)
    average.on_fit_start(None, module)
    with torch.no_grad():
        module.head.linear.weight += 1
    average.on_train_batch_end(None, module)
    later.load_state_dict(average.state_dict())
    later.on_fit_start(None, Wrapped(Mixed()))
    assert later.num_updates == 1 and torch.equal(later.weights()["linear.weight"], average.weights()["linear.weight"])


def test_means_over_an_epoch_go_on_where_they_were_saved():
    first, later, whole = EpochMeans(), EpochMeans(), EpochMeans()
    batches = [({"total": torch.rand(()), "part": torch.rand(())}, num_windows) for num_windows in (2, 3, 1)]
    for batch in batches:
        whole.add(*batch)
    for batch in batches[:2]:
        first.add(*batch)
    later.load_state_dict(first.state_dict())
    later.add(*batches[2])
    assert whole.means() == later.means()
    expected = sum(losses["part"] * num_windows for losses, num_windows in batches) / 6
    assert whole.means()["part"] == pytest.approx(float(expected))


def test_a_checkpoint_of_an_earlier_version_can_be_continued():
    module = HeadModule(Mixed(), TrainConfig(), 3)
    module.on_load_checkpoint({})
    saved = {}
    module.on_save_checkpoint(saved)
    assert saved == {"train_means": {"sums": {}, "num_windows": 0}}
