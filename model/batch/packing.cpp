// SPDX-License-Identifier: Apache-2.0
#include "model/batch/packing.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>

#include "model/batch/pinned.h"
#include "runtime/core/error.h"

namespace neoloom::model {

namespace {

using core::ErrorKind;

constexpr int64_t kFewestRows = 128;
constexpr int64_t kSizesPerOctave = 8;

void check_batch(const Batch& batch, const GptNeoConfig& config) {
  const size_t samples = batch.sample_ids.size();
  core::require(samples > 0 && batch.cu_seqlens.size() == samples + 1 && batch.cu_seqlens.front() == 0 &&
                    batch.cu_seqlens.back() == static_cast<int64_t>(batch.ids.size()),
                ErrorKind::kInternal, "batch: {} samples with {} limits of {} tokens", samples, batch.cu_seqlens.size(),
                batch.ids.size());
  for (size_t sample = 0; sample < samples; ++sample) {
    const int64_t length = batch.cu_seqlens[sample + 1] - batch.cu_seqlens[sample];
    core::require(length >= 1, ErrorKind::kData, "sample {}: expected at least one token, found a length of {}",
                  batch.sample_ids[sample], length);
    core::require(length <= config.max_position_embeddings, ErrorKind::kData,
                  "sample {}: {} tokens, but the model has {} positions; truncate it (tokenizer_config.max_length)",
                  batch.sample_ids[sample], length, config.max_position_embeddings);
  }
}

void check_ids(const std::vector<int64_t>& ids, const std::vector<RowKey>& keys, int64_t vocab_size) {
  for (size_t row = 0; row < ids.size(); ++row) {
    core::require(
        ids[row] >= 0 && ids[row] < vocab_size, ErrorKind::kData,
        "sample {}: token {} has id {}, but the model's vocabulary has {} entries; tokenizer and model differ",
        keys[row].sample, keys[row].token, ids[row], vocab_size);
  }
}

/// Collects the rows of a micro-batch, then makes tensors of them.
class Packer {
 public:
  Packer(const Batch& batch, const ModelSetup& setup, const at::Device& device, PackOptions options)
      : batch_(batch), setup_(setup), device_(device), options_(options) {}

  MicroBatch pack() {
    collect_rows();
    check_ids(batch_.ids, result_.packed.rows.key_rows, setup_.config.vocab_size);
    if (options_.fixed_shapes) add_padding_sample();
    make_row_tensors();
    if (batch_.has_targets) {
      if (setup_.head == Head::kCausalLm) {
        collect_next_tokens();
      } else {
        collect_labels();
      }
    }
    return std::move(result_);
  }

 private:
  template <typename Value>
  at::Tensor tensor(const std::vector<Value>& values) const {
    return to_pinned(values, {static_cast<int64_t>(values.size())}, device_);
  }

  void collect_rows() {
    RowSelection& rows = result_.packed.rows;
    RowSelection& last_rows = result_.packed.last_rows;
    for (size_t sample = 0; sample < batch_.sample_ids.size(); ++sample) {
      const int64_t begin = batch_.cu_seqlens[sample];
      const int64_t length = batch_.cu_seqlens[sample + 1] - begin;
      const int64_t id = batch_.sample_ids[sample];
      rows.segments.push_back({begin, length, begin, length, id});
      last_rows.segments.push_back({static_cast<int64_t>(sample), 1, begin, length, id});
      for (int64_t token = 0; token < length; ++token) {
        positions_.push_back(token);
        rows.key_rows.push_back({id, token});
      }
      last_.push_back(begin + length - 1);
      last_rows.query_rows.push_back({id, length - 1});
    }
    last_rows.key_rows = rows.key_rows;
  }

  void add_padding_sample() {
    const auto begin = static_cast<int64_t>(ids_.size());
    const int64_t rows = fixed_shape_rows(setup_.head, begin);
    const auto samples = static_cast<int64_t>(last_.size());
    result_.packed.rows.segments.push_back({begin, rows - begin, begin, rows - begin});
    result_.packed.last_rows.segments.push_back({samples, 1, begin, rows - begin});
    ids_.resize(static_cast<size_t>(rows), 0);
    positions_.resize(static_cast<size_t>(rows), 0);
    last_.push_back(rows - 1);
  }

