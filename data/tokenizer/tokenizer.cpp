// SPDX-License-Identifier: Apache-2.0
#include "data/tokenizer/tokenizer.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <functional>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include "data/tokenizer/bpe.h"
#include "data/tokenizer/byte_symbols.h"
#include "data/tokenizer/tokenizer_files.h"
#include "data/tokenizer/word_splitter.h"
#include "runtime/core/error.h"
#include "runtime/core/hash.h"
#include "runtime/core/utf8.h"

namespace neoloom::data {
namespace {

// Longer words are rare and would fill up the cache.
constexpr size_t kLongestCachedWordBytes = 64;
constexpr size_t kCacheSlots = size_t{1} << 17;
constexpr size_t kCacheWords = kCacheSlots / 2;

/// Returns true for U+0009-000D, 0020, 0085, 00A0, 1680, 2000-200A, 2028, 2029, 202F, 205F, 3000.
bool is_space(uint32_t point) {
  return (point >= 0x09 && point <= 0x0D) || point == 0x20 || point == 0x85 || point == 0xA0 || point == 0x1680 ||
         (point >= 0x2000 && point <= 0x200A) || point == 0x2028 || point == 0x2029 || point == 0x202F ||
         point == 0x205F || point == 0x3000;
}

size_t leading_space_bytes(std::string_view text) {
  size_t bytes = 0;
  while (bytes < text.size() && core::utf8_sequence_bytes(text.substr(bytes)) > 0) {
    const core::CodePoint point = core::first_code_point(text.substr(bytes));
    if (!is_space(point.value)) break;
    bytes += static_cast<size_t>(point.size_bytes);
  }
  return bytes;
}

size_t trailing_space_bytes(std::string_view text) {
  size_t bytes = 0;
  while (bytes < text.size()) {
    size_t start = text.size() - bytes - 1;
    while (start > 0 && (static_cast<unsigned char>(text[start]) & 0xC0) == 0x80) --start;
    const std::string_view last = text.substr(start, text.size() - bytes - start);
    if (core::utf8_sequence_bytes(last) != static_cast<int>(last.size()) ||
        !is_space(core::first_code_point(last).value))
      break;
    bytes += last.size();
  }
  return bytes;
}

std::string hash_of(const TokenizerFiles& files) {
  std::vector<std::pair<int32_t, std::string_view>> by_id;
  for (const auto& [token, id] : files.vocab) by_id.emplace_back(id, token);
  std::sort(by_id.begin(), by_id.end());
  core::Sha256 hash;
  hash.add_field("neoloom byte-level BPE 1");
  for (const auto& [id, token] : by_id) hash.add_field(std::to_string(id)).add_field(token);
  hash.add_field("merges");
  for (const auto& [left, right] : files.merges) hash.add_field(left).add_field(right);
  hash.add_field("added");
  for (const AddedToken& token : files.added_tokens) {
    hash.add_field(fmt::format("{} {} {} {} {}", token.id, token.special, token.normalized, token.lstrip, token.rstrip))
        .add_field(token.content);
  }
  hash.add_field(fmt::format("{} {} {} {}", files.add_prefix_space, files.ignore_merges, files.unk_id, files.eos_id));
  if (!files.front_ids.empty()) hash.add_field(fmt::format("front {}", fmt::join(files.front_ids, " ")));
  if (!files.middle_ids.empty()) hash.add_field(fmt::format("middle {}", fmt::join(files.middle_ids, " ")));
  return hash.hex();
}

void keep_tokens(std::vector<int32_t>& ids, size_t count, bool cuts_start) {
  if (cuts_start) ids.erase(ids.begin(), ids.end() - static_cast<int64_t>(std::min(count, ids.size())));
  ids.resize(std::min(count, ids.size()));
}

/// Cuts two texts to `room` tokens as `tokenizers` does: the longer one as far as the shorter, then both to halves, of
/// which the second is larger by one if need be.
void cut_longest_first(std::vector<int32_t>& first, std::vector<int32_t>& second, size_t room, bool cuts_start) {
  const bool swapped = first.size() > second.size();
  std::vector<int32_t>& shorter = swapped ? second : first;
  std::vector<int32_t>& longer = swapped ? first : second;
  const size_t rest = room - std::min(room, shorter.size());
  if (rest >= shorter.size()) {
    keep_tokens(longer, rest, cuts_start);
    return;
  }
  keep_tokens(shorter, room / 2, cuts_start);
  keep_tokens(longer, room - room / 2, cuts_start);
}

/// Caches words that were merged before, found by hash and compared in full. It is cleared when full, so a hit needs no
/// bookkeeping.
class WordCache {
 public:
  WordCache() : entries_(kCacheSlots) {}

