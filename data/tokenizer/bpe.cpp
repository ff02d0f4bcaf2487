// SPDX-License-Identifier: Apache-2.0
#include "data/tokenizer/bpe.h"

#include <bit>
#include <limits>
#include <queue>
#include <string>

#include "data/tokenizer/byte_symbols.h"
#include "runtime/core/error.h"
#include "runtime/core/rng.h"
#include "runtime/core/utf8.h"

namespace neoloom::data {
namespace {

// Below this many symbols a scan over all pairs is faster than a heap.
constexpr size_t kShortWordSymbols = 48;

int32_t vocab_id(const TokenizerFiles& files, const std::string& token, size_t rank) {
  const auto found = files.vocab.find(token);
  core::require(found != files.vocab.end(), core::ErrorKind::kWeights,
                "{}: merge {} needs the token \"{}\", which is not in the vocabulary: "
                "the merges and the vocabulary do not belong together",
                files.files.empty() ? "tokenizer" : files.files.front(), rank + 1, token);
  return found->second;
}

}  // namespace

BytePairMerger::BytePairMerger(const TokenizerFiles& files) {
  for (size_t byte = 0; byte < 256; ++byte) {
    std::string symbol;
    core::append_utf8(symbol, byte_symbols()[byte]);
    const auto found = files.vocab.find(symbol);
    byte_ids_[byte] = found == files.vocab.end() ? files.unk_id : found->second;
  }
  table_.resize(std::bit_ceil(2 * files.merges.size() + 2));
  for (size_t rank = 0; rank < files.merges.size(); ++rank) {
    const auto& [left, right] = files.merges[rank];
    insert(pair_of(vocab_id(files, left, rank), vocab_id(files, right, rank)), static_cast<int32_t>(rank),
           vocab_id(files, left + right, rank));
  }
}

size_t BytePairMerger::slot_of(uint64_t pair) const {
  size_t slot = core::mix64(pair) & (table_.size() - 1);
  while (table_[slot].pair != kNoPair && table_[slot].pair != pair) slot = (slot + 1) & (table_.size() - 1);
  return slot;
}

void BytePairMerger::insert(uint64_t pair, int32_t rank, int32_t merged_id) {
  table_[slot_of(pair)] = {pair, rank, merged_id};
}

const BytePairMerger::Merge* BytePairMerger::find(int32_t left, int32_t right) const {
  const Merge& merge = table_[slot_of(pair_of(left, right))];
  return merge.pair == kNoPair ? nullptr : &merge;
}

void BytePairMerger::append_ids(std::string_view word, std::vector<int32_t>& ids) const {
  const size_t begin = ids.size();
  for (const char byte : word) {
    const int32_t id = byte_ids_[static_cast<unsigned char>(byte)];
    if (id >= 0) ids.push_back(id);
  }
  if (ids.size() - begin <= kShortWordSymbols) {
    merge_short(ids, begin);
  } else {
    merge_long(ids, begin);
  }
}

void BytePairMerger::merge_short(std::vector<int32_t>& ids, size_t begin) const {
  constexpr int32_t kNone = std::numeric_limits<int32_t>::max();
  size_t count = ids.size() - begin;
  int32_t* symbols = ids.data() + begin;
  std::array<int32_t, kShortWordSymbols> ranks;
  std::array<int32_t, kShortWordSymbols> merged_ids;
  const auto look_up = [&](size_t at) {
    const Merge* merge = at + 1 < count ? find(symbols[at], symbols[at + 1]) : nullptr;
    ranks[at] = merge ? merge->rank : kNone;
    merged_ids[at] = merge ? merge->merged_id : -1;
  };
  for (size_t at = 0; at < count; ++at) look_up(at);
  while (count > 1) {
    size_t best = 0;
    for (size_t at = 1; at + 1 < count; ++at) {
      if (ranks[at] < ranks[best]) best = at;
    }
    if (ranks[best] == kNone) break;
    symbols[best] = merged_ids[best];
    --count;
    for (size_t at = best + 1; at < count; ++at) {
      symbols[at] = symbols[at + 1];
      ranks[at] = ranks[at + 1];
      merged_ids[at] = merged_ids[at + 1];
    }
    look_up(best);
    if (best > 0) look_up(best - 1);
  }
  ids.resize(begin + count);
}

void BytePairMerger::merge_long(std::vector<int32_t>& ids, size_t begin) const {
  struct Node {
    int32_t id;
    int64_t previous;
    int64_t next;
  };
  struct Candidate {
    int32_t rank;
    int32_t merged_id;
    int64_t at;
    bool operator<(const Candidate& other) const {  // std::priority_queue puts the largest first
      return rank != other.rank ? rank > other.rank : at > other.at;
    }
  };
  const auto count = static_cast<int64_t>(ids.size() - begin);
  std::vector<Node> nodes(static_cast<size_t>(count));
  for (int64_t at = 0; at < count; ++at) nodes[at] = {ids[begin + at], at - 1, at + 1 < count ? at + 1 : -1};
  std::vector<Candidate> storage;
  storage.reserve(static_cast<size_t>(count));
  std::priority_queue<Candidate> candidates({}, std::move(storage));
  const auto push = [&](int64_t at) {
    if (at < 0 || nodes[at].next < 0) return;
    const Merge* merge = find(nodes[at].id, nodes[nodes[at].next].id);
    if (merge) candidates.push({merge->rank, merge->merged_id, at});
  };
  for (int64_t at = 0; at < count; ++at) push(at);
  while (!candidates.empty()) {
    const Candidate top = candidates.top();
    candidates.pop();
    Node& node = nodes[top.at];
    if (node.id < 0 || node.next < 0) continue;
    const Merge* merge = find(node.id, nodes[node.next].id);
    if (!merge || merge->merged_id != top.merged_id) continue;  // a neighbour changed since it was pushed
    Node& right = nodes[node.next];
    node.id = top.merged_id;
    node.next = right.next;
    right.id = -1;
    if (node.next >= 0) nodes[node.next].previous = top.at;
    push(node.previous);
    push(top.at);
  }
  ids.resize(begin);
  for (int64_t at = 0; at >= 0; at = nodes[at].next) ids.push_back(nodes[at].id);
}

}  // namespace neoloom::data