  void make_row_tensors() {
    PackedBatch& packed = result_.packed;
    packed.ids = tensor(ids_);
    packed.positions = tensor(positions_);
    packed.last_rows.query_index = tensor(last_);
    if (setup_.neftune_noise_alpha > 0.0) packed.noise_reach = noise_reach();
    if (!options_.for_device) return;
    for (RowSelection* rows : {&packed.rows, &packed.last_rows}) {
      rows->packed = cu_seqlens(rows->segments, device_);
      if (!options_.fixed_shapes) continue;
      const auto longest = static_cast<uint64_t>(std::max(rows->packed.max_seqlen_k, kFewestRows));
      rows->packed.max_seqlen_k = static_cast<int64_t>(std::bit_ceil(longest));
      if (rows->packed.queries_are_keys) rows->packed.max_seqlen_q = rows->packed.max_seqlen_k;
    }
  }

  /// Takes the sample's own length, where transformers takes that of the padded batch.
  at::Tensor noise_reach() const {
    std::vector<float> reach;
    for (const SequenceSpan& sample : result_.packed.rows.segments) {
      const double elements = static_cast<double>(sample.key_rows) * static_cast<double>(setup_.config.hidden_size);
      reach.insert(reach.end(), static_cast<size_t>(sample.key_rows),
                   static_cast<float>(setup_.neftune_noise_alpha / std::sqrt(elements)));
    }
    return tensor(reach);
  }

  void collect_next_tokens() {
    std::vector<int64_t> rows = batch_.target_rows;
    std::vector<int64_t> values = batch_.targets;
    check_next_tokens(rows, values);
    Targets& targets = result_.targets;
    targets.count = static_cast<int64_t>(rows.size());
    if (options_.fixed_shapes) {
      std::vector<float> weights(rows.size(), 1.0F);
      const auto rounded = static_cast<size_t>(rounded_rows(targets.count));
      rows.resize(rounded, static_cast<int64_t>(ids_.size()) - 1);  // the last sample's last token: it has no target
      values.resize(rounded, 0);
      weights.resize(rounded, 0.0F);
      targets.weights = tensor(weights);
    }
    targets.rows = tensor(rows);
    targets.values = tensor(values);
  }

  void check_next_tokens(const std::vector<int64_t>& rows, const std::vector<int64_t>& values) const {
    core::require(rows.size() == values.size(), ErrorKind::kInternal, "{} target rows with {} targets", rows.size(),
                  values.size());
    for (size_t i = 0; i < rows.size(); ++i) {
      core::require(rows[i] >= 0 && rows[i] < batch_.cu_seqlens.back(), ErrorKind::kInternal,
                    "target row {} of {} rows", rows[i], batch_.cu_seqlens.back());
      const RowKey& key = result_.packed.rows.key_rows[static_cast<size_t>(rows[i])];
      core::require(values[i] >= 0 && values[i] < setup_.config.vocab_size, ErrorKind::kData,
                    "sample {}: label {} at token {} is outside the vocabulary of {} entries", key.sample, values[i],
                    key.token + 1, setup_.config.vocab_size);
    }
  }

  void collect_labels() {
    const auto samples = static_cast<int64_t>(batch_.sample_ids.size());
    std::vector<bool> labelled(static_cast<size_t>(samples), true);
    Targets& targets = result_.targets;
    if (setup_.head == Head::kSingleLabel) {
      check_size(batch_.targets.size(), samples);
      targets.values = labels_tensor(class_labels(labelled), {samples});
    } else {
      const bool multi = setup_.head == Head::kMultiLabel;
      std::vector<float> values = multi ? batch_.multi_labels : batch_.values;
      check_size(values.size(), samples * setup_.num_labels);
      if (!multi) clear_unlabelled(values, labelled);
      targets.values = labels_tensor(std::move(values), {samples, setup_.num_labels});
    }
    targets.count = std::count(labelled.begin(), labelled.end(), true);
    collect_weights(labelled);
  }

  void check_size(size_t found, int64_t expected) const {
    core::require(found == static_cast<size_t>(expected), ErrorKind::kInternal, "{} labels: expected {} of {} samples",
                  found, expected, batch_.sample_ids.size());
  }

  /// Makes the factors of the losses: those of the batch, 0 for samples without a label and for the filling sample.
  void collect_weights(const std::vector<bool>& labelled) {
    const auto samples = static_cast<int64_t>(labelled.size());
    std::vector<float> weights = batch_.loss_weights;
    const bool of_values = setup_.head == Head::kMultiLabel && !weights.empty();
    const int64_t width = of_values ? setup_.num_labels : 1;
    const bool plain = weights.empty() && result_.targets.count == samples && !options_.fixed_shapes;
    if (plain) return;
    if (weights.empty()) weights.assign(static_cast<size_t>(samples), 1.0F);
    check_size(weights.size(), samples * width);
    for (size_t sample = 0; sample < labelled.size(); ++sample) {
      if (!labelled[sample]) weights[sample] = 0.0F;  // such samples have one weight each
    }
    const std::vector<int64_t> shape = of_values ? std::vector{samples, width} : std::vector{samples};
    result_.targets.weights = labels_tensor(std::move(weights), shape);
  }

