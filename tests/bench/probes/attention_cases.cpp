// SPDX-License-Identifier: Apache-2.0
#include "tests/bench/probes/attention_cases.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <random>

#include "model/gpt_neo_config.h"

namespace neoloom::probes {

namespace {

struct HeadShape {
  int64_t head_size;
  int64_t heads;
  int64_t tokens;
};
// As in 1.3B and 125M, at the tokens of their rows in `device`.
constexpr HeadShape kHeadShapes[] = {{128, 16, 8192}, {64, 12, 16384}};
constexpr int64_t kLengths[] = {1024, 2048, 512, 256, 128};  // the most valuable first
constexpr int64_t kUsualLength = 1024;
constexpr uint64_t kSeed = 17;

void add_cases(std::vector<AttentionCase>& cases, at::ScalarType dtype, int64_t length,
               const std::vector<bool>& raggeds) {
  for (const HeadShape& heads : kHeadShapes) {
    for (const int64_t window : {int64_t{0}, model::GptNeoConfig().window_size}) {
      for (const bool ragged : raggeds) {
        AttentionCase one = {dtype, heads.head_size, heads.heads, length, window, {}};
        if (ragged) {
          one.lengths = ragged_lengths(length, heads.tokens);
        } else {
          one.lengths.assign(static_cast<size_t>(heads.tokens / length), length);
        }
        cases.push_back(std::move(one));
      }
    }
  }
}

const char* library_name(Library library) {
  switch (library) {
    case Library::kFlash:
      return "flash";
    case Library::kGraph:
      return "cuDNN graph";
    case Library::kLibtorchCudnn:
      break;
  }
  return "LibTorch's cuDNN";
}

const char* layout_name(RowLayout layout) {
  switch (layout) {
    case RowLayout::kEven:
      return ", even rows";
    case RowLayout::kPadded:
      return ", padded rows";
    case RowLayout::kRagged:
      break;
  }
  return ", ragged rows";
}

const char* order_name(SumOrder order) {
  switch (order) {
    case SumOrder::kAny:
      return "";
    case SumOrder::kFixed:
      return ", deterministic";
    case SumOrder::kOrderedDq:
      break;
  }
  return ", deterministic, ordered dQ";
}

AttentionItem item_of(const AttentionCase& layer, Pass pass, Library library, RowLayout layout, SumOrder order) {
  AttentionItem item;
  const bool forward = pass == Pass::kForward;
  item.name = layer.name() + (forward ? ", forward" : ", backward");
  item.shape = layer.shape();
  item.shape["pass"] = forward ? "forward" : "backward";
  item.candidate = library_name(library);
  if (library != Library::kFlash) item.candidate += layout_name(layout);
  item.candidate += order_name(order);
  // As in device.py: two products forward, four backward.
  const auto pairs = static_cast<double>(visible_pairs(layer.lengths, layer.window));
  item.flops = (forward ? 4.0 : 8.0) * static_cast<double>(layer.heads * layer.head_size) * pairs;
  item.layer = layer;
  item.pass = pass;
  item.library = library;
  item.layout = layout;
  item.order = order;
  return item;
}

/// Adds forward, then backward in every order of sums that the library has.
void add_passes(std::vector<AttentionItem>& items, const AttentionCase& layer, Library library, RowLayout layout) {
  std::vector<SumOrder> orders = {SumOrder::kFixed, SumOrder::kAny};
  if (library == Library::kGraph) orders.insert(orders.begin() + 1, SumOrder::kOrderedDq);
  items.push_back(item_of(layer, Pass::kForward, library, layout, SumOrder::kAny));
  for (const SumOrder order : orders) items.push_back(item_of(layer, Pass::kBackward, library, layout, order));
}

}  // namespace

int64_t AttentionCase::tokens() const { return std::accumulate(lengths.begin(), lengths.end(), int64_t{0}); }

std::string AttentionCase::name() const {
  return fmt::format("attention {} head {} length {} {} {}", dtype == at::kHalf ? "fp16" : "bf16", head_size, length,
                     window > 0 ? fmt::format("window {}", window) : "global", ragged() ? "ragged" : "even");
}

Json AttentionCase::shape() const {
  return {{"dtype", dtype == at::kHalf ? "float16" : "bfloat16"},
          {"head_size", head_size},
          {"heads", heads},
          {"longest", length},
          {"samples", lengths.size()},
          {"tokens", tokens()},
          {"window", window},
          {"ragged", ragged()}};
}

std::vector<model::SequenceSpan> AttentionCase::segments() const {
  std::vector<model::SequenceSpan> spans;
  int64_t begin = 0;
  for (const int64_t rows : lengths) {
    spans.push_back({begin, rows, begin, rows});
    begin += rows;
  }
  return spans;
}

std::vector<int64_t> ragged_lengths(int64_t length, int64_t tokens) {
  std::mt19937_64 random(kSeed);
  const int64_t shortest = length / 8;
  std::vector<int64_t> lengths = {length};
  for (int64_t left = tokens - length; left > 0; left -= lengths.back()) {
    const auto drawn = static_cast<int64_t>(random() % static_cast<uint64_t>(length - shortest));
    lengths.push_back(std::min(left, shortest + drawn));
  }
  return lengths;
}

int64_t visible_pairs(const std::vector<int64_t>& lengths, int64_t window) {
  int64_t pairs = 0;
  for (const int64_t length : lengths) {
    const int64_t seen = window > 0 ? std::min(window, length) : length;
    pairs += seen * (seen + 1) / 2 + (length - seen) * seen;
  }
  return pairs;
}

std::vector<AttentionCase> attention_cases() {
  std::vector<AttentionCase> cases;
  for (const int64_t length : kLengths) add_cases(cases, at::kBFloat16, length, {false, true});
  add_cases(cases, at::kHalf, kUsualLength, {false});
  return cases;
}

std::vector<AttentionItem> attention_items() {
  std::vector<AttentionItem> items;
  const std::vector<AttentionCase> cases = attention_cases();
  for (const AttentionCase& layer : cases) {
    add_passes(items, layer, Library::kFlash, RowLayout::kRagged);
    if (!layer.ragged()) add_passes(items, layer, Library::kGraph, RowLayout::kEven);
    add_passes(items, layer, Library::kGraph, RowLayout::kRagged);
    if (layer.ragged()) add_passes(items, layer, Library::kGraph, RowLayout::kPadded);
  }
  for (const AttentionCase& layer : cases) {  // LibTorch's operator has no window
    if (layer.window > 0) continue;
    if (!layer.ragged()) add_passes(items, layer, Library::kLibtorchCudnn, RowLayout::kEven);
    add_passes(items, layer, Library::kLibtorchCudnn, RowLayout::kRagged);
  }
  return items;
}

}  // namespace neoloom::probes