  const int32_t* find(std::string_view word, uint64_t hash, size_t& count) const {
    for (size_t slot = hash % kCacheSlots;; slot = (slot + 1) % kCacheSlots) {
      const Entry& entry = entries_[slot];
      if (entry.word_bytes == 0) return nullptr;
      if (entry.hash == hash && word == std::string_view(text_.data() + entry.text_at, entry.word_bytes)) {
        count = entry.n_ids;
        return ids_.data() + entry.ids_at;
      }
    }
  }

  void add(std::string_view word, uint64_t hash, const int32_t* ids, size_t count) {
    if (words_ == kCacheWords) clear();
    size_t slot = hash % kCacheSlots;
    while (entries_[slot].word_bytes != 0) slot = (slot + 1) % kCacheSlots;
    entries_[slot] = {hash, static_cast<uint32_t>(text_.size()), static_cast<uint32_t>(ids_.size()),
                      static_cast<uint16_t>(word.size()), static_cast<uint16_t>(count)};
    text_.append(word);
    ids_.insert(ids_.end(), ids, ids + count);
    ++words_;
  }

 private:
  struct Entry {
    uint64_t hash = 0;
    uint32_t text_at = 0;
    uint32_t ids_at = 0;
    uint16_t word_bytes = 0;  // 0: empty slot
    uint16_t n_ids = 0;
  };
  void clear() {
    std::fill(entries_.begin(), entries_.end(), Entry{});
    text_.clear();
    ids_.clear();
    words_ = 0;
  }

  std::vector<Entry> entries_;
  std::string text_;
  std::vector<int32_t> ids_;
  size_t words_ = 0;
};

/// Holds added tokens that are searched for together, the longest first.
class LiteralTokens {
 public:
  void add(const AddedToken& token) {
    by_content_[token.content] = &token;
    std::vector<size_t>& lengths = lengths_[static_cast<unsigned char>(token.content.front())];
    const auto place = std::lower_bound(lengths.begin(), lengths.end(), token.content.size(), std::greater<>());
    if (place == lengths.end() || *place != token.content.size()) lengths.insert(place, token.content.size());
  }
  bool empty() const { return by_content_.empty(); }
  const AddedToken* longest_at(std::string_view text, size_t at) const {
    for (const size_t length : lengths_[static_cast<unsigned char>(text[at])]) {
      const auto found = length <= text.size() - at ? by_content_.find(text.substr(at, length)) : by_content_.end();
      if (found != by_content_.end()) return found->second;
    }
    return nullptr;
  }

 private:
  std::unordered_map<std::string_view, const AddedToken*> by_content_;
  std::array<std::vector<size_t>, 256> lengths_;  // by first byte, descending
};

/// Says where an added token stands in a text, with the white space that it takes along.
struct Hit {
  size_t begin = 0;
  size_t end = 0;
  const AddedToken* token = nullptr;
};

}  // namespace

struct Tokenizer::Tables {
  explicit Tables(TokenizerFiles read) : files(std::move(read)), merger(files), content_hash(hash_of(files)) {
    int32_t largest = -1;
    for (const auto& [token, id] : files.vocab) largest = std::max(largest, id);
    for (const AddedToken& added : files.added_tokens) largest = std::max(largest, added.id);
    vocab_size = largest + 1;
    for (const auto& [token, id] : files.vocab) bytes_of_id[id] = bytes_of_symbols(token).value_or(token);
    for (const AddedToken& added : files.added_tokens) {
      bytes_of_id[added.id] = added.content;
      if (added.special) special_ids.insert(added.id);
    }
    for (const bool normalized : {false, true}) {
      for (const AddedToken& added : files.added_tokens) {
        if (added.normalized == normalized) literal_tokens[normalized ? 1 : 0].add(added);
      }
    }
  }