  /// Returns the class of each sample. A sample without a label gets class 0.
  std::vector<int64_t> class_labels(std::vector<bool>& labelled) const {
    std::vector<int64_t> labels = batch_.targets;
    for (size_t sample = 0; sample < labels.size(); ++sample) {
      core::require(labels[sample] < setup_.num_labels, ErrorKind::kData, "label {} with only {} classes",
                    labels[sample], setup_.num_labels);
      if (labels[sample] >= 0) continue;
      labels[sample] = 0;
      labelled[sample] = false;
    }
    return labels;
  }

  /// Replaces the values of samples without any by 0.
  void clear_unlabelled(std::vector<float>& values, std::vector<bool>& labelled) const {
    const auto width = static_cast<size_t>(setup_.num_labels);
    for (size_t i = 0; i < values.size(); ++i) {
      if (!std::isnan(values[i])) continue;
      values[i] = 0.0F;
      labelled[i / width] = false;
    }
  }

  template <typename Value>
  at::Tensor labels_tensor(std::vector<Value> values, std::vector<int64_t> shape) const {
    if (options_.fixed_shapes) {
      const size_t per_sample = values.size() / static_cast<size_t>(shape[0]);
      values.resize(values.size() + per_sample, Value{0});
      ++shape[0];
    }
    return to_pinned(values, shape, device_);
  }

  const Batch& batch_;
  const ModelSetup& setup_;
  at::Device device_;
  PackOptions options_;
  MicroBatch result_;
  std::vector<int64_t> ids_ = batch_.ids;  // followed by the filling sample's
  std::vector<int64_t> positions_, last_;
};

/// Calls body(tensor) for every defined tensor of a micro-batch.
template <typename Batch, typename Body>
void for_each_tensor(Batch& batch, Body body) {
  auto& packed = batch.packed;
  for (auto* tensor :
       {&packed.ids, &packed.positions, &packed.noise_reach, &packed.rows.packed.cu_seqlens_q,
        &packed.rows.packed.cu_seqlens_k, &packed.last_rows.query_index, &packed.last_rows.packed.cu_seqlens_q,
        &packed.last_rows.packed.cu_seqlens_k, &batch.targets.rows, &batch.targets.values, &batch.targets.weights}) {
    if (tensor->defined()) body(*tensor);
  }
}

}  // namespace

MicroBatch pack(const Batch& batch, const ModelSetup& setup, const at::Device& device, PackOptions options) {
  check_batch(batch, setup.config);
  return Packer(batch, setup, device, options).pack();
}

void move_to(MicroBatch& batch, const at::Device& device) {
  for_each_tensor(batch, [&](at::Tensor& tensor) { tensor = to_device_async(tensor, device); });
}

void copy_into(MicroBatch& to, const MicroBatch& batch) {
  std::vector<at::Tensor> sources;
  for_each_tensor(batch, [&](const at::Tensor& tensor) { sources.push_back(tensor); });
  size_t next = 0;
  for_each_tensor(to, [&](at::Tensor& tensor) { tensor.copy_(sources.at(next++), /*non_blocking=*/true); });
}

std::string shape_of(const MicroBatch& batch, bool by_length) {
  const int64_t targets = batch.targets.values.defined() ? batch.targets.values.size(0) : 0;
  const CuSeqlens& rows = batch.packed.rows.packed;
  const std::string equal =
      by_length && rows.equal_samples > 0 ? fmt::format(" ({} of one length)", rows.equal_samples) : "";
  return fmt::format("{} rows, {} samples{} of up to {} tokens, {} targets", batch.packed.ids.size(0),
                     batch.packed.rows.segments.size(), equal, rows.max_seqlen_k, targets);
}

int64_t fixed_shape_rows(Head head, int64_t count) { return rounded_rows(head == Head::kCausalLm ? count : count + 1); }

int64_t rounded_rows(int64_t count) {
  const auto octave = static_cast<int64_t>(std::bit_floor(static_cast<uint64_t>(count)));
  const int64_t step = std::max(kFewestRows, octave / kSizesPerOctave);
  return std::max(kFewestRows, (count + step - 1) / step * step);
}

}  // namespace neoloom::model
