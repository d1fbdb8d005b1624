"""A captured program (.pt2) as a .tflite: a script for the environment of litert-torch, which lacks our packages.

python litert_conversion.py captured.pt2 converted.tflite
"""

import sys

import litert_torch
import torch

if __name__ == "__main__":
    program = torch.export.load(sys.argv[1])
    inputs, _ = program.example_inputs
    litert_torch.convert(program.module(), inputs).export(sys.argv[2])
