// SPDX-License-Identifier: Apache-2.0
#pragma once

// Letters of the shape comments in this room.
//
//   B  samples of a micro-batch           T   padded length of a micro-batch
//   N  packed rows: real tokens only      n   rows of a part of the packed rows
//   h  hidden size                        H   attention heads
//   d  head size, h / H                   ff  intermediate size of the MLP
//   V  vocabulary size                    L   blocks
//   r  LoRA rank                          C   labels of the classification head
//
// Batches hold no padding: row-wise operators work on the N real tokens, attention works sample by sample. A padding
// token therefore cannot influence any value or gradient.
