// SPDX-License-Identifier: Apache-2.0
#include "runtime/checkpoint/state_file.h"

#include <algorithm>
#include <array>
#include <utility>

#include "runtime/hdf5/objects.h"

namespace neoloom::checkpoint {
namespace {

using core::ErrorKind;
using hdf5::Element;
using hdf5::Id;

constexpr auto kCheckpoint = ErrorKind::kCheckpoint;

// Reading and writing use the same table, so they cannot drift apart.
constexpr std::array<std::pair<const char*, int64_t State::*>, 6> kCounters = {
    {{"step", &State::step},
     {"epoch", &State::epoch},
     {"step_in_epoch", &State::step_in_epoch},
     {"good_steps", &State::good_steps},
     {"skipped_steps", &State::skipped_steps},
     {"best_step", &State::best_step}}};
constexpr std::array<std::pair<const char*, double State::*>, 2> kNumbers = {
    {{"loss_scale", &State::loss_scale}, {"best_metric", &State::best_metric}}};
constexpr std::array<std::pair<const char*, std::string State::*>, 4> kTexts = {{{"config", &State::config},
                                                                                 {"identity", &State::identity},
                                                                                 {"label_map", &State::label_map},
                                                                                 {"history", &State::history}}};
constexpr std::array<std::pair<const char*, std::vector<float> State::*>, 3> kArrays = {
    {{"params", &State::params}, {"exp_avg", &State::exp_avg}, {"exp_avg_sq", &State::exp_avg_sq}}};
// With kOptimizerBit, beside an attribute for the optimizer's name.
constexpr std::array<std::pair<const char*, std::vector<uint8_t> State::*>, 2> kCodes = {
    {{"exp_avg_codes", &State::exp_avg_codes}, {"exp_avg_sq_codes", &State::exp_avg_sq_codes}}};

constexpr const char* kOptimizer = "optimizer";
constexpr const char* kAdamW = "adamw";
constexpr int64_t kOptimizerBit = 4;

/// Arrays that a state may have, and the bit of each in the format's version less 1. Checkpoints of AdamW keep the
/// versions that older programs read.
struct OptionalArray {
  const char* name;
  std::vector<float> State::*member;
  int64_t bit;
};
constexpr std::array<OptionalArray, 2> kOptionalArrays = {
    {{"best_params", &State::best_params, 1}, {"initial_params", &State::initial_params, 2}}};

int64_t format_version_of(const State& state) {
  int64_t version = 1;
  for (const OptionalArray& array : kOptionalArrays) version += (state.*array.member).empty() ? 0 : array.bit;
  return version + (state.optimizer == kAdamW ? 0 : kOptimizerBit);
}

// Returns the number of elements of a shape, or -1 when an extent is negative or the product exceeds `limit`.
int64_t element_count(const std::vector<int64_t>& shape, int64_t limit) {
  int64_t count = 1;
  for (const int64_t extent : shape) {
    if (extent < 0 || (extent > 0 && count > limit / extent)) return -1;
    count *= extent;
  }
  return count <= limit ? count : -1;
}

void require_consistent(const State& state, ErrorKind kind) {
  const auto n = static_cast<int64_t>(state.params.size());
  for (const auto& [name, member] : kArrays) {
    const auto length = static_cast<int64_t>((state.*member).size());
    core::require(length == n || (state.optimizer != kAdamW && length <= 2 * n), kind,
                  "{} has {} elements, params has {}", name, length, n);
  }
  for (const auto& [name, member] : kCodes) {
    const auto length = static_cast<int64_t>((state.*member).size());
    core::require(length == 0 || (state.optimizer != kAdamW && length == n), kind, "{} has {} elements, params has {}",
                  name, length, n);
  }
  for (const OptionalArray& array : kOptionalArrays) {
    const auto size = static_cast<int64_t>((state.*array.member).size());
    core::require(size == 0 || size == n, kind, "{} has {} elements, params has {}", array.name, size, n);
  }
  core::require(state.step >= 0 && state.epoch >= 0 && state.step_in_epoch >= 0, kind,
                "negative counter: step {}, epoch {}, step_in_epoch {}", state.step, state.epoch, state.step_in_epoch);
  for (const IndexEntry& entry : state.index) {
    const int64_t count = element_count(entry.shape, n);
    core::require(count >= 0 && entry.offset_elements >= 0 && entry.offset_elements <= n - count, kind,
                  "tensor {} at offset {} with shape [{}] does not fit into {} elements", entry.name,
                  entry.offset_elements, fmt::join(entry.shape, ", "), n);
  }
}

size_t widest_shape(const std::vector<IndexEntry>& index) {
  size_t widest = 1;
  for (const IndexEntry& entry : index) widest = std::max(widest, entry.shape.size());
  return widest;
}

void write_index(Id file, const std::vector<IndexEntry>& index) {
  const size_t widest = widest_shape(index);
  std::vector<std::string> names;
  std::vector<int64_t> ranks, offsets, shapes;
  for (const IndexEntry& entry : index) {
    names.push_back(entry.name);
    ranks.push_back(static_cast<int64_t>(entry.shape.size()));
    offsets.push_back(entry.offset_elements);
    shapes.insert(shapes.end(), entry.shape.begin(), entry.shape.end());
    shapes.resize(names.size() * widest, 0);
  }
  const hdf5::Group group = hdf5::create_group(file, "index", kCheckpoint);
  hdf5::write_texts(group.get(), "name", names, kCheckpoint);
  hdf5::write_array(group.get(), "rank", hdf5::array_view<int64_t>(ranks), kCheckpoint);
  hdf5::write_array(group.get(), "offset", hdf5::array_view<int64_t>(offsets), kCheckpoint);
  hdf5::write_array(group.get(), "shape", {Element::kInt64, {index.size(), widest}, shapes.data()}, kCheckpoint);
}

void require_members(Id group, std::vector<std::string> expected, const char* where) {
  const std::vector<std::string> found = hdf5::member_names(group, kCheckpoint);
  std::sort(expected.begin(), expected.end());
  core::require(found == expected, kCheckpoint, "{} holds the members [{}], expected [{}]", where,
                fmt::join(found, ", "), fmt::join(expected, ", "));
}

// Checks the name of the format. Returns its version.
int64_t require_format(Id file) {
  const std::string format = hdf5::read_text_attribute(file, "format", kCheckpoint);
  core::require(format == kFormatName, kCheckpoint, "its format is \"{}\", expected \"{}\"", format, kFormatName);
  const int64_t version = hdf5::read_int_attribute(file, "format_version", kCheckpoint);
  if (version > kFormatVersion) {
    throw NewerFormat(kCheckpoint, fmt::format("its format version is {}, this neoloom reads up to {}: "
                                               "use the newer neoloom that wrote it, or another output_dir",
                                               version, kFormatVersion));
  }
  core::require(version >= 1, kCheckpoint, "its format version is {}, expected 1 to {}", version, kFormatVersion);
  return version;
}

template <typename T>
std::vector<T> read_vector(Id parent, const std::string& name, uint64_t file_bytes) {
  const std::vector<uint64_t> shape = hdf5::array_shape(parent, name, hdf5::element_of<T>(), file_bytes, kCheckpoint);
  core::require(shape.size() == 1, kCheckpoint, "dataset \"{}\" has {} dimensions, expected 1", name, shape.size());
  std::vector<T> values(shape[0]);
  if (!values.empty()) hdf5::read_array(parent, name, hdf5::element_of<T>(), values.data(), kCheckpoint);
  return values;
}

std::vector<IndexEntry> read_index(Id file, uint64_t file_bytes) {
  const hdf5::Group group = hdf5::open_group(file, "index", kCheckpoint);
  require_members(group.get(), {"name", "offset", "rank", "shape"}, "group index");
  std::vector<std::string> names = hdf5::read_texts(group.get(), "name", file_bytes, kCheckpoint);
  const std::vector<int64_t> ranks = read_vector<int64_t>(group.get(), "rank", file_bytes);
  const std::vector<int64_t> offsets = read_vector<int64_t>(group.get(), "offset", file_bytes);
  const std::vector<uint64_t> dims = hdf5::array_shape(group.get(), "shape", Element::kInt64, file_bytes, kCheckpoint);
  const size_t count = names.size();
  core::require(ranks.size() == count && offsets.size() == count && dims.size() == 2 && dims[0] == count, kCheckpoint,
                "the datasets of group index have unequal lengths: {} names, {} ranks, {} offsets", count, ranks.size(),
                offsets.size());
  std::vector<int64_t> shapes(dims[0] * dims[1]);
  if (!shapes.empty()) hdf5::read_array(group.get(), "shape", Element::kInt64, shapes.data(), kCheckpoint);
  std::vector<IndexEntry> index(count);
  for (size_t i = 0; i < count; ++i) {
    core::require(ranks[i] >= 0 && static_cast<uint64_t>(ranks[i]) <= dims[1], kCheckpoint,
                  "tensor {} has {} dimensions, at most {} are stored", names[i], ranks[i], dims[1]);
    const auto row = shapes.begin() + static_cast<int64_t>(i * dims[1]);
    index[i] = {std::move(names[i]), {row, row + ranks[i]}, offsets[i]};
  }
  return index;
}

}  // namespace

uint64_t payload_bytes(const State& state) {
  uint64_t bytes = 0;
  for (const auto& [name, member] : kArrays) bytes += (state.*member).size() * sizeof(float);
  for (const OptionalArray& array : kOptionalArrays) bytes += (state.*array.member).size() * sizeof(float);
  for (const auto& [name, member] : kCodes) bytes += (state.*member).size();
  for (const auto& [name, member] : kTexts) bytes += (state.*member).size();
  size_t longest_name = 1;
  for (const IndexEntry& entry : state.index) longest_name = std::max(longest_name, entry.name.size());
  return bytes + state.index.size() * (longest_name + (widest_shape(state.index) + 2) * sizeof(int64_t));
}

void write_state(Id file, const State& state) {
  require_consistent(state, ErrorKind::kInternal);
  hdf5::write_attribute(file, "format", std::string_view(kFormatName), kCheckpoint);
  hdf5::write_attribute(file, "format_version", format_version_of(state), kCheckpoint);
  for (const auto& [name, member] : kCounters) hdf5::write_attribute(file, name, state.*member, kCheckpoint);
  for (const auto& [name, member] : kNumbers) hdf5::write_attribute(file, name, state.*member, kCheckpoint);
  for (const auto& [name, member] : kTexts) hdf5::write_text(file, name, state.*member, kCheckpoint);
  write_index(file, state.index);
  for (const auto& [name, member] : kArrays) {
    hdf5::write_array(file, name, hdf5::array_view<float>(state.*member), kCheckpoint);
  }
  for (const OptionalArray& array : kOptionalArrays) {
    const std::vector<float>& values = state.*array.member;
    if (!values.empty()) hdf5::write_array(file, array.name, hdf5::array_view<float>(values), kCheckpoint);
  }
  if (state.optimizer == kAdamW) return;
  hdf5::write_attribute(file, kOptimizer, std::string_view(state.optimizer), kCheckpoint);
  for (const auto& [name, member] : kCodes) {
    hdf5::write_array(file, name, hdf5::array_view<uint8_t>(state.*member), kCheckpoint);
  }
}

State read_state(Id file, uint64_t file_bytes, Arrays arrays) {
  const int64_t version = require_format(file);
  const auto is_stored = [&](const OptionalArray& array) { return ((version - 1) & array.bit) != 0; };
  const bool has_codes = ((version - 1) & kOptimizerBit) != 0;
  std::vector<std::string> expected = {"index"};
  for (const OptionalArray& array : kOptionalArrays) {
    if (is_stored(array)) expected.emplace_back(array.name);
  }
  for (const auto& [name, member] : kTexts) expected.emplace_back(name);
  for (const auto& [name, member] : kArrays) expected.emplace_back(name);
  for (const auto& [name, member] : kCodes) {
    if (has_codes) expected.emplace_back(name);
  }
  require_members(file, std::move(expected), "the root group");
  State state;
  for (const auto& [name, member] : kCounters) state.*member = hdf5::read_int_attribute(file, name, kCheckpoint);
  for (const auto& [name, member] : kNumbers) state.*member = hdf5::read_double_attribute(file, name, kCheckpoint);
  for (const auto& [name, member] : kTexts) state.*member = hdf5::read_text(file, name, file_bytes, kCheckpoint);
  state.index = read_index(file, file_bytes);
  const auto read = [&]<typename T>(const char* name, std::vector<T>& into) {
    std::vector<T> values = read_vector<T>(file, name, file_bytes);
    if (arrays == Arrays::kKeep) into = std::move(values);
  };
  for (const auto& [name, member] : kArrays) read(name, state.*member);
  for (const OptionalArray& array : kOptionalArrays) {
    if (is_stored(array)) read(array.name, state.*array.member);
  }
  if (has_codes) {
    state.optimizer = hdf5::read_text_attribute(file, kOptimizer, kCheckpoint);
    for (const auto& [name, member] : kCodes) read(name, state.*member);
  }
  if (arrays == Arrays::kKeep) require_consistent(state, kCheckpoint);
  return state;
}

}  // namespace neoloom::checkpoint