  TokenizerFiles files;
  BytePairMerger merger;
  WordSplitter splitter;
  std::string content_hash;
  int32_t vocab_size = 0;
  std::unordered_map<int32_t, std::string> bytes_of_id;  // ids of foreign files need not be dense
  std::unordered_set<int32_t> special_ids;
  LiteralTokens literal_tokens[2];  // those that are not normalized are searched for first
};

struct Tokenizer::Cache {
  explicit Cache(const Tables& tables_in) : tables(tables_in), scanner(tables_in.splitter) {}

  /// Cuts the added tokens of `group` and later groups out of `text` and encodes what lies between.
  void encode_from_group(std::string_view text, size_t group, bool split_special_tokens) {
    if (group == 2) return encode_plain(text);
    size_t done = 0;
    for (const Hit& hit : find_tokens(text, tables.literal_tokens[group], split_special_tokens)) {
      encode_from_group(text.substr(done, hit.begin - done), group + 1, split_special_tokens);
      ids.push_back(hit.token->id);
      done = hit.end;
    }
    encode_from_group(text.substr(done), group + 1, split_special_tokens);
  }

  static std::vector<Hit> find_tokens(std::string_view text, const LiteralTokens& group, bool split_special_tokens) {
    std::vector<Hit> hits;
    size_t done = 0;
    for (size_t at = group.empty() ? text.size() : 0; at < text.size();) {
      const AddedToken* found = group.longest_at(text, at);
      if (!found) {
        ++at;
        continue;
      }
      const size_t end = at + found->content.size();
      if (!(found->special && split_special_tokens)) {
        Hit hit{at, end, found};
        if (found->lstrip && at > done) hit.begin -= trailing_space_bytes(text.substr(done, at - done));
        if (found->rstrip) hit.end += leading_space_bytes(text.substr(end));
        hit.begin = std::max(hit.begin, done);
        hits.push_back(hit);
        done = hit.end;
      }
      at = std::max(end, done);
    }
    return hits;
  }

  void encode_plain(std::string_view text) {
    if (text.empty()) return;
    if (tables.files.add_prefix_space && text.front() != ' ') {
      prefixed.assign(1, ' ').append(text);
      text = prefixed;
    }
    while (!text.empty()) {
      const std::string_view valid = text.substr(0, core::utf8_prefix_bytes(text));
      for (size_t at = 0; at < valid.size();) {
        const size_t bytes = scanner.word_bytes(valid, at);
        encode_word(valid.substr(at, bytes));
        at += bytes;
      }
      text.remove_prefix(valid.size());
      if (text.empty()) break;
      const int32_t id = tables.merger.byte_id(static_cast<unsigned char>(text.front()));
      if (id >= 0) ids.push_back(id);
      text.remove_prefix(1);
    }
  }

  void encode_word(std::string_view word) {
    if (word.size() > kLongestCachedWordBytes) return merge_word(word);
    const uint64_t hash = core::xxh3(word.data(), word.size());
    size_t count = 0;
    if (const int32_t* cached = words.find(word, hash, count)) {
      ids.insert(ids.end(), cached, cached + count);
      return;
    }
    const size_t begin = ids.size();
    merge_word(word);
    words.add(word, hash, ids.data() + begin, ids.size() - begin);
  }

  void merge_word(std::string_view word) {
    if (tables.files.ignore_merges) {
      std::string symbols;
      for (const char byte : word) core::append_utf8(symbols, byte_symbols()[static_cast<unsigned char>(byte)]);
      const auto whole = tables.files.vocab.find(symbols);
      if (whole != tables.files.vocab.end()) {
        ids.push_back(whole->second);
        return;
      }
    }
    tables.merger.append_ids(word, ids);
  }

