"""A transformer that reads the rows of a digit, without and with EJR v1."""

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from ijrlib import datasets
from ijrlib.monitor import CurvatureMonitor
from ijrlib.regularizers import backward


class RowTransformer(nn.Module):
    def __init__(self, width=32):
        super().__init__()
        self.embed = nn.Linear(8, width)
        self.position = nn.Parameter(0.1 * torch.randn(8, width))
        size = {"d_model": width, "nhead": 4, "dim_feedforward": 64}
        layer = nn.TransformerEncoderLayer(**size, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2)
        self.head = nn.Linear(width, 10)

    def forward(self, rows):
        return self.head(self.encoder(self.embed(rows) + self.position).mean(1))


data = datasets.load("digits", 1000, (1, 8, 8), 10, seed=0)
rows, labels = data.x.squeeze(1), data.y


def train(rho):
    torch.manual_seed(0)
    model = RowTransformer()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    probe = (rows[:200], labels[:200])
    settings = {"every": 20, "optimizer": optimizer}
    monitor = CurvatureMonitor(model, cross_entropy, probe, **settings)
    monitor.measure()
    for _ in range(600):
        batch = torch.randint(len(rows), (64,))
        optimizer.zero_grad()
        if rho:
            backward(model, cross_entropy, rows[batch], labels[batch], rho=rho)
        else:
            cross_entropy(model(rows[batch]), labels[batch]).backward()
        optimizer.step()
        monitor.step()
    return monitor.frame()


frames = {"plain": train(rho=0.0), "EJR v1": train(rho=0.5)}
