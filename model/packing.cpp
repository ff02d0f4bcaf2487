// SPDX-License-Identifier: Apache-2.0
#include "model/packing.h"

#include <ATen/ops/index_select.h>

#include "model/upload.h"
#include "runtime/core/error.h"

namespace neoloom::model {

namespace {

using core::ErrorKind;

constexpr int64_t kNoLabel = -100;

void check_batch(const Batch& batch, const GptNeoConfig& config) {
  const int64_t samples = batch.ids.size(0);
  core::require(batch.ids.dim() == 2 && samples > 0 && static_cast<int64_t>(batch.host_lengths.size()) == samples &&
                    static_cast<int64_t>(batch.sample_ids.size()) == samples,
                ErrorKind::kInternal, "batch: {} rows of ids with {} lengths and {} sample ids", samples,
                batch.host_lengths.size(), batch.sample_ids.size());
  for (size_t row = 0; row < batch.host_lengths.size(); ++row) {
    const int64_t length = batch.host_lengths[row];
    core::require(length >= 1 && length <= batch.ids.size(1), ErrorKind::kData,
                  "sample {}: expected a length from 1 to {}, found {}", batch.sample_ids[row], batch.ids.size(1),
                  length);
    core::require(length <= config.max_position_embeddings, ErrorKind::kData,
                  "sample {}: {} tokens, but the model has {} positions; truncate it (data.max_length)",
                  batch.sample_ids[row], length, config.max_position_embeddings);
  }
}

/// On the host only: on a device the check would wait for the device, and the data room has made it before.
void check_ids(const at::Tensor& ids, const std::vector<RowKey>& keys, int64_t vocab_size) {
  if (!ids.is_cpu()) return;
  const int64_t* const values = ids.const_data_ptr<int64_t>();
  for (size_t row = 0; row < keys.size(); ++row) {
    core::require(
        values[row] >= 0 && values[row] < vocab_size, ErrorKind::kData,
        "sample {}: token {} has id {}, but the model's vocabulary has {} entries; tokenizer and model differ",
        keys[row].sample, keys[row].token, values[row], vocab_size);
  }
}

}  // namespace

PackedBatch pack(const Batch& batch, const GptNeoConfig& config, bool for_device) {
  check_batch(batch, config);
  const int64_t padded_length = batch.ids.size(1);
  PackedBatch packed;
  std::vector<int64_t> source;
  std::vector<int64_t> positions;
  std::vector<int64_t> last;
  for (size_t sample = 0; sample < batch.host_lengths.size(); ++sample) {
    const int64_t length = batch.host_lengths[sample];
    const auto begin = static_cast<int64_t>(source.size());
    packed.rows.segments.push_back({begin, length, begin, length});
    packed.last_rows.segments.push_back({static_cast<int64_t>(sample), 1, begin, length});
    for (int64_t token = 0; token < length; ++token) {
      source.push_back(static_cast<int64_t>(sample) * padded_length + token);
      positions.push_back(token);
      packed.rows.key_rows.push_back({batch.sample_ids[sample], token});
    }
    last.push_back(begin + length - 1);
    packed.last_rows.query_rows.push_back({batch.sample_ids[sample], length - 1});
  }
  packed.last_rows.key_rows = packed.rows.key_rows;
  const at::Device device = batch.ids.device();
  packed.source = upload(source, device);
  packed.positions = upload(positions, device);
  packed.last_rows.query_index = upload(last, device);
  if (for_device) {
    packed.rows.packed = packed_rows(packed.rows.segments, device);
    packed.last_rows.packed = packed_rows(packed.last_rows.segments, device);
  }
  packed.ids = at::index_select(batch.ids.reshape({-1}), 0, packed.source);
  check_ids(packed.ids, packed.rows.key_rows, config.vocab_size);
  return packed;
}

at::Tensor host_labels(const Batch& batch) {
  const at::Tensor& labels = batch.host_labels.defined() ? batch.host_labels : batch.labels;
  core::require(labels.is_cpu() && labels.scalar_type() == at::kLong, ErrorKind::kInternal,
                "batch: expected a host copy of its int64 labels");
  return labels.contiguous();
}

SupervisedRows supervised_rows(const Batch& batch, const GptNeoConfig& config) {
  const at::Tensor labels = host_labels(batch);
  core::require(labels.sizes() == batch.ids.sizes() && labels.scalar_type() == at::kLong, ErrorKind::kInternal,
                "labels of a causal LM: expected int64 of the shape of ids");
  std::vector<int64_t> rows;
  std::vector<int64_t> targets;
  int64_t begin = 0;
  for (size_t sample = 0; sample < batch.host_lengths.size(); ++sample) {
    const int64_t length = batch.host_lengths[sample];
    const int64_t* const row = labels.const_data_ptr<int64_t>() + static_cast<int64_t>(sample) * labels.size(1);
    for (int64_t token = 0; token + 1 < length; ++token) {
      const int64_t target = row[token + 1];
      if (target == kNoLabel) continue;
      core::require(target >= 0 && target < config.vocab_size, ErrorKind::kData,
                    "sample {}: label {} at token {} is outside the vocabulary of {} entries", batch.sample_ids[sample],
                    target, token + 1, config.vocab_size);
      rows.push_back(begin + token);
      targets.push_back(target);
    }
    begin += length;
  }
  return {upload(rows, batch.ids.device()), upload(targets, batch.ids.device())};
}

}  // namespace neoloom::model
