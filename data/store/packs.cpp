// SPDX-License-Identifier: Apache-2.0
#include "data/store/packs.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <numeric>
#include <span>
#include <utility>
#include <vector>

#include "data/readers/input_text.h"
#include "data/readers/rows.h"
#include "data/store/part_of_store.h"

namespace neoloom::data {
namespace {

using Samples = std::vector<int64_t>;

bool is_plain_text(const std::string& path, const Options& options) {
  return format_of(path, options, InputFile(path, options.encoding).head()) == Format::kText;
}

Samples longest_first(std::span<const int32_t> lengths) {
  Samples order(lengths.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return lengths[a] > lengths[b]; });
  return order;
}

/// Returns the samples of each pack.
std::vector<Samples> best_fit_decreasing(std::span<const int32_t> lengths, int64_t pack_tokens) {
  std::vector<Samples> packs;
  std::map<int64_t, std::vector<size_t>> by_free_tokens;  // packs that are not full
  for (const int64_t sample : longest_first(lengths)) {
    const int64_t length = std::max(1, lengths[sample]);  // collate() gives an empty sample a token
    size_t pack = packs.size();
    int64_t free_tokens = pack_tokens;
    if (const auto found = by_free_tokens.lower_bound(length); found != by_free_tokens.end()) {
      free_tokens = found->first;
      pack = found->second.back();
      found->second.pop_back();
      if (found->second.empty()) by_free_tokens.erase(found);
    } else {
      packs.emplace_back();
    }
    packs[pack].push_back(sample);
    if (free_tokens > length) by_free_tokens[free_tokens - length].push_back(pack);
  }
  return packs;
}

}  // namespace

bool uses_packs(const StoreRequest& request) {
  const Options& options = request.options;
  if (request.task != Task::kCausalLm || options.pack == "none") return false;
  if (options.pack != "auto") return true;
  const std::vector<std::string> paths = request.files.expand();
  return std::all_of(paths.begin(), paths.end(), [&](const auto& path) { return is_plain_text(path, options); });
}

std::shared_ptr<const TokenStore> pack_samples(std::shared_ptr<const TokenStore> store, int64_t pack_tokens) {
  std::vector<Samples> packs = best_fit_decreasing(store->lengths(), pack_tokens);
  if (static_cast<int64_t>(packs.size()) == store->size()) return store;
  for (Samples& pack : packs) std::sort(pack.begin(), pack.end());
  std::sort(packs.begin(), packs.end());  // by their first samples
  Samples samples;
  std::vector<int64_t> begins = {0};
  for (const Samples& pack : packs) {
    samples.insert(samples.end(), pack.begin(), pack.end());
    begins.push_back(static_cast<int64_t>(samples.size()));
  }
  return std::make_shared<PartOfStore>(std::move(store), std::move(samples), fmt::format("packs of {}", pack_tokens),
                                       PartOfStore::Grouping{std::move(begins), /*changed=*/true});
}

std::string pack_summary(const TokenStore& store, int64_t pack_tokens) {
  const auto lengths = store.lengths();
  const double tokens = std::accumulate(lengths.begin(), lengths.end(), 0.0);
  return fmt::format("{} packs of up to {} tokens, {:.1f} % full, hold {} samples", store.packs(), pack_tokens,
                     100.0 * tokens / static_cast<double>(store.packs() * pack_tokens), store.size());
}

}  // namespace neoloom::data
