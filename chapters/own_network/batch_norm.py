"""A network with batch normalization and dropout, momentum and a schedule."""

import torch
from torch import nn

from ijrlib import datasets
from ijrlib.monitor import CurvatureMonitor

torch.manual_seed(0)
model = nn.Sequential(
    nn.Conv2d(1, 16, 3, padding=1, bias=False),
    nn.BatchNorm2d(16),
    nn.ReLU(),
    nn.Conv2d(16, 32, 3, stride=2, padding=1, bias=False),
    nn.BatchNorm2d(32),
    nn.ReLU(),
    nn.Flatten(),
    nn.Dropout(0.2),
    nn.Linear(32 * 4 * 4, 10),
)
data = datasets.load("digits", 1000, (1, 8, 8), 10, seed=0)
loss = nn.CrossEntropyLoss()
settings = {"lr": 0.05, "momentum": 0.9, "weight_decay": 5e-4}
optimizer = torch.optim.SGD(model.parameters(), **settings)
schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [200, 400], 0.2)
probe = (data.x[:200], data.y[:200])
monitor = CurvatureMonitor(model, loss, probe, every=20, optimizer=optimizer)
monitor.measure()
for _ in range(600):
    batch = torch.randint(len(data.x), (64,))
    optimizer.zero_grad()
    loss(model(data.x[batch]), data.y[batch]).backward()
    optimizer.step()
    schedule.step()
    monitor.step()

frames = {"batch normalization": monitor.frame()}