  const Tables& tables;
  WordSplitter::Scanner scanner;
  WordCache words;
  std::vector<int32_t> ids;
  std::string prefixed;
};

Tokenizer Tokenizer::from_folder(const std::string& folder) {
  return Tokenizer(std::make_shared<const Tables>(read_tokenizer_files(folder)));
}

Tokenizer::Tokenizer(std::shared_ptr<const Tables> tables)
    : tables_(std::move(tables)), cache_(std::make_unique<Cache>(*tables_)) {}
Tokenizer::~Tokenizer() = default;
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&& other) noexcept {
  cache_ = std::move(other.cache_);  // first: the old cache refers to the old tables
  tables_ = std::move(other.tables_);
  return *this;
}

Tokenizer Tokenizer::clone() const { return Tokenizer(tables_); }

std::vector<int32_t> Tokenizer::encode(std::string_view text, bool split_special_tokens) const {
  cache_->ids.clear();
  cache_->encode_from_group(text, 0, split_special_tokens);
  return cache_->ids;
}

std::vector<int32_t> Tokenizer::encode_input(std::string_view text, bool split_special_tokens) const {
  std::vector<int32_t> ids = encode(text, split_special_tokens);
  ids.insert(ids.begin(), front_ids().begin(), front_ids().end());
  return ids;
}

std::vector<int32_t> Tokenizer::encode_pair(std::string_view text, std::string_view pair, const PairOptions& options,
                                            bool& truncated) const {
  const TokenizerFiles& files = tables_->files;
  core::require(files.pair_complaint.empty(), core::ErrorKind::kWeights, "{}", files.pair_complaint);
  std::vector<int32_t> first = encode(text, options.split_special_tokens);
  std::vector<int32_t> second = encode(pair, options.split_special_tokens);
  const size_t special = files.front_ids.size() + files.middle_ids.size();
  core::require(options.max_length_tokens > special, core::ErrorKind::kUsage,
                "tokenizer_config.max_length {} leaves no room beside the {} special tokens of a pair",
                options.max_length_tokens, special);
  const size_t room = options.max_length_tokens - special;
  truncated = first.size() + second.size() > room;
  if (truncated) cut_longest_first(first, second, room, options.cuts_start);
  std::vector<int32_t> ids = files.front_ids;
  ids.insert(ids.end(), first.begin(), first.end());
  ids.insert(ids.end(), files.middle_ids.begin(), files.middle_ids.end());
  ids.insert(ids.end(), second.begin(), second.end());
  return ids;
}

std::string Tokenizer::decode(std::span<const int32_t> ids, bool skip_special_tokens) const {
  std::string bytes;
  for (const int32_t id : ids) {
    if (skip_special_tokens && tables_->special_ids.contains(id)) continue;
    bytes += token_bytes(id);
  }
  return core::utf8_lossy(bytes);
}

std::string Tokenizer::token_bytes(int32_t id) const {
  // A model may have more rows than the tokenizer has tokens; such an id prints nothing, as in `tokenizers`.
  const auto found = tables_->bytes_of_id.find(id);
  return found == tables_->bytes_of_id.end() ? std::string() : found->second;
}

int32_t Tokenizer::vocab_size() const { return tables_->vocab_size; }
int32_t Tokenizer::eos_token_id() const { return tables_->files.eos_id; }
int32_t Tokenizer::pad_token_id() const { return tables_->files.pad_id; }
const std::vector<int32_t>& Tokenizer::front_ids() const { return tables_->files.front_ids; }
const std::string& Tokenizer::content_hash() const { return tables_->content_hash; }
const std::vector<std::string>& Tokenizer::notes() const { return tables_->files.notes; }
const std::vector<std::string>& Tokenizer::files() const { return tables_->files.files; }

}  // namespace neoloom::data
